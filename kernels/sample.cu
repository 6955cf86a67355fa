// sample.cu
// code = argmax over the kept v of z[v] + g[v]     z = (uncond + (cond - uncond) * cfg_scale) / temperature
// g is Gumbel noise; kept is what top-k and then top-p leave, as graph::ops::cutoff defines it. The code goes to
// `codes`, the draw's rows get it as their token and move on, and so does the draw; the code of a window's draw goes
// to `drawn` alone, for accept.cu to decide.
//
// Everything is exact. Logits are kept as keys, words that order as the numbers do. A filter's threshold is found
// without sorting, in three steps of 11, 11 and 10 bits: what keys weigh (top-k: 1; top-p: their mass in fixed
// point) is summed by their next bits, and the sums from the top down say where the limit is crossed. Sums of whole
// numbers do not depend on the order of the atomic additions.
//
//   shapes   codes (pictures, N)   drawn (grid) or null   rows (R)   draws (grid)   logits (R, V)
//   types    logits: f32; sums: u32 and u64
//   launch   one block per draw, 1024 threads, 4 * (V up to a multiple of 4) + 24 KB of dynamic shared memory: 88 KB
//            for V = 16384
//   needs    V at most what 227 KB hold (51 thousand; 18 thousand where a block has but 99 KB: compute capability
//            8.6 and 8.9); 1 <= top_k, 0 < top_p; no two draws name the same row or place
//                                                                      (checked in backend/cuda/sample.rs)
//   cost     reads V logits per row; bound by the instructions of one multiprocessor. Noise, some 140 of them a
//            code, is made for kept codes alone, 32 at a time: a warp gathers them in a queue. Counts are added by
//            ATOMS.POPC.INC, which takes equal bins of a warp at once; masses as three limbs, as shared memory has
//            64-bit additions by loops of compare-and-swap alone
//   matches  the CPU executor bit for bit, graph::ops::sample::twin but for what lies within a rounding of the
//            threshold (tests/ops/sample.rs)
#include "common.cuh"

constexpr int THREADS = 1024;
constexpr int WARPS = THREADS / WARP;
constexpr int BINS = 2048;  // two for each thread
constexpr int STEPS = 3;
constexpr int LIMBS = 3;
constexpr int LIMB_BITS = 13;  // a sum of fewer than 2^19 limbs fits a word
constexpr int QUEUE = 2 * WARP;
static_assert(WARPS * QUEUE <= LIMBS * BINS, "the queues take the place of the bins");

// Orders as the numbers do; both zeros have one key. Keys of numbers are not 0.
__device__ __forceinline__ uint32_t key_of(float z) {
  const uint32_t bits = __float_as_uint(__fadd_rn(z, 0.0f));
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float number_of(uint32_t key) {
  return __uint_as_float(key & 0x80000000u ? key ^ 0x80000000u : ~key);
}
constexpr uint32_t LOWEST_KEY = 0x007fffffu;  // of minus infinity

// `mass` of graph/ops/sample.rs.
__device__ __forceinline__ uint64_t mass_of(uint32_t key, float largest) {
  const float power = exp_(__fsub_rn(number_of(key), largest));
  return power > 0.0f ? static_cast<uint64_t>(__fmul_rn(power, 274877906944.0f)) : 0;  // 2^38
}

// What the block's threads share beside the keys and the bins.
struct Found {
  uint32_t bin[2 * STEPS];    // of each step of each filter; BINS: there is none
  uint64_t above[2 * STEPS];  // what the keys above that bin weigh
};

// keys[:] = keys of the guided logits. Returns whether the thread met one that is no number.
template <bool GUIDED>
__device__ __forceinline__ bool guide(uint32_t* keys, uint32_t& largest, const float* cond, const float* uncond,
                                      const Draw& draw, uint32_t vocab_size) {
  constexpr int BATCH = 8;  // logits that a thread asks for at once: 64 KB of the block's, enough to hide the latency
  bool no_number = false;
  for (uint32_t first = threadIdx.x; first < vocab_size; first += BATCH * THREADS) {
    float z[BATCH], u[BATCH];
#pragma unroll
    for (int i = 0; i < BATCH; i++) {
      const uint32_t v = min(first + i * THREADS, vocab_size - 1);  // the last again does no harm
      z[i] = cond[v];
      if (GUIDED) u[i] = uncond[v];
    }
    if (GUIDED) {
#pragma unroll
      for (int i = 0; i < BATCH; i++) z[i] = __fmaf_rn(__fsub_rn(z[i], u[i]), draw.cfg_scale, u[i]);
    }
    if (draw.temperature != 1.0f) {
#pragma unroll
      for (int i = 0; i < BATCH; i++) z[i] = __fdiv_rn(z[i], draw.temperature);
    }
#pragma unroll
    for (int i = 0; i < BATCH; i++) {
      const uint32_t v = first + i * THREADS, key = key_of(z[i]);
      no_number |= z[i] != z[i];
      largest = max(largest, key);
      if (v < vocab_size) keys[v] = key;
    }
  }
  return no_number;
}

// Inclusive sum over the lanes up to this one.
__device__ __forceinline__ uint64_t warp_scan(uint64_t x) {
#pragma unroll
  for (uint32_t distance = 1; distance < WARP; distance *= 2) {
    const uint64_t other = __shfl_up_sync(ALL_LANES, x, distance);
    if (threadIdx.x % WARP >= distance) x += other;
  }
  return x;
}

// The key at which what the keys weigh, summed from the largest down, first exceeds the limit; 0 where it never
// does. MASS: by mass, those below `least` nothing, and the limit is `top_p` of all; else each weighs 1. The bins
// are zero before and after.
template <bool MASS>
__device__ __forceinline__ uint32_t threshold(const uint4* keys, uint32_t quads, uint32_t* bins, uint64_t* totals,
                                              Found& found, uint64_t limit, uint32_t least, float largest,
                                              float top_p) {
  const uint32_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  uint32_t prefix = 0;
  uint64_t above = 0;
#pragma unroll 1
  for (int step = 0; step < STEPS; step++) {
    const int shift = step == 0 ? 21 : step == 1 ? 10 : 0, width = step == 2 ? 10 : 11;
#pragma unroll 1
    for (uint32_t i = threadIdx.x; i < quads; i += THREADS) {
      const uint4 quad = keys[i];
      const uint32_t four[4] = {quad.x, quad.y, quad.z, quad.w};
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const uint32_t key = four[j];
        if (step > 0 && key >> (shift + width) != prefix) continue;
        const uint32_t bin = (key >> shift) & ((1u << width) - 1);
        if (!MASS) {
          atomicAdd(&bins[bin], 1u);
        } else if (key >= least) {
          const uint64_t mass = mass_of(key, largest);
#pragma unroll
          for (int limb = 0; limb < LIMBS; limb++) {
            const uint32_t part = static_cast<uint32_t>(mass >> (limb * LIMB_BITS)) & ((1u << LIMB_BITS) - 1);
            if (part) atomicAdd(&bins[limb * BINS + bin], part);
          }
        }
      }
    }
    __syncthreads();  // the bins are full

    // From the top down a thread has the bins `high` and `high - 1`.
    const uint32_t high = BINS - 1 - 2 * threadIdx.x;
    uint64_t weight[2] = {};
#pragma unroll
    for (int limb = 0; limb < (MASS ? LIMBS : 1); limb++) {
      uint2* pair = reinterpret_cast<uint2*>(bins + limb * BINS + high - 1);
      weight[0] += static_cast<uint64_t>(pair->y) << (limb * LIMB_BITS);
      weight[1] += static_cast<uint64_t>(pair->x) << (limb * LIMB_BITS);
      *pair = make_uint2(0, 0);
    }
    const uint64_t both = weight[0] + weight[1], upto = warp_scan(both);
    if (lane == WARP - 1) totals[warp] = upto;
    __syncthreads();  // the warps' totals are there
    const uint64_t warps = warp_scan(totals[lane]);
    const uint64_t before = __shfl_sync(ALL_LANES, warps, warp == 0 ? 0 : warp - 1);
    if (MASS && step == 0) {
      const uint64_t total = __shfl_sync(ALL_LANES, warps, WARP - 1);
      limit = static_cast<uint64_t>(static_cast<double>(top_p) * static_cast<double>(total));
    }
    uint64_t sum = above + (warp == 0 ? 0 : before) + upto - both;
#pragma unroll
    for (int i = 0; i < 2; i++) {
      if (sum <= limit && sum + weight[i] > limit) {
        found.bin[MASS * STEPS + step] = high - i;
        found.above[MASS * STEPS + step] = sum;
      }
      sum += weight[i];
    }
    __syncthreads();  // the bin is found
    const uint32_t bin = found.bin[MASS * STEPS + step];
    if (bin == BINS) return 0;
    prefix = prefix << width | bin;
    above = found.above[MASS * STEPS + step];
  }
  return prefix;
}

// The best score of a lane and the code that has it, the lowest of equals: the larger (score, ~code) wins.
struct Best {
  uint32_t score, code_not;

  __device__ __forceinline__ void meet(uint32_t other_score, uint32_t other_code_not) {
    if (other_score > score || (other_score == score && other_code_not > code_not)) {
      score = other_score, code_not = other_code_not;
    }
  }

  // The best of the warp, in every lane.
  __device__ __forceinline__ void reduce() {
    const uint32_t top = __reduce_max_sync(ALL_LANES, score);
    code_not = __reduce_max_sync(ALL_LANES, score == top ? code_not : 0u);
    score = top;
  }
};

// The best of the warp's codes with keys from `least` up.
__device__ __forceinline__ Best pick(const uint32_t* keys, uint32_t* queue, const Draw& draw, uint32_t least,
                                     uint32_t vocab_size) {
  const uint32_t lane = threadIdx.x % WARP;
  Best best = {LOWEST_KEY, 0xffffffffu};  // no code is better with minus infinity
  const auto score = [&](uint32_t v) {
    float noise = 0.0f;
    if (draw.greedy != 1) {
      const uint4 bits = draw_bits(draw.seed, draw.image, draw.token, v / 4);
      const uint32_t low = v % 2 == 0 ? bits.x : bits.y, high = v % 2 == 0 ? bits.z : bits.w;
      noise = gumbel_of(v % 4 < 2 ? low : high);
    }
    best.meet(key_of(__fadd_rn(number_of(keys[v]), noise)), ~v);
  };
  uint32_t begin = 0, end = 0;  // of the queue; places are counted on
  uint32_t first = threadIdx.x - lane;
  while (first < vocab_size || begin < end) {
    if (first < vocab_size) {
      const uint32_t v = first + lane;
      const bool kept = v < vocab_size && keys[v] >= least;
      const uint32_t all = __ballot_sync(ALL_LANES, kept);
      if (kept) queue[(end + __popc(all & ((1u << lane) - 1))) % QUEUE] = v;
      end += __popc(all);
      first += THREADS;
      __syncwarp();
    }
    if (end - begin >= WARP || first >= vocab_size) {
      const uint32_t count = min(end - begin, uint32_t(WARP));
      if (lane < count) score(queue[(begin + lane) % QUEUE]);
      begin += count;
      __syncwarp();  // its places may be written again
    }
  }
  best.reduce();
  return best;
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
sample(uint32_t* codes,         // (pictures, N); may be the host's memory
       uint32_t* drawn,         // (grid) or null
       Row* rows,               // (R)
       Draw* draws,             // (grid)
       const float* logits,     // (R, V)
       uint32_t vocab_size,     // V
       uint32_t tokens) {       // N
  DYN_SMEM(shared);
  SMEM_ARRAY(uint64_t, totals, [WARPS]);
  SMEM_ARRAY(uint32_t, tops, [WARPS]);
  SMEM_ARRAY(Best, bests, [WARPS]);
  SMEM_ARRAY(Found, found, [1]);
  SMEM_ARRAY(Draw, own, [1]);  // not in registers, which the loads of the logits want
  grid_dependency_trigger();
  grid_dependency_wait();
  if (draws[blockIdx.x].cond_row == NO_ROW) return;

  const uint32_t quads = (vocab_size + 3) / 4, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  uint32_t* const keys = reinterpret_cast<uint32_t*>(shared);
  uint32_t* const bins = keys + 4 * quads;
  for (uint32_t i = threadIdx.x; i < LIMBS * BINS; i += THREADS) bins[i] = 0;
  if (threadIdx.x < 2 * STEPS) found[0].bin[threadIdx.x] = BINS;
  if (vocab_size + threadIdx.x < 4 * quads) keys[vocab_size + threadIdx.x] = 0;
  if (threadIdx.x == 0) own[0] = draws[blockIdx.x];
  __syncthreads();  // the draw is there
  const Draw& draw = own[0];
  const float* cond = logits + size_t(draw.cond_row) * vocab_size;
  const float* uncond = logits + size_t(draw.uncond_row) * vocab_size;
  uint32_t largest = 0;
  const bool ended = draw.guidance_end != 0 && draw.token >= draw.guidance_end;
  const bool no_number = draw.uncond_row == NO_ROW || ended
                             ? guide<false>(keys, largest, cond, uncond, draw, vocab_size)
                             : guide<true>(keys, largest, cond, uncond, draw, vocab_size);
  largest = __reduce_max_sync(ALL_LANES, largest);
  if (lane == 0) tops[warp] = largest;
  const bool numbers = !__syncthreads_or(no_number);  // keys, bins and maxima are there

  uint32_t code = NO_CODE;
  if (numbers) {
    uint32_t least = 1;
    if (draw.greedy != 1 && draw.top_k < vocab_size) {
      least = threshold<false>(reinterpret_cast<const uint4*>(keys), quads, bins, totals, found[0], draw.top_k - 1, 1,
                               0.0f, 1.0f);
    }
    if (draw.greedy != 1 && draw.top_p < 1.0f) {
      const float top = number_of(__reduce_max_sync(ALL_LANES, tops[lane]));
      least = max(least, threshold<true>(reinterpret_cast<const uint4*>(keys), quads, bins, totals, found[0], 0, least,
                                         top, draw.top_p));
    }
    Best best = pick(keys, bins + warp * QUEUE, draw, least, vocab_size);
    if (lane == 0) bests[warp] = best;
    __syncthreads();  // the warps' best are there
    if (warp == 0) {
      best = bests[lane];
      best.reduce();
      if (best.score > LOWEST_KEY) code = ~best.code_not;
    }
  }
  if (threadIdx.x != 0) return;
  if (drawn) {
    drawn[blockIdx.x] = code;
    return;
  }
  codes[size_t(draw.picture) * tokens + draw.token] = code;
  const uint32_t moved[2] = {draw.cond_row, draw.uncond_row};
#pragma unroll
  for (int i = 0; i < 2; i++) {
    if (moved[i] == NO_ROW) continue;
    rows[moved[i]].token = code == NO_CODE ? 0 : code;  // what is no number has no code; the rows go on harmlessly
    rows[moved[i]].settled = ++rows[moved[i]].position;
  }
  draws[blockIdx.x].token = draw.token + 1;
}
KERNEL_EXPORT(sample)
