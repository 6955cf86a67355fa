// product.cuh
// y[r, n] = Σ_k weight[n, k] * input[r, k], the body of every product of a transformer.
//
// One order of summation at every number of rows: K is cut into SLICES of whole steps of 16, by K alone; a slice
// is one chain of tensor-core steps in ascending k that starts from zero; the slices are added in ascending
// order. A step is mma.m16n8k16 with 16 rows of weights and 8 rows of activations, also where there is but one
// row: the weights' bytes bound the time, not the arithmetic. Two shapes keep this order, so their bits are equal:
//
//   thin   few rows (product_thin.cuh): a block's warps have a slice each
//   wide   many rows (product_wide.cuh): a warp has a patch of weight rows x activation rows, and all slices or a part
//          of them
//
// Weights are packed as fragments [N / 16][K / 16][lane][8] (backend/cuda/fragments.rs), zeros beyond N and K.
// An epilogue is a struct: MATRICES (2 where it wants two products of the same input, weight by weight), `Early`
// with `load(r, n)`, what it reads for columns n and n + 1 of row r, called before the sums are there, and
// `store(early, r, n, y)`. n is even.
#pragma once

#include "common.cuh"

constexpr uint32_t SLICES = 8;
constexpr int PRODUCT_THREADS = SLICES * WARP;
constexpr uint32_t STEP = 16;         // of K per tensor-core step
constexpr uint32_t TILE_VECTORS = 32;  // 16-byte vectors of a 16 x 16 tile: one per lane

__device__ __forceinline__ uint32_t ceil_div(uint32_t a, uint32_t b) { return (a + b - 1) / b; }

// Pairs of columns n, n + 1 of a row whose width is `width`: aligned where the width is even.
__device__ __forceinline__ float2 load_pair(const float* row, uint32_t n, uint32_t width) {
  if (width % 2 == 0) return *reinterpret_cast<const float2*>(row + n);
  return make_float2(row[n], n + 1 < width ? row[n + 1] : 0.0f);
}

__device__ __forceinline__ void store_pair(float* row, uint32_t n, uint32_t width, float2 y) {
  if (width % 2 == 0) {
    *reinterpret_cast<float2*>(row + n) = y;
  } else {
    row[n] = y.x;
    if (n + 1 < width) row[n + 1] = y.y;
  }
}

__device__ __forceinline__ void store_pair(bf16* row, uint32_t n, uint32_t width, float2 y) {
  if (width % 2 == 0) {
    *reinterpret_cast<uint32_t*>(row + n) = pack_bf16(y.x, y.y);
  } else {
    row[n] = from_float<bf16>(y.x);
    if (n + 1 < width) row[n + 1] = from_float<bf16>(y.y);
  }
}

// The steps of a slice of K, which a warp of the thin shape has, or of some that follow one another.
struct Slice {
  uint32_t first, last;
  __device__ __forceinline__ Slice(uint32_t depth, uint32_t slice, uint32_t count = 1) {
    const uint32_t steps = ceil_div(depth, STEP), per_slice = ceil_div(steps, SLICES);
    first = min(slice * per_slice, steps);
    last = min(first + count * per_slice, steps);
  }
};

// Columns of y that a block of TILES weight tiles makes.
template <class Epilogue, int TILES>
constexpr uint32_t COLUMNS = 16 * TILES / Epilogue::MATRICES;

// Instances: a kernel file defines THIN_PARAMETERS and WIDE_PARAMETERS, the templates thin and wide with these
// parameters, and THIN_ARGUMENTS and WIDE_ARGUMENTS, their names; of a norm, thin_normed, too, whose rows norm_rows has
// left, as the wide shape's. `blocks` have registers on a multiprocessor together: two or three of a thin shape, one to
// four of a wide one.
#define THIN_KERNEL(name, blocks, ...)                                                        \
  extern "C" __global__ void __launch_bounds__(PRODUCT_THREADS, blocks) name(THIN_PARAMETERS) { \
    grid_dependency_trigger();                                                                \
    thin<__VA_ARGS__>(THIN_ARGUMENTS);                                                        \
  }
#define THIN_NORMED_KERNEL(name, blocks, ...)                                                 \
  extern "C" __global__ void __launch_bounds__(PRODUCT_THREADS, blocks) name(WIDE_PARAMETERS) { \
    grid_dependency_trigger();                                                                \
    thin_normed<__VA_ARGS__>(WIDE_ARGUMENTS);                                                 \
  }
#define WIDE_KERNEL(name, blocks, ...)                                                        \
  extern "C" __global__ void __launch_bounds__(PRODUCT_THREADS, blocks) name(WIDE_PARAMETERS) { \
    wide<__VA_ARGS__>(WIDE_ARGUMENTS);                                                        \
  }
