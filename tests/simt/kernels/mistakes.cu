// mistakes.cu
// Kernels that are right, each with versions that have one mistake: what the executor is there to find.
// tests/mistakes.rs says which build finds which.
#include "common.cuh"

enum Mistake {
  NONE,
  NO_BARRIER,
  NO_SECOND_BARRIER,
  WEAK_WAIT,
  PAST_THE_END,
  UNWRITTEN,
  DIVERGENT,
};

// ---- out (16, 8) f32 = a (16, K) * b (8, K)^T, bf16, one block of 64 threads, both warps compute it ---------
// K in steps of 16 through two stages of shared memory.
template <Mistake M>
__device__ __forceinline__ void product(float* out, const bf16* a, const bf16* b, int k_size) {
  constexpr int STAGE = (16 + 8) * 16;  // elements
  DYN_SMEM(smem);
  bf16* stages = reinterpret_cast<bf16*>(smem);
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  auto load = [&](int step) {
    // 24 rows of two 16-byte vectors.
    const int row = threadIdx.x / 2, column = threadIdx.x % 2 * 8;
    if (row < 24) {
      const bf16* from = row < 16 ? a + row * k_size : b + (row - 16) * k_size;
      cp_async_16(stages + step % 2 * STAGE + row * 16 + column, from + step * 16 + column);
    }
    cp_async_commit();
  };
  float sum[4] = {};
  load(0);
  for (int step = 0; step < k_size / 16; step++) {
    if (step + 1 < k_size / 16) {
      load(step + 1);
      cp_async_wait<M == WEAK_WAIT ? 2 : 1>();
    } else {
      cp_async_wait<0>();
    }
    if (M != NO_BARRIER) __syncthreads();
    const bf16* stage = stages + step % 2 * STAGE;
    uint32_t a_part[4], b_part[2];
    ldmatrix_x4(a_part, stage + lane % 16 * 16 + lane / 16 * 8);
    ldmatrix_x2(b_part, stage + 16 * 16 + lane % 8 * 16 + lane / 8 % 2 * 8);
    mma_m16n8k16_bf16(sum, a_part, b_part);
    if (M != NO_SECOND_BARRIER) __syncthreads();  // before the next load overwrites this stage
  }
  // Each warp stores half of the rows.
  const int row = lane / 4 + 8 * warp, column = lane % 4 * 2;
  out[row * 8 + column] = sum[2 * warp];
  out[row * 8 + column + 1 + (M == PAST_THE_END ? 8 : 0)] = sum[2 * warp + 1];
}

#define PRODUCT(name, mistake)                                                                        \
  extern "C" __global__ void name(float* out, const bf16* a, const bf16* b, int k_size) {             \
    product<mistake>(out, a, b, k_size);                                                              \
  }                                                                                                   \
  KERNEL_EXPORT(name)
PRODUCT(test_product, NONE)
PRODUCT(test_product_no_barrier, NO_BARRIER)
PRODUCT(test_product_no_second_barrier, NO_SECOND_BARRIER)
PRODUCT(test_product_weak_wait, WEAK_WAIT)
PRODUCT(test_product_past_the_end, PAST_THE_END)

// ---- out[i] = x[63 - i] through shared memory, one block of 64 threads ---------------------------------------
template <Mistake M>
__device__ __forceinline__ void reversed(float* out, const float* x) {
  DYN_SMEM(smem);
  float* turned = reinterpret_cast<float*>(smem);
  if (M != UNWRITTEN || threadIdx.x != 5) turned[threadIdx.x + (M == PAST_THE_END)] = x[threadIdx.x];
  if (M == DIVERGENT && threadIdx.x < WARP) {
    __syncthreads();
  } else if (M != NO_BARRIER) {
    __syncthreads();
  }
  out[threadIdx.x] = turned[63 - threadIdx.x + (M == PAST_THE_END)];
}

#define REVERSED(name, mistake)                                                                       \
  extern "C" __global__ void name(float* out, const float* x) { reversed<mistake>(out, x); }          \
  KERNEL_EXPORT(name)
REVERSED(test_reversed, NONE)
REVERSED(test_reversed_no_barrier, NO_BARRIER)
REVERSED(test_reversed_past_the_end, PAST_THE_END)
REVERSED(test_reversed_unwritten, UNWRITTEN)
REVERSED(test_reversed_divergent, DIVERGENT)

// ---- out[i] = x[i] / sum of x (1024), cooperative, 4 blocks of 64 threads ---------------------------------------
template <Mistake M>
__device__ __forceinline__ void normalized(float* out, float* sum, const float* x) {
  SMEM_ARRAY(float, scratch, [2]);
  const int first = blockIdx.x * 256 + threadIdx.x;
  float part = 0;
  for (int i = first; i < first + 256; i += 64) part += x[i];
  part = block_sum<64>(part, scratch);
  if (threadIdx.x == 0) atomicAdd(sum, part);
  if (M != NO_BARRIER) grid_sync();
  const float total = *sum;
  for (int i = first; i < first + 256; i += 64) out[i] = x[i] / total;
}

#define NORMALIZED(name, mistake)                                                                     \
  extern "C" __global__ void name(float* out, float* sum, const float* x) { normalized<mistake>(out, sum, x); } \
  KERNEL_EXPORT(name)
NORMALIZED(test_normalized, NONE)
NORMALIZED(test_normalized_no_barrier, NO_BARRIER)

// ---- the rest: one kernel, one mistake; out (64), x (64), one or two warps -----------------------------------------

// A static array of 32, written one further by 32 threads.
extern "C" __global__ void test_past_an_array(float* out, const float* x) {
  SMEM_ARRAY(float, array, [32]);
  float* element = array + threadIdx.x % WARP + 1;
  *element = x[threadIdx.x];
  __syncwarp();
  out[threadIdx.x] = *element;
}
KERNEL_EXPORT(test_past_an_array)

extern "C" __global__ void test_divergent_warp(float* out, const float* x) {
  float value = x[threadIdx.x];
  if (threadIdx.x % WARP < 16) {
    value = __shfl_xor_sync(ALL_LANES, value, 1);
  } else {
    value = __ballot_sync(ALL_LANES, value > 0);
  }
  out[threadIdx.x] = value;
}
KERNEL_EXPORT(test_divergent_warp)

extern "C" __global__ void test_deadlock(float* out, const float* x) {
  out[threadIdx.x] = x[threadIdx.x];
  if (threadIdx.x % 2) {
    __syncwarp();
  } else {
    __syncthreads();
  }
}
KERNEL_EXPORT(test_deadlock)

// Lane 20 is not in the mask that it is asked for under.
extern "C" __global__ void test_absent_lane(float* out, const float* x) {
  float value = x[threadIdx.x];
  if (threadIdx.x % WARP < 16) value = __shfl_sync(0xffffu, value, 20);
  out[threadIdx.x] = value;
}
KERNEL_EXPORT(test_absent_lane)

extern "C" __global__ void test_mask_without_caller(float* out, const float* x) {
  out[threadIdx.x] = __shfl_sync(0xffffu, x[threadIdx.x], 0);
}
KERNEL_EXPORT(test_mask_without_caller)

extern "C" __global__ void test_misaligned(float* out, const float* x) {
  out[threadIdx.x] = __uint_as_float(load_16(x + threadIdx.x % 32 + 1).x);
}
KERNEL_EXPORT(test_misaligned)

// The same through a pointer that says nothing of it; x + 2 bytes.
extern "C" __global__ void test_misaligned_word(float* out, const float* x) {
  out[threadIdx.x] = *reinterpret_cast<const float*>(reinterpret_cast<const char*>(x) + 2);
}
KERNEL_EXPORT(test_misaligned_word)

// All blocks write the same element.
extern "C" __global__ void test_same_element(float* out, const float* x) { out[0] = x[threadIdx.x] + blockIdx.x; }
KERNEL_EXPORT(test_same_element)

// Publishes without a fence: the block that comes last reads what another wrote.
extern "C" __global__ void test_no_fence(float* out, const float* x, uint32_t* ticket) {
  if (threadIdx.x != 0) return;
  out[blockIdx.x] = x[blockIdx.x];
  if (atomicAdd(ticket, 1u) == gridDim.x - 1) out[63] = out[0] + out[1];
}
KERNEL_EXPORT(test_no_fence)

// Waits for what no one writes.
extern "C" __global__ void test_livelock(uint32_t* flag) {
  while (*static_cast<volatile uint32_t*>(flag) != 1) spin_yield();
}
KERNEL_EXPORT(test_livelock)

extern "C" __global__ void test_grid_sync(uint32_t* out) {
  grid_sync();
  out[blockIdx.x] = 1;
}
KERNEL_EXPORT(test_grid_sync)

// ---- out[i] = x[i] * weight[0], x from an earlier launch ------------------------------------------------------------
template <Mistake M>
__device__ __forceinline__ void dependent(float* out, const float* x, const float* weight) {
  grid_dependency_trigger();
  float value = weight[0];
  if (M == NO_BARRIER) value *= x[threadIdx.x];
  grid_dependency_wait();
  if (M == NONE) value *= x[threadIdx.x];
  out[threadIdx.x] = value;
}

#define DEPENDENT(name, mistake)                                                                      \
  extern "C" __global__ void name(float* out, const float* x, const float* weight) {                  \
    dependent<mistake>(out, x, weight);                                                               \
  }                                                                                                   \
  KERNEL_EXPORT(name)
DEPENDENT(test_dependent, NONE)
DEPENDENT(test_dependent_too_early, NO_BARRIER)
