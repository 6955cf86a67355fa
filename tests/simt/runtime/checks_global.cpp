// Buffers of the check build, and the rules for them: inside a buffer, written before it is read, and no
// conflicting access of another block in the same launch without something that orders the two.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sys/mman.h>

#include "checks.h"

namespace simt {

namespace {

// Addresses alone: pages take memory when they are touched, and give it back when a buffer is freed.
constexpr size_t ARENA = size_t(8) << 30;
constexpr size_t GAP = 512, ALIGNMENT = 256;

enum class ByteState : uint8_t { Outside, Allocated, Written, Freed };

struct Arena {
  unsigned char* memory;
  ByteState* states;
  GlobalByte* bytes;
  size_t top = PAGE;
  std::map<uintptr_t, size_t> buffers;

  Arena() {
    memory = static_cast<unsigned char*>(reserve(ARENA));
    states = static_cast<ByteState*>(reserve(ARENA));
    bytes = static_cast<GlobalByte*>(reserve(ARENA * sizeof(GlobalByte)));
  }

  static void* reserve(size_t size) {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (memory == MAP_FAILED) {
      perror("simt: no addresses for the check build");
      abort();
    }
    return memory;
  }
};

Arena& arena() {
  static Arena& arena = *new Arena();
  return arena;
}

// Whole pages of [low, low + size) become untouched again.
void give_back(void* low, size_t size) {
  const auto start = reinterpret_cast<uintptr_t>(low);
  const uintptr_t first = round_up(start, PAGE), end = (start + size) / PAGE * PAGE;
  if (first < end) madvise(reinterpret_cast<void*>(first), end - first, MADV_DONTNEED);
}

[[noreturn]] void fail_state(const Thread* thread, const unsigned char* at, ByteState state, Access access, void* pc) {
  const std::string place = place_of(thread, pc);
  if (state == ByteState::Freed) fail("use of a buffer that was freed, at %s", place.c_str());
  if (state == ByteState::Allocated) fail("read of global memory nobody wrote, at %s", place.c_str());
  char text[100] = "";
  const auto address = reinterpret_cast<uintptr_t>(at);
  auto behind = arena().buffers.upper_bound(address);
  if (behind != arena().buffers.begin()) {
    --behind;
    const size_t past = address - behind->first - behind->second;
    snprintf(text, sizeof text, " (%zu bytes past the end of a buffer of %zu)", past, behind->second);
  }
  fail("%s outside any buffer%s, at %s", access == Access::Read ? "read" : "write", text, place.c_str());
}

// An earlier access to the same byte that conflicts with this one.
void check_conflict(const Thread* thread, Moment earlier, const char* what, const unsigned char* at, void* pc) {
  if (earlier.clock <= clocks.launch) return;
  const Watch* known = watch(thread->block);
  const uint32_t block = (earlier.who & ~GLOBAL_ATOMIC) >> 10, other = earlier.who & THREAD;
  if (block == (thread->block->number & 0x1fffff)) {
    if (known->ordered(thread, earlier.clock, other)) return;
    fail("race: %s at global %p with %s, no barrier between, at %s", what, at, name_of(thread->block, other).c_str(),
         place_of(thread, pc).c_str());
  }
  if (earlier.clock <= clocks.grid) return;
  const auto acquired = known->acquired.find(block);
  if (acquired != known->acquired.end() && acquired->second >= earlier.clock) return;
  fail("race between blocks: %s at global %p with block %u thread %u, at %s", what, at, block, other,
       place_of(thread, pc).c_str());
}

// Of a launch that may still be at work: an earlier one of the same run.
bool may_be_under_way(const Thread* thread, Moment moment) {
  // A run that began later than now began before the clock was set back, when all records were forgotten.
  const uint32_t began = thread->block->launch->config.run_began;
  return moment.clock > (began > clocks.launch ? 0 : began) && moment.clock <= clocks.launch;
}

}  // namespace

bool in_buffers(const void* p) {
  auto* at = static_cast<const unsigned char*>(p);
  return at >= arena().memory && at < arena().memory + ARENA;
}

void global_access(Thread* thread, const void* p, size_t bytes, Access access, void* pc) {
  Arena& all = arena();
  const uint32_t block = uint32_t(thread->block->number & 0x1fffff);
  Watch* known = watch(thread->block);
  const Moment now{known->clock[thread->number()], block << 10 | thread->number()};
  const bool reads = access == Access::Read, atomic = access == Access::Atomic;
  const size_t offset = static_cast<const unsigned char*>(p) - all.memory;
  // The first one of a thread is kept; after its wait there is none.
  EarlyAccess* early = &known->early[thread->number()];
  if (early->address || known->waited[thread->number()]) early = nullptr;
  for (size_t i = offset; i < offset + bytes; i++) {
    const ByteState state = all.states[i];
    if (__builtin_expect(state != ByteState::Written, 0)) {
      const bool first_write = state == ByteState::Allocated && access == Access::Write;
      if (!first_write) fail_state(thread, all.memory + i, state, access, pc);
      all.states[i] = ByteState::Written;
    }
    GlobalByte& byte = all.bytes[i];
    if (early && (may_be_under_way(thread, byte.write) || (!reads && may_be_under_way(thread, byte.read)))) {
      *early = {all.memory + i, reads, pc, thread->what, thread->place};
      early = nullptr;
    }
    if (byte.write.clock && !(atomic && (byte.write.who & GLOBAL_ATOMIC))) {
      check_conflict(thread, byte.write, reads ? "read after write" : "write after write", all.memory + i, pc);
    }
    if (reads) {
      // One reader is remembered: another block's, as this block's are mostly ordered among themselves.
      if (byte.read.clock <= clocks.launch || byte.read.who >> 10 == block) byte.read = now;
    } else {
      if (byte.read.clock) check_conflict(thread, byte.read, "write after read", all.memory + i, pc);
      byte.write = {now.clock, now.who | (atomic ? GLOBAL_ATOMIC : 0)};
    }
  }
}

void* allocate_buffer(size_t bytes) {
  Arena& all = arena();
  if (bytes > ARENA - all.top - GAP - ALIGNMENT) return nullptr;
  unsigned char* start = all.memory + all.top;
  all.top = round_up(all.top + bytes + GAP, ALIGNMENT);
  memset(start, 0xFF, bytes);
  memset(static_cast<void*>(all.states + (start - all.memory)), int(ByteState::Allocated), bytes);
  all.buffers[reinterpret_cast<uintptr_t>(start)] = bytes;
  return start;
}

// Its addresses are not given out again, so that a later use is found.
void release_buffer(void* p) {
  Arena& all = arena();
  auto found = all.buffers.find(reinterpret_cast<uintptr_t>(p));
  const size_t offset = static_cast<unsigned char*>(p) - all.memory, bytes = found->second;
  memset(static_cast<void*>(all.states + offset), int(ByteState::Freed), bytes);
  give_back(p, bytes);
  give_back(all.bytes + offset, bytes * sizeof(GlobalByte));
  all.buffers.erase(found);
}

void host_wrote_buffer(void* p, size_t bytes) {
  const size_t offset = static_cast<unsigned char*>(p) - arena().memory;
  memset(static_cast<void*>(arena().states + offset), int(ByteState::Written), bytes);
  // The host has waited for the launches that used it. Most of these pages have never been touched, and reading
  // leaves them so.
  for (size_t i = offset; i < offset + bytes; i++) {
    GlobalByte& byte = arena().bytes[i];
    if (byte.write.clock || byte.read.clock) byte = {};
  }
}

void forget_global_accesses() { madvise(arena().bytes, arena().top * sizeof(GlobalByte), MADV_DONTNEED); }

}  // namespace simt
