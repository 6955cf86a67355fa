// norm_gated_gelu.cu
// out[r, f] = gelu(Σ_c wi_0[f, c] * n[c]) * (Σ_c wi_1[f, c] * n[c])     n = rms_norm(x[r]), GELU by its tanh form
//
//   shapes   out (R, F)   x (R, C)   norm (C)   wi_0, wi_1 (F, C), packed as fragments; but for thin_8: normed (R, C)
//   types    out, wi_0, wi_1, normed: bf16; x, norm and sums: f32
//   launch   ceil(R / rows) x ceil(F / columns) blocks of 256 threads, of thin_8 only as many as have room; thin_R has
//            16 columns, wide_NxR half of N; all but thin_8 behind norm_rows (product.cuh, backend/cuda/product.rs); dynamic
//            shared memory: thin_R the weights under way and norm weights, wide its stages
//   needs    C divisible by 8                                   (checked in backend/cuda/norm_gated_gelu.rs)
//   cost     reads 2 * F * C * 2 bytes of weights, once per block of rows, and R * C * 4 (thin_8) or 2, writes
//            R * F * 2; floor: the weights' bytes up to about 180 rows on an H200, then 4 R F C FLOPs
//   matches  graph::ops::norm_gated_gelu::twin; tolerance and why: tests/ops/norm_gated_gelu.rs
#include "product_thin.cuh"
#include "product_wide.cuh"

struct Gate {
  static constexpr int MATRICES = 2;
  bf16* out;            // (R, F)
  uint32_t hidden_dim;  // F
  struct Early {};

  __device__ __forceinline__ Early load(uint32_t, uint32_t) const { return {}; }
  __device__ __forceinline__ void store(Early, uint32_t r, uint32_t n, const float2 (&y)[2]) const {
    const float2 gated = make_float2(__fmul_rn(gelu_tanh(y[0].x), y[1].x), __fmul_rn(gelu_tanh(y[0].y), y[1].y));
    store_pair(out + size_t(r) * hidden_dim, n, hidden_dim, gated);
  }
};

#define THIN_PARAMETERS                                 \
  bf16 *out,                  /* (R, F) */              \
      const float *x,         /* (R, C) */              \
      const float *norm,      /* (C) */                 \
      float eps,                                        \
      const bf16 *wi_0,       /* (F, C) as fragments */ \
      const bf16 *wi_1,       /* (F, C) as fragments */ \
      uint32_t rows,          /* R */                   \
      uint32_t hidden_dim,    /* F */                   \
      uint32_t dim            /* C */
#define THIN_ARGUMENTS out, x, norm, eps, wi_0, wi_1, rows, hidden_dim, dim
#define WIDE_PARAMETERS                                 \
  bf16 *out,                  /* (R, F) */              \
      const bf16 *normed,     /* (R, C) */              \
      const bf16 *wi_0,       /* (F, C) as fragments */ \
      const bf16 *wi_1,       /* (F, C) as fragments */ \
      uint32_t rows,          /* R */                   \
      uint32_t hidden_dim,    /* F */                   \
      uint32_t dim            /* C */
#define WIDE_ARGUMENTS out, normed, wi_0, wi_1, rows, hidden_dim, dim

template <int TILES, int DEPTH, int HELD>
__device__ __forceinline__ void thin(THIN_PARAMETERS) {
  NormedRows<HELD> activations(x, norm, eps, rows, dim);
  product_thin<TILES, 1, DEPTH>(Gate{out, hidden_dim}, activations, {wi_0, wi_1}, rows, hidden_dim, dim);
}

template <int TILES, int ROW_TILES, int DEPTH, int HELD>
__device__ __forceinline__ void thin_normed(WIDE_PARAMETERS) {
  PlainRows<ROW_TILES, HELD> activations(normed, rows, dim);
  product_thin<TILES, ROW_TILES, DEPTH>(Gate{out, hidden_dim}, activations, {wi_0, wi_1}, rows, hidden_dim, dim);
}

template <int... SHAPE>
__device__ __forceinline__ void wide(WIDE_PARAMETERS) {
  product_wide<SHAPE...>(Gate{out, hidden_dim}, normed, {wi_0, wi_1}, rows, hidden_dim, dim);
}

THIN_KERNEL(norm_gated_gelu_thin_8, 3, 2, 4, 4)
KERNEL_EXPORT(norm_gated_gelu_thin_8)
THIN_NORMED_KERNEL(norm_gated_gelu_thin_16, 3, 2, 2, 8, 4)
KERNEL_EXPORT(norm_gated_gelu_thin_16)
THIN_NORMED_KERNEL(norm_gated_gelu_thin_32, 2, 2, 4, 4, 2)
KERNEL_EXPORT(norm_gated_gelu_thin_32)
WIDE_KERNEL(norm_gated_gelu_wide_64x32, 4, 4, 4, 4, 4)
KERNEL_EXPORT(norm_gated_gelu_wide_64x32)
WIDE_KERNEL(norm_gated_gelu_wide_64x64, 2, 4, 8, 2, 4)
KERNEL_EXPORT(norm_gated_gelu_wide_64x64)
WIDE_KERNEL(norm_gated_gelu_wide_64x128, 2, 4, 16, 2, 4)
KERNEL_EXPORT(norm_gated_gelu_wide_64x128)
WIDE_KERNEL(norm_gated_gelu_wide_128x128, 1, 8, 16, 2, 3)
KERNEL_EXPORT(norm_gated_gelu_wide_128x128)
WIDE_KERNEL(norm_gated_gelu_wide_160x128, 1, 10, 16, 2, 3)
KERNEL_EXPORT(norm_gated_gelu_wide_160x128)
