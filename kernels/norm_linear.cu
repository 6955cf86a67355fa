// norm_linear.cu
// out[r, n] = Σ_k weight[n, k] * rms_norm(x[r])[k]: q, k or v by itself
//
//   shapes   out (R, N)   x (R, K)   norm (K)   weight (N, K), packed as fragments: those from the first row on of a
//            larger weight; but for thin_8: normed (R, K)
//   types    weight, normed: bf16; out, x, norm and sums: f32
//   launch   ceil(R / rows) x ceil(N / columns) blocks of 256 threads, of thin_8 only as many as have room; thin_R has
//            16 or 32 columns, wide_NxR N; all but thin_8 behind norm_rows (product.cuh, backend/cuda/product.rs); dynamic
//            shared memory: thin_R the weights under way and norm weights, wide its stages
//   needs    K divisible by 8, the first row by 16               (checked in backend/cuda/norm_linear.rs)
//   cost     reads N * K * 2 bytes of weights, once per block of rows, and R * K * 4 (thin_8) or 2, writes R * N * 4;
//            floor: the weights' bytes up to about 180 rows on an H200, then 2 R N K FLOPs
//   matches  graph::ops::norm_linear::twin; tolerance and why: tests/ops/norm_linear.rs
#include "product_thin.cuh"
#include "product_wide.cuh"

struct Store {
  static constexpr int MATRICES = 1;
  float* out;      // (R, N)
  uint32_t width;  // N
  struct Early {};

  __device__ __forceinline__ Early load(uint32_t, uint32_t) const { return {}; }
  __device__ __forceinline__ void store(Early, uint32_t r, uint32_t n, const float2 (&y)[1]) const {
    store_pair(out + size_t(r) * width, n, width, y[0]);
  }
};

#define THIN_PARAMETERS                                    \
  float *out,                    /* (R, N) */              \
      const float *x,            /* (R, K) */              \
      const float *norm,         /* (K) */                 \
      float eps,                                           \
      const bf16 *weight,        /* (N, K) as fragments */ \
      uint32_t rows,             /* R */                   \
      uint32_t width,            /* N */                   \
      uint32_t depth             /* K */
#define THIN_ARGUMENTS out, x, norm, eps, weight, rows, width, depth
#define WIDE_PARAMETERS                                    \
  float *out,                    /* (R, N) */              \
      const bf16 *normed,        /* (R, K) */              \
      const bf16 *weight,        /* (N, K) as fragments */ \
      uint32_t rows,             /* R */                   \
      uint32_t width,            /* N */                   \
      uint32_t depth             /* K */
#define WIDE_ARGUMENTS out, normed, weight, rows, width, depth

template <int TILES, int DEPTH, int HELD>
__device__ __forceinline__ void thin(THIN_PARAMETERS) {
  NormedRows<HELD> activations(x, norm, eps, rows, depth);
  product_thin<TILES, 1, DEPTH>(Store{out, width}, activations, {weight}, rows, width, depth);
}

template <int TILES, int ROW_TILES, int DEPTH, int HELD>
__device__ __forceinline__ void thin_normed(WIDE_PARAMETERS) {
  PlainRows<ROW_TILES, HELD> activations(normed, rows, depth);
  product_thin<TILES, ROW_TILES, DEPTH>(Store{out, width}, activations, {weight}, rows, width, depth);
}

template <int... SHAPE>
__device__ __forceinline__ void wide(WIDE_PARAMETERS) {
  product_wide<SHAPE...>(Store{out, width}, normed, {weight}, rows, width, depth);
}

THIN_KERNEL(norm_linear_thin_8, 3, 1, 8, 8)
KERNEL_EXPORT(norm_linear_thin_8)
THIN_NORMED_KERNEL(norm_linear_thin_16, 3, 2, 2, 8, 4)
KERNEL_EXPORT(norm_linear_thin_16)
THIN_NORMED_KERNEL(norm_linear_thin_32, 2, 2, 4, 4, 2)
KERNEL_EXPORT(norm_linear_thin_32)
WIDE_KERNEL(norm_linear_wide_64x32, 4, 4, 4, 4, 4)
KERNEL_EXPORT(norm_linear_wide_64x32)
WIDE_KERNEL(norm_linear_wide_64x64, 2, 4, 8, 2, 4)
KERNEL_EXPORT(norm_linear_wide_64x64)
WIDE_KERNEL(norm_linear_wide_64x128, 2, 4, 16, 2, 4)
KERNEL_EXPORT(norm_linear_wide_64x128)
WIDE_KERNEL(norm_linear_wide_128x128, 1, 8, 16, 2, 3)
KERNEL_EXPORT(norm_linear_wide_128x128)
WIDE_KERNEL(norm_linear_wide_160x128, 1, 10, 16, 2, 3)
KERNEL_EXPORT(norm_linear_wide_160x128)
