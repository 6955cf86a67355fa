// driver.h
// A CUDA driver whose card is the SIMT executor: a libcuda.so with the calls that the program makes, so that what
// stands between plans and NVIDIA's driver runs where there is no GPU. Streams are threads of their own: nothing has
// happened yet when a call returns but what the call promises. What a driver refuses, or leaves undefined, is refused and
// said on standard error: a line beginning with `libcuda: `. Unknown here are the static shared memory of kernels, which
// counts against a block's on a card, and launches that overlap.
//
//   card.cpp      the card and its properties; words for errors
//   contexts.cpp  contexts, and what lives in them: memory, modules, functions
//   streams.cpp   streams, launches, capture, graphs, events
//
// Declared by the public documentation of CUDA 13; NVIDIA's headers are not needed.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "../runtime/runtime.h"

// What the program looks up.
#define CUDA_CALL extern "C" SIMT_PUBLIC Result

extern "C" {
size_t simt_kernel_count();
const char* simt_kernel(size_t number, uint32_t* count, const uint32_t** sizes);
int simt_launch(const char* name, const simt::LaunchConfig*, void** arguments, char* error, size_t error_bytes);
void* simt_alloc(size_t bytes);
void simt_free(void*);
}

namespace driver {

// CUresult
enum Result : int {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  NOT_INITIALIZED = 3,
  NO_DEVICE = 100,
  INVALID_DEVICE = 101,
  INVALID_IMAGE = 200,
  INVALID_CONTEXT = 201,
  INVALID_HANDLE = 400,
  NOT_FOUND = 500,
  ILLEGAL_ADDRESS = 700,
  CONTEXT_IS_DESTROYED = 709,
  LAUNCH_FAILED = 719,
  CAPTURE_UNSUPPORTED = 900,
  CAPTURE_INVALIDATED = 901,
  CAPTURE_UNMATCHED = 903,
  CAPTURE_WRONG_THREAD = 908,
};

// ---- card.cpp

// By the variable SIMT_CARD: `name=number` each, with a space between two; of two of one name the last counts.
struct Card {
  int64_t cards = 1;
  int64_t driver = 13000;  // CUDA's version, as the driver tells it
  int64_t major = 9, minor = 0;
  int64_t multiprocessors = 4;
  int64_t shared_bytes = 227 * 1024;  // of a block, at most
  int64_t memory_bytes = 1ll << 30;
  int64_t pages = 1;  // 1: copies read the host's memory when they run, 0: when they are asked for
  int64_t fault = 0;  // the n-th launch reads where no memory is; 0 for none
  int64_t rate = 1;   // 0: the kernel of the arithmetic rate, hours of it here, does nothing
};
const Card& card();

// Whether the driver was started and has this card.
Result check_card(const char* call, int device);

// Tells of a call that should not have been made so, and returns its result.
Result misuse(Result, const char* call, const std::string& why);

// ---- contexts.cpp

enum class Kind { Context, Module, Function, Stream, Event, Graph, Exec };

// What a handle points to. It is never freed: a handle that was destroyed is known for what it is.
struct Object {
  const Kind kind;
  struct Context* const context;
  std::atomic<bool> alive{true};

  Object(Kind, Context*);
};

struct Context : Object {
  const int device;
  std::atomic<int> fault{SUCCESS};  // its last error: nothing works in it any more
  Object* default_stream;
  std::mutex mutex;
  std::vector<Object*> objects;

  explicit Context(int device);
};

// The context that the calling thread is in; else why there is none.
Result current(const char* call, Context**);

inline Result fault_of(const Context* context) { return Result(context->fault.load()); }

// For what waits, or ends what was begun: a fault is told afterwards.
#define IN_ANY_CONTEXT(name) \
  Context* name;             \
  if (const Result wrong = current(__func__, &name)) return wrong

// Only where no fault has ended it.
#define IN_CONTEXT(name) \
  IN_ANY_CONTEXT(name);  \
  if (const Result fault = fault_of(name)) return fault

// Whether a handle is of its kind, alive, and of this context.
Result check(const char* call, Kind, const Object*, const Context*);

#define CHECK(kind, object, context) \
  if (const Result wrong = check(__func__, kind, object, context)) return wrong

struct Function : Object {
  std::string name;
  std::vector<uint32_t> sizes;                    // of the parameters in bytes
  std::atomic<uint32_t> shared_bytes{48 * 1024};  // that a launch may have
  explicit Function(Context* context) : Object(Kind::Function, context) {}
};

// Whether all of it is allocated, in this context or in the card's pool.
bool is_memory(const Context*, uint64_t address, size_t bytes);

// ---- streams.cpp

// CUstreamCaptureMode: which captures forbid a thread the calls that could wait for what is captured. By default its own
// and those of other threads that were begun in that mode; then its own alone; then none.
constexpr int GLOBAL = 0, THREAD_LOCAL = 1, RELAXED = 2;

// Whether none does.
Result not_capturing(const char* call);

#define NOT_CAPTURING \
  if (const Result wrong = not_capturing(__func__)) return wrong

Object* make_stream(Context*);
void wait_for(Object* stream);
// Waits for what runs, and ends its thread.
void end(Object* stream);
// The runtime is for one caller at a time.
extern std::mutex runtime;

}  // namespace driver
