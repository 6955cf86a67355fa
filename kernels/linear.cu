// linear.cu
// out[r, n] = activation(Σ_k weight[n, k] * input[r, k])
//
//   shapes   out (R, N)   input (R, K)   weight (N, K), packed as fragments
//   types    input, weight: bf16; out: bf16 or f32; sums: f32
//   launch   ceil(R / rows) x ceil(N / columns) blocks of 256 threads; thin_R has 16 or 32 columns, wide_NxR N
//            (product.cuh, backend/cuda/product.rs); dynamic
//            shared memory: thin_R the weights under way, wide its stages
//   needs    K divisible by 8                                        (checked in backend/cuda/linear.rs)
//   cost     reads N * K * 2 bytes of weights, once per block of rows, and R * K * 2, writes R * N * 2 or 4; floor:
//            the weights' bytes up to about 180 rows on an H200, then 2 R N K FLOPs
//   matches  graph::ops::linear::twin; tolerance and why: tests/ops/linear.rs
#include "product_thin.cuh"
#include "product_wide.cuh"

// Decided per launch, not per instance: only the last store looks at them.
constexpr uint32_t GELU_TANH = 1;
constexpr uint32_t OUT_IS_BF16 = 2;

struct Store {
  static constexpr int MATRICES = 1;
  void* out;       // (R, N)
  uint32_t width;  // N
  uint32_t flags;
  struct Early {};

  __device__ __forceinline__ Early load(uint32_t, uint32_t) const { return {}; }
  __device__ __forceinline__ void store(Early, uint32_t r, uint32_t n, const float2 (&y)[1]) const {
    const float2 v = flags & GELU_TANH ? make_float2(gelu_tanh(y[0].x), gelu_tanh(y[0].y)) : y[0];
    if (flags & OUT_IS_BF16) {
      store_pair(static_cast<bf16*>(out) + size_t(r) * width, n, width, v);
    } else {
      store_pair(static_cast<float*>(out) + size_t(r) * width, n, width, v);
    }
  }
};

#define THIN_PARAMETERS                                    \
  void *out,                     /* (R, N) */              \
      const bf16 *input,         /* (R, K) */              \
      const bf16 *weight,        /* (N, K) as fragments */ \
      uint32_t rows,             /* R */                   \
      uint32_t width,            /* N */                   \
      uint32_t depth,            /* K */                   \
      uint32_t flags             /* GELU_TANH, OUT_IS_BF16 */
#define THIN_ARGUMENTS out, input, weight, rows, width, depth, flags
#define WIDE_PARAMETERS THIN_PARAMETERS
#define WIDE_ARGUMENTS THIN_ARGUMENTS

template <int TILES, int ROW_TILES, int DEPTH, int HELD>
__device__ __forceinline__ void thin(THIN_PARAMETERS) {
  const Store epilogue{out, width, flags};
  PlainRows<ROW_TILES, HELD> activations(input, rows, depth);
  product_thin<TILES, ROW_TILES, DEPTH>(epilogue, activations, {weight}, rows, width, depth);
}

template <int... SHAPE>
__device__ __forceinline__ void wide(WIDE_PARAMETERS) {
  const Store epilogue{out, width, flags};
  product_wide<SHAPE...>(epilogue, input, {weight}, rows, width, depth);
}

THIN_KERNEL(linear_thin_8, 3, 1, 1, 8, 8)
KERNEL_EXPORT(linear_thin_8)
THIN_KERNEL(linear_thin_16, 3, 2, 2, 8, 4)
KERNEL_EXPORT(linear_thin_16)
THIN_KERNEL(linear_thin_32, 2, 2, 4, 4, 2)
KERNEL_EXPORT(linear_thin_32)
WIDE_KERNEL(linear_wide_64x32, 4, 4, 4, 4, 4)
KERNEL_EXPORT(linear_wide_64x32)
WIDE_KERNEL(linear_wide_64x64, 2, 4, 8, 2, 4)
KERNEL_EXPORT(linear_wide_64x64)
WIDE_KERNEL(linear_wide_64x128, 2, 4, 16, 2, 4)
KERNEL_EXPORT(linear_wide_64x128)
WIDE_KERNEL(linear_wide_128x128, 1, 8, 16, 2, 3)
KERNEL_EXPORT(linear_wide_128x128)
WIDE_KERNEL(linear_wide_160x128, 1, 10, 16, 2, 3)
KERNEL_EXPORT(linear_wide_160x128)
