// text_attention.cu
// out[r, h, :] = sum over j of softmax_j(q[r, h] . k[j, h] + bias[buckets[j - r], h]) v[j, h, :] over all rows j of r's
// text; scores are not scaled. The rows of a text follow one another, from position 0 on, and then comes the next
// text, or padding.
//
//   shapes   out, q, k, v (R, C = H * D)   rows (R)   bias (buckets, H)   buckets (2 T - 1): of a key that lies
//            j - (T - 1) behind its query, at j
//   types    q, k, v: f32, rounded to bf16 for the products; scores, softmax and sums in f32, its weights rounded to
//            bf16 before they meet v; out: bf16 or f32
//   launch   grid (R / ROWS rounded up, H), 128 threads; shared memory: see shared_bytes in the Rust file
//   needs    D divisible by 16, at most 128; T at most 4096           (checked in backend/cuda/text_attention.rs);
//            texts of at most T rows
//   cost     4 * keys * C FLOPs a row; every block reads k and v of its texts, 8 * D bytes a key, which stay in L2.
//            For the 120 rows of a caption what counts is the way to memory and back: once for the table of rows,
//            once for each step of keys
//   flight   all of a step's keys and values are under way at once, 16 loads of 16 bytes a thread for D = 64 (seen in
//            the code for sm_90a). Two blocks a multiprocessor are asked for so that there are registers for it: left
//            to itself ptxas stops at 128 for D = 64, and spills
//   matches  graph::ops::text_attention::twin; tolerance and why: tests/ops/text_attention.rs
//
// Flash attention: a warp has 16 rows, and the block walks through the keys of their text by KEYS, counted from the
// text's first row, with a running maximum and sum. Rows that a block has of several texts are done text by text, as if
// the others were not there: a row of an mma's result depends on the same row of its left operand alone. So the bits
// of a row depend on its text, and on nothing else in the pass.
#include "common.cuh"

constexpr int WARPS = 4;
constexpr int ROWS = 16 * WARPS;  // of a block
constexpr int KEYS = 64;          // of a step
constexpr int SCAN = 4;           // rows of the table that a lane asks for at once: with 32 lanes, a caption's
constexpr int MAX_TILES = 8;      // of 16 channels, where an argument says how many there are

// Bytes from row to row of keys and of values: eight in a row lie in different banks.
__device__ __forceinline__ int row_bytes(int head_dim) { return head_dim * 2 + 16; }

// One past the last row of the text, or of the padding, that row `r` is of. By a warp.
__device__ __forceinline__ int text_end(const Row* rows, Row own, int r, int count) {
  const int lane = threadIdx.x % WARP;
  for (int from = r + 1; from < count; from += SCAN * WARP) {
    Row others[SCAN];
#pragma unroll
    for (int i = 0; i < SCAN; i++) others[i] = rows[min(from + i * WARP + lane, count - 1)];
    uint32_t votes[SCAN];
#pragma unroll
    for (int i = 0; i < SCAN; i++) {
      const bool begins = others[i].position == 0 && own.slot != NO_SLOT;
      const bool ends = from + i * WARP + lane >= count || others[i].slot != own.slot || begins;
      votes[i] = __ballot_sync(ALL_LANES, ends);
    }
#pragma unroll
    for (int i = 0; i < SCAN; i++) {
      if (votes[i]) return from + i * WARP + __ffs(int(votes[i])) - 1;
    }
  }
  return count;
}

// KEYS rows of one head of k and of v, rounded to bf16, into shared memory; beyond `count` zeros. By the block.
// Rows that are not there are read from the last that is: a branch would have every load wait for the one before.
template <int D>
__device__ __forceinline__ void stage(unsigned char* keys, unsigned char* values, const float* k, const float* v,
                                      int count, int dim, int head_dim) {
  constexpr int THREADS = WARPS * WARP, BATCH = D ? KEYS * D / 4 / THREADS : 2;  // loads of a thread under way
  const int loads = head_dim / 4;
  for (int at = threadIdx.x; at < KEYS * loads; at += BATCH * THREADS) {
    float4 x[2][BATCH];
#pragma unroll
    for (int i = 0; i < BATCH; i++) {
      const int row = (at + i * THREADS) / loads, c = (at + i * THREADS) % loads * 4;
      const size_t from = size_t(min(row, count - 1)) * dim + c;
      x[0][i] = *reinterpret_cast<const float4*>(k + from), x[1][i] = *reinterpret_cast<const float4*>(v + from);
    }
#pragma unroll
    for (int i = 0; i < BATCH; i++) {
      const int row = (at + i * THREADS) / loads, c = (at + i * THREADS) % loads * 4;
#pragma unroll
      for (int which = 0; which < 2; which++) {
        const float4 y = x[which][i];
        uint2 pairs = make_uint2(pack_bf16(y.x, y.y), pack_bf16(y.z, y.w));
        if (row >= count) pairs = make_uint2(0, 0);
        store_8((which ? values : keys) + row * row_bytes(head_dim) + c * 2, pairs);
      }
    }
  }
}

// D: channels of a head; 0: an argument says it.
template <int D>
__device__ __forceinline__ void text_attention(void* out, const float* q, const float* k, const float* v,
                                               const Row* rows, const float* bias, const float* buckets, int count,
                                               int tokens, int head_dim, bool out_bf16) {
  constexpr int TILES = D ? D / 16 : MAX_TILES;
  if (D) head_dim = D;
  DYN_SMEM(smem);
  unsigned char* keys = smem;                                                            // [KEYS][row_bytes]
  unsigned char* values = keys + KEYS * row_bytes(head_dim);                              // [KEYS][row_bytes]
  float* biases = reinterpret_cast<float*>(values + KEYS * row_bytes(head_dim));          // [2 T - 1] by distance
  const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
  const int heads = gridDim.y, head = blockIdx.y, dim = heads * head_dim;
  const int tile = blockIdx.x * ROWS, tile_end = min(tile + ROWS, count);
  const int mine = tile + threadIdx.x / WARP * 16;  // this warp's first row
  grid_dependency_trigger();
  for (int i = threadIdx.x; i < 2 * tokens - 1; i += WARPS * WARP) biases[i] = bias[int(buckets[i]) * heads + head];
  grid_dependency_wait();
  q += head * head_dim, k += head * head_dim, v += head * head_dim;

  int next;
  for (int begin = tile; begin < tile_end; begin = next) {
    const Row own = rows[begin];
    const int end = next = text_end(rows, own, begin, count);
    if (own.slot == NO_SLOT) continue;
    const int first = begin - int(own.position), length = end - first;
    const bool active = mine < end && mine + 16 > begin;  // this warp has rows of the text

    bool there[2];  // rows g and g + 8
    int zero[2];    // where `biases` has the text's first key
    uint32_t queries[TILES][4];
    float o[2 * TILES][4] = {}, largest[2] = {-INFINITY, -INFINITY}, sum[2] = {};
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int row = mine + 8 * half + g;
      there[half] = row >= begin && row < end;
      // Others compute something that nobody wants.
      zero[half] = tokens - 1 - (there[half] ? row - first : 0);
#pragma unroll
      for (int c = 0; c < TILES; c++) {
#pragma unroll
        for (int part = 0; part < 2; part++) {
          float2 x = make_float2(0.0f, 0.0f);
          if (there[half] && 16 * c < head_dim) {
            x = *reinterpret_cast<const float2*>(q + size_t(row) * dim + 16 * c + 8 * part + 2 * t);
          }
          queries[c][half + 2 * part] = pack_bf16(x.x, x.y);
        }
      }
    }

    for (int key = 0; key < length; key += KEYS) {
      const size_t from = size_t(first + key) * dim;
      __syncthreads();  // nobody reads the last step's keys and values any more
      stage<D>(keys, values, k + from, v + from, length - key, dim, head_dim);
      __syncthreads();  // keys, values and biases are there
      if (!active) continue;

      float s[KEYS / 8][4] = {};
#pragma unroll
      for (int c = 0; c < TILES; c++) {
        if (16 * c >= head_dim) break;
#pragma unroll
        for (int j = 0; j < KEYS / 16; j++) {
          uint32_t b[4];
          const int row = 16 * j + lane % 8 + lane / 16 * 8;
          ldmatrix_x4(b, keys + row * row_bytes(head_dim) + c * 32 + lane / 8 % 2 * 16);
          mma_m16n8k16_bf16(s[2 * j], queries[c], {b[0], b[1]});
          mma_m16n8k16_bf16(s[2 * j + 1], queries[c], {b[2], b[3]});
        }
      }

      uint32_t weights[KEYS / 8][2];
#pragma unroll
      for (int half = 0; half < 2; half++) {
        float now = -INFINITY;
#pragma unroll
        for (int i = 0; i < KEYS / 4; i++) {
          const int at = key + i / 2 * 8 + 2 * t + i % 2;
          float& x = s[i / 2][2 * half + i % 2];
          x = at < length ? __fadd_rn(x, biases[zero[half] + at]) : -INFINITY;
          now = fmaxf(now, x);
        }
        now = fmaxf(largest[half], quad_max(now));
        const float shrink = exp_(__fsub_rn(largest[half], now));
        largest[half] = now;
#pragma unroll
        for (int n = 0; n < 2 * TILES; n++) o[n][2 * half] *= shrink, o[n][2 * half + 1] *= shrink;
        float here = 0.0f;
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++) {
          weights[n][half] =
              pack_bf16(exp_(__fsub_rn(s[n][2 * half], now)), exp_(__fsub_rn(s[n][2 * half + 1], now)));
          const float2 rounded = unpack_bf16(weights[n][half]);
          here = __fadd_rn(here, __fadd_rn(rounded.x, rounded.y));
        }
        sum[half] = __fmaf_rn(sum[half], shrink, quad_sum(here));
      }

#pragma unroll
      for (int j = 0; j < KEYS / 16; j++) {
        const uint32_t a[4] = {weights[2 * j][0], weights[2 * j][1], weights[2 * j + 1][0], weights[2 * j + 1][1]};
#pragma unroll
        for (int c = 0; c < TILES; c++) {
          if (16 * c >= head_dim) break;
          uint32_t b[4];
          ldmatrix_x4_trans(b, values + (16 * j + lane % 16) * row_bytes(head_dim) + c * 32 + lane / 16 * 16);
          mma_m16n8k16_bf16(o[2 * c], a, {b[0], b[1]});
          mma_m16n8k16_bf16(o[2 * c + 1], a, {b[2], b[3]});
        }
      }
    }

#pragma unroll
    for (int half = 0; half < 2; half++) {
      if (!there[half]) continue;
      const size_t row = size_t(mine + 8 * half + g) * dim + head * head_dim + 2 * t;
#pragma unroll
      for (int n = 0; n < 2 * TILES; n++) {
        if (8 * n >= head_dim) break;
        const float x = __fdiv_rn(o[n][2 * half], sum[half]), y = __fdiv_rn(o[n][2 * half + 1], sum[half]);
        if (out_bf16) {
          *reinterpret_cast<uint32_t*>(static_cast<bf16*>(out) + row + 8 * n) = pack_bf16(x, y);
        } else {
          *reinterpret_cast<float2*>(static_cast<float*>(out) + row + 8 * n) = make_float2(x, y);
        }
      }
    }
  }
}

#define TEXT_ATTENTION(name, HEAD_DIM)                                                                          \
  extern "C" __global__ void __launch_bounds__(WARPS* WARP, 2)                                                  \
  name(void* out,             /* (R, H, D) */                                                                   \
       const float* q,        /* (R, H, D) */                                                                   \
       const float* k,        /* (R, H, D) */                                                                   \
       const float* v,        /* (R, H, D) */                                                                   \
       const Row* rows,       /* (R) */                                                                         \
       const float* bias,     /* (buckets, H) */                                                                \
       const float* buckets,  /* (2 T - 1) */                                                                   \
       uint32_t count,        /* R */                                                                           \
       uint32_t tokens,       /* T */                                                                           \
       uint32_t head_dim,     /* D */                                                                           \
       uint32_t out_bf16) {   /* 1: `out` is bf16, 0: f32 */                                                    \
    text_attention<HEAD_DIM>(out, q, k, v, rows, bias, buckets, int(count), int(tokens), int(head_dim),         \
                             out_bf16);                                                                         \
  }

TEXT_ATTENTION(text_attention_64, 64)
KERNEL_EXPORT(text_attention_64)
TEXT_ATTENTION(text_attention_any, 0)
KERNEL_EXPORT(text_attention_any)
