// What the compiler calls at every access under -fsanitize=thread. The kernels are linked with these functions
// in the place of that sanitizer's own runtime, which knows nothing of fibers and of CUDA's memory.
#include <cstring>

#include "checks.h"

namespace simt {

static inline void seen(void* p, size_t bytes, Access access, void* pc) {
  Worker* worker = this_worker;
  if (worker && worker->current) checks->access(worker->current, p, bytes, access, pc);
}

static inline void check_alignment(void* p, size_t bytes, void* pc) {
  if (__builtin_expect(reinterpret_cast<uintptr_t>(p) % bytes == 0, 1)) return;
  if (this_worker && this_worker->current) {
    fail("misaligned access of %zu bytes to %p, at %s", bytes, p, where(pc).c_str());
  }
}

// Volatile accesses are how kernels wait for one another.
static inline void seen_volatile(void* p, size_t bytes, void* pc) {
  Worker* worker = this_worker;
  if (worker && worker->current) checks->atomic(worker->current, p, bytes, pc);
}

}  // namespace simt

using namespace simt;

#define PC __builtin_return_address(0)

extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}

#define SIMT_ACCESSES(n)                                                          \
  void __tsan_read##n(void* p) {                                                  \
    check_alignment(p, n, PC);                                                    \
    seen(p, n, Access::Read, PC);                                                 \
  }                                                                               \
  void __tsan_write##n(void* p) {                                                 \
    check_alignment(p, n, PC);                                                    \
    seen(p, n, Access::Write, PC);                                                \
  }                                                                               \
  void __tsan_read_write##n(void* p) {                                            \
    check_alignment(p, n, PC);                                                    \
    seen(p, n, Access::Read, PC);                                                 \
    seen(p, n, Access::Write, PC);                                                \
  }                                                                               \
  void __tsan_unaligned_read##n(void* p) { seen(p, n, Access::Read, PC); }        \
  void __tsan_unaligned_write##n(void* p) { seen(p, n, Access::Write, PC); }      \
  void __tsan_unaligned_read_write##n(void* p) {                                  \
    seen(p, n, Access::Read, PC);                                                 \
    seen(p, n, Access::Write, PC);                                                \
  }                                                                               \
  void __tsan_volatile_read##n(void* p) { seen_volatile(p, n, PC); }              \
  void __tsan_volatile_write##n(void* p) { seen_volatile(p, n, PC); }

SIMT_ACCESSES(1)
SIMT_ACCESSES(2)
SIMT_ACCESSES(4)
SIMT_ACCESSES(8)
SIMT_ACCESSES(16)

void __tsan_read_range(void* p, size_t bytes) { seen(p, bytes, Access::Read, PC); }
void __tsan_write_range(void* p, size_t bytes) { seen(p, bytes, Access::Write, PC); }

// The guard of a static object: where a shared array is first met.
uint8_t __tsan_atomic8_load(const volatile uint8_t* p, int) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }

// clang's names for what gcc calls the C library for.
void* __tsan_memcpy(void* to, const void* from, size_t bytes) {
  seen(const_cast<void*>(from), bytes, Access::Read, PC);
  seen(to, bytes, Access::Write, PC);
  return memcpy(to, from, bytes);
}
void* __tsan_memmove(void* to, const void* from, size_t bytes) {
  seen(const_cast<void*>(from), bytes, Access::Read, PC);
  seen(to, bytes, Access::Write, PC);
  return memmove(to, from, bytes);
}
void* __tsan_memset(void* to, int value, size_t bytes) {
  seen(to, bytes, Access::Write, PC);
  return memset(to, value, bytes);
}
}
