// conv2d.cu
// out[i, p, n] = residual[i, p, n] + bias[n] + sum over taps and c of weight[n, c, tap] * f(x)[i, p at tap, c]
// f is GroupNorm, silu((x - mean) * rstd * norm_weight + norm_bias), with or without SiLU, or the identity; the
// border around the map is zero after f. Pixels for people: clamp(127.5 y + 128, 0, 255) cut to a byte.
// moments[i, patch, n] = mean and variance of out over a patch of 2 x 16 pixels, for the GroupNorm behind it
//
//   shapes   out, residual (R, H', W', N)   x (R, H, W, C)   bias (N)   stats (R, 32, 2)   norm_weight, norm_bias (C)
//            moments (R, patches, N, 2), graph::ops::Patches
//            weight: tiles of 16 x 16 of (N, [C / 32][2][tap column][tap row][16]), a lane's b0 and b1 of both mma
//            beside each other, for each phase of outputs, packed in backend/cuda/conv2d.rs
//   types    x, weight: bf16 (x of the _gather kernels also f32); f in f32, then rounded to bf16; sums in f32;
//            out, residual: bf16; out of the kernels whose Tile is not PAIRS also f32 or u8; moments: f32, of bf16 alone
//   launch   grid (tiles of the map, tiles of N, R * phases), 32 threads for each of a Tile's warps; shared memory: two
//            input tiles of 32 channels, with helpers three, 4 bytes per pixel of one and 8 per channel of a norm:
//            less than 48 KiB, with helpers behind 2048 normalized channels 51,664 bytes
//   needs    C divisible by 8, but for _gather; N divisible by 2 where PAIRS, by 32 with moments    (checked in
//            backend/cuda/conv2d.rs)
//   cost     2 * R * H' * W' * N * C * taps FLOPs, of an upsampling 4 taps; reads x (tile + border) / tile times for
//            each tile of N, and the weights, which stay in L2, once for each tile of the map; bound by the tensor
//            cores' issue, of smaller tiles by what they fetch from L2 (backend/cuda/conv2d.rs has a model)
//   matches  graph::ops::conv2d::twin; tolerance and why: tests/ops/conv2d.rs
//
// An implicit matrix product: a warp computes ROWS rows of 16 neighbouring pixels (the 16 rows of an mma) for
// 16 * N16 channels. Every 32 channels the block has the input under its tile, border included, in shared memory,
// normalized once; all taps read it there. While the tensor cores work on one such stage, cp.async brings the raw
// input of the next; each thread normalizes what it copied itself, in place, so that a stage costs one barrier. While
// a warp normalizes, its tensor core has but other blocks' warps. Medium is for maps of which a multiprocessor has a block
// or two: there helpers, four warps that do nothing else, copy and normalize a stage ahead of those that multiply.
//
// What would bound it is the bandwidth of shared memory (128 bytes a clock), so operands are used again in registers:
//   - a row of pixels is loaded once for all taps of a column (rows y - 1, y, y + 1 of the output need it): a warp
//     of 8 x 16 pixels and 32 channels reads 10 rows for 96 mma where tap by tap it would read 24;
//   - each weight is wanted by one warp of a block, or those below each other, so it goes from L2 to registers, one tap
//     column ahead, 16 bytes a lane, and never through shared memory; blocks beside each other on a multiprocessor walk
//     through the same weights and find them in the first-level cache;
// which makes 16 times 512 bytes, 64 clocks, for 96 mma. Large's loop on sm_90a, for a stage and a warp: 576 HMMA,
// 60 LDSM, 36 LDG.E.128, 13 others (254 registers, no spills on any target); its stage costs each thread six times
// eight values of normalization, some 20 instructions for two, beside the other block's HMMA.
//
// Upsampling never sees the doubled map: over each pixel of x stand four outputs, its phases, and what the nine taps of
// one meet are 2 x 2 pixels of x; taps that meet the same pixel were added up when the weights were packed, rounded to
// bf16 once. A block computes one phase.
//
// An output's sum runs over channels (by 16), tap columns, tap rows, in this order in every kernel here: which
// tile is chosen changes nothing in the bits. The same holds for the moments: two rows of an mma's 16 pixels are a
// patch. A lane has four of its pixels and adds them and their squares, then come the lanes 4, 2 and 1 columns away.
// Both sums are exact as long as values lie within two powers of two of each other, as those with a large mean do: 16
// bits of a square, 2 of the range's and 5 of 32 values'. From exact sums comes the variance with a few roundings.
#include "common.cuh"

constexpr int CHUNK = 32;             // channels of a stage
constexpr int PIXEL = CHUNK * 2;      // bytes of a pixel in it
constexpr int TILE_W = 16;            // pixels across a tile: the rows of an mma
constexpr int GROUPS = 32;

// `types`
constexpr uint32_t STORE = 3, STORE_BF16 = 0, STORE_F32 = 1, STORE_RGB8 = 2, LOAD_F32 = 4;

// The taps: graph::ops::conv2d::Kernel. A tile lies on a map of W / STRIDE pixels across, over each of which stand
// PHASES * PHASES outputs.
template <int SIDE_, int STRIDE_, int BORDER_, int PHASES_>
struct Taps {
  static constexpr int SIDE = SIDE_, STRIDE = STRIDE_, BORDER = BORDER_, PHASES = PHASES_;
  // Pixels of the input that `n` pixels in a row see.
  static constexpr int span(int n) { return (n - 1) * STRIDE + SIDE; }
  // The block's phase, and which of the outputs over a pixel that is.
  __device__ static int phase() { return int(blockIdx.z % (PHASES * PHASES)); }
  __device__ static int down() { return phase() / PHASES; }
  __device__ static int across() { return phase() % PHASES; }
};
using Point = Taps<1, 1, 0, 1>;
using Square = Taps<3, 1, 1, 1>;
using Downsample = Taps<3, 2, 0, 1>;
using Upsample = Taps<2, 1, 1, 2>;  // phase 0; phase 1 sees the pixels one further

// What a block computes: ROWS * WARPS_Y rows of 16 pixels, 16 * N16 * WARPS_N channels.
template <int ROWS_, int N16_, int WARPS_Y_, int WARPS_N_, int BLOCKS_, bool PAIRS_, int HELPERS_ = 0>
struct Tile {
  static constexpr int ROWS = ROWS_, N16 = N16_, WARPS_Y = WARPS_Y_, WARPS_N = WARPS_N_;
  static constexpr int BLOCKS = BLOCKS_;     // on one multiprocessor: what registers are left to
  static constexpr bool PAIRS = PAIRS_;      // stores bf16 by twos and nothing else
  static constexpr bool HELPED = HELPERS_ > 0;
  static constexpr int H = ROWS * WARPS_Y, N = 16 * N16 * WARPS_N;
  static constexpr int MULTIPLIERS = WARP * WARPS_Y * WARPS_N, THREADS = MULTIPLIERS + WARP * HELPERS_;
  static constexpr int COPIERS = HELPED ? WARP * HELPERS_ : THREADS;  // the last of the block's threads
  // This thread's number among those.
  __device__ static int copier() { return int(threadIdx.x) - (THREADS - COPIERS); }
};
using Large = Tile<8, 2, 1, 4, 2, true>;      // 8 x 16 pixels, 128 channels
using Medium = Tile<4, 1, 2, 2, 2, true, 4>;  // 8 x 16, 32, with helpers
using Flat = Tile<4, 2, 1, 2, 5, true>;       // 4 x 16, 64
using Small = Tile<2, 1, 1, 2, 8, false>;     // 2 x 16, 32
using Thin = Tile<2, 1, 4, 1, 5, false>;      // 8 x 16, 16
using Wide = Tile<2, 2, 1, 4, 4, true>;       // 2 x 16, 128

struct Conv {
  void* out;
  const void* x;
  const void* residual;   // or none
  const bf16* weight;
  const float* bias;
  const float* stats;     // or none: no normalization
  const float* norm_weight;
  const float* norm_bias;
  float2* moments;        // or none
  int height, width;      // of x
  int channels_in, channels_out;
  uint32_t silu, types;
};

// y * sigmoid(y) by the device's fast exponential and division: 2^-20 off, and rounded to bf16 next.
__device__ __forceinline__ float silu_fast(float y) { return __fdividef(y, 1.0f + __expf(-y)); }

// The input under a tile, border included: pixel by pixel 32 channels of it are a stage, copied 8 by 8: four vectors.
// Those of two pixels beside each other fill all banks. So that the same vector of eight pixels in a row does, too,
// vectors are turned within a pixel, by its column. (Of every second pixel, which a downsampling sees, two meet in a bank.)
template <class K, class T>
struct Stage {
  static constexpr int H = K::span(T::H), SEEN = K::span(TILE_W), W = (SEEN + 1) / 2 * 2;  // pairs of columns
  static constexpr int PIXELS = H * W, VECTORS = PIXELS * (CHUNK / 8), BYTES = PIXELS * PIXEL;
  // Where a pixel's vector lies.
  __device__ static int at(int pixel, int vector) { return pixel * PIXEL + (vector ^ pixel % W / 2 % 4) * 16; }
};

// Notes where in the image each pixel of a stage is: its index, or -1 outside of the map.
template <class K, class T>
__device__ __forceinline__ void find_pixels(const Conv& conv, int* places, int top, int left) {
  for (int i = threadIdx.x; i < Stage<K, T>::PIXELS; i += T::THREADS) {
    const int column = i % Stage<K, T>::W, y = top + i / Stage<K, T>::W, x = left + column;
    const bool inside = unsigned(y) < unsigned(conv.height) && unsigned(x) < unsigned(conv.width) &&
                        column < Stage<K, T>::SEEN;
    places[i] = inside ? y * conv.width + x : -1;
  }
}

// Starts the copies of the 32 channels from `channel` on; zeros outside of the map and beyond C.
template <class K, class T>
__device__ __forceinline__ void copy_stage(const Conv& conv, unsigned char* stage, const int* places, const bf16* x,
                                           int channel) {
  const int c = channel + T::copier() % (CHUNK / 8) * 8;
#pragma unroll 2
  for (int i = T::copier(); i < Stage<K, T>::VECTORS; i += T::COPIERS) {
    const int place = places[i / (CHUNK / 8)];
    const bool there = place >= 0 && c < conv.channels_in;
    const bf16* from = there ? x + size_t(place) * conv.channels_in + c : x;
    cp_async_16(stage + Stage<K, T>::at(i / (CHUNK / 8), i % (CHUNK / 8)), from, there ? 16 : 0);
  }
  cp_async_commit();
}

// Brings what this thread copied to its final form; with GATHER it is read here, channel by channel.
// `affine` (C): scale and shift of the normalization.
template <class K, class T, bool GATHER>
__device__ __forceinline__ void finish_stage(const Conv& conv, unsigned char* stage, const int* places,
                                             const float2* affine, int channel, size_t image) {
  const int c = channel + T::copier() % (CHUNK / 8) * 8;
  const bool normalized = conv.stats != nullptr;
  if (!GATHER && (!normalized || c >= conv.channels_in)) return;
  float scale[8], shift[8];
#pragma unroll
  for (int e = 0; e < 8; e += 2) {
    // The table reaches to whole stages.
    const uint4 raw = normalized ? load_16(affine + c + e) : make_uint4(0, 0, 0, 0);
    scale[e] = __uint_as_float(raw.x), shift[e] = __uint_as_float(raw.y);
    scale[e + 1] = __uint_as_float(raw.z), shift[e + 1] = __uint_as_float(raw.w);
  }
#pragma unroll 2
  for (int i = T::copier(); i < Stage<K, T>::VECTORS; i += T::COPIERS) {
    const int place = places[i / (CHUNK / 8)];
    unsigned char* at = stage + Stage<K, T>::at(i / (CHUNK / 8), i % (CHUNK / 8));
    if (place < 0) {
      if (GATHER) store_16(at, make_uint4(0, 0, 0, 0));
      continue;
    }
    float v[8];
    if (GATHER) {
      const size_t from = (image * conv.height * conv.width + place) * conv.channels_in + c;
#pragma unroll
      for (int e = 0; e < 8; e++) {
        v[e] = 0.0f;
        if (c + e >= conv.channels_in) continue;
        v[e] = conv.types & LOAD_F32 ? static_cast<const float*>(conv.x)[from + e]
                                     : to_float(static_cast<const bf16*>(conv.x)[from + e]);
      }
    } else {
      const uint4 raw = load_16(at);
      const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
      for (int e = 0; e < 8; e += 2) {
        const float2 pair = unpack_bf16(words[e / 2]);
        v[e] = pair.x, v[e + 1] = pair.y;
      }
    }
    if (normalized) {
#pragma unroll
      for (int e = 0; e < 8; e++) {
        v[e] = fmaf(v[e], scale[e], shift[e]);
        if (conv.silu) v[e] = silu_fast(v[e]);
        if (GATHER && c + e >= conv.channels_in) v[e] = 0.0f;
      }
    }
    store_16(at, make_uint4(pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]),
                            pack_bf16(v[6], v[7])));
  }
}

// One output, from its f32 sum; what bf16 makes of it.
__device__ __forceinline__ float store_output(const Conv& conv, size_t at, float y) {
  bf16 rounded = from_float<bf16>(0.0f);
  switch (conv.types & STORE) {
    case STORE_BF16:
      if (conv.residual) y += to_float(static_cast<const bf16*>(conv.residual)[at]);
      static_cast<bf16*>(conv.out)[at] = rounded = from_float<bf16>(y);
      break;
    case STORE_F32:
      if (conv.residual) y += static_cast<const float*>(conv.residual)[at];
      static_cast<float*>(conv.out)[at] = y;
      break;
    case STORE_RGB8:
      static_cast<unsigned char*>(conv.out)[at] =
          static_cast<unsigned char>(fminf(fmaxf(fmaf(127.5f, y, 128.0f), 0.0f), 255.0f));
  }
  return to_float(rounded);
}

// Two bf16 beside each other, if `inside`; what became of them, or zeros.
__device__ __forceinline__ float2 store_pair(const Conv& conv, size_t at, float a, float b, bool inside) {
  const bool adds = inside && conv.residual;
  const float2 add =
      unpack_bf16(adds ? *reinterpret_cast<const uint32_t*>(static_cast<const bf16*>(conv.residual) + at) : 0u);
  const uint32_t pair = pack_bf16(a + add.x, b + add.y);
  if (inside) *reinterpret_cast<uint32_t*>(static_cast<bf16*>(conv.out) + at) = pair;
  return unpack_bf16(inside ? pair : 0u);
}

// Sums over the eight lanes 4, 8, .. apart: before, each has its own of COUNT channels, and after, all of channel
// `return value` in v[0]. With fewer than eight channels, lanes have the same ones.
template <int COUNT>
__device__ __forceinline__ int sum_over_columns(float2 (&v)[COUNT]) {
  const int lane = threadIdx.x % WARP;
  int channel = 0, count = COUNT;
#pragma unroll
  for (int distance = WARP / 2; distance >= 4; distance /= 2) {
    const bool upper = (lane & distance) != 0;
    const int kept = count > 1 ? count / 2 : 1;
#pragma unroll
    for (int i = 0; i < kept; i++) {
      // The half of the channels that the other lane keeps goes there; of one channel both keep all.
      const float2 given = count > 1 && !upper ? v[i + kept] : v[i], own = count > 1 && upper ? v[i + kept] : v[i];
      v[i] = make_float2(own.x + __shfl_xor_sync(ALL_LANES, given.x, distance),
                         own.y + __shfl_xor_sync(ALL_LANES, given.y, distance));
    }
    if (count > 1 && upper) channel += kept;
    count = kept;
  }
  return channel;
}

// (mean, variance) by the sums of `count` values and of their squares; `share` is 1 / count.
__device__ __forceinline__ float2 moments_of(float2 sums, float count, float share) {
  // count * squares - sum * sum, the products without their rounding.
  const float product = sums.x * sums.x;
  const float apart = fmaf(count, sums.y, -product) - fmaf(sums.x, sums.x, -product);
  return make_float2(sums.x * share, fmaxf(apart * share * share, 0.0f));
}

// Weights of one tap column and 16 channels: all tap rows, N16 tiles of 16 outputs.
template <class K, class T>
struct Weights {
  uint4 tile[T::N16][K::SIDE];

  // `from`: this lane's part of each tile of outputs, at the stage's beginning.
  __device__ __forceinline__ void load(const bf16* const (&from)[T::N16], int step) {
#pragma unroll
    for (int j = 0; j < T::N16; j++) {
#pragma unroll
      for (int ky = 0; ky < K::SIDE; ky++) tile[j][ky] = load_16(from[j] + (step * K::SIDE + ky) * 256);
    }
  }
};

template <class K, class T, bool GATHER>
__device__ __forceinline__ void conv2d_tile(const Conv& conv) {
  constexpr int STEPS = 2 * K::SIDE;  // of a stage: 16 channels and one tap column each
  constexpr int STAGES = T::HELPED ? 3 : 2;
  DYN_SMEM(smem);
  SMEM_ARRAY(int, origin, [3]);  // of the tile: row, column, channel; kept here because registers are short
  int* places = reinterpret_cast<int*>(smem + STAGES * Stage<K, T>::BYTES);       // of a stage's pixels
  float2* affine = reinterpret_cast<float2*>(places + (Stage<K, T>::PIXELS + 3) / 4 * 4);  // (C)
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  const int warp_n = warp % T::WARPS_N, warp_y = warp / T::WARPS_N;
  const int map_height = conv.height / K::STRIDE, map_width = conv.width / K::STRIDE;
  const int tiles_across = (map_width + TILE_W - 1) / TILE_W;
  const size_t image = blockIdx.z / (K::PHASES * K::PHASES);
  const int chunks = (conv.channels_in + CHUNK - 1) / CHUNK;

  grid_dependency_trigger();
  // Beyond N the last tile's weights are multiplied and not stored.
  const bf16* weights[T::N16];
#pragma unroll
  for (int j = 0; j < T::N16; j++) {
    const int tiles = (conv.channels_out + 15) / 16;
    const int tile = K::phase() * tiles + min(int(blockIdx.y) * T::N / 16 + warp_n * T::N16 + j, tiles - 1);
    weights[j] = conv.weight + (size_t(tile) * chunks * STEPS * K::SIDE * WARP + lane) * 8;
  }
  Weights<K, T> b[2];
  b[0].load(weights, 0);
  {
    const int y = blockIdx.x / tiles_across * T::H, x = blockIdx.x % tiles_across * TILE_W;
    if (threadIdx.x == 0) origin[0] = y, origin[1] = x, origin[2] = blockIdx.y * T::N;
    find_pixels<K, T>(conv, places, y * K::STRIDE - K::BORDER + K::down(), x * K::STRIDE - K::BORDER + K::across());
  }
  __syncthreads();  // `places` and `origin` are whole
  grid_dependency_wait();

  const bf16* x = static_cast<const bf16*>(conv.x) + image * conv.height * conv.width * conv.channels_in;
  const bool copies = T::copier() >= 0;
  const auto stage_of = [&](int chunk) { return smem + chunk % STAGES * Stage<K, T>::BYTES; };
  const auto copy = [&](int chunk) {
    if (chunk < chunks) {
      copy_stage<K, T>(conv, stage_of(chunk), places, x, chunk * CHUNK);
    } else if (T::HELPED) {
      cp_async_commit();  // a group for each stage, also for those beyond the last
    }
  };
  // This thread's copies of it have come when all but its last STAGES - 2 groups have.
  const auto finish = [&](int chunk) {
    cp_async_wait<STAGES - 2>();
    if (chunk < chunks) finish_stage<K, T, GATHER>(conv, stage_of(chunk), places, affine, chunk * CHUNK, image);
  };
  if (!GATHER && copies) copy(0);
  if (conv.stats) {
    for (int c = threadIdx.x; c < chunks * CHUNK; c += T::THREADS) {
      if (c >= conv.channels_in) {
        affine[c] = make_float2(0.0f, 0.0f);
        continue;
      }
      const float* pair = conv.stats + (image * GROUPS + c * GROUPS / conv.channels_in) * 2;
      const float scale = pair[1] * conv.norm_weight[c];
      affine[c] = make_float2(scale, fmaf(-pair[0], scale, conv.norm_bias[c]));
    }
    __syncthreads();
  }

  // Where this lane's pixel of an mma lies, for each tap column, in the warp's first row.
  int pixels[K::SIDE];
#pragma unroll
  for (int kx = 0; kx < K::SIDE; kx++) {
    const int row = warp_y * T::ROWS * K::STRIDE, column = lane % 16 * K::STRIDE + kx;
    pixels[kx] = Stage<K, T>::at(row * Stage<K, T>::W + column, lane / 16);
  }
  float acc[T::ROWS][2 * T::N16][4] = {};
  const auto multiply = [&](const unsigned char* stage) {
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
      b[(step + 1) % 2].load(weights, step + 1);  // behind the last there is one more, of zeros
      const Weights<K, T>& now = b[step % 2];
      const unsigned char* from = stage + (pixels[step % K::SIDE] ^ step / K::SIDE * 32);  // two vectors on
      uint32_t a[4];
#pragma unroll
      for (int i = 0; i < (T::ROWS - 1) * K::STRIDE + K::SIDE; i++) {  // rows that the taps see
        ldmatrix_x4(a, from + i * Stage<K, T>::W * PIXEL);
#pragma unroll
        for (int ky = 0; ky < K::SIDE; ky++) {
          const int row = (i - ky) / K::STRIDE;
          if (i < ky || (i - ky) % K::STRIDE != 0 || row >= T::ROWS) continue;
#pragma unroll
          for (int j = 0; j < T::N16; j++) {
            const uint4 w = now.tile[j][ky];
            mma_m16n8k16_bf16(acc[row][2 * j], a, {w.x, w.y});
            mma_m16n8k16_bf16(acc[row][2 * j + 1], a, {w.z, w.w});
          }
        }
      }
    }
#pragma unroll
    for (int j = 0; j < T::N16; j++) weights[j] += STEPS * K::SIDE * 256;
  };
  if (!T::HELPED) {
    for (int chunk = 0; chunk < chunks; chunk++) {
      finish(chunk);
      __syncthreads();  // the stage is whole, and nobody reads the other one any more
      if (!GATHER) copy(chunk + 1);
      multiply(stage_of(chunk));
    }
  } else {
    if (copies) {
      copy(1);
      finish(0);
    }
    for (int chunk = 0; chunk < chunks; chunk++) {
      __syncthreads();  // the stage is whole, and nobody reads the one before it any more
      if (copies) {
        copy(chunk + 2);
        finish(chunk + 1);
      } else {
        multiply(stage_of(chunk));
      }
    }
    if (copies) return;  // the block has no barrier after this
  }

  const int n_lane = origin[2] + warp_n * 16 * T::N16 + lane % 4 * 2, x_lane = origin[1] + lane / 4;
  float bias[2 * T::N16][2];
#pragma unroll
  for (int j = 0; j < 4 * T::N16; j++) {
    const int n = n_lane + j / 2 * 8 + j % 2;
    bias[j / 2][j % 2] = n < conv.channels_out ? conv.bias[n] : 0.0f;
  }
  const float columns = float(min(TILE_W, map_width - origin[1])), share = __frcp_rn(columns);  // of a patch
#pragma unroll
  for (int pair = 0; pair < T::ROWS; pair += 2) {
    const int y_pair = origin[0] + warp_y * T::ROWS + pair;
    float2 sums[4 * T::N16] = {};  // of this lane's pixels, by channel: values and squares
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int row = pair + i / 2, half = i % 2, y = y_pair + i / 2, x = x_lane + 8 * half;
      const bool on_map = y < map_height && x < map_width;
      const size_t out_row = (image * map_height + y) * K::PHASES + K::down();
      const size_t pixel = (out_row * map_width + x) * K::PHASES + K::across();
#pragma unroll
      for (int j = 0; j < 2 * T::N16; j++) {
        const int n = n_lane + 8 * j;
        const size_t at = pixel * conv.channels_out + n;
        const float low = acc[row][j][2 * half] + bias[j][0], high = acc[row][j][2 * half + 1] + bias[j][1];
        float2 stored = make_float2(0.0f, 0.0f);
        if (T::PAIRS) {
          stored = store_pair(conv, at, low, high, on_map && n < conv.channels_out);
        } else {
          if (on_map && n < conv.channels_out) stored.x = store_output(conv, at, low);
          if (on_map && n + 1 < conv.channels_out) stored.y = store_output(conv, at + 1, high);
        }
        float2 &first = sums[2 * j], &second = sums[2 * j + 1];
        first = make_float2(first.x + stored.x, fmaf(stored.x, stored.x, first.y));
        second = make_float2(second.x + stored.y, fmaf(stored.y, stored.y, second.y));
      }
    }
    if (!conv.moments) continue;
    const int mine = sum_over_columns(sums), n = n_lane + mine / 2 * 8 + mine % 2;
    const bool first_of_its = lane / 4 % (2 / T::N16) == 0;  // of the lanes that have the same sums
    if (!first_of_its || y_pair >= map_height || n >= conv.channels_out) continue;
    const bool two = y_pair + 1 < map_height;  // rows of the patch
    const int rows = (map_height + 1) / 2, patch_row = int(blockIdx.z) * rows + y_pair / 2;  // of all images and phases
    const size_t patch = size_t(patch_row) * tiles_across + origin[1] / TILE_W;
    conv.moments[patch * conv.channels_out + n] =
        moments_of(sums[0], two ? 2.0f * columns : columns, two ? 0.5f * share : share);
  }
}

#define CONV2D(NAME, TAPS, TILE, GATHER)                                                                        \
  extern "C" __global__ void __launch_bounds__(TILE::THREADS, TILE::BLOCKS)                                     \
  NAME(void* out,                 /* (R, H', W', N) */                                                          \
       const void* x,             /* (R, H, W, C) */                                                            \
       const void* residual,      /* (R, H', W', N), may be `out`, or none */                                   \
       const bf16* weight,        /* fragments */                                                               \
       const float* bias,         /* (N) */                                                                     \
       const float* stats,        /* (R, 32, 2), or none */                                                     \
       const float* norm_weight,  /* (C) */                                                                     \
       const float* norm_bias,    /* (C) */                                                                     \
       float2* moments,           /* (R, patches, N), or none */                                                \
       uint32_t height,           /* H */                                                                       \
       uint32_t width,            /* W */                                                                       \
       uint32_t channels_in,      /* C */                                                                       \
       uint32_t channels_out,     /* N */                                                                       \
       uint32_t silu,             /* after the normalization */                                                 \
       uint32_t types) {          /* STORE_BF16, STORE_F32 or STORE_RGB8, and LOAD_F32 */                       \
    conv2d_tile<TAPS, TILE, GATHER>(Conv{out, x, residual, weight, bias, stats, norm_weight, norm_bias, moments, \
                                         int(height), int(width), int(channels_in), int(channels_out), silu, types}); \
  }

CONV2D(conv2d_point_flat, Point, Flat, false)
KERNEL_EXPORT(conv2d_point_flat)
CONV2D(conv2d_point_small, Point, Small, false)
KERNEL_EXPORT(conv2d_point_small)
CONV2D(conv2d_point_gather, Point, Small, true)
KERNEL_EXPORT(conv2d_point_gather)
CONV2D(conv2d_square_large, Square, Large, false)
KERNEL_EXPORT(conv2d_square_large)
CONV2D(conv2d_square_medium, Square, Medium, false)
KERNEL_EXPORT(conv2d_square_medium)
CONV2D(conv2d_square_small, Square, Small, false)
KERNEL_EXPORT(conv2d_square_small)
CONV2D(conv2d_square_thin, Square, Thin, false)
KERNEL_EXPORT(conv2d_square_thin)
CONV2D(conv2d_square_gather, Square, Small, true)
KERNEL_EXPORT(conv2d_square_gather)
CONV2D(conv2d_downsample_wide, Downsample, Wide, false)
KERNEL_EXPORT(conv2d_downsample_wide)
CONV2D(conv2d_downsample_small, Downsample, Small, false)
KERNEL_EXPORT(conv2d_downsample_small)
CONV2D(conv2d_upsample_large, Upsample, Large, false)
KERNEL_EXPORT(conv2d_upsample_large)
CONV2D(conv2d_upsample_medium, Upsample, Medium, false)
KERNEL_EXPORT(conv2d_upsample_medium)
CONV2D(conv2d_upsample_small, Upsample, Small, false)
KERNEL_EXPORT(conv2d_upsample_small)
