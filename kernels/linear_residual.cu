// linear_residual.cu
// x[r, n] += Σ_k weight[n, k] * input[r, k]: `wo` behind attention, `w2` behind SwiGLU
//
//   shapes   x (R, N)   input (R, K)   weight (N, K), packed as fragments; wide: partials and counters of PartsOfK
//            (product_wide.cuh), the counters zero before and after
//   types    input, weight: bf16; x and sums: f32
//   launch   ceil(R / rows) x ceil(N / columns) blocks of 256 threads; thin_R has 16 or 32 columns, wide_NxR N, in up
//            to 4 parts of K (product.cuh, backend/cuda/product.rs); dynamic
//            shared memory: thin_R the weights under way, wide its stages
//   needs    K divisible by 8                               (checked in backend/cuda/linear_residual.rs)
//   cost     reads N * K * 2 bytes of weights, once per block of rows, and R * (K * 2 + N * 4), writes R * N * 4;
//            floor: the weights' bytes up to about 180 rows on an H200, then 2 R N K FLOPs. In parts of K it writes and
//            reads R * N * 4 more for each slice behind the first part, and once for that, all in L2
//   matches  graph::ops::linear_residual::twin; tolerance and why: tests/ops/linear_residual.rs
#include "product_thin.cuh"
#include "product_wide.cuh"

struct AddToResidual {
  static constexpr int MATRICES = 1;
  float* x;        // (R, N)
  uint32_t width;  // N
  using Early = float2;

  __device__ __forceinline__ Early load(uint32_t r, uint32_t n) const {
    return load_pair(x + size_t(r) * width, n, width);
  }
  __device__ __forceinline__ void store(Early before, uint32_t r, uint32_t n, const float2 (&y)[1]) const {
    store_pair(x + size_t(r) * width, n, width, make_float2(before.x + y[0].x, before.y + y[0].y));
  }
};

#define THIN_PARAMETERS                                    \
  float *x,                      /* (R, N) in and out */   \
      const bf16 *input,         /* (R, K) */              \
      const bf16 *weight,        /* (N, K) as fragments */ \
      uint32_t rows,             /* R */                   \
      uint32_t width,            /* N */                   \
      uint32_t depth             /* K */
#define THIN_ARGUMENTS x, input, weight, rows, width, depth
#define WIDE_PARAMETERS                                    \
  float *x,                      /* (R, N) in and out */   \
      float *partials,           /* of PartsOfK */         \
      uint32_t *counters,        /* of PartsOfK */         \
      const bf16 *input,         /* (R, K) */              \
      const bf16 *weight,        /* (N, K) as fragments */ \
      uint32_t rows,             /* R */                   \
      uint32_t width,            /* N */                   \
      uint32_t depth             /* K */
#define WIDE_ARGUMENTS x, partials, counters, input, weight, rows, width, depth

template <int TILES, int ROW_TILES, int DEPTH, int HELD>
__device__ __forceinline__ void thin(THIN_PARAMETERS) {
  PlainRows<ROW_TILES, HELD> activations(input, rows, depth);
  product_thin<TILES, ROW_TILES, DEPTH>(AddToResidual{x, width}, activations, {weight}, rows, width, depth);
}

template <int... SHAPE>
__device__ __forceinline__ void wide(WIDE_PARAMETERS) {
  const SplitK split{partials, counters};
  product_wide<SHAPE...>(AddToResidual{x, width}, input, {weight}, rows, width, depth, split);
}

THIN_KERNEL(linear_residual_thin_8, 3, 1, 1, 16, 8)
KERNEL_EXPORT(linear_residual_thin_8)
THIN_KERNEL(linear_residual_thin_16, 3, 2, 2, 8, 4)
KERNEL_EXPORT(linear_residual_thin_16)
THIN_KERNEL(linear_residual_thin_32, 2, 2, 4, 4, 2)
KERNEL_EXPORT(linear_residual_thin_32)
WIDE_KERNEL(linear_residual_wide_64x32, 4, 4, 4, 4, 4)
KERNEL_EXPORT(linear_residual_wide_64x32)
WIDE_KERNEL(linear_residual_wide_64x64, 2, 4, 8, 2, 4)
KERNEL_EXPORT(linear_residual_wide_64x64)
WIDE_KERNEL(linear_residual_wide_64x128, 2, 4, 16, 2, 4)
KERNEL_EXPORT(linear_residual_wide_64x128)
WIDE_KERNEL(linear_residual_wide_128x128, 1, 8, 16, 2, 3)
KERNEL_EXPORT(linear_residual_wide_128x128)
WIDE_KERNEL(linear_residual_wide_160x128, 1, 10, 16, 2, 3)
KERNEL_EXPORT(linear_residual_wide_160x128)
