// Which thread runs next; deadlocks; errors.
#include <cstdarg>
#include <cstdio>
#include <cstdlib>

#include "runtime.h"

__thread uint3 threadIdx, blockIdx;
__thread dim3 blockDim, gridDim;

namespace simt {

__thread Worker* this_worker;

uint64_t random(Block* block) {
  uint64_t x = block->random;
  x ^= x >> 12;
  x ^= x << 25;
  x ^= x >> 27;
  block->random = x;
  return x * 0x2545F4914F6CDD1Dull >> 32;
}

std::string describe(const Thread* thread) {
  const uint3 b = thread->block->index, t = thread->index;
  char text[200];
  snprintf(text, sizeof text, "kernel %s block (%u,%u,%u) thread (%u,%u,%u)", thread->block->launch->kernel->name, b.x,
           b.y, b.z, t.x, t.y, t.z);
  return text;
}

[[noreturn]] static void leave(Worker* worker) {
  void* unused;
  simt_switch(&unused, worker->main_stack);
  __builtin_unreachable();
}

void fail(const char* format, ...) {
  char message[2000];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  Worker* worker = this_worker;
  if (!worker || !worker->current) {
    fprintf(stderr, "simt: %s\n", message);
    abort();
  }
  worker->error = describe(worker->current) + ": " + message;
  worker->failed = true;
  leave(worker);
}

void misaligned(const void* p, int bytes) { fail("address %p is not a multiple of %d", p, bytes); }

unsigned lane_id() { return this_worker->current->lane; }

void set_current(Worker* worker, Thread* thread) {
  worker->current = thread;
  threadIdx = thread->index;
  blockIdx = thread->block->index;
  thread->block->current_warp = thread->warp;
}

// Leaves the running thread, keeping its context, and runs `to`.
void switch_to(Worker* worker, Thread* from, Thread* to) {
  if (to->state == State::New) {
    to->state = State::Ready;
    to->fiber = take_fiber(worker);
    to->stack = make_context(*to->fiber, to->number(), &fiber_main);
  }
  set_current(worker, to);
  simt_switch(&from->stack, to->stack);
}

unsigned choose(Block* block, uint32_t bits) {
  switch (block->launch->config.order) {
    case Order::Forward:
      return __builtin_ctz(bits);
    case Order::Reverse:
      return 31 - __builtin_clz(bits);
    default:
      for (unsigned skip = random(block) % __builtin_popcount(bits); skip > 0; skip--) bits &= bits - 1;
      return __builtin_ctz(bits);
  }
}

void not_runnable(Block* block, unsigned warp, uint32_t lanes) {
  block->warps[warp].runnable &= ~lanes;
  if (!block->warps[warp].runnable) block->runnable_warps &= ~(1u << warp);
}

void wake(Block* block, unsigned warp, uint32_t lanes) {
  block->warps[warp].runnable |= lanes;
  block->runnable_warps |= 1u << warp;
}

// A runnable thread of a block that has one; the current warp goes on as long as it can.
Thread* pick_in(Block* block) {
  unsigned warp = block->current_warp;
  if (!block->warps[warp].runnable) warp = choose(block, block->runnable_warps);
  return &block->threads[warp * 32 + choose(block, block->warps[warp].runnable)];
}

[[noreturn]] static void deadlock(Worker* worker) {
  std::string text = "deadlock: no thread can run";
  char line[400];
  for (auto& block : worker->resident) {
    if (!block->active) continue;
    for (unsigned warp = 0; warp < block->launch->warps; warp++) {
      for (uint32_t left = block->warps[warp].live; left && text.size() < 1500;) {
        const Thread& first = block->threads[warp * 32 + __builtin_ctz(left)];
        uint32_t same = 0;
        SIMT_EACH_LANE(lane, left) {
          const Thread& other = block->threads[warp * 32 + lane];
          if (other.what == first.what && other.place.line == first.place.line) same |= 1u << lane;
        }
        snprintf(line, sizeof line, "\n  block (%u,%u,%u) warp %u lanes %08x wait at %s", block->index.x,
                 block->index.y, block->index.z, warp, same, where(first.what, first.place).c_str());
        text += line;
        if (first.state == State::AtWarp) snprintf(line, sizeof line, ", mask %08x", first.mask), text += line;
        if (first.state == State::AtBarrier) {
          snprintf(line, sizeof line, ", %u of %u have arrived", block->barrier.arrived, block->live);
          text += line;
        }
        left &= ~same;
      }
    }
  }
  fail("%s", text.c_str());
}

// Lets the threads that spin run again; false where there are none.
static bool wake_spinning(Worker* worker) {
  bool any = false;
  for (auto& block : worker->resident) {
    if (!block->active) continue;
    for (unsigned warp = 0; warp < block->launch->warps; warp++) {
      const uint32_t lanes = block->warps[warp].yielded;
      if (!lanes) continue;
      block->warps[warp].yielded = 0;
      wake(block.get(), warp, lanes);
      any = true;
    }
  }
  return any;
}

// A resident block that can run or that has ended; null where there is neither.
static Block* next_block(Worker* worker, Block* current, bool* any_active) {
  const Order order = worker->launch->config.order;
  const size_t count = worker->resident.size();
  const size_t start = order == Order::Random && count > 1 ? random(current) % count : 0;
  *any_active = false;
  for (size_t i = 0; i < count; i++) {
    Block* block = worker->resident[order == Order::Reverse ? count - 1 - i : (start + i) % count].get();
    if (!block->active) continue;
    *any_active = true;
    if (block->live == 0 || block->runnable_warps) return block;
  }
  return nullptr;
}

// The thread to run next; null when the worker has nothing more to do in this launch.
static Thread* pick(Worker* worker) {
  constexpr uint32_t PATIENCE = 100000;
  Block* block = worker->current->block;
  if (__builtin_expect(block->runnable_warps != 0, 1)) return pick_in(block);
  for (;;) {
    if (block->active && block->live == 0) {
      block->active = false;
      check_red_zones(block);
      Launch* launch = worker->launch;
      if (!launch->config.cooperative && !launch->stop.load(std::memory_order_relaxed)) {
        const uint64_t number = launch->next.fetch_add(1);
        if (number < launch->blocks) {
          begin_block(worker, block, number);
          return pick_in(block);
        }
      }
    }
    bool any_active;
    Block* other = next_block(worker, block, &any_active);
    if (other && other->live > 0) {
      worker->fruitless = 0;
      return pick_in(other);
    }
    if (!any_active) return nullptr;
    if (other) {
      block = other;
      continue;
    }
    if (!wake_spinning(worker)) deadlock(worker);
    if (++worker->fruitless > PATIENCE) fail("livelock: only spinning threads are left");
    block = worker->current->block;
    if (block->runnable_warps) return pick_in(block);
  }
}

// The current thread waits: its state and the masks say so already.
void suspend(Worker* worker, Thread* thread) {
  Thread* next = pick(worker);
  if (next != thread) switch_to(worker, thread, next);
}

static void thread_ends(Worker* worker, Thread* thread) {
  Block* block = thread->block;
  finish_copies(thread);
  if (checks) checks->thread_ends(thread);
  thread->state = State::Done;
  block->warps[thread->warp].live &= ~(1u << thread->lane);
  not_runnable(block, thread->warp, 1u << thread->lane);
  block->live--;
  if (block->live) {
    thread_left_barrier(block);
    thread_left_warp(block, thread->warp);
  }
  if (worker->launch->config.cooperative) check_grid_barrier(worker);
}

// Where every fiber begins; it runs threads one after another as long as the next one is new.
void fiber_main() {
  Worker* worker = this_worker;
  for (;;) {
    Launch* launch = worker->launch;
    launch->kernel->call(launch->arguments);
    Thread* thread = worker->current;
    Fiber* fiber = thread->fiber;
    thread_ends(worker, thread);
    Thread* next = pick(worker);
    if (next && next->state == State::New) {
      next->state = State::Ready;
      next->fiber = fiber;
      set_current(worker, next);
      continue;
    }
    worker->free_fibers.push_back(fiber);
    if (!next) leave(worker);
    set_current(worker, next);
    void* unused;
    simt_switch(&unused, next->stack);
    __builtin_unreachable();
  }
}

}  // namespace simt
