// codebook_lookup.cu
// x[p, z] = bias[z] + sum over e of weight[z, e] * codebook[codes[p], e]
//
//   shapes   x (P, Z)   codes (P)   codebook (V, E)   weight (Z, E)   bias (Z)          P pixels of all images
//   types    x: bf16 or f32; codes: u32; weights and sums in f32
//   launch   grid (P, Z / 128 rounded up), 128 threads, a channel each, no shared memory
//   needs    nothing; a code that is not below V is read as V - 1: whoever wrote it reports it
//   cost     reads a codebook row and Z * E weights (in the first-level cache) for a pixel, writes Z values; a few
//            microseconds of latency
//   matches  graph::ops::codebook_lookup::twin; tolerance and why: tests/ops/codebook_lookup.rs
#include "common.cuh"

template <typename T>
__device__ __forceinline__ void codebook_lookup(T* x, const uint32_t* codes, const float* codebook, const float* weight,
                                                const float* bias, uint32_t codebook_size, uint32_t embed_dim,
                                                uint32_t z_channels) {
  grid_dependency_trigger();
  grid_dependency_wait();
  const uint32_t z = blockIdx.y * blockDim.x + threadIdx.x;
  if (z >= z_channels) return;
  const float* vector = codebook + size_t(min(codes[blockIdx.x], codebook_size - 1)) * embed_dim;
  const float* row = weight + size_t(z) * embed_dim;
  float sum = 0.0f;
  for (uint32_t e = 0; e < embed_dim; e++) sum = fmaf(row[e], vector[e], sum);
  x[size_t(blockIdx.x) * z_channels + z] = from_float<T>(sum + bias[z]);
}

extern "C" __global__ void __launch_bounds__(128)
codebook_lookup_bf16(bf16* __restrict__ x,                // (P, Z)
                     const uint32_t* codes,               // (P); written before this launch, so no __restrict__
                     const float* __restrict__ codebook,  // (V, E)
                     const float* __restrict__ weight,    // (Z, E)
                     const float* __restrict__ bias,      // (Z)
                     uint32_t codebook_size,              // V
                     uint32_t embed_dim,                  // E
                     uint32_t z_channels) {               // Z
  codebook_lookup(x, codes, codebook, weight, bias, codebook_size, embed_dim, z_channels);
}
KERNEL_EXPORT(codebook_lookup_bf16)

extern "C" __global__ void __launch_bounds__(128)
codebook_lookup_f32(float* __restrict__ x,               // (P, Z)
                    const uint32_t* codes,               // (P); written before this launch, so no __restrict__
                    const float* __restrict__ codebook,  // (V, E)
                    const float* __restrict__ weight,    // (Z, E)
                    const float* __restrict__ bias,      // (Z)
                    uint32_t codebook_size,              // V
                    uint32_t embed_dim,                  // E
                    uint32_t z_channels) {               // Z
  codebook_lookup(x, codes, codebook, weight, bias, codebook_size, embed_dim, z_channels);
}
KERNEL_EXPORT(codebook_lookup_f32)
