// checks.h
// The check build's records: when each byte was last written and read, and what each thread can know of it.
//
// Time is one count that moves whenever threads meet. An access is remembered with the time of its thread; it
// comes before another one if a meeting lies between that both threads took part in. No order of threads has
// to go wrong for a race to be found.
#pragma once

#include <unordered_map>

#include "runtime.h"

namespace simt {

struct Moment {
  uint32_t clock;  // 0: never
  uint32_t who;    // shared memory: thread and flags; global memory: block and thread and the flag
};

// Flags of a write to shared memory, beside the thread's number.
constexpr uint32_t THREAD = 0x3ff, ATOMIC = 1u << 15, IN_FLIGHT = 1u << 16;
// Flag of a write to global memory, beside block << 10 | thread.
constexpr uint32_t GLOBAL_ATOMIC = 1u << 31;

// One byte of shared memory. More readers than these are rare, and then one of them stands for the others.
struct SharedByte {
  Moment write, reads[3];
};

// One byte of global memory.
struct GlobalByte {
  Moment write, read;
};

// An access to what an earlier launch may still be at work on.
struct EarlyAccess {
  const void* address = nullptr;
  bool read;
  void* pc;
  const char* what;
  Place place;
};

// What a block's threads know.
struct Watch {
  std::vector<SharedByte> dynamic, arrays;
  uint32_t start;               // when the block began
  uint32_t met;                 // when all its threads last met
  uint32_t warp_met[32];        // when all live lanes of a warp last met
  bool some_met[32];            // whether a part of a warp's lanes ever met
  std::vector<uint32_t> knows;  // (thread, lane of its warp): up to when, from meetings of a part
  std::vector<uint32_t> clock;  // by thread: what its accesses are remembered with
  std::vector<uint8_t> fenced;  // by thread: whether it has passed a fence, so that its atomics publish
  std::unordered_map<uint32_t, uint32_t> acquired;  // by block: up to when its writes are known

  // Programmatic dependent launch: whether the block lets the next launch start, and by thread whether it has
  // waited for the one before, and the first access that should have come after that.
  bool triggered;
  std::vector<uint8_t> waited;
  std::vector<EarlyAccess> early;

  // Whether an access of this block's `other` at `clock` comes before what `thread` does now.
  bool ordered(const Thread* thread, uint32_t clock, unsigned other) const;
};

Watch* watch(const Block*);

struct Clocks {
  uint32_t now = 1;
  uint32_t launch = 1;  // when the launch began
  uint32_t grid = 1;    // when the whole grid last met
};
extern Clocks clocks;

std::string place_of(const Thread*, void* pc);
std::string name_of(const Block*, unsigned thread);

// ---- checks_shared.cpp
// `offset` into the bytes' region, whose first address is `low`.
void shared_access(Thread*, std::vector<SharedByte>&, const unsigned char* low, size_t offset, size_t bytes, Access,
                   void* pc);

// ---- checks_global.cpp
bool in_buffers(const void*);
void global_access(Thread*, const void*, size_t bytes, Access, void* pc);
void* allocate_buffer(size_t bytes);
void release_buffer(void*);
void host_wrote_buffer(void*, size_t bytes);
void forget_global_accesses();

}  // namespace simt
