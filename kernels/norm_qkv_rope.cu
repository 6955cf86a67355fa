// norm_qkv_rope.cu
// [q; k; v] = wqkv · rms_norm(x[r]); the pairs (2i, 2i + 1) of each head's q and k turn by freqs_cis[position, i];
// k and v go into the cache at (layer, slot, head, position)
//
//   shapes   q (R, C)   k_cache, v_cache (B, H, S, D) of the layer   x (R, C)   rows (R)   norm (C)
//            wqkv (3C, C), packed as fragments   freqs_cis (S, D / 2, 2)   C = H D; but for thin_8: normed (R, C)
//   types    wqkv, normed, cache: bf16; q, x, norm, freqs_cis and sums: f32
//   launch   ceil(R / rows) x ceil(3C / columns) blocks of 256 threads, of thin_8 only as many as have room; thin_R has
//            16 or 32 columns, wide_NxR N; all but thin_8 behind norm_rows (product.cuh, backend/cuda/product.rs); dynamic
//            shared memory: thin_R the weights under way and norm weights, wide its stages
//   needs    C divisible by 8, D even                         (checked in backend/cuda/norm_qkv_rope.rs)
//   cost     reads 3 C * C * 2 bytes of weights, once per block of rows, and R * C * 4 (thin_8) or 2, writes
//            R * C * (4 + 2 + 2); floor: the weights' bytes up to about 180 rows on an H200, then 6 R C C FLOPs
//   matches  graph::ops::norm_qkv_rope::twin; tolerance and why: tests/ops/norm_qkv_rope.rs
#include "product_thin.cuh"
#include "product_wide.cuh"

struct TurnAndCache {
  static constexpr int MATRICES = 1;
  float* q;
  bf16* k_cache;
  bf16* v_cache;
  const Row* table;
  const float* freqs_cis;
  uint32_t dim;        // C
  uint32_t head_dim;   // D
  uint32_t positions;  // S

  // The row's place in the cache, at the first head, and the pair's cosine and sine. The loads depend on one another:
  // early.
  struct Early {
    uint32_t cache_row;
    float2 turn;
  };

  __device__ __forceinline__ Early load(uint32_t r, uint32_t n) const {
    const Row row = table[r];
    if (row.slot == NO_SLOT) return {NO_SLOT, make_float2(0.0f, 0.0f)};
    const float* turn = freqs_cis + size_t(row.position) * head_dim + n % head_dim;
    return {row.slot * (dim / head_dim) * positions + row.position, *reinterpret_cast<const float2*>(turn)};
  }

  __device__ __forceinline__ void store(Early early, uint32_t r, uint32_t n, const float2 (&y)[1]) const {
    if (early.cache_row == NO_SLOT) return;
    float2 v = y[0];
    if (n < 2 * dim) {
      v.x = __fsub_rn(__fmul_rn(y[0].x, early.turn.x), __fmul_rn(y[0].y, early.turn.y));
      v.y = __fadd_rn(__fmul_rn(y[0].y, early.turn.x), __fmul_rn(y[0].x, early.turn.y));
    }
    if (n < dim) {
      *reinterpret_cast<float2*>(q + size_t(r) * dim + n) = v;
      return;
    }
    bf16* cache = n < 2 * dim ? k_cache : v_cache;
    const uint32_t c = n < 2 * dim ? n - dim : n - 2 * dim;
    const size_t row = early.cache_row + c / head_dim * positions;
    *reinterpret_cast<uint32_t*>(cache + row * head_dim + c % head_dim) = pack_bf16(v.x, v.y);
  }
};

#define OUTPUTS_AND_TABLES                                       \
  float *q,                      /* (R, C) */                    \
      bf16 *k_cache,             /* (B, H, S, D) of the layer */ \
      bf16 *v_cache,             /* (B, H, S, D) of the layer */ \
      const Row *table,          /* (R) */                       \
      const float *freqs_cis     /* (S, D / 2, 2) */
#define SIZES                                                    \
  uint32_t rows,                 /* R */                         \
      uint32_t dim,              /* C */                         \
      uint32_t head_dim,         /* D */                         \
      uint32_t positions         /* S */
#define THIN_PARAMETERS                                          \
  OUTPUTS_AND_TABLES,                                            \
      const float *x,            /* (R, C) */                    \
      const float *norm,         /* (C) */                       \
      float eps,                                                 \
      const bf16 *wqkv,          /* (3C, C) as fragments */      \
      SIZES
#define THIN_ARGUMENTS \
  q, k_cache, v_cache, table, freqs_cis, x, norm, eps, wqkv, rows, dim, head_dim, positions
#define WIDE_PARAMETERS                                          \
  OUTPUTS_AND_TABLES,                                            \
      const bf16 *normed,        /* (R, C) */                    \
      const bf16 *wqkv,          /* (3C, C) as fragments */      \
      SIZES
#define WIDE_ARGUMENTS q, k_cache, v_cache, table, freqs_cis, normed, wqkv, rows, dim, head_dim, positions

template <int TILES, int DEPTH, int HELD>
__device__ __forceinline__ void thin(THIN_PARAMETERS) {
  const TurnAndCache epilogue{q, k_cache, v_cache, table, freqs_cis, dim, head_dim, positions};
  NormedRows<HELD> activations(x, norm, eps, rows, dim);
  product_thin<TILES, 1, DEPTH>(epilogue, activations, {wqkv}, rows, 3 * dim, dim);
}

template <int TILES, int ROW_TILES, int DEPTH, int HELD>
__device__ __forceinline__ void thin_normed(WIDE_PARAMETERS) {
  const TurnAndCache epilogue{q, k_cache, v_cache, table, freqs_cis, dim, head_dim, positions};
  PlainRows<ROW_TILES, HELD> activations(normed, rows, dim);
  product_thin<TILES, ROW_TILES, DEPTH>(epilogue, activations, {wqkv}, rows, 3 * dim, dim);
}

template <int... SHAPE>
__device__ __forceinline__ void wide(WIDE_PARAMETERS) {
  const TurnAndCache epilogue{q, k_cache, v_cache, table, freqs_cis, dim, head_dim, positions};
  product_wide<SHAPE...>(epilogue, normed, {wqkv}, rows, 3 * dim, dim);
}

THIN_KERNEL(norm_qkv_rope_thin_8, 3, 1, 8, 8)
KERNEL_EXPORT(norm_qkv_rope_thin_8)
THIN_NORMED_KERNEL(norm_qkv_rope_thin_16, 3, 2, 2, 8, 4)
KERNEL_EXPORT(norm_qkv_rope_thin_16)
THIN_NORMED_KERNEL(norm_qkv_rope_thin_32, 2, 2, 4, 4, 2)
KERNEL_EXPORT(norm_qkv_rope_thin_32)
WIDE_KERNEL(norm_qkv_rope_wide_64x32, 4, 4, 4, 4, 4)
KERNEL_EXPORT(norm_qkv_rope_wide_64x32)
WIDE_KERNEL(norm_qkv_rope_wide_64x64, 2, 4, 8, 2, 4)
KERNEL_EXPORT(norm_qkv_rope_wide_64x64)
WIDE_KERNEL(norm_qkv_rope_wide_64x128, 2, 4, 16, 2, 4)
KERNEL_EXPORT(norm_qkv_rope_wide_64x128)
WIDE_KERNEL(norm_qkv_rope_wide_128x128, 1, 8, 16, 2, 3)
KERNEL_EXPORT(norm_qkv_rope_wide_128x128)
WIDE_KERNEL(norm_qkv_rope_wide_160x128, 1, 10, 16, 2, 3)
KERNEL_EXPORT(norm_qkv_rope_wide_160x128)
