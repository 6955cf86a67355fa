// attention.cu
// out[r, h, :] = sum over j of softmax_j(scale * q[r, h] . k[j, h] + prefix_j) v[j, h, :]     j in 0..=position[r]
// prefix_0 = prefix_log_n[slot], the others 0; k and v are the rows of the cache of the row's slot.
//
// Keys are cut into parts of 32 * WARPS (256 for D = 64, else 128) at fixed positions, wherever a row ends, so
// what a row gives depends on its query and its cache alone. A block takes one part of one row and head, a warp 32
// keys of it. One pass: the last block of a row and head to arrive finds the others' (max, sum, mix) in `partials`
// and merges them in ascending order; a row of one part is its own merge, by the same operations.
//
//   shapes   out, q (R, C = H * D)   k, v (B, H, S, D) of one layer   rows (R)   prefix_log_n (B)
//            partials (R, H, ceil(S / part), D + 2): mix, max, sum     counters (R, H): zero before and after
//   types    k, v: bf16; q, prefix_log_n, partials: f32; out: bf16 or f32; sums in f32
//   launch   grid (R * ceil(S / part), H), 32 * WARPS threads, WARPS * (4 * D + 128 * stride) bytes of dynamic
//            shared memory; blocks behind the row's position end. A row's parts come one after the other: those at
//            its end have few keys or none, and run beside full ones rather than all at last. The rows of one slot,
//            which read the same cache, run side by side
//   needs    D = 64, 100, 128 for the instances of that name, else D divisible by 4 and at most 256; positions below S
//            (checked in backend/cuda/attention.rs); at most 188 where a block has but 99 KB of shared memory: compute
//            capability 8.6 and 8.9, whose driver refuses more
//   cost     reads 4 * D bytes per row, head and key; bound by bandwidth when R * H blocks fill the device
//   flight   a warp asks for all its keys and values at once, without a register: a block has 64 KB under way
//            (D = 64; 50 KB at 100, 64 KB at 128), and three or four blocks fit a multiprocessor. 4.3 TB/s over
//            132 of them at a latency of 1 us asks for 33 KB each. With one image (24 to 64 pairs of row and head)
//            there is a block a multiprocessor at most, and the latency is paid once, not once per key: by all warps
//            but those at the row's end while the launch before this one is still at work (Row::settled)
//   scores   a lane takes a whole key: no shuffles, and each exponential is computed once. Rows in shared memory
//            are an odd number of loads apart, so that no two lanes of a load meet in a bank
//   matches  graph::ops::attention::twin; tolerance and why: tests/ops/attention.rs
#include "common.cuh"

// VECTOR neighbouring bf16, one load of 16 or 8 bytes.
template <int VECTOR>
__device__ __forceinline__ void load_bf16(float (&x)[VECTOR], const bf16* p) {
  uint32_t pairs[VECTOR / 2];
  if constexpr (VECTOR == 8) {
    const uint4 raw = load_16(p);
    pairs[0] = raw.x, pairs[1] = raw.y, pairs[2] = raw.z, pairs[3] = raw.w;
  } else {
    const uint2 raw = load_8(p);
    pairs[0] = raw.x, pairs[1] = raw.y;
  }
#pragma unroll
  for (int i = 0; i < VECTOR / 2; i++) {
    const float2 pair = unpack_bf16(pairs[i]);
    x[2 * i] = pair.x, x[2 * i + 1] = pair.y;
  }
}

// A kind of heads: D (0: an argument says it), the channels of a load, the warps of a block.
template <int D, int VECTOR_, int WARPS_>
struct Heads {
  static constexpr int HEAD_DIM = D, VECTOR = VECTOR_, WARPS = WARPS_, THREADS = WARPS * WARP;
  static constexpr int PART = WARPS * WARP;                            // keys
  static constexpr int LANES = D == 64 ? 8 : D == 128 ? 16 : WARP;     // that read one row of v together
  static constexpr int CHUNKS = D ? 1 : 2;                             // loads of each of them
  static_assert(D == 0 || LANES * VECTOR >= D, "a row of v is read at once");
};

// A warp's 32 rows of the cache, from `from`, into shared memory; beyond `count` zeros.
template <class K>
__device__ __forceinline__ void copy_rows(bf16* to, const bf16* from, uint32_t count, uint32_t head_dim,
                                          uint32_t stride) {
  if constexpr (K::HEAD_DIM / K::VECTOR % 2 == 1) {
    // Rows lie side by side there as here: one stretch, and no row and column of a load to be found.
    constexpr uint32_t LOADS = K::HEAD_DIM / K::VECTOR;
    static_assert(K::VECTOR == 4, "copies of 8 bytes");
#pragma unroll 5
    for (uint32_t i = 0; i < LOADS; i++) {
      const uint32_t load = i * WARP + threadIdx.x % WARP;
      cp_async_8(to + load * K::VECTOR, from + load * K::VECTOR, load < count * LOADS ? 8 : 0);
    }
  } else if constexpr (K::HEAD_DIM != 0) {
    // As many rows at a time as loads of the warp fill.
    constexpr uint32_t LOADS = K::HEAD_DIM / K::VECTOR, ROWS = WARP / LOADS;
    static_assert(K::VECTOR == 8 && WARP % LOADS == 0, "copies of 16 bytes, whole rows");
    const uint32_t lane = threadIdx.x % WARP, row = lane / LOADS;
    to += row * stride + lane % LOADS * K::VECTOR, from += lane * K::VECTOR;
#pragma unroll
    for (uint32_t i = 0; i < LOADS; i++) {
      cp_async_16(to + i * ROWS * stride, from + i * WARP * K::VECTOR, i * ROWS + row < count ? 16 : 0);
    }
  } else {
    const uint32_t loads = head_dim / K::VECTOR;
#pragma unroll 8
    for (uint32_t i = threadIdx.x % WARP; i < WARP * loads; i += WARP) {
      const uint32_t row = i / loads;
      cp_async_8(to + row * stride + i % loads * K::VECTOR, from + i * K::VECTOR, row < count ? 8 : 0);
    }
  }
}

// q . k for the lane's key.
template <class K>
__device__ __forceinline__ float product(const float* q, const bf16* key, uint32_t head_dim) {
  float sums[4] = {};  // four chains of multiply-adds: one alone would wait for itself
#pragma unroll 8
  for (uint32_t at = 0; at < head_dim; at += K::VECTOR) {
    float k[K::VECTOR];
    load_bf16(k, key + at);
#pragma unroll
    for (int i = 0; i < K::VECTOR; i += 4) {
      const float4 x = *reinterpret_cast<const float4*>(q + at + i);
      sums[0] = __fmaf_rn(x.x, k[i], sums[0]);
      sums[1] = __fmaf_rn(x.y, k[i + 1], sums[1]);
      sums[2] = __fmaf_rn(x.z, k[i + 2], sums[2]);
      sums[3] = __fmaf_rn(x.w, k[i + 3], sums[3]);
    }
  }
  return __fadd_rn(__fadd_rn(sums[0], sums[1]), __fadd_rn(sums[2], sums[3]));
}

// mix[:] = sum over the warp's keys of weight * v, the weight of key i in lane i.
template <class K>
__device__ __forceinline__ void mix_values(float* mix, float weight, const bf16* values, uint32_t head_dim,
                                           uint32_t stride) {
  constexpr int GROUPS = WARP / K::LANES;  // keys read at once
  const uint32_t lane = threadIdx.x % WARP, group = lane / K::LANES;
#pragma unroll
  for (int chunk = 0; chunk < K::CHUNKS; chunk++) {
    const uint32_t column = (chunk * K::LANES + lane % K::LANES) * K::VECTOR;
    const bool inside = column < head_dim;
    float sum[K::VECTOR] = {};
#pragma unroll 8
    for (int i = 0; i < WARP; i += GROUPS) {
      const float w = __shfl_sync(ALL_LANES, weight, i + group);
      float v[K::VECTOR];
      load_bf16(v, values + (i + group) * stride + (inside ? column : 0));
#pragma unroll
      for (int c = 0; c < K::VECTOR; c++) sum[c] = __fmaf_rn(w, v[c], sum[c]);
    }
#pragma unroll
    for (int distance = K::LANES; distance < WARP; distance *= 2) {
#pragma unroll
      for (int c = 0; c < K::VECTOR; c++) {
        sum[c] = __fadd_rn(sum[c], __shfl_xor_sync(ALL_LANES, sum[c], distance));
      }
    }
    if (inside && group == 0) {
#pragma unroll
      for (int c = 0; c < K::VECTOR; c += 4) {
        *reinterpret_cast<float4*>(mix + column + c) = make_float4(sum[c], sum[c + 1], sum[c + 2], sum[c + 3]);
      }
    }
  }
}

__device__ __forceinline__ void store(void* out, uint32_t out_bf16, size_t at, float x) {
  if (out_bf16) {
    static_cast<bf16*>(out)[at] = from_float<bf16>(x);
  } else {
    static_cast<float*>(out)[at] = x;
  }
}

// A part's result, of one of its channels.
struct Partial {
  float max = -INFINITY, sum, mix;

  static __device__ __forceinline__ Partial load(const float* all, uint32_t part, uint32_t head_dim, uint32_t channel) {
    const float* at = all + part * (head_dim + 2);
    Partial partial;
    partial.max = at[head_dim], partial.sum = at[head_dim + 1], partial.mix = at[channel];
    return partial;
  }
};

// Rows of the cache that a warp leaves between its own and the first that this run writes, if it reads before the wait.
// Memory comes by 32 bytes, and a row has 8 at least: so none of that row's bytes come along with the last of its own.
// (Before row 0 lies the last row of another head, which no run writes.) Copies of 8 bytes pass through the first-level
// cache. What that had of rows before they were written it has forgotten since: the first launch of this run overlapped
// with nothing before it.
constexpr uint32_t UNSETTLED_MARGIN = 8;

// A row of the table before the wait: it is as it was before the run, until tokens are drawn.
__device__ __forceinline__ Row settled_row(const Row* row) {
  const uint4 raw = load_16_from_l2(row);
  return {raw.x, raw.y, raw.z, raw.w};
}

template <class K>
__device__ __forceinline__ void attention_body(void* out, float* partials, uint32_t* counters, const float* q,
                                               const bf16* k_cache, const bf16* v_cache, const Row* rows,
                                               const float* prefix_log_n, uint32_t positions, uint32_t head_dim,
                                               float scale, uint32_t out_bf16) {
  DYN_SMEM(shared);
  SMEM_ARRAY(float, maxima, [K::WARPS]);
  SMEM_ARRAY(float, sums, [K::WARPS]);
  SMEM_ARRAY(uint32_t, arrived, [1]);
  grid_dependency_trigger();
  const uint32_t most_parts = (positions + K::PART - 1) / K::PART;
  const uint32_t r = blockIdx.x / most_parts, part = blockIdx.x % most_parts;
  const Row row = settled_row(rows + r);
  const uint32_t parts = row.position / K::PART + 1;
  if (row.slot == NO_SLOT || part >= parts) {
    grid_dependency_wait();  // so that this launch does not end before the one ahead of it, whatever its blocks do
    return;
  }

  if (K::HEAD_DIM) head_dim = K::HEAD_DIM;
  const uint32_t heads = gridDim.y, head = blockIdx.y, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  const uint32_t stride = (head_dim / K::VECTOR | 1) * K::VECTOR;
  const size_t pair = size_t(r) * heads + head;
  // The warp's: q (D) f32, keys and values (32, stride) bf16. The mix of its values takes the place of the keys.
  const uint32_t room = 4 * head_dim + 4 * WARP * stride;
  float* const own_q = reinterpret_cast<float*>(shared + warp * room);
  bf16* const own_keys = reinterpret_cast<bf16*>(own_q + head_dim);
  bf16* const own_values = own_keys + WARP * stride;

  const uint32_t first = part * K::PART + warp * WARP;  // the warp's keys
  const uint32_t end = row.position + 1, count = first < end ? min(end - first, uint32_t(WARP)) : 0;
  const size_t from = ((size_t(row.slot) * heads + head) * positions + first) * head_dim;
  const bool early = first + WARP + UNSETTLED_MARGIN <= row.settled;
  if (early) {
    copy_rows<K>(own_keys, k_cache + from, count, head_dim, stride);
    copy_rows<K>(own_values, v_cache + from, count, head_dim, stride);
  }
  grid_dependency_wait();
  float score = -INFINITY;
  if (count) {
    for (uint32_t c = 4 * lane; c < head_dim; c += 4 * WARP) cp_async_16(own_q + c, q + pair * head_dim + c);
    if (!early) copy_rows<K>(own_keys, k_cache + from, count, head_dim, stride);
    cp_async_commit();
    if (!early) copy_rows<K>(own_values, v_cache + from, count, head_dim, stride);
    cp_async_commit();
    const float prefix = first + lane == 0 ? prefix_log_n[row.slot] : 0.0f;
    cp_async_wait<1>();
    __syncwarp();
    if (lane < count) {
      score = __fadd_rn(__fmul_rn(product<K>(own_q, own_keys + lane * stride, head_dim), scale), prefix);
    }
    const float largest = warp_max(score);
    if (lane == 0) maxima[warp] = largest;
  }
  __syncthreads();  // the block's maximum is there
  const uint32_t active = min((end - part * K::PART + WARP - 1) / WARP, uint32_t(K::WARPS));
  float largest = maxima[0];
  for (uint32_t w = 1; w < active; w++) largest = fmaxf(largest, maxima[w]);
  if (count) {
    const float weight = lane < count ? exp_(__fsub_rn(score, largest)) : 0.0f;
    const float sum = warp_sum(weight);
    if (lane == 0) sums[warp] = sum;
    cp_async_wait<0>();
    __syncwarp();
    mix_values<K>(reinterpret_cast<float*>(own_keys), weight, own_values, head_dim, stride);
  }
  __syncthreads();  // the warps' sums are there

  float sum = sums[0];
  for (uint32_t w = 1; w < active; w++) sum = __fadd_rn(sum, sums[w]);
  float* const all = partials + pair * most_parts * (head_dim + 2);
  float* const partial = all + part * (head_dim + 2);
  for (uint32_t c = threadIdx.x; c < head_dim; c += K::THREADS) {
    const float* mixes = reinterpret_cast<const float*>(shared) + head_dim + c;
    float mix = mixes[0];
    for (uint32_t w = 1; w < active; w++) mix = __fadd_rn(mix, mixes[w * (room / 4)]);
    if (parts == 1) {
      store(out, out_bf16, pair * head_dim + c, __fdiv_rn(mix, sum));
    } else {
      partial[c] = mix;
    }
  }
  if (parts == 1) return;
  if (threadIdx.x == 0) partial[head_dim] = largest, partial[head_dim + 1] = sum;

  __syncthreads();  // the partial is written
  if (threadIdx.x == 0) arrived[0] = count_in(&counters[pair]);
  __syncthreads();  // the others' partials are there
  if (arrived[0] + 1 < parts) return;
  if (threadIdx.x == 0) counters[pair] = 0;
  for (uint32_t c = threadIdx.x; c < head_dim; c += K::THREADS) {
    // What most rows have is asked for at once.
    constexpr uint32_t HELD = 8;
    Partial held[HELD];
#pragma unroll
    for (uint32_t p = 0; p < HELD; p++) held[p] = p < parts ? Partial::load(all, p, head_dim, c) : Partial{};
    float top = -INFINITY;
#pragma unroll
    for (uint32_t p = 0; p < HELD; p++) top = fmaxf(top, held[p].max);
    for (uint32_t p = HELD; p < parts; p++) top = fmaxf(top, Partial::load(all, p, head_dim, c).max);
    float mix = 0.0f, total = 0.0f;
    auto add = [&](const Partial& partial) {
      const float share = exp_(__fsub_rn(partial.max, top));
      mix = __fmaf_rn(share, partial.mix, mix);
      total = __fmaf_rn(share, partial.sum, total);
    };
#pragma unroll
    for (uint32_t p = 0; p < HELD; p++) {
      if (p < parts) add(held[p]);
    }
    for (uint32_t p = HELD; p < parts; p++) add(Partial::load(all, p, head_dim, c));
    store(out, out_bf16, pair * head_dim + c, __fdiv_rn(mix, total));
  }
}

#define ATTENTION(name, HEAD_DIM, VECTOR, WARPS)                                                               \
  extern "C" __global__ void __launch_bounds__(WARPS* WARP)                                                    \
  name(void* out,                  /* (R, H, D) */                                                             \
       float* partials,            /* (R, H, ceil(S / part), D + 2) */                                         \
       uint32_t* counters,         /* (R, H) */                                                                \
       const float* q,             /* (R, H, D) */                                                             \
       const bf16* k_cache,        /* (B, H, S, D) */                                                          \
       const bf16* v_cache,        /* (B, H, S, D) */                                                          \
       const Row* rows,            /* (R) */                                                                   \
       const float* prefix_log_n,  /* (B) */                                                                   \
       uint32_t positions,         /* S */                                                                     \
       uint32_t head_dim,          /* D */                                                                     \
       float scale,                                                                                            \
       uint32_t out_bf16) {        /* 1: `out` is bf16, 0: f32 */                                              \
    attention_body<Heads<HEAD_DIM, VECTOR, WARPS>>(out, partials, counters, q, k_cache, v_cache, rows,         \
                                                   prefix_log_n, positions, head_dim, scale, out_bf16);        \
  }

ATTENTION(attention_64, 64, 8, 8)
KERNEL_EXPORT(attention_64)
ATTENTION(attention_100, 100, 4, 4)
KERNEL_EXPORT(attention_100)
ATTENTION(attention_128, 128, 8, 4)
KERNEL_EXPORT(attention_128)
ATTENTION(attention_any, 0, 4, 4)
KERNEL_EXPORT(attention_any)
