// basics.cu
// Small kernels for the executor's own tests.
#include "common.cuh"

// out[i] = start + i
extern "C" __global__ void test_count(uint32_t* out, uint32_t start) {
  const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  out[i] = start + i;
}
KERNEL_EXPORT(test_count)
