// common.cuh
// The one header that kernels include: types and their conversions, reductions, the functions
// that have one definition for every executor, noise, and the two tables that a step is driven by.
#pragma once

#include "ptx.cuh"

using bf16 = __nv_bfloat16;

constexpr int WARP = 32;
constexpr uint32_t ALL_LANES = 0xffffffffu;

// ---- types -----------------------------------------------------------------------------------------------

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __bfloat162float(x); }

// To the nearest value of T, ties to even.
template <typename T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ bf16 from_float<bf16>(float x) {
  return __float2bfloat16_rn(x);
}

// Two bf16 in a word, `low` at the lower address: one instruction.
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

__device__ __forceinline__ float2 unpack_bf16(uint32_t pair) {
  return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
}

// ---- reductions: fixed trees, so that the bits of a sum depend on its terms alone ---------------------------

// Sum over the warp, the same in every lane. All lanes take part.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int distance = WARP / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(ALL_LANES, x, distance);
  return x;
}

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int distance = WARP / 2; distance > 0; distance /= 2) {
    x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, distance));
  }
  return x;
}

// Over the four lanes that have parts of one row of an mma's result.
__device__ __forceinline__ float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 1));
  return fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 2));
}
__device__ __forceinline__ float quad_sum(float x) {
  x += __shfl_xor_sync(ALL_LANES, x, 1);
  return x + __shfl_xor_sync(ALL_LANES, x, 2);
}

// Sum over a block of THREADS (in x), the same in every thread. `scratch` (THREADS / 32) is shared memory; it
// may be used again at once.
template <int THREADS>
__device__ __forceinline__ float block_sum(float x, float* scratch) {
  static_assert(THREADS % WARP == 0, "whole warps");
  x = warp_sum(x);
  if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = x;
  __syncthreads();
  float sum = scratch[0];
#pragma unroll
  for (int warp = 1; warp < THREADS / WARP; warp++) sum += scratch[warp];
  __syncthreads();  // all have read: the next use may write
  return sum;
}

template <int THREADS>
__device__ __forceinline__ float block_max(float x, float* scratch) {
  static_assert(THREADS % WARP == 0, "whole warps");
  x = warp_max(x);
  if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = x;
  __syncthreads();
  float largest = scratch[0];
#pragma unroll
  for (int warp = 1; warp < THREADS / WARP; warp++) largest = fmaxf(largest, scratch[warp]);
  __syncthreads();  // all have read: the next use may write
  return largest;
}

// ---- functions with one definition for every executor: src/math.rs, operation by operation ------------------
// The intrinsics keep the compiler from fusing what is not fused there. tests/device_math.rs compares bits.

// e^x for x <= 88; relative error below 2 ulp; 0 below -87.3 (no subnormal results).
__device__ __forceinline__ float exp_(float x) {
  constexpr float ROUND = 12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest integer
  const float clamped = x < -87.3f ? -87.3f : x > 88.0f ? 88.0f : x;
  const float rounded = __fmaf_rn(clamped, 1.44269504088896340736f, ROUND);
  const float n = __fsub_rn(rounded, ROUND);
  const float r = __fmaf_rn(n, 2.1219444e-4f, __fmaf_rn(n, -355.0f / 512.0f, clamped));
  float p = __fmaf_rn(1.984127e-4f, r, 1.3888889e-3f);
  p = __fmaf_rn(p, r, 8.333334e-3f);
  p = __fmaf_rn(p, r, 4.1666668e-2f);
  p = __fmaf_rn(p, r, 1.6666667e-1f);
  p = __fmaf_rn(p, r, 0.5f);
  p = __fmaf_rn(p, r, 1.0f);
  p = __fmaf_rn(p, r, 1.0f);
  const float power = __uint_as_float((__float_as_uint(rounded) << 23) + (127u << 23));
  return x < -87.3f ? 0.0f : __fmul_rn(p, power);
}

// Natural logarithm of a positive normal x; relative error below 4 ulp, absolute below 1e-7 near 1.
__device__ __forceinline__ float ln_(float x) {
  const uint32_t bits = __float_as_uint(x) - 0x3f3504f3u;
  const float e = static_cast<float>(static_cast<int32_t>(bits) >> 23);
  const float m = __uint_as_float((bits & 0x007fffffu) + 0x3f3504f3u);
  const float s = __fdiv_rn(__fsub_rn(m, 1.0f), __fadd_rn(m, 1.0f));
  const float t = __fmul_rn(s, s);
  float p = __fmaf_rn(0.22222222f, t, 0.2857143f);
  p = __fmaf_rn(p, t, 0.4f);
  p = __fmaf_rn(p, t, 0.6666667f);
  const float tail = __fmul_rn(__fmul_rn(s, t), p);
  return __fmaf_rn(e, 355.0f / 512.0f, __fmaf_rn(s, 2.0f, __fmaf_rn(e, -2.1219444e-4f, tail)));
}

// ln(1 - u) for u in (0, 1 - 2^-24]; exact to a few ulp also where u is tiny.
__device__ __forceinline__ float ln_1m(float u) {
  const float w = __fsub_rn(1.0f, u);
  const float lost = __fsub_rn(__fsub_rn(1.0f, w), u);
  return __fadd_rn(ln_(w), __fdiv_rn(lost, w));
}

// x * sigmoid(x).
__device__ __forceinline__ float silu(float x) { return __fdiv_rn(x, __fadd_rn(1.0f, exp_(-x))); }

// GELU by its tanh form, as x * sigmoid of twice the tanh's argument.
__device__ __forceinline__ float gelu_tanh(float x) {
  const float twice = __fmul_rn(x, __fmaf_rn(__fmul_rn(x, x), 0.07135482f, 1.5957692f));
  return __fdiv_rn(x, __fadd_rn(1.0f, exp_(-twice)));
}

// ---- noise: graph::ops::sample ------------------------------------------------------------------------------

// Philox-4x32-10.
__device__ __forceinline__ uint4 philox(uint4 counter, uint64_t seed) {
  uint32_t low = static_cast<uint32_t>(seed), high = static_cast<uint32_t>(seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const uint64_t a = static_cast<uint64_t>(counter.x) * 0xD2511F53u;
    const uint64_t b = static_cast<uint64_t>(counter.z) * 0xCD9E8D57u;
    counter = make_uint4(static_cast<uint32_t>(b >> 32) ^ counter.y ^ low, static_cast<uint32_t>(b),
                         static_cast<uint32_t>(a >> 32) ^ counter.w ^ high, static_cast<uint32_t>(a));
    low += 0x9E3779B9u;
    high += 0xBB67AE85u;
  }
  return counter;
}

// Gumbel noise from 32 random bits.
__device__ __forceinline__ float gumbel_of(uint32_t bits) {
  constexpr float SCALE = 1.0f / 4294967296.0f, LARGEST = 16777215.0f / 16777216.0f;
  const float u = __fmul_rn(__fadd_rn(__uint2float_rn(bits), 0.5f), SCALE);
  return -ln_(-ln_1m(u < LARGEST ? u : LARGEST));
}

// Random bits of the codes 4 * quad .. 4 * quad + 3 of one draw.
__device__ __forceinline__ uint4 draw_bits(uint64_t seed, uint64_t image, uint32_t token, uint32_t quad) {
  const uint32_t low = static_cast<uint32_t>(image), high = static_cast<uint32_t>(image >> 32);
  return philox(make_uint4(quad, token, low, high), seed);
}

// ---- the tables of src/graph/state.rs -----------------------------------------------------------------------

constexpr uint32_t NO_ROW = 0xffffffffu;   // Draw::cond_row: padding, to be skipped; uncond_row: no guidance
constexpr uint32_t NO_SLOT = 0xffffffffu;  // Row::slot: padding, to be skipped
constexpr uint32_t NO_CODE = 0xffffffffu;  // stands in `codes` for a draw from logits that are not numbers

// One row of a step: the token at `position` of the sequence in `slot`.
struct alignas(16) Row {
  uint32_t slot;
  uint32_t position;  // 0 is the condition (its cache row is the prefix row), 1 + t the image token t
  uint32_t token;     // the class label at position 0, the code at any other
  uint32_t settled;   // rows of the slot's cache that no launch of the run writes; fewer may be said
};

// One token to draw.
struct alignas(16) Draw {
  uint64_t seed;
  uint64_t image;
  uint32_t cond_row;
  uint32_t uncond_row;
  uint32_t token;    // 0..N-1 within the picture
  uint32_t picture;  // row of `codes`
  float cfg_scale;
  float temperature;
  float top_p;
  uint32_t top_k;
  uint32_t greedy;        // 1: no noise
  uint32_t guidance_end;  // token from which on nothing is guided; 0: guidance goes on to the end
  uint32_t window;        // at the first draw of a window, how many it has; else 0
  uint32_t guess;         // how what nobody has drawn yet is guessed: accept.cu
};

static_assert(sizeof(Row) == 16 && sizeof(Draw) == 64, "the host's layout");
static_assert(offsetof(Draw, cond_row) == 16 && offsetof(Draw, cfg_scale) == 32 && offsetof(Draw, greedy) == 48,
              "the host's layout");
