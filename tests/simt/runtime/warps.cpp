// Operations of a warp: each lane posts its operands and waits; the last to arrive works for all.
#include <cstring>

#include "runtime.h"

namespace simt {

// All of `lanes` have arrived, `last` just now: they must be at the same operation with the same mask.
static void complete(Block* block, unsigned warp, uint32_t lanes, const Thread* last) {
  Warp& w = block->warps[warp];
  if (!w.uniform || lanes != w.waiting) {
    SIMT_EACH_LANE(lane, lanes) {
      const Thread& other = block->threads[warp * 32 + lane];
      if (other.mask != last->mask || other.run != last->run || other.place.line != last->place.line) {
        fail("divergent warp operation: lane %u is at %s mask %08x, lane %u at %s mask %08x", last->lane,
             where(last->what, last->place).c_str(), last->mask, other.lane, where(other.what, other.place).c_str(),
             other.mask);
      }
    }
  }
  last->run(w.operands, lanes);
  if (checks) checks->warp_met(block, warp, lanes);
  w.waiting &= ~lanes;
  wake(block, warp, lanes);
}

void collective(uint32_t mask, void* operands, Run run, const char* what, Place place) {
  Worker* worker = this_worker;
  Thread* thread = worker->current;
  Block* block = thread->block;
  Warp& warp = block->warps[thread->warp];
  const uint32_t bit = 1u << thread->lane;
  thread->mask = mask;
  thread->run = run;
  thread->what = what;
  thread->place = place;
  if (__builtin_expect(!(mask & bit), 0)) {
    fail("%s: mask %08x does not name the calling lane %u", where(what, place).c_str(), mask, thread->lane);
  }
  if (warp.waiting == 0) {
    warp.mask = mask;
    warp.run = run;
    warp.line = place.line;
    warp.uniform = true;
  } else if (warp.mask != mask || warp.run != run || warp.line != place.line) {
    warp.uniform = false;
  }
  warp.operands[thread->lane] = operands;
  warp.waiting |= bit;
  const uint32_t lanes = mask & warp.live;  // lanes that have ended are not waited for
  if ((warp.waiting & lanes) == lanes) {
    complete(block, thread->warp, lanes, thread);
    if (worker->launch->config.order == Order::Random && (random(block) & 3) == 0) {
      // Another lane goes on first, and sometimes another warp.
      if ((random(block) & 3) == 0) block->current_warp = choose(block, block->runnable_warps);
      suspend(worker, thread);
    }
    return;
  }
  thread->state = State::AtWarp;
  not_runnable(block, thread->warp, bit);
  if (warp.runnable) {
    // The rest of this warp first, or 32 lanes would cost 32 turns through all warps.
    switch_to(worker, thread, &block->threads[thread->warp * 32 + choose(block, warp.runnable)]);
  } else {
    suspend(worker, thread);
  }
}

// A lane has ended: the others may have been waiting for it alone.
void thread_left_warp(Block* block, unsigned warp) {
  Warp& w = block->warps[warp];
  for (uint32_t left = w.waiting; left; left &= w.waiting & (left - 1)) {
    const Thread& thread = block->threads[warp * 32 + __builtin_ctz(left)];
    const uint32_t lanes = thread.mask & w.live;
    if ((w.waiting & lanes) == lanes) complete(block, warp, lanes, &thread);
  }
}

}  // namespace simt
