// runtime.h
// What the parts of the runtime share. A launch's blocks are taken by workers, each a thread of the operating
// system; a worker runs the threads of a block as fibers and changes between them where they wait.
//
//   fibers.cpp    stacks and the switch between them
//   schedule.cpp  which thread runs next; deadlocks; errors
//   barriers.cpp  block and grid barriers, spinning
//   warps.cpp     operations of a warp: the last lane to arrive works for all
//   shared.cpp    static and dynamic shared memory, red zones
//   copies.cpp    cp.async
//   tensor.cpp    ldmatrix and mma.sync
//   memory.cpp    buffers ended by guard pages, faults
//   launch.cpp    blocks, workers, and the functions that the Rust side calls
//   checks*.cpp   the check build's watch over every access
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "simt.h"

// What the Rust side looks up.
#define SIMT_PUBLIC __attribute__((visibility("default")))

namespace simt {

struct Block;
struct Launch;
struct Worker;

constexpr size_t PAGE = 4096;

inline size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

struct Fiber {
  char* low;
  size_t size;
};

// One cp.async. `group` is the group it was issued in.
struct Copy {
  void* dst;
  const void* src;
  uint8_t bytes, src_bytes;
  bool done;
  uint32_t group;
  Place place;
};

enum class State : uint8_t { New, Ready, AtWarp, AtBarrier, AtGrid, Yielded, Done };

struct Thread {
  void* stack;
  Block* block;
  Fiber* fiber;
  uint3 index;
  uint8_t lane, warp;
  State state;
  uint32_t mask;
  Run run;
  const char* what;  // the last operation that it could wait in, and where
  Place place;
  uint32_t copy_group;
  std::vector<Copy> copies;

  unsigned number() const { return warp * 32u + lane; }
};

// Lanes as bit masks.
struct Warp {
  uint32_t live, runnable, waiting, yielded;
  void* operands[32];
  // Whether all that wait came to the same operation, and to which.
  bool uniform;
  uint32_t mask;
  Run run;
  int line;
};

struct Barrier {
  uint32_t arrived;
  Place place;
  int count, all, any;
  int result[3];
  uint32_t waiting[32];
};

// Memory between two pages that may not be touched.
struct Region {
  unsigned char *low = nullptr, *end = nullptr;
  void reserve(size_t bytes);
};

struct ArrayInUse {
  int index;  // SharedArray::index
  unsigned char* start;
  size_t bytes;
  const char* name;
};

struct Block {
  Launch* launch;
  Worker* worker;
  uint3 index;
  uint64_t number;
  bool active = false;
  uint32_t live;            // threads that have not ended
  uint32_t runnable_warps;
  uint32_t current_warp;
  uint32_t at_grid;         // threads at the grid's barrier
  uint64_t random;
  std::vector<Thread> threads;
  Warp warps[32];
  Barrier barrier, grid_barrier;
  Region dynamic_region, static_region;
  unsigned char* dynamic;
  size_t dynamic_bytes, static_bytes;
  std::vector<void*> arrays;       // by SharedArray::index
  std::vector<ArrayInUse> arrays_in_use;
  std::shared_ptr<void> watched;   // the check build's records
};

enum class Order : uint32_t { Forward, Reverse, Random };

// What the Rust side passes; same layout there.
struct LaunchConfig {
  uint32_t grid[3], block[3];
  uint32_t shared_bytes;
  uint32_t cooperative;
  Order order;
  uint32_t lazy_copies;
  uint32_t run_began;  // the check build: what earlier launches did up to then is over
  uint64_t seed;
};

struct Launch {
  const Kernel* kernel;
  void** arguments;
  LaunchConfig config;
  uint32_t threads, warps;  // of a block
  uint64_t blocks;
  std::vector<uint32_t> block_order;  // empty: as numbered
  std::atomic<uint64_t> next{0};
  std::atomic<bool> stop{false};
};

struct Worker {
  void* main_stack;
  Thread* current = nullptr;
  Launch* launch = nullptr;
  std::vector<std::unique_ptr<Block>> resident;
  std::vector<Fiber*> fibers, free_fibers;
  uint32_t fruitless;  // rounds in which only spinning threads ran
  bool failed = false;
  std::string error;
  // A fault: the instruction and the address, told of when its signal handler has been left.
  void *fault_pc = nullptr, *fault_address = nullptr;
};

extern __thread Worker* this_worker;

// ---- fibers.cpp
extern "C" void simt_switch(void** save, void* to);
void* make_context(const Fiber&, unsigned number, void (*entry)());
Fiber* take_fiber(Worker*);

// ---- schedule.cpp
uint64_t random(Block*);
unsigned choose(Block*, uint32_t bits);
Thread* pick_in(Block*);
void set_current(Worker*, Thread*);
void switch_to(Worker*, Thread* from, Thread* to);
void suspend(Worker*, Thread*);
void not_runnable(Block*, unsigned warp, uint32_t lanes);
void wake(Block*, unsigned warp, uint32_t lanes);
void fiber_main();
std::string describe(const Thread*);

// ---- barriers.cpp
void release(Block*, Barrier&);
void thread_left_barrier(Block*);
void check_grid_barrier(Worker*);

// ---- warps.cpp
void thread_left_warp(Block*, unsigned warp);

// ---- shared.cpp
void begin_shared(Block*);
void check_red_zones(Block*);
bool in_shared(const Block*, const void*, size_t bytes);

// ---- copies.cpp
void finish_copies(Thread*);

// ---- memory.cpp
void install_fault_handler();
std::string fault_text(Worker*);

// ---- launch.cpp
void begin_block(Worker*, Block*, uint64_t number);

// ---- where.cpp
// "file:line" of an instruction, outside these headers where it was inlined from them.
std::string where(void* pc);
std::string where(const char* what, Place);

// What the check build looks at; all of it on the worker's own thread.
enum class Access { Read, Write, Atomic, CopyIssued, CopyDone };

struct Checks {
  virtual ~Checks() = default;
  virtual void launch_begins() = 0;
  virtual void block_begins(Block*) = 0;
  virtual void block_barrier(Block*) = 0;
  virtual void warp_met(Block*, unsigned warp, uint32_t lanes) = 0;
  virtual void grid_barrier(Worker*) = 0;
  // By the instruction at `pc`, or where that is null by the operation that the thread is in.
  virtual void access(Thread*, const void*, size_t bytes, Access, void* pc) = 0;
  virtual void atomic(Thread*, void*, size_t bytes, void* pc) = 0;
  virtual void fence(Thread*) = 0;
  virtual void dependency_wait(Thread*) = 0;
  virtual void dependency_trigger(Thread*) = 0;
  virtual void thread_ends(Thread*) = 0;
  virtual void* allocate(size_t bytes) = 0;
  virtual void release(void*) = 0;
  virtual void host_wrote(void*, size_t bytes) = 0;
  virtual uint32_t now() = 0;
};

// Null in the plain build.
extern Checks* const checks;

}  // namespace simt
