// The functions of kernels/ptx.cuh with portable bodies; what each does is said there.
#pragma once

namespace simt {

void dependency_wait();
void dependency_trigger();
void copy_async(void* dst, const void* src, int bytes, int src_bytes, Place);
void copy_async_commit();
void copy_async_wait(int groups);
void load_matrices(uint32_t* r, const void* row, int count, bool transposed, Place);
void multiply_bf16(float* d, const uint32_t* a, const uint32_t* b, Place);

}  // namespace simt

inline uint32_t smem_u32(const void* p) { return simt::shared_offset(p); }

// Launches follow one another here; the check build looks for what a kernel does too early.
inline void grid_dependency_wait() { simt::dependency_wait(); }
inline void grid_dependency_trigger() { simt::dependency_trigger(); }

inline void cp_async_16(void* dst, const void* src, int src_bytes = 16, SIMT_PLACE) {
  simt::copy_async(dst, src, 16, src_bytes, SIMT_HERE);
}
inline void cp_async_8(void* dst, const void* src, int src_bytes = 8, SIMT_PLACE) {
  simt::copy_async(dst, src, 8, src_bytes, SIMT_HERE);
}
inline void cp_async_commit() { simt::copy_async_commit(); }
template <int N>
inline void cp_async_wait() {
  simt::copy_async_wait(N);
}

inline uint32_t count_in(uint32_t* counter, SIMT_PLACE) {
  __threadfence();
  return simt::atomic(counter, [](uint32_t before) { return before + 1; }, SIMT_HERE);
}

inline void ldmatrix_x4(uint32_t (&r)[4], const void* row, SIMT_PLACE) {
  simt::load_matrices(r, row, 4, false, SIMT_HERE);
}
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, SIMT_PLACE) {
  simt::load_matrices(r, row, 4, true, SIMT_HERE);
}
inline void ldmatrix_x2(uint32_t (&r)[2], const void* row, SIMT_PLACE) {
  simt::load_matrices(r, row, 2, false, SIMT_HERE);
}
inline void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], SIMT_PLACE) {
  simt::multiply_bf16(d, a, b, SIMT_HERE);
}

// A misaligned address would pass unseen: these processors can read it.
inline uint4 load_16(const void* p) {
  simt::aligned(p, 16);
  return *static_cast<const uint4*>(p);
}
inline uint4 load_16_from_l2(const void* p) { return load_16(p); }
inline uint2 load_8(const void* p) {
  simt::aligned(p, 8);
  return *static_cast<const uint2*>(p);
}
inline void store_16(void* p, uint4 value) {
  simt::aligned(p, 16);
  *static_cast<uint4*>(p) = value;
}
inline void store_8(void* p, uint2 value) {
  simt::aligned(p, 8);
  *static_cast<uint2*>(p) = value;
}
