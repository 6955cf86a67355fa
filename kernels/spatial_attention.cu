// spatial_attention.cu
// out[i, p, :] = sum over j of softmax_j(q[i, p] . k[i, j] * scale) v[i, j, :] over all pixels j of the same image
//
//   shapes   out (R, P, C)   qkv (R, P, 3 C): a pixel's q, k and v                        P pixels of an image
//   types    bf16; scores, softmax and sums in f32, its weights rounded to bf16 before they meet v
//   launch   grid (P / (16 * M) rounded up, R), 256 threads; shared memory: see shared_bytes in the Rust file
//   needs    C divisible by 32, at most 512                         (checked in backend/cuda/spatial_attention.rs)
//   cost     4 * R * P^2 * C FLOPs; every block reads k and v of its image, 2 * P * C * 2 bytes that stay in L2: for
//            256 pixels of 512 channels that is what bounds it, a few microseconds; one part in a hundred of a decode
//   matches  graph::ops::spatial_attention::twin; tolerance and why: tests/ops/spatial_attention.rs
//
// Flash attention with one head: a block has 16 * M pixels' q in shared memory and walks through the keys by KEYS,
// with a running maximum and sum. Scores: each of the 8 warps takes 16 of the keys. Then the weights of all keys meet
// in shared memory, and each warp mixes 64 channels of v. So no element of k or v is wanted by two warps, and both
// come from L2 as they lie, 16 bytes a lane: within an mma the order of what is summed, and which column is which
// channel, are free, so a lane's eight neighbouring channels of k serve as the rows 2 t, 2 t + 1, 2 t + 8,
// 2 t + 9 of two mma, and its eight of v as column g of eight.
#include "common.cuh"

constexpr int WARPS = 8;
constexpr int KEYS = 16 * WARPS;       // of a step
constexpr int WEIGHTS = KEYS * 2 + 16; // bytes from row to row: eight in a row lie in different banks
constexpr int SLICE = 64;              // channels that a warp mixes

// Bytes from row to row of q: two in a row lie in different banks, 64 bytes of each.
__device__ __forceinline__ int query_stride(int channels) { return (channels / 8 | 4) * 16; }

// Scores of this warp's 16 keys from `key` on, against all rows; `k` points to the first pixel's.
template <int M>
__device__ __forceinline__ void score(float (&s)[M][2][4], const unsigned char* queries, const bf16* k, int key,
                                      int pixels, int channels) {
  const int g = threadIdx.x % WARP / 4, t = threadIdx.x % 4, stride = query_stride(channels);
  const bool there[2] = {key + g < pixels, key + 8 + g < pixels};
  const int pixel = 3 * channels;
  const bf16* from[2] = {k + size_t(key + g) * pixel + 8 * t, k + size_t(key + 8 + g) * pixel + 8 * t};
#pragma unroll 4
  for (int c = 0; c < channels; c += 32) {
    uint4 keys[2];
#pragma unroll
    for (int j = 0; j < 2; j++) keys[j] = there[j] ? load_16(from[j] + c) : make_uint4(0, 0, 0, 0);
#pragma unroll
    for (int m = 0; m < M; m++) {
      const unsigned char* row = queries + (16 * m + g) * stride + c * 2 + t * 16;
      const uint4 upper = load_16(row), lower = load_16(row + 8 * stride);
#pragma unroll
      for (int j = 0; j < 2; j++) {
        mma_m16n8k16_bf16(s[m][j], {upper.x, lower.x, upper.y, lower.y}, {keys[j].x, keys[j].y});
        mma_m16n8k16_bf16(s[m][j], {upper.z, lower.z, upper.w, lower.w}, {keys[j].z, keys[j].w});
      }
    }
  }
}

// Adds the keys from `key` on, by their weights, to this warp's channels; `v` points to this lane's eight.
template <int M>
__device__ __forceinline__ void mix(float (&o)[M][8][4], const unsigned char* weights, const bf16* v,
                                    bool lane_has_channels, int key, int pixels, int channels) {
  const int lane = threadIdx.x % WARP, t = lane % 4;
#pragma unroll 2
  for (int step = 0; step < KEYS / 16; step++) {
    uint32_t rows[4][4];  // of keys 2 t, 2 t + 1, 2 t + 8, 2 t + 9
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int at = key + 16 * step + 2 * t + i % 2 + i / 2 * 8;
      const bool there = lane_has_channels && at < pixels;
      const uint4 raw = there ? load_16(v + size_t(at) * 3 * channels) : make_uint4(0, 0, 0, 0);
      rows[i][0] = raw.x, rows[i][1] = raw.y, rows[i][2] = raw.z, rows[i][3] = raw.w;
    }
    uint32_t a[M][4];
#pragma unroll
    for (int m = 0; m < M; m++) {
      ldmatrix_x4(a[m], weights + (16 * m + lane % 16) * WEIGHTS + step * 32 + lane / 16 * 16);
    }
#pragma unroll
    for (int j = 0; j < 8; j++) {
      const auto pair = [&](int i) {
        const uint32_t first = rows[i][j / 2], second = rows[i + 1][j / 2];
        return j % 2 == 0 ? (first & 0xffffu) | second << 16 : first >> 16 | (second & 0xffff0000u);
      };
      const uint32_t b[2] = {pair(0), pair(2)};
#pragma unroll
      for (int m = 0; m < M; m++) mma_m16n8k16_bf16(o[m][j], a[m], b);
    }
  }
}

template <int M>
__device__ __forceinline__ void spatial_attention(bf16* out, const bf16* qkv, int pixels, int channels,
                                                  float scale) {
  constexpr int ROWS = 16 * M;
  DYN_SMEM(smem);
  unsigned char* queries = smem;                                                          // [ROWS][query_stride]
  unsigned char* weights = queries + ROWS * query_stride(channels);                       // [ROWS][WEIGHTS]
  float(*maxima)[ROWS] = reinterpret_cast<float(*)[ROWS]>(weights + ROWS * WEIGHTS);       // [WARPS][ROWS]
  float(*sums)[ROWS] = maxima + WARPS;                                                    // [WARPS][ROWS]
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, g = lane / 4, t = lane % 4;
  const int first = blockIdx.x * ROWS;
  const bf16* q = qkv + size_t(blockIdx.y) * pixels * 3 * channels;
  grid_dependency_trigger();
  grid_dependency_wait();

  for (int i = threadIdx.x; i < ROWS * channels / 8; i += WARPS * WARP) {
    const int row = i / (channels / 8), c = i % (channels / 8) * 8;
    const bool there = first + row < pixels;
    const uint4 value = there ? load_16(q + size_t(first + row) * 3 * channels + c) : make_uint4(0, 0, 0, 0);
    store_16(queries + row * query_stride(channels) + c * 2, value);
  }
  __syncthreads();  // q is there

  const int slice = warp * SLICE + 8 * g;  // this lane's channels of v
  float o[M][8][4] = {};
  float largest[M][2], sum[M][2] = {};  // of the rows g and g + 8
#pragma unroll
  for (int m = 0; m < M; m++) largest[m][0] = largest[m][1] = -INFINITY;

  for (int key = 0; key < pixels; key += KEYS) {
    float s[M][2][4] = {};
    score<M>(s, queries, q + channels, key + 16 * warp, pixels, channels);
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
      for (int i = 0; i < 8; i++) {
        const int at = key + 16 * warp + i / 4 * 8 + 2 * t + i % 2;
        float& x = s[m][i / 4][i % 4];
        x = at < pixels ? __fmul_rn(x, scale) : -INFINITY;
      }
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const float here = fmaxf(fmaxf(s[m][0][2 * half], s[m][0][2 * half + 1]),
                                 fmaxf(s[m][1][2 * half], s[m][1][2 * half + 1]));
        const float all = quad_max(here);
        if (t == 0) maxima[warp][16 * m + 8 * half + g] = all;
      }
    }
    __syncthreads();  // all maxima are there, and nobody reads the last step's weights and sums any more

#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const int row = 16 * m + 8 * half + g;
        float now = largest[m][half];
#pragma unroll
        for (int w = 0; w < WARPS; w++) now = fmaxf(now, maxima[w][row]);
        const float shrink = exp_(__fsub_rn(largest[m][half], now));
        largest[m][half] = now;
        // Roundings of their own, here and below: both kernels are to give the same bits.
        sum[m][half] = __fmul_rn(sum[m][half], shrink);
#pragma unroll
        for (int j = 0; j < 8; j++) {
          o[m][j][2 * half] = __fmul_rn(o[m][j][2 * half], shrink);
          o[m][j][2 * half + 1] = __fmul_rn(o[m][j][2 * half + 1], shrink);
        }
        float here = 0.0f;
#pragma unroll
        for (int j = 0; j < 2; j++) {
          const float low = __fsub_rn(s[m][j][2 * half], now), high = __fsub_rn(s[m][j][2 * half + 1], now);
          const uint32_t pair = pack_bf16(exp_(low), exp_(high));
          const float2 rounded = unpack_bf16(pair);
          here = __fadd_rn(here, __fadd_rn(rounded.x, rounded.y));
          *reinterpret_cast<uint32_t*>(weights + row * WEIGHTS + (16 * warp + 8 * j + 2 * t) * 2) = pair;
        }
        here = quad_sum(here);
        if (t == 0) sums[warp][row] = here;
      }
    }
    __syncthreads();  // all weights and sums are there

#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
#pragma unroll
        for (int w = 0; w < WARPS; w++) sum[m][half] = __fadd_rn(sum[m][half], sums[w][16 * m + 8 * half + g]);
      }
    }
    if (warp * SLICE < channels) mix<M>(o, weights, q + 2 * channels + slice, slice < channels, key, pixels, channels);
  }

  // Column n of tile j is channel 8 n + j, so a lane has 16 neighbours of a row.
  const int channel = warp * SLICE + 16 * t;
  if (channel >= channels) return;
#pragma unroll
  for (int m = 0; m < M; m++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int row = first + 16 * m + 8 * half + g;
      if (row >= pixels) continue;
      bf16* to = out + (size_t(blockIdx.y) * pixels + row) * channels + channel;
#pragma unroll
      for (int n = 0; n < 2; n++) {
        uint32_t words[4];
#pragma unroll
        for (int j = 0; j < 4; j++) {
          words[j] = pack_bf16(__fdiv_rn(o[m][2 * j][2 * half + n], sum[m][half]),
                               __fdiv_rn(o[m][2 * j + 1][2 * half + n], sum[m][half]));
        }
        store_16(to + 8 * n, make_uint4(words[0], words[1], words[2], words[3]));
      }
    }
  }
}

extern "C" __global__ void __launch_bounds__(WARPS * WARP)
spatial_attention_16(bf16* out,          // (R, P, C)
                     const bf16* qkv,    // (R, P, 3 C)
                     uint32_t pixels,    // P
                     uint32_t channels,  // C
                     float scale) {
  spatial_attention<1>(out, qkv, int(pixels), int(channels), scale);
}
KERNEL_EXPORT(spatial_attention_16)

extern "C" __global__ void __launch_bounds__(WARPS * WARP)
spatial_attention_32(bf16* out,          // (R, P, C)
                     const bf16* qkv,    // (R, P, 3 C)
                     uint32_t pixels,    // P
                     uint32_t channels,  // C
                     float scale) {
  spatial_attention<2>(out, qkv, int(pixels), int(channels), scale);
}
KERNEL_EXPORT(spatial_attention_32)
