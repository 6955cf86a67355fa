// Keywords, built-in variables, shared memory, and what the headers beside this one call of the runtime.
#pragma once

#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(n) __attribute__((aligned(n)))

extern __thread uint3 threadIdx, blockIdx;
extern __thread dim3 blockDim, gridDim;
static constexpr int warpSize = 32;

// A call's place in the kernel's source, as default arguments of what threads may wait in.
#define SIMT_PLACE const char *file_ = __builtin_FILE(), int line_ = __builtin_LINE()
#define SIMT_HERE (::simt::Place{file_, line_})

// Functions that the race checks must not see: they work on the operands of several threads, or on the host's
// memory. gcc would move parts of them into functions that are seen.
#if defined(SIMT_CHECK) && defined(__clang__)
#define SIMT_UNSEEN __attribute__((no_sanitize_thread, noinline))
#elif defined(SIMT_CHECK)
#define SIMT_UNSEEN __attribute__((no_sanitize_thread, noipa))
#else
#define SIMT_UNSEEN
#endif

namespace simt {

struct Place {
  const char* file;
  int line;
};

// Ends the launch with an error that names the running thread.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

unsigned lane_id();

// Posts `operands` for the lanes of `mask`; the last of them to arrive runs `run` for all.
using Run = void (*)(void* const* operands, uint32_t lanes);
void collective(uint32_t mask, void* operands, Run run, const char* what, Place);

// A static shared array: one for each place in the source, its memory given by block at first use.
struct SharedArray {
  int index;
  SharedArray(size_t bytes, const char* name);
};
void* shared_array(const SharedArray&);
unsigned char* dynamic_shared();
uint32_t shared_offset(const void*);

// Fails on an address that is no multiple of `bytes`.
void misaligned(const void* p, int bytes);
inline void aligned(const void* p, int bytes) {
  if (__builtin_expect(reinterpret_cast<uintptr_t>(p) % bytes != 0, 0)) misaligned(p, bytes);
}

}  // namespace simt

// Filled with NaN before each block and ended by red zones, which plain `__shared__` could not be.
#define DYN_SMEM(name) unsigned char* const name = ::simt::dynamic_shared()
#define SMEM_ARRAY(T, name, ...)                                                    \
  using simt_type_##name = T __VA_ARGS__;                                           \
  static ::simt::SharedArray simt_array_##name(sizeof(simt_type_##name), #name);    \
  simt_type_##name& name = *static_cast<simt_type_##name*>(::simt::shared_array(simt_array_##name))
