// basics.cu
// Small kernels without a mistake, for the executor's own tests: none of them may be flagged by any build.
#include "common.cuh"

// out[i] = start + i
extern "C" __global__ void test_count(uint32_t* out, uint32_t start) {
  const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  out[i] = start + i;
}
KERNEL_EXPORT(test_count)

// One word for each built-in index: x + 10 y + 100 z of the thread, then of the block, each 1000 apart.
extern "C" __global__ void test_indices(uint32_t* out) {
  const uint32_t thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const uint32_t block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const uint32_t t = threadIdx.x + 10 * threadIdx.y + 100 * threadIdx.z;
  const uint32_t b = blockIdx.x + 10 * blockIdx.y + 100 * blockIdx.z;
  out[block * blockDim.x * blockDim.y * blockDim.z + thread] = t + 1000 * b;
}
KERNEL_EXPORT(test_indices)

// What each lane of one warp gets from every kind of warp operation; `live` lanes take part, the others end.
// out (7, 32)
extern "C" __global__ void test_warp(uint32_t* out, int live) {
  const int lane = threadIdx.x;
  if (lane >= live) return;
  const uint32_t mask = live == WARP ? ALL_LANES : (1u << live) - 1;
  out[lane] = __ballot_sync(mask, lane % 3 == 0);
  out[WARP + lane] = __any_sync(mask, lane == 7) + 2 * __all_sync(mask, lane < 16);
  out[2 * WARP + lane] = __shfl_sync(mask, lane * 10, 2, 8);
  out[3 * WARP + lane] = __shfl_up_sync(mask, lane, 3);
  out[4 * WARP + lane] = __reduce_max_sync(mask, lane * 7 % 13);
  int some = 0;
  if (lane < 4) some = __shfl_xor_sync(0xfu, lane, 1);
  __syncwarp(mask);
  out[5 * WARP + lane] = some;
  out[6 * WARP + lane] = __reduce_add_sync(mask, lane);
}
KERNEL_EXPORT(test_warp)

// sums[b] = sum of x (256), largest[b] its maximum, twice through the same scratch.
extern "C" __global__ void test_reductions(float* sums, float* largest, const float* x) {
  SMEM_ARRAY(float, scratch, [8]);
  const float value = x[threadIdx.x];
  const float sum = block_sum<256>(value, scratch);
  const float most = block_max<256>(value, scratch);
  sums[threadIdx.x] = sum;
  largest[threadIdx.x] = most;
}
KERNEL_EXPORT(test_reductions)

// count = how many threads of the block have an odd x; all threads see the same.
extern "C" __global__ void test_count_odd(int* out, const int* x) {
  out[threadIdx.x] = __syncthreads_count(x[threadIdx.x] % 2);
}
KERNEL_EXPORT(test_count_odd)

// total = sum of x (blocks * 64): each block adds its part, the last to come adds the parts in order.
extern "C" __global__ void test_last_block(float* total, float* parts, uint32_t* ticket, const float* x) {
  SMEM_ARRAY(float, scratch, [2]);
  SMEM_ARRAY(uint32_t, place, [1]);
  const float part = block_sum<64>(x[blockIdx.x * 64 + threadIdx.x], scratch);
  if (threadIdx.x == 0) {
    parts[blockIdx.x] = part;
    __threadfence();
    place[0] = atomicAdd(ticket, 1u);
  }
  __syncthreads();
  if (place[0] != gridDim.x - 1 || threadIdx.x != 0) return;
  __threadfence();
  float sum = 0;
  for (uint32_t block = 0; block < gridDim.x; block++) sum += parts[block];
  *total = sum;
}
KERNEL_EXPORT(test_last_block)

// Each block waits until all have come, on a counter in global memory.
extern "C" __global__ void test_spin(uint32_t* out, uint32_t* arrived) {
  if (threadIdx.x == 0) {
    __threadfence();
    atomicAdd(arrived, 1u);
    while (*const_cast<volatile uint32_t*>(arrived) != gridDim.x) spin_yield();
  }
  __syncthreads();
  out[blockIdx.x * blockDim.x + threadIdx.x] = blockIdx.x;
}
KERNEL_EXPORT(test_spin)
