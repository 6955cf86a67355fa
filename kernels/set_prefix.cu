// set_prefix.cu
// k_cache[layer, slot, :, 0, :] = 0, v_cache[layer, slot, :, 0, :] = prefixes[slot, layer] for the slot of each row
//
//   shapes   k_cache, v_cache (L, B, H, S, D)   prefixes (B, L, C)   rows (R)   C = H D
//   types    cache: bf16; prefixes: f32
//   launch   R x L blocks of 128 threads, no shared memory
//   needs    D even                                                  (checked in backend/cuda/set_prefix.rs)
//   cost     reads R * L * C * 4, writes R * L * C * 4; a few microseconds of latency
//   matches  graph::ops::set_prefix::twin, rounded to bf16, bit for bit (tests/ops/set_prefix.rs)
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(128)
set_prefix(bf16* __restrict__ k_cache,  // (L, B, H, S, D)
           bf16* __restrict__ v_cache,  // (L, B, H, S, D)
           const float* prefixes,       // (B, L, C); written while this launch starts, as the table: no __restrict__
           const Row* table,            // (R)
           uint32_t slots,              // B
           uint32_t n_head,             // H
           uint32_t positions,          // S
           uint32_t head_dim) {         // D
  grid_dependency_trigger();
  grid_dependency_wait();
  const uint32_t slot = table[blockIdx.x].slot, layer = blockIdx.y, layers = gridDim.y;
  if (slot == NO_SLOT) return;
  const uint32_t dim = n_head * head_dim;
  const float* from = prefixes + (size_t(slot) * layers + layer) * dim;
  const size_t heads = (size_t(layer) * slots + slot) * n_head;
  for (uint32_t c = 2 * threadIdx.x; c < dim; c += 2 * blockDim.x) {
    const size_t to = (heads + c / head_dim) * positions * head_dim + c % head_dim;
    const float2 v = *reinterpret_cast<const float2*>(from + c);
    *reinterpret_cast<uint32_t*>(k_cache + to) = 0;
    *reinterpret_cast<uint32_t*>(v_cache + to) = pack_bf16(v.x, v.y);
  }
}
KERNEL_EXPORT(set_prefix)
