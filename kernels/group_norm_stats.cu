// group_norm_stats.cu
// stats[i, g] = mean and 1 / sqrt(var + eps) over the pixels of image i and the C / 32 channels of group g
//
//   shapes   stats (R, 32, 2)   x (R, P, C)   partial (R, chunks, 32, 2)   counters (R)      P pixels of an image
//   types    x: f32 or bf16; partial, stats: f32; sums in f32
//   launch   grid (chunks, R), 256 threads, 16 bytes of static shared memory for each of them and twice that
//   needs    C divisible by 32, at most 2048; counters zero before, and zero after   (checked in
//            backend/cuda/group_norm_stats.rs)
//   cost     reads R * P * C elements once, 16 bytes (of f32: 32) a thread and load; bound by bandwidth
//   matches  graph::ops::group_norm_stats::twin; tolerance and why: tests/ops/group_norm_stats.rs
//
// A block takes a chunk of pixels, whose size follows from the shape alone. A thread keeps to eight channels and sums
// x - k and (x - k)^2 with k its own first value, so that a large mean costs the variance nothing; what threads,
// then blocks, found is put together as (mean, sum of squares around it), means first. The last block of an
// image to be done, whichever it is, puts the chunks together in their order.
#include "common.cuh"

constexpr int THREADS = 256;
constexpr int GROUPS = 32;
constexpr int PARTS = THREADS / GROUPS;  // threads that put one group together, neighbours in a warp
constexpr int VECTOR = 8;                // channels of a thread

__device__ __forceinline__ void load_vector(float (&v)[VECTOR], const float* p) {
#pragma unroll
  for (int i = 0; i < VECTOR; i += 4) {
    const uint4 raw = load_16(p + i);
    v[i] = __uint_as_float(raw.x), v[i + 1] = __uint_as_float(raw.y);
    v[i + 2] = __uint_as_float(raw.z), v[i + 3] = __uint_as_float(raw.w);
  }
}

__device__ __forceinline__ void load_vector(float (&v)[VECTOR], const bf16* p) {
  const uint4 raw = load_16(p);
  const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < VECTOR; i += 2) {
    const float2 pair = unpack_bf16(words[i / 2]);
    v[i] = pair.x, v[i + 1] = pair.y;
  }
}

// Sum over the PARTS neighbouring threads of a group.
__device__ __forceinline__ float group_sum(float x) {
#pragma unroll
  for (int distance = PARTS / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(ALL_LANES, x, distance);
  return x;
}

// Mean and sum of squares around it of what `count` parts found: part i has weight(i) values, mean at(i).x and squares
// at(i).y around it; part 0 has some. The same in all threads of a group; thread `part` takes every PARTS-th.
template <typename Weight, typename At>
__device__ __forceinline__ float2 put_together(int count, int part, Weight weight, At at) {
  const float base = at(0).x;  // of the means only what they differ by is summed
  float values = 0.0f, sum = 0.0f;
  for (int i = part; i < count; i += PARTS) {
    values += weight(i);
    sum = fmaf(weight(i), at(i).x - base, sum);
  }
  const float mean = base + __fdiv_rn(group_sum(sum), group_sum(values));
  float squares = 0.0f;
  for (int i = part; i < count; i += PARTS) {
    const float2 found = at(i);
    const float apart = found.x - mean;
    squares += fmaf(weight(i) * apart, apart, found.y);
  }
  return make_float2(mean, group_sum(squares));
}

template <typename T>
__device__ __forceinline__ void group_norm_stats(float* stats, float2* partial, const T* x, uint32_t* counters,
                                                 int pixels, int channels, int chunk, float eps) {
  SMEM_ARRAY(float2, found, [THREADS * VECTOR]);  // by thread: mean and squares of each of its channels
  SMEM_ARRAY(uint32_t, arrived, [1]);
  const int vectors = channels / VECTOR, rows = THREADS / vectors;  // `rows` pixels at a time
  const int row = threadIdx.x / vectors, vector = threadIdx.x % vectors;
  const int image = blockIdx.y, first = blockIdx.x * chunk, end = min(first + chunk, pixels);
  const int group = threadIdx.x / PARTS, part = threadIdx.x % PARTS, width = channels / GROUPS;
  grid_dependency_trigger();
  grid_dependency_wait();

  if (row < rows) {
    const T* from = x + size_t(image) * pixels * channels + vector * VECTOR;
    float k[VECTOR], sum[VECTOR] = {}, squares[VECTOR] = {};
    float count = 0.0f;
    if (first + row < end) load_vector(k, from + size_t(first + row) * channels);
#pragma unroll 4
    for (int p = first + row; p < end; p += rows) {
      float v[VECTOR];
      load_vector(v, from + size_t(p) * channels);
#pragma unroll
      for (int i = 0; i < VECTOR; i++) {
        const float apart = v[i] - k[i];
        sum[i] += apart;
        squares[i] = fmaf(apart, apart, squares[i]);
      }
      count += 1.0f;
    }
#pragma unroll
    for (int i = 0; i < VECTOR; i++) {
      const float mean = count > 0.0f ? __fdiv_rn(sum[i], count) : 0.0f;
      const float2 result = make_float2(mean + k[i], fmaxf(fmaf(-mean, sum[i], squares[i]), 0.0f));
      found[row * channels + vector * VECTOR + i] = count > 0.0f ? result : make_float2(0.0f, 0.0f);
    }
  }
  __syncthreads();  // `found` is whole

  // Values of a group in the chunk: those of pixel row i / width, channel i % width of the group.
  const auto pixels_of = [=](int i) { return float((max(end - first - i / width, 0) + rows - 1) / rows); };
  const auto found_at = [&](int i) { return found[i / width * channels + group * width + i % width]; };
  const float2 chunk_found = put_together(rows * width, part, pixels_of, found_at);
  float2* chunks_found = partial + size_t(image) * gridDim.x * GROUPS;
  if (part == 0) chunks_found[blockIdx.x * GROUPS + group] = chunk_found;
  __syncthreads();  // all of the chunk's results are written before it counts as done
  if (threadIdx.x == 0) arrived[0] = count_in(counters + image);
  __syncthreads();  // `arrived` is there
  if (arrived[0] != gridDim.x - 1) return;

  const auto values_of = [=](int i) { return float((min((i + 1) * chunk, pixels) - i * chunk) * width); };
  const auto chunk_at = [=](int i) { return __ldcg(chunks_found + i * GROUPS + group); };
  const float2 all = put_together(int(gridDim.x), part, values_of, chunk_at);
  if (part == 0) {
    float* out = stats + (size_t(image) * GROUPS + group) * 2;
    out[0] = all.x;
    out[1] = __frsqrt_rn(__fdiv_rn(all.y, float(pixels) * float(width)) + eps);
  }
  if (threadIdx.x == 0) counters[image] = 0;
}

extern "C" __global__ void __launch_bounds__(THREADS)
group_norm_stats_bf16(float* stats,                // (R, 32, 2)
                      float2* partial,             // (R, chunks, 32)
                      const bf16* x,               // (R, P, C)
                      uint32_t* counters,          // (R)
                      uint32_t pixels,             // P
                      uint32_t channels,           // C
                      uint32_t chunk,              // pixels of a block
                      float eps) {
  group_norm_stats(stats, partial, x, counters, int(pixels), int(channels), int(chunk), eps);
}
KERNEL_EXPORT(group_norm_stats_bf16)

extern "C" __global__ void __launch_bounds__(THREADS)
group_norm_stats_f32(float* stats,                 // (R, 32, 2)
                     float2* partial,              // (R, chunks, 32)
                     const float* x,               // (R, P, C)
                     uint32_t* counters,           // (R)
                     uint32_t pixels,              // P
                     uint32_t channels,            // C
                     uint32_t chunk,               // pixels of a block
                     float eps) {
  group_norm_stats(stats, partial, x, counters, int(pixels), int(channels), int(chunk), eps);
}
KERNEL_EXPORT(group_norm_stats_f32)
