// Rules for shared memory: written before it is read, and a meeting between conflicting accesses.
#include "checks.h"

namespace simt {

[[noreturn]] static void race(const Thread* thread, const char* what, const void* p, unsigned other, void* pc) {
  fail("race: %s at shared %p with %s, no barrier between, at %s", what, p, name_of(thread->block, other).c_str(),
       place_of(thread, pc).c_str());
}

static void remember_read(Watch* watch, const Thread* thread, SharedByte& byte, Moment now) {
  Moment* slot = nullptr;
  for (Moment& read : byte.reads) {
    if (read.clock < watch->start || read.who == now.who || watch->ordered(thread, read.clock, read.who)) {
      slot = &read;
      break;
    }
  }
  if (!slot) {
    slot = &byte.reads[2];
    for (Moment& read : byte.reads) {
      if (read.who / 32 == thread->warp) slot = &read;
    }
  }
  *slot = now;
}

void shared_access(Thread* thread, std::vector<SharedByte>& memory, const unsigned char* low, size_t offset,
                   size_t bytes, Access access, void* pc) {
  Watch* known = watch(thread->block);
  const uint32_t me = thread->number();
  const Moment now{known->clock[me], me};
  const bool reads = access == Access::Read || access == Access::Atomic;
  for (size_t i = offset; i < offset + bytes; i++) {
    SharedByte& byte = memory[i];
    if (access == Access::CopyDone) {
      byte.write = now;
      continue;
    }
    if (byte.write.clock >= known->start) {
      const unsigned writer = byte.write.who & THREAD;
      if (byte.write.who & IN_FLIGHT) {
        if (access == Access::CopyIssued && writer == me) continue;
        fail("%s shared memory while an async copy by %s into it is in flight, at %s",
             access == Access::Read ? "read of" : "write to", name_of(thread->block, writer).c_str(),
             place_of(thread, pc).c_str());
      }
      const bool both_atomic = access == Access::Atomic && (byte.write.who & ATOMIC);
      if (!both_atomic && !known->ordered(thread, byte.write.clock, writer)) {
        race(thread, access == Access::Read ? "read after write" : "write after write", low + i, writer, pc);
      }
    } else if (reads) {
      fail("read of shared memory nobody wrote (offset %zu), at %s", i, place_of(thread, pc).c_str());
    }
    if (access == Access::Read) {
      remember_read(known, thread, byte, now);
      continue;
    }
    for (const Moment& read : byte.reads) {
      if (read.clock >= known->start && !known->ordered(thread, read.clock, read.who)) {
        race(thread, "write after read", low + i, read.who, pc);
      }
    }
    const uint32_t flags = access == Access::CopyIssued ? IN_FLIGHT : access == Access::Atomic ? ATOMIC : 0;
    byte.write = {now.clock, me | flags};
  }
}

}  // namespace simt
