// prefix_mean.cu
// out[r] = mean of v[j] over the rows j of r's prefix up to r; a prefix's last mean goes to prefixes[slot, layer]
//
//   shapes   out, v (R, C)   rows (R)   prefixes (B, L, C), from the layer on
//   types    out: bf16; v, prefixes and sums: f32
//   launch   R x ceil(C / 2 / 64) blocks of 64 threads: a block has 128 channels of the prefix that begins at its row,
//            and nothing to do where none does
//   needs    C even                                                  (checked in backend/cuda/prefix_mean.rs)
//   cost     reads R * C * 4, writes R * C * 2; a chain of additions down the longest prefix, with AHEAD rows under
//            way at a time
//   matches  graph::ops::prefix_mean::twin; tolerance and why: tests/ops/prefix_mean.rs
#include "common.cuh"

constexpr int PREFIX_MEAN_THREADS = 64;

// Rows that are loaded before the first of them is known to be of the prefix.
constexpr uint32_t AHEAD = 8;

extern "C" __global__ void __launch_bounds__(PREFIX_MEAN_THREADS)
prefix_mean(bf16* out,              // (R, C)
            float* prefixes,        // (B, L, C) from the layer on
            const float* v,         // (R, C)
            const Row* table,       // (R)
            uint32_t rows,          // R
            uint32_t dim,           // C
            uint32_t slot_stride) { // L * C
  grid_dependency_trigger();
  grid_dependency_wait();
  const uint32_t start = blockIdx.x;
  const uint32_t channel = 2 * (blockIdx.y * PREFIX_MEAN_THREADS + threadIdx.x);
  const Row first = table[start];
  if (first.slot == NO_SLOT || first.position != 0 || channel >= dim) return;

  float2 sum = make_float2(0.0f, 0.0f), mean = sum;
  bool more = true;
  for (uint32_t base = start; more; base += AHEAD) {
    float2 ahead[AHEAD];
    bool of_prefix[AHEAD];
#pragma unroll
    for (uint32_t i = 0; i < AHEAD; i++) {
      const uint32_t r = base + i;
      of_prefix[i] = r < rows;
      if (r < rows) {
        ahead[i] = *reinterpret_cast<const float2*>(v + size_t(r) * dim + channel);
        of_prefix[i] = table[r].slot != NO_SLOT && (r == start || table[r].position != 0);
      }
    }
#pragma unroll
    for (uint32_t i = 0; i < AHEAD; i++) {
      more = more && of_prefix[i];
      if (more) {
        const uint32_t r = base + i;
        const float count = __uint2float_rn(r - start + 1);
        sum = make_float2(__fadd_rn(sum.x, ahead[i].x), __fadd_rn(sum.y, ahead[i].y));
        mean = make_float2(__fdiv_rn(sum.x, count), __fdiv_rn(sum.y, count));
        *reinterpret_cast<uint32_t*>(out + size_t(r) * dim + channel) = pack_bf16(mean.x, mean.y);
      }
    }
  }
  *reinterpret_cast<float2*>(prefixes + size_t(first.slot) * slot_stride + channel) = mean;
}
KERNEL_EXPORT(prefix_mean)
