// group_norm_stats.cu
// stats[i, g] = mean and 1 / sqrt(var + eps) over the pixels of image i and the C / 32 channels of group g
//
//   shapes   stats (R, 32, 2)   moments (R, patches, C, 2)   partial (R, chunks, 32, 2)   counters (R)
//            patches of 2 x 16 pixels of a map of H x W in each of its phases, graph::ops::Patches
//   types    f32: of moments mean and variance
//   launch   grid (chunks, R), 256 threads, 68 bytes of static shared memory for each of them
//   needs    C divisible by 32, at most 2048; counters zero before, and zero after   (checked in
//            backend/cuda/group_norm_stats.rs)
//   cost     reads R * patches * C * 8 bytes once, 64 a thread and patch: an eighth of the map in bf16, 5 MB of 384 x
//            384 pixels and 128 channels, which L2 still has; bound by latency
//   matches  graph::ops::group_norm_stats::twin; tolerance and why: tests/ops/group_norm_stats.rs
//
// A block takes a chunk of patches, whose size follows from the shape alone. A thread keeps to eight channels and sums
// how far the means are from k and their squares, with k its own first, so that a large mean costs the variance
// nothing; what threads, then blocks, found is put together as (mean, sum of squares around it), means first. The
// last block of an image to be done, whichever it is, puts the chunks together in their order.
#include "common.cuh"

constexpr int THREADS = 256;
constexpr int GROUPS = 32;
constexpr int PARTS = THREADS / GROUPS;  // threads that put one group together, neighbours in a warp
constexpr int VECTOR = 8;                // channels of a thread

// How a map is cut: graph::ops::Patches.
struct Patches {
  int height, width, repeat;  // of a phase; phases along one side
  int down, across;           // patches of a phase

  __device__ __forceinline__ Patches(int height, int width, int repeat)
      : height(height), width(width), repeat(repeat), down((height + 1) / 2), across((width + 15) / 16) {}

  __device__ __forceinline__ int count() const { return repeat * repeat * down * across; }

  __device__ __forceinline__ int pixels(int patch) const {
    return min(2, height - patch / across % down * 2) * min(16, width - patch % across * 16);
  }

  // Pixels of the first `patches`.
  __device__ __forceinline__ int pixels_before(int patches) const {
    const int row = patches / across % down * 2;
    return (patches / (down * across) * height + row) * width + min(2, height - row) * (patches % across * 16);
  }
};

// (mean, variance) of a thread's channels.
__device__ __forceinline__ void load_vector(float2 (&v)[VECTOR], const float2* p) {
#pragma unroll
  for (int i = 0; i < VECTOR; i += 2) {
    const uint4 raw = load_16(p + i);
    v[i] = make_float2(__uint_as_float(raw.x), __uint_as_float(raw.y));
    v[i + 1] = make_float2(__uint_as_float(raw.z), __uint_as_float(raw.w));
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

extern "C" __global__ void __launch_bounds__(THREADS)
group_norm_stats(float* stats,            // (R, 32, 2)
                 float2* partial,         // (R, chunks, 32)
                 const float2* moments,   // (R, patches, C)
                 uint32_t* counters,      // (R)
                 uint32_t height,         // H of a phase
                 uint32_t map_width,      // W of a phase
                 uint32_t repeat,         // phases along one side
                 uint32_t all_channels,   // C
                 uint32_t chunk_patches,  // of a block
                 float eps) {
  SMEM_ARRAY(float2, found, [THREADS * VECTOR]);  // by thread: mean and squares of each of its channels
  SMEM_ARRAY(float, counts, [THREADS]);           // by row of threads: pixels
  SMEM_ARRAY(uint32_t, arrived, [1]);
  const Patches patches{int(height), int(map_width), int(repeat)};
  const int channels = int(all_channels), chunk = int(chunk_patches);
  const int vectors = channels / VECTOR, rows = THREADS / vectors;  // `rows` patches at a time
  const int row = threadIdx.x / vectors, vector = threadIdx.x % vectors;
  const int image = blockIdx.y, first = blockIdx.x * chunk, end = min(first + chunk, patches.count());
  const int group = threadIdx.x / PARTS, part = threadIdx.x % PARTS, width = channels / GROUPS;
  grid_dependency_trigger();
  grid_dependency_wait();

  if (row < rows) {
    const float2* from = moments + size_t(image) * patches.count() * channels + vector * VECTOR;
    float2 k[VECTOR] = {};
    float sum[VECTOR] = {}, squares[VECTOR] = {}, count = 0.0f;
    if (first + row < end) load_vector(k, from + size_t(first + row) * channels);
#pragma unroll 2
    for (int p = first + row; p < end; p += rows) {
      float2 v[VECTOR];
      load_vector(v, from + size_t(p) * channels);
      const float pixels = float(patches.pixels(p));
#pragma unroll
      for (int i = 0; i < VECTOR; i++) {
        const float apart = v[i].x - k[i].x;
        sum[i] = fmaf(pixels, apart, sum[i]);
        squares[i] = fmaf(pixels, fmaf(apart, apart, v[i].y), squares[i]);
      }
      count += pixels;
    }
#pragma unroll
    for (int i = 0; i < VECTOR; i++) {
      const float mean = count > 0.0f ? __fdiv_rn(sum[i], count) : 0.0f;
      const float2 result = make_float2(mean + k[i].x, fmaxf(fmaf(-mean, sum[i], squares[i]), 0.0f));
      found[row * channels + vector * VECTOR + i] = count > 0.0f ? result : make_float2(0.0f, 0.0f);
    }
    if (vector == 0) counts[row] = count;
  }
  __syncthreads();  // `found` and `counts` are whole

  // Values of a group in the chunk: those of row i / width, channel i % width of the group.
  const auto pixels_of = [&](int i) { return counts[i / width]; };
  const auto found_at = [&](int i) { return found[i / width * channels + group * width + i % width]; };
  const float2 chunk_found = put_together(rows * width, part, pixels_of, found_at);
  float2* chunks_found = partial + size_t(image) * gridDim.x * GROUPS;
  if (part == 0) chunks_found[blockIdx.x * GROUPS + group] = chunk_found;
  __syncthreads();  // all of the chunk's results are written before it counts as done
  if (threadIdx.x == 0) arrived[0] = count_in(counters + image);
  __syncthreads();  // `arrived` is there
  if (arrived[0] != gridDim.x - 1) return;

  const auto values_of = [&](int i) {
    const int from = i * chunk, to = min(from + chunk, patches.count());
    return float((patches.pixels_before(to) - patches.pixels_before(from)) * width);
  };
  const auto chunk_at = [=](int i) { return __ldcg(chunks_found + i * GROUPS + group); };
  const float2 all = put_together(int(gridDim.x), part, values_of, chunk_at);
  if (part == 0) {
    float* out = stats + (size_t(image) * GROUPS + group) * 2;
    const float values = float(patches.pixels_before(patches.count()) * width);
    out[0] = all.x;
    out[1] = __frsqrt_rn(__fdiv_rn(all.y, values) + eps);
  }
  if (threadIdx.x == 0) counters[image] = 0;
}
KERNEL_EXPORT(group_norm_stats)
