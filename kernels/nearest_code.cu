// nearest_code.cu
// codes[p] = argmax over v of sum over e of z[p, e] * codebook[v, e]; the lowest of equal ones
//
//   shapes   codes (P)   z (P, E)   codebook (V, E)                                     P pixels of all images
//   types    codes: u32; z, codebook and sums: f32
//   launch   one block for PIXELS pixels, 256 threads, no dynamic shared memory
//   needs    E at most 64                                           (checked in backend/cuda/nearest_code.rs)
//   cost     2 * P * V * E FLOPs, 67 MFLOP for 256 pixels of VQ-16; reads the codebook, which stays in L2, once for
//            each block, 512 KB of it for VQ-16: 8 us at the 64 bytes that a multiprocessor gets of L2 a clock
//   matches  graph::ops::nearest_code::twin; when codes are equal, and why: tests/ops/nearest_code.rs
//
// A thread walks through every 256th code. Neighbouring threads read neighbouring vectors, and no two threads of a
// block the same one, so the codebook goes by without shared memory; z stands there and is read by all at once.
#include "common.cuh"

constexpr int THREADS = 256;
constexpr int PIXELS = 8;
constexpr int MAX_E = 64;

extern "C" __global__ void __launch_bounds__(THREADS)
nearest_code(uint32_t* __restrict__ codes,        // (P)
             const float* z,                      // (P, E)
             const float* __restrict__ codebook,  // (V, E)
             uint32_t pixels,                     // P
             uint32_t codebook_size,              // V
             uint32_t embed_dim) {                // E
  SMEM_ARRAY(float, vectors, [MAX_E][PIXELS]);
  SMEM_ARRAY(float, warp_best, [THREADS / WARP][PIXELS]);
  SMEM_ARRAY(uint32_t, warp_code, [THREADS / WARP][PIXELS]);
  grid_dependency_trigger();
  grid_dependency_wait();
  const uint32_t first = blockIdx.x * PIXELS;
  const uint32_t padded = (embed_dim + 3) / 4 * 4;
  for (uint32_t i = threadIdx.x; i < PIXELS * padded; i += THREADS) {
    const uint32_t pixel = first + i / padded, e = i % padded;
    vectors[e][i / padded] = pixel < pixels && e < embed_dim ? z[size_t(pixel) * embed_dim + e] : 0.0f;
  }
  __syncthreads();

  float best[PIXELS];
  uint32_t code[PIXELS];
#pragma unroll
  for (int p = 0; p < PIXELS; p++) best[p] = -INFINITY, code[p] = 0;
  for (uint32_t v = threadIdx.x; v < codebook_size; v += THREADS) {
    const float* row = codebook + size_t(v) * embed_dim;
    float sum[PIXELS] = {};
#pragma unroll 2
    for (uint32_t e = 0; e < embed_dim; e += 4) {
      float w[4];
      if (embed_dim % 4 == 0) {
        const uint4 raw = load_16(row + e);
        w[0] = __uint_as_float(raw.x), w[1] = __uint_as_float(raw.y);
        w[2] = __uint_as_float(raw.z), w[3] = __uint_as_float(raw.w);
      } else {
#pragma unroll
        for (int i = 0; i < 4; i++) w[i] = e + i < embed_dim ? row[e + i] : 0.0f;
      }
#pragma unroll
      for (int i = 0; i < 4; i++) {
#pragma unroll
        for (int p = 0; p < PIXELS; p++) sum[p] = fmaf(w[i], vectors[e + i][p], sum[p]);
      }
    }
#pragma unroll
    for (int p = 0; p < PIXELS; p++) {
      if (sum[p] > best[p]) best[p] = sum[p], code[p] = v;
    }
  }
  // Of equal ones the lowest: the order in which they meet does not matter.
  const auto take = [](float& best, uint32_t& code, float other, uint32_t other_code) {
    if (other > best || (other == best && other_code < code)) best = other, code = other_code;
  };
#pragma unroll
  for (int p = 0; p < PIXELS; p++) {
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance /= 2) {
      const float other = __shfl_xor_sync(ALL_LANES, best[p], distance);
      take(best[p], code[p], other, __shfl_xor_sync(ALL_LANES, code[p], distance));
    }
    if (threadIdx.x % WARP == 0) warp_best[threadIdx.x / WARP][p] = best[p], warp_code[threadIdx.x / WARP][p] = code[p];
  }
  __syncthreads();
  if (threadIdx.x < PIXELS && first + threadIdx.x < pixels) {
    float winner = warp_best[0][threadIdx.x];
    uint32_t winner_code = warp_code[0][threadIdx.x];
    for (int warp = 1; warp < THREADS / WARP; warp++) {
      take(winner, winner_code, warp_best[warp][threadIdx.x], warp_code[warp][threadIdx.x]);
    }
    codes[first + threadIdx.x] = winner_code;
  }
}
KERNEL_EXPORT(nearest_code)
