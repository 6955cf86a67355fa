// Block and grid barriers, spinning, and what orders threads without a barrier.
#include <cstring>

#include "runtime.h"

namespace simt {

void release(Block* block, Barrier& barrier) {
  for (unsigned warp = 0; warp < block->launch->warps; warp++) {
    if (const uint32_t lanes = barrier.waiting[warp]) {
      barrier.waiting[warp] = 0;
      wake(block, warp, lanes);
    }
  }
  barrier.result[int(Reduce::Count)] = barrier.count;
  barrier.result[int(Reduce::And)] = barrier.all;
  barrier.result[int(Reduce::Or)] = barrier.any;
  barrier.arrived = 0;
}

static void arrive(const char* what, Place place, bool predicate) {
  Worker* worker = this_worker;
  Thread* thread = worker->current;
  Block* block = thread->block;
  Barrier& barrier = block->barrier;
  if (barrier.arrived == 0) {
    barrier.place = place;
    barrier.count = 0;
    barrier.all = 1;
    barrier.any = 0;
  } else if (barrier.place.line != place.line || strcmp(barrier.place.file, place.file) != 0) {
    // Kernels keep one barrier to a line, so this is a barrier that not all threads reach.
    fail("divergent barrier: this thread is at %s, others wait at %s", where(what, place).c_str(),
         where(what, barrier.place).c_str());
  }
  barrier.arrived++;
  barrier.count += predicate;
  barrier.all &= predicate;
  barrier.any |= predicate;
  thread->what = what;
  thread->place = place;
  thread->state = State::AtBarrier;
  barrier.waiting[thread->warp] |= 1u << thread->lane;
  not_runnable(block, thread->warp, 1u << thread->lane);
  if (barrier.arrived >= block->live) {
    if (checks) checks->block_barrier(block);
    release(block, barrier);
    block->current_warp = choose(block, block->runnable_warps);
  }
  suspend(worker, thread);
}

void barrier(Place place) { arrive("__syncthreads", place, false); }

int barrier_reduce(int predicate, Reduce reduce, Place place) {
  arrive("__syncthreads", place, predicate != 0);
  return this_worker->current->block->barrier.result[int(reduce)];
}

// A thread that has ended is not waited for.
void thread_left_barrier(Block* block) {
  if (block->barrier.arrived && block->barrier.arrived >= block->live) {
    if (checks) checks->block_barrier(block);
    release(block, block->barrier);
  }
}

void check_grid_barrier(Worker* worker) {
  bool any = false;
  for (auto& block : worker->resident) {
    if (!block->active || !block->live) continue;
    if (block->at_grid < block->live) return;
    any = true;
  }
  if (!any) return;
  if (checks) checks->grid_barrier(worker);
  for (auto& block : worker->resident) {
    if (!block->active || !block->live) continue;
    block->at_grid = 0;
    release(block.get(), block->grid_barrier);
    block->current_warp = choose(block.get(), block->runnable_warps);
  }
}

void grid_barrier(Place place) {
  Worker* worker = this_worker;
  Thread* thread = worker->current;
  Block* block = thread->block;
  if (!worker->launch->config.cooperative) {
    fail("%s in a launch that is not cooperative", where("grid_sync", place).c_str());
  }
  thread->state = State::AtGrid;
  thread->what = "grid_sync";
  thread->place = place;
  block->grid_barrier.waiting[thread->warp] |= 1u << thread->lane;
  block->at_grid++;
  not_runnable(block, thread->warp, 1u << thread->lane);
  check_grid_barrier(worker);
  suspend(worker, thread);
}

void yield() {
  Worker* worker = this_worker;
  Thread* thread = worker->current;
  thread->state = State::Yielded;
  thread->what = "spin_yield";
  thread->block->warps[thread->warp].yielded |= 1u << thread->lane;
  not_runnable(thread->block, thread->warp, 1u << thread->lane);
  suspend(worker, thread);
}

void fence() {
  if (checks) checks->fence(this_worker->current);
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void dependency_wait() {
  if (checks) checks->dependency_wait(this_worker->current);
}

void dependency_trigger() {
  if (checks) checks->dependency_trigger(this_worker->current);
}

void note_atomic(void* p, size_t bytes, Place place) {
  Thread* thread = this_worker->current;
  thread->what = "an atomic operation";
  thread->place = place;
  if (checks) checks->atomic(thread, p, bytes, nullptr);
}

}  // namespace simt
