// streams.cpp
// Streams, launches, capture, graphs, events.
#include <cstdio>
#include <cstring>

#include "driver.h"

namespace driver {

std::mutex runtime;

namespace {

// One launch, with its arguments as they were when it was asked for.
struct Node {
  std::string kernel;
  simt::LaunchConfig config;
  std::vector<std::vector<unsigned char>> arguments;
};

// Number of captures that the calling thread has begun and not ended, and its mode.
thread_local int captures = 0;
thread_local int mode = GLOBAL;

// Whether another program's thread captures in the mode that all threads feel by default.
std::atomic<bool> captured_by_another{false};

std::atomic<int64_t> launches{0};
std::atomic<int64_t> launch_with_a_fault{-1};  // by the card's property

}  // namespace

struct Graph : Object {
  std::vector<Node> nodes;
  explicit Graph(Context* context) : Object(Kind::Graph, context) {}
};

struct Exec : Object {
  // What runs of it outlives the handle.
  std::shared_ptr<const std::vector<Node>> nodes;
  explicit Exec(Context* context) : Object(Kind::Exec, context) {}
};

struct Stream : Object {
  explicit Stream(Context* context) : Object(Kind::Stream, context) {}

  std::mutex mutex;
  std::condition_variable more, done;
  std::deque<std::function<void()>> tasks;
  uint64_t asked = 0, finished = 0;
  bool ending = false;
  std::thread thread;

  Graph* capture = nullptr;
  std::thread::id capturer;
  bool invalidated = false;

  void serve() {
    std::unique_lock<std::mutex> lock(mutex);
    for (;;) {
      more.wait(lock, [&] { return ending || !tasks.empty(); });
      if (tasks.empty()) return;
      const std::function<void()> task = std::move(tasks.front());
      tasks.pop_front();
      lock.unlock();
      if (context->fault == SUCCESS) task();
      lock.lock();
      finished++;
      done.notify_all();
    }
  }

  void ask(std::function<void()> task) {
    std::lock_guard<std::mutex> lock(mutex);
    tasks.push_back(std::move(task));
    asked++;
    more.notify_all();
  }

  // Until all that was asked for up to `point` has run.
  void wait(uint64_t point) {
    std::unique_lock<std::mutex> lock(mutex);
    done.wait(lock, [&] { return finished >= point; });
  }

  uint64_t now() {
    std::lock_guard<std::mutex> lock(mutex);
    return asked;
  }
};

struct Event : Object {
  std::mutex mutex;
  Stream* stream = nullptr;  // where it was recorded last; null: nowhere, so it has happened
  uint64_t point = 0;
  explicit Event(Context* context) : Object(Kind::Event, context) {}
};

namespace {

// On the stream's thread.
void run(Context* context, const Node& node) {
  const int64_t with_a_fault = launch_with_a_fault < 0 ? card().fault : launch_with_a_fault.load();
  if (++launches == with_a_fault) {
    context->fault = ILLEGAL_ADDRESS;
    return;
  }
  if (node.kernel == "arithmetic_rate" && !card().rate) return;
  std::vector<void*> arguments;
  for (const auto& argument : node.arguments) arguments.push_back(const_cast<unsigned char*>(argument.data()));
  char error[4096];
  std::lock_guard<std::mutex> lock(runtime);
  if (simt_launch(node.kernel.c_str(), &node.config, arguments.data(), error, sizeof error)) {
    misuse(LAUNCH_FAILED, "cuLaunchKernelEx", node.kernel + ": " + error);
    context->fault = LAUNCH_FAILED;
  }
}

// The context's default stream where the handle is null.
Result stream_of(const char* call, Context* context, Stream** stream) {
  if (!*stream) *stream = static_cast<Stream*>(context->default_stream);
  return check(call, Kind::Stream, *stream, context);
}

#define STREAM(stream, context) \
  if (const Result wrong = stream_of(__func__, context, &stream)) return wrong

// A call that a stream may not get while it captures ends the capture.
Result outside_capture(const char* call, Stream* stream) {
  if (!stream->capture) return SUCCESS;
  stream->invalidated = true;
  return misuse(CAPTURE_UNSUPPORTED, call, "the stream is capturing");
}

#define OUTSIDE_CAPTURE(stream) \
  if (const Result wrong = outside_capture(__func__, stream)) return wrong

Result enqueue(const char* call, Context* context, Stream* stream, std::function<void()> task) {
  if (const Result wrong = stream_of(call, context, &stream)) return wrong;
  if (const Result wrong = outside_capture(call, stream)) return wrong;
  stream->ask(std::move(task));
  return SUCCESS;
}

Result copy(const char* call, Context* context, Stream* stream, void* to, const void* from, size_t bytes) {
  return enqueue(call, context, stream, [=] { memcpy(to, from, bytes); });
}

uint64_t volume(const unsigned (&dimensions)[3]) { return uint64_t(dimensions[0]) * dimensions[1] * dimensions[2]; }

}  // namespace

Result not_capturing(const char* call) {
  // A driver would allow it in the mode RELAXED. But a thread that captures here is the program's, and should not ask.
  if (captures > 0) {
    return misuse(CAPTURE_UNSUPPORTED, call, "this thread is capturing, and the call could wait for what it captures");
  }
  if (captured_by_another && mode == GLOBAL) {
    return misuse(CAPTURE_UNSUPPORTED, call, "another thread is capturing, and the call could wait for what it captures");
  }
  return SUCCESS;
}

Object* make_stream(Context* context) {
  Stream* stream = new Stream(context);
  stream->thread = std::thread(&Stream::serve, stream);
  return stream;
}

void wait_for(Object* object) {
  Stream* stream = static_cast<Stream*>(object);
  stream->wait(stream->now());
}

void end(Object* object) {
  Stream* stream = static_cast<Stream*>(object);
  {
    std::lock_guard<std::mutex> lock(stream->mutex);
    stream->ending = true;
    stream->more.notify_all();
  }
  stream->thread.join();
  stream->alive = false;
}

// CUlaunchAttribute
struct Attribute {
  int id;
  char pad[4];
  union {
    char bytes[64];
    int on;
  };
};

// CUlaunchConfig
struct Config {
  unsigned grid[3], block[3];
  unsigned shared_bytes;
  Stream* stream;
  Attribute* attributes;
  unsigned attribute_count;
};

}  // namespace driver

using namespace driver;

// The n-th launch from here on reads where no memory is; 0 for none.
extern "C" SIMT_PUBLIC void simt_driver_fault(int64_t number) {
  launch_with_a_fault = number ? launches + number : 0;
}

extern "C" SIMT_PUBLIC int64_t simt_driver_launches() { return launches; }

// Another program's thread begins a capture that all threads feel, or ends it.
extern "C" SIMT_PUBLIC void simt_driver_capture_by_another(int begins) { captured_by_another = begins != 0; }

// ---- streams

CUDA_CALL cuStreamCreate(Stream** stream, unsigned flags) {
  constexpr unsigned NON_BLOCKING = 1;
  IN_CONTEXT(context);
  if (flags != NON_BLOCKING) return misuse(INVALID_VALUE, __func__, "streams that wait for the default one");
  *stream = static_cast<Stream*>(make_stream(context));
  return SUCCESS;
}

CUDA_CALL cuStreamDestroy_v2(Stream* stream) {
  IN_CONTEXT(context);
  CHECK(Kind::Stream, stream, context);
  end(stream);
  return SUCCESS;
}

CUDA_CALL cuStreamSynchronize(Stream* stream) {
  IN_ANY_CONTEXT(context);
  NOT_CAPTURING;
  STREAM(stream, context);
  OUTSIDE_CAPTURE(stream);
  wait_for(stream);
  return fault_of(context);
}

CUDA_CALL cuStreamGetCtx(Stream* stream, Context** context) {
  if (!stream) return misuse(INVALID_HANDLE, __func__, "the default stream is the current context's");
  CHECK(Kind::Stream, stream, stream->context);
  *context = stream->context;
  return SUCCESS;
}

CUDA_CALL cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, Stream* stream) {
  IN_CONTEXT(context);
  if (!is_memory(context, to, bytes)) return misuse(INVALID_VALUE, __func__, "bytes that are not allocated");
  void* const address = reinterpret_cast<void*>(to);
  if (card().pages) return copy(__func__, context, stream, address, from, bytes);
  // The driver has the bytes when it returns, the card has them later.
  const auto* first = static_cast<const unsigned char*>(from);
  const std::vector<unsigned char> kept(first, first + bytes);
  return enqueue(__func__, context, stream, [=] { memcpy(address, kept.data(), bytes); });
}

CUDA_CALL cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, Stream* stream) {
  IN_CONTEXT(context);
  if (!is_memory(context, from, bytes)) return misuse(INVALID_VALUE, __func__, "bytes that are not allocated");
  return copy(__func__, context, stream, to, reinterpret_cast<void*>(from), bytes);
}

CUDA_CALL cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, Stream* stream) {
  IN_CONTEXT(context);
  if (!is_memory(context, to, bytes) || !is_memory(context, from, bytes)) {
    return misuse(INVALID_VALUE, __func__, "bytes that are not allocated");
  }
  return copy(__func__, context, stream, reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes);
}

// On the default stream, beside which the others run.
CUDA_CALL cuMemsetD8_v2(uint64_t to, unsigned char value, size_t bytes) {
  IN_CONTEXT(context);
  NOT_CAPTURING;
  if (!is_memory(context, to, bytes)) return misuse(INVALID_VALUE, __func__, "bytes that are not allocated");
  return enqueue(__func__, context, nullptr, [=] { memset(reinterpret_cast<void*>(to), value, bytes); });
}

// ---- events

CUDA_CALL cuEventCreate(Event** event, unsigned flags) {
  constexpr unsigned BLOCKING_SYNC = 1, DISABLE_TIMING = 2;
  IN_CONTEXT(context);
  if (flags & ~(BLOCKING_SYNC | DISABLE_TIMING)) return misuse(INVALID_VALUE, __func__, "flags that are not known here");
  *event = new Event(context);
  return SUCCESS;
}

CUDA_CALL cuEventDestroy_v2(Event* event) {
  IN_CONTEXT(context);
  CHECK(Kind::Event, event, context);
  event->alive = false;
  return SUCCESS;
}

CUDA_CALL cuEventRecord(Event* event, Stream* stream) {
  IN_CONTEXT(context);
  CHECK(Kind::Event, event, context);
  STREAM(stream, context);
  OUTSIDE_CAPTURE(stream);
  std::lock_guard<std::mutex> lock(event->mutex);
  event->stream = stream;
  event->point = stream->now();
  return SUCCESS;
}

CUDA_CALL cuEventSynchronize(Event* event) {
  IN_ANY_CONTEXT(context);
  NOT_CAPTURING;
  CHECK(Kind::Event, event, context);
  Stream* stream;
  uint64_t point;
  {
    std::lock_guard<std::mutex> lock(event->mutex);
    stream = event->stream, point = event->point;
  }
  if (stream) stream->wait(point);
  return fault_of(context);
}

// ---- launches

CUDA_CALL cuLaunchKernelEx(const Config* config, Function* function, void** arguments, void** extra) {
  constexpr int PROGRAMMATIC_STREAM_SERIALIZATION = 6;
  IN_CONTEXT(context);
  CHECK(Kind::Function, function, context);
  Stream* stream = config->stream;
  STREAM(stream, context);
  if (extra) return misuse(INVALID_VALUE, __func__, "arguments in a buffer are not known here");
  if (volume(config->block) == 0 || volume(config->block) > 1024 || volume(config->grid) == 0) {
    return misuse(INVALID_VALUE, __func__, function->name + ": no grid, or no block, of these dimensions");
  }
  if (config->shared_bytes > function->shared_bytes) {
    return misuse(INVALID_VALUE, __func__, "more shared memory than was asked for, by " + function->name);
  }
  bool overlaps = false;
  for (unsigned i = 0; i < config->attribute_count; i++) {
    const Attribute& attribute = config->attributes[i];
    if (attribute.id != PROGRAMMATIC_STREAM_SERIALIZATION) {
      return misuse(INVALID_VALUE, __func__, "attribute " + std::to_string(attribute.id) + " is not known here");
    }
    overlaps |= attribute.on != 0;
  }
  if (overlaps && card().major < 9) return misuse(INVALID_VALUE, __func__, "launches overlap from 9.0 on");
  if (overlaps && stream->capture && stream->capture->nodes.empty()) {
    return misuse(INVALID_VALUE, __func__, "a captured launch that overlaps, and none before it");
  }
  Node node{function->name, {}, {}};
  memcpy(node.config.grid, config->grid, sizeof config->grid);
  memcpy(node.config.block, config->block, sizeof config->block);
  node.config.shared_bytes = config->shared_bytes;
  node.config.lazy_copies = 1;
  for (size_t i = 0; i < function->sizes.size(); i++) {
    const auto* bytes = static_cast<const unsigned char*>(arguments[i]);
    node.arguments.emplace_back(bytes, bytes + function->sizes[i]);
  }
  if (stream->capture) {
    stream->capture->nodes.push_back(std::move(node));
  } else {
    stream->ask([context, node = std::move(node)] { run(context, node); });
  }
  return SUCCESS;
}

// ---- capture and graphs

CUDA_CALL cuThreadExchangeStreamCaptureMode(int* exchanged) {
  if (*exchanged < GLOBAL || *exchanged > RELAXED) return misuse(INVALID_VALUE, __func__, "no mode");
  std::swap(mode, *exchanged);
  return SUCCESS;
}

CUDA_CALL cuStreamIsCapturing(Stream* stream, int* status) {
  constexpr int NONE = 0, ACTIVE = 1, INVALIDATED = 2;
  IN_CONTEXT(context);
  STREAM(stream, context);
  *status = !stream->capture ? NONE : stream->invalidated ? INVALIDATED : ACTIVE;
  return SUCCESS;
}

CUDA_CALL cuStreamBeginCapture_v2(Stream* stream, int capture_mode) {
  IN_CONTEXT(context);
  CHECK(Kind::Stream, stream, context);
  OUTSIDE_CAPTURE(stream);
  if (capture_mode != THREAD_LOCAL) return misuse(INVALID_VALUE, __func__, "a mode that other threads would feel");
  stream->capture = new Graph(context);
  stream->capturer = std::this_thread::get_id();
  stream->invalidated = false;
  captures++;
  return SUCCESS;
}

CUDA_CALL cuStreamEndCapture(Stream* stream, Graph** graph) {
  IN_ANY_CONTEXT(context);
  CHECK(Kind::Stream, stream, context);
  *graph = nullptr;
  if (!stream->capture) return misuse(CAPTURE_UNMATCHED, __func__, "the stream is not capturing");
  if (stream->capturer != std::this_thread::get_id()) {
    return misuse(CAPTURE_WRONG_THREAD, __func__, "another thread began the capture");
  }
  captures--;
  Graph* captured = stream->capture;
  stream->capture = nullptr;
  if (stream->invalidated || context->fault != SUCCESS) {
    captured->alive = false;
    return stream->invalidated ? CAPTURE_INVALIDATED : fault_of(context);
  }
  *graph = captured;
  return SUCCESS;
}

CUDA_CALL cuGraphInstantiateWithFlags(Exec** exec, Graph* graph, unsigned long long flags) {
  IN_CONTEXT(context);
  CHECK(Kind::Graph, graph, context);
  if (flags != 0) return misuse(INVALID_VALUE, __func__, "flags are not known here");
  *exec = new Exec(context);
  (*exec)->nodes = std::make_shared<const std::vector<Node>>(graph->nodes);
  return SUCCESS;
}

CUDA_CALL cuGraphDestroy(Graph* graph) {
  IN_CONTEXT(context);
  CHECK(Kind::Graph, graph, context);
  graph->alive = false;
  return SUCCESS;
}

CUDA_CALL cuGraphUpload(Exec* exec, Stream* stream) {
  IN_CONTEXT(context);
  CHECK(Kind::Exec, exec, context);
  STREAM(stream, context);
  OUTSIDE_CAPTURE(stream);
  return SUCCESS;
}

CUDA_CALL cuGraphLaunch(Exec* exec, Stream* stream) {
  IN_CONTEXT(context);
  CHECK(Kind::Exec, exec, context);
  return enqueue(__func__, context, stream, [context, nodes = exec->nodes] {
    for (const Node& node : *nodes) {
      if (context->fault == SUCCESS) run(context, node);
    }
  });
}

CUDA_CALL cuGraphExecDestroy(Exec* exec) {
  IN_CONTEXT(context);
  CHECK(Kind::Exec, exec, context);
  exec->alive = false;
  return SUCCESS;
}
