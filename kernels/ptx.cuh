// ptx.cuh
// Every inline PTX instruction behind a named function. Kernels include common.cuh, which brings this.
//
// Compiled by nvcc the bodies are below. Compiled by a C++ compiler the same names come from the test
// executor's simt.h with portable bodies, so the same kernel sources run on a CPU (tests/simt).
#pragma once

#ifndef __CUDACC__
#include "simt.h"
#else
#include <cooperative_groups.h>
#include <cuda_bf16.h>
#include <cstdint>

// Dynamic shared memory, 16-byte aligned, as bytes called `name`.
#define DYN_SMEM(name) extern __shared__ __align__(128) unsigned char name[]
// A static shared array, 16-byte aligned: SMEM_ARRAY(float, tile, [8][33]).
#define SMEM_ARRAY(T, name, ...) __shared__ __align__(16) T name __VA_ARGS__
// Registers a kernel by its name with the test executor; here a kernel's name is enough.
#define KERNEL_EXPORT(name)

// Address of shared memory as the instructions below take it.
__device__ __forceinline__ uint32_t smem_u32(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// In the body of every loop that waits for another thread's write.
__device__ __forceinline__ void spin_yield() { __nanosleep(20); }

// Barrier of the whole grid; cooperative launches only.
__device__ __forceinline__ void grid_sync() { cooperative_groups::this_grid().sync(); }

// Programmatic dependent launch: waits until the launch before this one has finished and its writes are seen.
// Before it, only memory may be read that no launch of the run writes: weights, and what was there before the run.
__device__ __forceinline__ void grid_dependency_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Lets the next launch start; it may run beside the rest of this one.
__device__ __forceinline__ void grid_dependency_trigger() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// 16 bytes from global to shared memory without a register; beyond `src_bytes` (0..16) zeros are written.
__device__ __forceinline__ void cp_async_16(void* dst, const void* src, int src_bytes = 16) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(smem_u32(dst)), "l"(src), "r"(src_bytes)
               : "memory");
}

// The same with 8 bytes, of which `src_bytes` (0..8) are read; by way of the first-level cache.
__device__ __forceinline__ void cp_async_8(void* dst, const void* src, int src_bytes = 8) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(smem_u32(dst)), "l"(src), "r"(src_bytes)
               : "memory");
}

// Closes this thread's group of copies.
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most N of this thread's groups are under way; other threads see the data after a barrier.
template <int N>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// Counts a block in and says how many were in before; by one thread, between two barriers of its block. What a block
// wrote before it is seen by those that count in later, behind their second barrier.
__device__ __forceinline__ uint32_t count_in(uint32_t* counter) {
  uint32_t before;
  asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;" : "=r"(before) : "l"(counter) : "memory");
  return before;
}

// Four 8x8 matrices of 16-bit elements; lane l names row l % 8 of matrix l / 8, 16 bytes in shared memory.
// r[i] of lane l holds elements (l / 4, 2 * (l % 4)) and the next one of matrix i.
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(smem_u32(row))
               : "memory");
}

// The same, each matrix transposed.
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(smem_u32(row))
               : "memory");
}

// Two matrices: lanes 0..15 name the rows, the addresses of the others are not used.
__device__ __forceinline__ void ldmatrix_x2(uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(smem_u32(row))
               : "memory");
}

// d (16, 8) f32 += a (16, 16) bf16 * b (16, 8) bf16. With g = lane / 4 and t = 2 * (lane % 4) a lane holds
//   a  (g, t), (g + 8, t), (g, t + 8), (g + 8, t + 8), each with its right neighbour
//   b  (t, g), (t + 8, g), each with the one below
//   d  (g, t), (g, t + 1), (g + 8, t), (g + 8, t + 1)
__device__ __forceinline__ void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Wide loads and stores; the address is a multiple of the size.
__device__ __forceinline__ uint4 load_16(const void* p) { return *static_cast<const uint4*>(p); }
__device__ __forceinline__ uint2 load_8(const void* p) { return *static_cast<const uint2*>(p); }
__device__ __forceinline__ void store_16(void* p, uint4 value) { *static_cast<uint4*>(p) = value; }
__device__ __forceinline__ void store_8(void* p, uint2 value) { *static_cast<uint2*>(p) = value; }

// 16 bytes of global memory from L2, whatever the first-level cache still has of them: for what is read before
// grid_dependency_wait, which alone makes that cache forget what earlier launches have overwritten.
__device__ __forceinline__ uint4 load_16_from_l2(const void* p) {
  uint4 v;
  asm volatile("ld.global.cg.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}
#endif
