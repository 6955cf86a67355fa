// norm_rows.cu
// normed[r, c] = bf16(bf16(x[r, c] * rstd[r]) * norm[c])     rstd[r] = 1 / sqrt(mean over c of x[r, c]^2 + eps)
// The input of the products' shapes of more than 8 rows, to the bit what that of 8 makes of x on the way. norm_rows_f32
// is the op: the same without a rounding to bf16.
//
//   shapes   normed, x (R, C)   norm (C)
//   types    normed: bf16 or f32; x, norm and sums: f32
//   launch   ceil(R / 8) blocks of 256 threads; C * 4 bytes of dynamic shared memory, C rounded up to 16
//   needs    C divisible by 8                             (checked in backend/cuda/norm_rows.rs, product.rs)
//   cost     reads R * C * 4, beyond C = 2048 partly twice, the second time near by, writes R * C * 2; a few
//            microseconds of latency, where each block of a product would read as much
//   matches  norm_rows_f32: graph::ops::norm_rows::twin; tolerance and why: tests/ops/norm_rows.rs; norm_rows: the
//            products' tests
#include "product_thin.cuh"

// Steps of a slice that are loaded at once and stay in registers, all of them up to C = 2048, and those that are squared
// at once beside them, up to C = 3200. There are few blocks, so each may have a multiprocessor's registers.
constexpr int HELD = 16, MORE = 9;

extern "C" __global__ void __launch_bounds__(PRODUCT_THREADS)
norm_rows(bf16* normed,        // (R, C)
          const float* x,      // (R, C)
          const float* norm,   // (C)
          float eps,
          uint32_t rows,       // R
          uint32_t dim) {      // C
  grid_dependency_trigger();
  const Slice slice(dim, threadIdx.x / WARP);
  NormedRows<HELD, MORE> activations(x, norm, eps, rows, dim);
  DYN_SMEM(shared);
  activations.before_wait(slice, shared);
  cp_async_commit();
  grid_dependency_wait();
  activations.load(slice.first, slice);
  cp_async_wait<0>();
  activations.prepare(slice);

  const uint32_t row = blockIdx.x * 8 + threadIdx.x % WARP / 4, t = threadIdx.x % 4;
  for (uint32_t first = slice.first; first < slice.last; first += HELD) {
    if (first != slice.first) activations.load(first, slice);
#pragma unroll
    for (int i = 0; i < HELD; i++) {
      const uint32_t k = (first + i) * STEP + 2 * t;
      if (first + i < slice.last && row < rows) {
        uint32_t b[2];
        activations.fragment(i, first + i, 0, b);
        bf16* at = normed + size_t(row) * dim + k;
        *reinterpret_cast<uint32_t*>(at) = b[0];
        if (k + 8 < dim) *reinterpret_cast<uint32_t*>(at + 8) = b[1];
      }
    }
  }
}
KERNEL_EXPORT(norm_rows)

extern "C" __global__ void __launch_bounds__(PRODUCT_THREADS)
norm_rows_f32(float* out,          // (R, C)
              const float* x,      // (R, C)
              const float* norm,   // (C)
              float eps,
              uint32_t rows,       // R
              uint32_t dim) {      // C
  grid_dependency_trigger();
  const Slice slice(dim, threadIdx.x / WARP);
  NormedRows<HELD, MORE> activations(x, norm, eps, rows, dim);
  DYN_SMEM(shared);
  activations.before_wait(slice, shared);
  cp_async_commit();
  grid_dependency_wait();
  activations.load(slice.first, slice);
  cp_async_wait<0>();
  activations.prepare(slice);

  const uint32_t row = blockIdx.x * 8 + threadIdx.x % WARP / 4, t = threadIdx.x % 4;
  const float rstd = activations.rstd;
  for (uint32_t first = slice.first; first < slice.last; first += HELD) {
    if (first != slice.first) activations.load(first, slice);
#pragma unroll
    for (int i = 0; i < HELD; i++) {
#pragma unroll
      for (uint32_t half = 0; half < 2; half++) {
        const uint32_t k = (first + i) * STEP + 2 * t + 8 * half;
        if (first + i < slice.last && row < rows && k < dim) {
          const float2 v = activations.raw[i][half], w = activations.weight(first + i, half);
          *reinterpret_cast<float2*>(out + size_t(row) * dim + k) =
              make_float2(__fmul_rn(__fmul_rn(v.x, rstd), w.x), __fmul_rn(__fmul_rn(v.y, rstd), w.y));
        }
      }
    }
  }
}
KERNEL_EXPORT(norm_rows_f32)
