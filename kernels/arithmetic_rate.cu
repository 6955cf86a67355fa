// arithmetic_rate.cu
// out[thread] = 28 + 8 * times * (a b), summed over a lane's four elements: products of registers, to see how fast
// they go
//
//   shapes   out (blocks, 256)   a (16, 16)   b (16, 8), in registers
//   types    factors: bf16, made of the lane's number; sums and out: f32
//   launch   256 threads, no shared memory; two blocks per multiprocessor keep four warps on each of its tensor cores
//   needs    nothing
//   cost     8 warps x 8 accumulators x 4096 FLOP per block and time; writes 1 KB per block. Bound by arithmetic alone
//   matches  tests/cuda.rs, exactly: sums of multiples of 1/64, which f32 holds up to 500 times
#include "common.cuh"

namespace {
constexpr int ACCUMULATORS = 8;  // independent, so that an mma need not wait for the one before it

// Numbers from -1 to 7/8 that differ from lane to lane: what a product of zeros takes says nothing about a clock
// that depends on power.
__device__ __forceinline__ uint32_t factors(uint32_t lane, uint32_t which) {
  const int low = int((lane * 7 + which * 5) % 16) - 8, high = int((lane * 3 + which * 11 + 1) % 16) - 8;
  return pack_bf16(float(low) / 8, float(high) / 8);
}
}  // namespace

extern "C" __global__ void __launch_bounds__(256)
arithmetic_rate(float* __restrict__ out,  // (blocks, 256)
                uint32_t times) {
  grid_dependency_trigger();
  grid_dependency_wait();
  const uint32_t lane = threadIdx.x % 32;
  const uint32_t a[4] = {factors(lane, 0), factors(lane, 1), factors(lane, 2), factors(lane, 3)};
  const uint32_t b[2] = {factors(lane, 4), factors(lane, 5)};
  // Each begins with its own number: eight that hold the same could be computed once.
  float sums[ACCUMULATORS][4] = {};
#pragma unroll
  for (int i = 0; i < ACCUMULATORS; i++) sums[i][0] = float(i);
  for (uint32_t time = 0; time < times; time++) {
#pragma unroll
    for (int i = 0; i < ACCUMULATORS; i++) mma_m16n8k16_bf16(sums[i], a, b);
  }
  float sum = 0;
#pragma unroll
  for (int i = 0; i < ACCUMULATORS; i++) sum += sums[i][0] + sums[i][1] + sums[i][2] + sums[i][3];
  out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}
KERNEL_EXPORT(arithmetic_rate)
