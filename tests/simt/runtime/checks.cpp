// The check build: what happens to the records when threads meet, and which rules an access falls under.
#include <cstdio>
#include <cstring>

#include "checks.h"

// The shared object's own first and last byte.
extern "C" __attribute__((visibility("hidden"))) const char __ehdr_start, _end;

namespace simt {

Clocks clocks;

namespace {

// By address of an atomic variable: which blocks have published through it, and up to when.
std::unordered_map<uintptr_t, std::unordered_map<uint32_t, uint32_t>> published;
std::vector<Watch*> all_watches;

void tick_all(Watch* watch) {
  ++clocks.now;
  std::fill(watch->clock.begin(), watch->clock.end(), clocks.now);
}

// A kernel may touch its own stack, the built-in variables and constants.
bool own_memory(const Thread* thread, const unsigned char* at) {
  auto* stack = reinterpret_cast<unsigned char*>(thread->fiber->low);
  if (at >= stack && at < stack + thread->fiber->size) return true;
  auto* first = reinterpret_cast<const unsigned char*>(&__ehdr_start);
  auto* last = reinterpret_cast<const unsigned char*>(&_end);
  if (at >= first && at < last) return true;
  const void* const variables[] = {&threadIdx, &blockIdx, &blockDim, &gridDim};
  for (const void* variable : variables) {
    auto* low = static_cast<const unsigned char*>(variable);
    if (at >= low && at < low + sizeof(dim3)) return true;
  }
  return false;
}

void check_early(const Thread* thread) {
  const EarlyAccess& early = watch(thread->block)->early[thread->number()];
  if (!early.address) return;
  const std::string place = early.pc ? where(early.pc) : where(early.what, early.place);
  fail("%s before grid_dependency_wait, %p, at %s",
       early.read ? "read of what an earlier launch wrote" : "write to what an earlier launch used", early.address,
       place.c_str());
}

struct CheckBuild final : Checks {
  void launch_begins() override {
    // Half of the clock's range is more than any one launch takes.
    if (clocks.now > 1u << 31) {
      clocks.now = 1;
      forget_global_accesses();
      for (Watch* watch : all_watches) watch->dynamic.clear(), watch->arrays.clear();
    }
    clocks.launch = clocks.grid = clocks.now++;
    published.clear();
  }

  void block_begins(Block* block) override {
    if (!block->watched) {
      auto created = std::make_shared<Watch>();
      all_watches.push_back(created.get());
      block->watched = created;
    }
    Watch* known = watch(block);
    const size_t dynamic = block->dynamic_region.end - block->dynamic_region.low;
    if (known->dynamic.size() < dynamic) known->dynamic.resize(dynamic);
    known->start = ++clocks.now;
    known->met = 0;
    known->clock.assign(block->launch->threads, clocks.now);
    known->knows.assign(block->launch->warps * 32 * 32, 0);
    known->fenced.assign(block->launch->threads, 0);
    known->acquired.clear();
    known->triggered = false;
    known->waited.assign(block->launch->threads, 0);
    known->early.assign(block->launch->threads, EarlyAccess{});
    memset(known->warp_met, 0, sizeof known->warp_met);
    memset(known->some_met, 0, sizeof known->some_met);
  }

  void block_barrier(Block* block) override {
    watch(block)->met = clocks.now;
    tick_all(watch(block));
  }

  void warp_met(Block* block, unsigned warp, uint32_t lanes) override {
    Watch* known = watch(block);
    if (lanes == block->warps[warp].live) {
      known->warp_met[warp] = clocks.now;
    } else {
      known->some_met[warp] = true;
      SIMT_EACH_LANE(a, lanes) {
        SIMT_EACH_LANE(b, lanes) known->knows[(warp * 32 + a) * 32 + b] = known->clock[warp * 32 + b];
      }
    }
    ++clocks.now;
    SIMT_EACH_LANE(lane, lanes) known->clock[warp * 32 + lane] = clocks.now;
  }

  void grid_barrier(Worker* worker) override {
    clocks.grid = clocks.now;
    for (auto& block : worker->resident) {
      if (!block->active || !block->live) continue;
      watch(block.get())->met = clocks.grid;
      tick_all(watch(block.get()));
    }
  }

  void access(Thread* thread, const void* p, size_t bytes, Access access, void* pc) override {
    const Block* block = thread->block;
    auto* at = static_cast<const unsigned char*>(p);
    const char* verb = access == Access::Read ? "read" : "write";
    const Region& dynamic = block->dynamic_region;
    const Region& arrays = block->static_region;
    if (at >= dynamic.low && at < dynamic.end + PAGE) {
      if (at < block->dynamic || at + bytes > block->dynamic + block->dynamic_bytes) {
        fail("%s outside the %zu bytes of dynamic shared memory, at %s", verb, block->dynamic_bytes,
             place_of(thread, pc).c_str());
      }
      shared_access(thread, watch(block)->dynamic, dynamic.low, at - dynamic.low, bytes, access, pc);
    } else if (arrays.low && at >= arrays.low && at < arrays.end) {
      if (!in_shared(block, p, bytes)) fail("%s outside a shared array, at %s", verb, place_of(thread, pc).c_str());
      std::vector<SharedByte>& memory = watch(block)->arrays;
      if (memory.empty()) memory.resize(arrays.end - arrays.low);
      shared_access(thread, memory, arrays.low, at - arrays.low, bytes, access, pc);
    } else if (in_buffers(p)) {
      global_access(thread, p, bytes, access, pc);
    } else if (!own_memory(thread, at)) {
      fail("%s of memory that is no buffer, %p, at %s", verb, p, place_of(thread, pc).c_str());
    }
  }

  // Everything that a block has done before a fence is known to who reads the atomic afterwards.
  void atomic(Thread* thread, void* p, size_t bytes, void* pc) override {
    access(thread, p, bytes, Access::Atomic, pc);
    if (!in_buffers(p)) return;
    Watch* known = watch(thread->block);
    auto& variable = published[reinterpret_cast<uintptr_t>(p)];
    for (const auto& [block, clock] : variable) {
      uint32_t& acquired = known->acquired[block];
      acquired = std::max(acquired, clock);
    }
    if (!known->fenced[thread->number()]) return;
    variable[uint32_t(thread->block->number & 0x1fffff)] = clocks.now;
    for (const auto& [block, clock] : known->acquired) {
      uint32_t& there = variable[block];
      there = std::max(there, clock);
    }
    known->clock[thread->number()] = ++clocks.now;
  }

  void fence(Thread* thread) override { watch(thread->block)->fenced[thread->number()] = 1; }

  void dependency_wait(Thread* thread) override {
    check_early(thread);
    watch(thread->block)->waited[thread->number()] = 1;
  }

  void dependency_trigger(Thread* thread) override { watch(thread->block)->triggered = true; }

  // A kernel that has nothing to do with dependent launches begins when the one before has ended.
  void thread_ends(Thread* thread) override {
    if (watch(thread->block)->triggered) check_early(thread);
  }

  void* allocate(size_t bytes) override { return allocate_buffer(bytes); }
  void release(void* p) override { release_buffer(p); }
  void host_wrote(void* p, size_t bytes) override { host_wrote_buffer(p, bytes); }
  uint32_t now() override { return clocks.now; }
};

}  // namespace

Checks* const checks = new CheckBuild();

Watch* watch(const Block* block) { return static_cast<Watch*>(block->watched.get()); }

bool Watch::ordered(const Thread* thread, uint32_t at, unsigned other) const {
  if (at <= met || other == thread->number()) return true;
  if (other / 32 != thread->warp) return false;
  if (at <= warp_met[thread->warp]) return true;
  return some_met[thread->warp] && knows[thread->number() * 32 + other % 32] >= at;
}

std::string place_of(const Thread* thread, void* pc) {
  return pc ? where(pc) : where(thread->what, thread->place);
}

std::string name_of(const Block* block, unsigned thread) {
  const uint3 index = block->threads[thread].index;
  char text[60];
  snprintf(text, sizeof text, "thread (%u,%u,%u)", index.x, index.y, index.z);
  return text;
}

}  // namespace simt
