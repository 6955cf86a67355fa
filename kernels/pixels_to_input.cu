// pixels_to_input.cu
// x[i] = pixels[i] / 127.5 - 1
//
//   shapes   x, pixels (R * H * W * 3)
//   types    pixels: u8; x: f32 or bf16
//   launch   grid of 256 threads, a value each, no shared memory
//   needs    fewer than 2^32 values                             (checked in backend/cuda/pixels_to_input.rs)
//   cost     reads 1 byte and writes 4 or 2 for each value; bound by bandwidth, and less than 2 us at 512 px
//   matches  graph::ops::pixels_to_input::twin; tolerance and why: tests/ops/pixels_to_input.rs
#include "common.cuh"

template <typename T>
__device__ __forceinline__ void pixels_to_input(T* x, const unsigned char* pixels, uint32_t count) {
  grid_dependency_trigger();
  grid_dependency_wait();
  const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) x[i] = from_float<T>(__fsub_rn(__fdiv_rn(float(pixels[i]), 127.5f), 1.0f));
}

extern "C" __global__ void __launch_bounds__(256)
pixels_to_input_bf16(bf16* __restrict__ x,         // (count)
                     const unsigned char* pixels,  // (count); written before this launch, so no __restrict__
                     uint32_t count) {
  pixels_to_input(x, pixels, count);
}
KERNEL_EXPORT(pixels_to_input_bf16)

extern "C" __global__ void __launch_bounds__(256)
pixels_to_input_f32(float* __restrict__ x,        // (count)
                    const unsigned char* pixels,  // (count); written before this launch, so no __restrict__
                    uint32_t count) {
  pixels_to_input(x, pixels, count);
}
KERNEL_EXPORT(pixels_to_input_f32)
