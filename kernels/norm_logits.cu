// norm_logits.cu
// logits[r, v] = Σ_c output[v, c] * rms_norm(x[r])[c]
//
//   shapes   logits (R, V)   x (R, C)   norm (C)   output (V, C), packed as fragments; but for thin_8: normed (R, C)
//   types    output, normed: bf16; logits, x, norm and sums: f32
//   launch   ceil(R / rows) x ceil(V / columns) blocks of 256 threads, of thin_8 only as many as have room; thin_R has
//            16 or 32 columns, wide_VxR V; all but thin_8 behind norm_rows (product.cuh, backend/cuda/product.rs); dynamic
//            shared memory: thin_R the weights under way and norm weights, wide its stages
//   needs    C divisible by 8                                   (checked in backend/cuda/norm_logits.rs)
//   cost     reads V * C * 2 bytes of weights, once per block of rows, and R * C * 4 (thin_8) or 2, writes R * V * 4;
//            floor: these bytes
//   matches  graph::ops::norm_logits::twin; tolerance and why: tests/ops/norm_logits.rs
#include "product_thin.cuh"
#include "product_wide.cuh"

struct StoreLogits {
  static constexpr int MATRICES = 1;
  float* logits;        // (R, V)
  uint32_t vocab_size;  // V
  struct Early {};

  __device__ __forceinline__ Early load(uint32_t, uint32_t) const { return {}; }
  __device__ __forceinline__ void store(Early, uint32_t r, uint32_t n, const float2 (&y)[1]) const {
    store_pair(logits + size_t(r) * vocab_size, n, vocab_size, y[0]);
  }
};

#define THIN_PARAMETERS                                     \
  float *logits,                  /* (R, V) */              \
      const float *x,             /* (R, C) */              \
      const float *norm,          /* (C) */                 \
      float eps,                                            \
      const bf16 *output,         /* (V, C) as fragments */ \
      uint32_t rows,              /* R */                   \
      uint32_t vocab_size,        /* V */                   \
      uint32_t dim                /* C */
#define THIN_ARGUMENTS logits, x, norm, eps, output, rows, vocab_size, dim
#define WIDE_PARAMETERS                                     \
  float *logits,                  /* (R, V) */              \
      const bf16 *normed,         /* (R, C) */              \
      const bf16 *output,         /* (V, C) as fragments */ \
      uint32_t rows,              /* R */                   \
      uint32_t vocab_size,        /* V */                   \
      uint32_t dim                /* C */
#define WIDE_ARGUMENTS logits, normed, output, rows, vocab_size, dim

template <int TILES, int DEPTH, int HELD>
__device__ __forceinline__ void thin(THIN_PARAMETERS) {
  NormedRows<HELD> activations(x, norm, eps, rows, dim);
  product_thin<TILES, 1, DEPTH>(StoreLogits{logits, vocab_size}, activations, {output}, rows, vocab_size, dim);
}

template <int TILES, int ROW_TILES, int DEPTH, int HELD>
__device__ __forceinline__ void thin_normed(WIDE_PARAMETERS) {
  PlainRows<ROW_TILES, HELD> activations(normed, rows, dim);
  product_thin<TILES, ROW_TILES, DEPTH>(StoreLogits{logits, vocab_size}, activations, {output}, rows, vocab_size, dim);
}

template <int... SHAPE>
__device__ __forceinline__ void wide(WIDE_PARAMETERS) {
  product_wide<SHAPE...>(StoreLogits{logits, vocab_size}, normed, {output}, rows, vocab_size, dim);
}

THIN_KERNEL(norm_logits_thin_8, 3, 1, 8, 8)
KERNEL_EXPORT(norm_logits_thin_8)
THIN_NORMED_KERNEL(norm_logits_thin_16, 3, 2, 2, 8, 4)
KERNEL_EXPORT(norm_logits_thin_16)
THIN_NORMED_KERNEL(norm_logits_thin_32, 2, 2, 4, 4, 2)
KERNEL_EXPORT(norm_logits_thin_32)
WIDE_KERNEL(norm_logits_wide_64x32, 4, 4, 4, 4, 4)
KERNEL_EXPORT(norm_logits_wide_64x32)
WIDE_KERNEL(norm_logits_wide_64x64, 2, 4, 8, 2, 4)
KERNEL_EXPORT(norm_logits_wide_64x64)
WIDE_KERNEL(norm_logits_wide_64x128, 2, 4, 16, 2, 4)
KERNEL_EXPORT(norm_logits_wide_64x128)
WIDE_KERNEL(norm_logits_wide_128x128, 1, 8, 16, 2, 3)
KERNEL_EXPORT(norm_logits_wide_128x128)
WIDE_KERNEL(norm_logits_wide_160x128, 1, 10, 16, 2, 3)
KERNEL_EXPORT(norm_logits_wide_160x128)
