// embed.cu
// x[r, c] = embedding_table[token, c] at position 0, tok_embeddings[token, c] elsewhere
//
//   shapes   x (R, C)   rows (R)   embedding_table (num_classes + 1, C)   tok_embeddings (V, C)
//   types    tables: bf16; x: f32
//   launch   one block per row, 128 threads, no shared memory
//   needs    C divisible by 4                                          (checked in backend/cuda/embed.rs)
//   cost     reads R * C of the tables, writes R * C; a few microseconds of latency
//   matches  graph::ops::embed::twin, bit for bit: bf16 to f32 is exact (tests/ops/embed.rs)
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(128)
embed(float* __restrict__ x,                        // (R, C)
      const Row* rows,                              // (R); written while this launch starts, so no __restrict__:
                                                    // it would allow loads that need not see what is written
      const bf16* __restrict__ embedding_table,     // (num_classes + 1, C)
      const bf16* __restrict__ tok_embeddings,      // (V, C)
      uint32_t dim) {                               // C
  grid_dependency_trigger();
  grid_dependency_wait();
  const Row row = rows[blockIdx.x];
  if (row.slot == NO_SLOT) return;
  const bf16* table = row.position == 0 ? embedding_table : tok_embeddings;
  const uint2* from = reinterpret_cast<const uint2*>(table + size_t(row.token) * dim);
  float4* to = reinterpret_cast<float4*>(x + size_t(blockIdx.x) * dim);
  for (uint32_t i = threadIdx.x; i < dim / 4; i += blockDim.x) {
    const float2 low = unpack_bf16(from[i].x), high = unpack_bf16(from[i].y);
    to[i] = make_float4(low.x, low.y, high.x, high.y);
  }
}
KERNEL_EXPORT(embed)
