// product_wide.cuh
// The shape of product.cuh for many rows. A block computes 16 * TILES / MATRICES columns of 8 * ROW_TILES rows, and a
// warp a patch of them, over all slices of K, or a part of them where blocks share K out (PartsOfK). Weights and
// activations are copied to shared memory in stages of 64 of K, STAGES - 1 of them under way; a warp loads the fragments
// of a step while it multiplies those of the step before. A slice may end within a stage: then its sums are added to
// those of the slices before it.
#pragma once

#include "product.cuh"

constexpr int STAGE_STEPS = 4;                                  // steps of K in a stage
constexpr uint32_t STAGE_DEPTH = STAGE_STEPS * STEP;            // of K: a row of activations is 128 bytes
constexpr uint32_t ROW_UNITS = STAGE_DEPTH / 8;                 // 16-byte units of it
constexpr uint32_t TILE_UNITS = STAGE_STEPS * TILE_VECTORS;     // and of a tile of weights

// A thread's copies of the weights of a stage, [tile][step][lane] there as in memory. Where there are two matrices,
// their tiles take turns. A thread copies the same unit of every ABREAST-th tile. Where from is carried from stage to
// stage; what lies beyond K, or the matrix, becomes zeros and is not read.
template <int MATRICES, int TILES>
struct WeightCopies {
  static constexpr int ABREAST = PRODUCT_THREADS / TILE_UNITS;  // tiles that the threads copy at once
  static constexpr int COUNT = TILES / ABREAST;                 // a thread's units
  static_assert(TILES % ABREAST == 0 && ABREAST % MATRICES == 0, "as many for every thread, of one matrix");
  const uint4* at;       // the unit in the first of its tiles
  uint32_t tile_stride;  // units from a matrix's tile to the next
  int tiles, steps;      // that there are from this tile and this step on

  __device__ __forceinline__ WeightCopies(const bf16* const (&weights)[MATRICES], uint32_t width, uint32_t depth,
                                          Slice mine) {
    const uint32_t unit = threadIdx.x % TILE_UNITS, abreast = threadIdx.x / TILE_UNITS;
    const uint32_t first = blockIdx.y * (TILES / MATRICES) + abreast / MATRICES;
    const bf16* matrix = abreast % MATRICES == 0 ? weights[0] : weights[MATRICES - 1];
    tile_stride = ceil_div(depth, STEP) * TILE_VECTORS;
    at = reinterpret_cast<const uint4*>(matrix) + size_t(first) * tile_stride + mine.first * TILE_VECTORS + unit;
    tiles = int(ceil_div(width, 16)) - int(first);
    steps = int(mine.last - mine.first) - int(unit / TILE_VECTORS);
  }

  // The i-th into a stage.
  __device__ __forceinline__ void copy(int i, unsigned char* stage) const {
    const int tile = i * (ABREAST / MATRICES);
    const bool some = steps > 0 && tile < tiles;
    cp_async_16(stage + (i * PRODUCT_THREADS + threadIdx.x) * 16, at + size_t(tile) * tile_stride, some ? 16 : 0);
  }

  __device__ __forceinline__ void next_stage() {
    at += TILE_UNITS;
    steps -= STAGE_STEPS;
  }
};

// The same of the activations. A row is eight units of 16 bytes, unit u of row r in the place u ^ r % 8, so that
// ldmatrix finds the same unit of eight rows in eight different places.
template <int ROWS>
struct InputCopies {
  static constexpr int ABREAST = PRODUCT_THREADS / ROW_UNITS;  // rows that the threads copy at once
  static constexpr int COUNT = ROWS / ABREAST;
  static_assert(ROWS % ABREAST == 0 && ABREAST % 8 == 0, "as many for every thread, in the same place");
  const bf16* at;      // the unit in the first of its rows
  uint32_t depth;      // K
  uint32_t place;      // of the unit in a stage, in bytes
  int rows, columns;   // that there are from this row and this unit on

  __device__ __forceinline__ InputCopies(const bf16* input, uint32_t all_rows, uint32_t depth, Slice mine)
      : depth(depth) {
    const uint32_t row = threadIdx.x / ROW_UNITS, unit = threadIdx.x % ROW_UNITS, first = blockIdx.x * ROWS + row;
    at = input + size_t(first) * depth + mine.first * STEP + unit * 8;
    place = (row * ROW_UNITS + (unit ^ row % 8)) * 16;
    rows = int(all_rows) - int(first);
    columns = int(min(depth, mine.last * STEP)) - int(mine.first * STEP + unit * 8);
  }

  __device__ __forceinline__ void copy(int i, unsigned char* stage) const {
    const int row = i * ABREAST;
    const bool some = columns > 0 && row < rows;
    cp_async_16(stage + place + row * ROW_UNITS * 16, at + size_t(row) * depth, some ? 16 : 0);
  }

  __device__ __forceinline__ void next_stage() {
    at += STAGE_DEPTH;
    columns -= int(STAGE_DEPTH);
  }
};

// Whether blocks in z share out the slices of K, where rows are many but columns few ("split K"). Part 0 leaves the sum
// of its slices, the others leave each of theirs, so that the last one to arrive adds all in their order.
template <bool SPLIT_>
struct PartsOfK {
  static constexpr bool SPLIT = SPLIT_;
  float* partials;     // (blocks of columns, blocks of rows, 1 + slices behind part 0, accumulators of a block)
  uint32_t* counters;  // (blocks of columns, blocks of rows): zero before and after
};
using WholeK = PartsOfK<false>;  // one part, and neither is used
using SplitK = PartsOfK<true>;

// A condition that the compiler knows, as an argument of a lambda.
template <bool VALUE>
struct Known {
  static constexpr bool value = VALUE;
};

// Blocks of PRODUCT_THREADS, x: blocks of 8 * ROW_TILES rows, so that blocks with the same weights run at the same
// time, y: groups of COLUMNS of y, z: parts of K. Dynamic shared memory: the stages, or what is stored
// (backend/cuda/product.rs).
template <int TILES, int ROW_TILES, int WARPS_OVER_TILES, int STAGES, class Epilogue, class Split = WholeK>
__device__ __forceinline__ void product_wide(const Epilogue& epilogue,
                                             const bf16* input,  // (R, K)
                                             const bf16* const (&weights)[Epilogue::MATRICES],
                                             uint32_t rows,      // R
                                             uint32_t width,     // N, of each matrix
                                             uint32_t depth,     // K
                                             const Split& split = Split()) {
  constexpr uint32_t ROWS = 8 * ROW_TILES;
  constexpr int MINE = TILES / WARPS_OVER_TILES;                              // a warp's weight tiles
  constexpr int MY_ROW_TILES = ROW_TILES * WARPS_OVER_TILES / int(SLICES);    // and its row tiles
  static_assert(TILES % WARPS_OVER_TILES == 0, "whole tiles for a warp");
  static_assert(MINE >= 1 && MY_ROW_TILES >= 2 && MY_ROW_TILES % 2 == 0, "ldmatrix brings two row tiles");
  constexpr uint32_t WEIGHT_BYTES = TILES * TILE_UNITS * 16, ROW_BYTES = ROW_UNITS * 16;
  constexpr uint32_t STAGE_BYTES = WEIGHT_BYTES + ROWS * ROW_BYTES;
  DYN_SMEM(shared);

  const uint32_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  const uint32_t row_0 = blockIdx.x * ROWS;
  // The block's slices.
  const uint32_t parts = Split::SPLIT ? gridDim.z : 1, part = Split::SPLIT ? blockIdx.z : 0;
  const uint32_t slices_0 = ceil_div(SLICES, parts);  // of part 0
  const uint32_t first_slice = ceil_div(part * SLICES, parts), end_slice = ceil_div((part + 1) * SLICES, parts);
  const Slice mine(depth, first_slice, end_slice - first_slice);
  const uint32_t per_slice = ceil_div(ceil_div(depth, STEP), SLICES);
  const uint32_t stages = ceil_div(mine.last - mine.first, uint32_t(STAGE_STEPS));

  WeightCopies<Epilogue::MATRICES, TILES> weight_copies(weights, width, depth, mine);
  InputCopies<ROWS> input_copies(input, rows, depth, mine);
  for (uint32_t stage = 0; stage < STAGES - 1; stage++) {
#pragma unroll
    for (int i = 0; i < weight_copies.COUNT; i++) weight_copies.copy(i, shared + stage * STAGE_BYTES);
    weight_copies.next_stage();
  }
  grid_dependency_wait();
  for (uint32_t stage = 0; stage < STAGES - 1; stage++) {
#pragma unroll
    for (int i = 0; i < input_copies.COUNT; i++) input_copies.copy(i, shared + stage * STAGE_BYTES + WEIGHT_BYTES);
    input_copies.next_stage();
    cp_async_commit();  // the first group has the weights of all these stages
  }

  struct Fragments {
    uint32_t a[MINE][4], b[MY_ROW_TILES][2];
  };
  const uint32_t my_tile = warp % WARPS_OVER_TILES * MINE, my_row = warp / WARPS_OVER_TILES * MY_ROW_TILES * 8;
  // In a stage, in bytes.
  const uint32_t a_place = (my_tile * TILE_UNITS + lane) * 16;
  // Of each two row tiles: their first eight rows, columns 0..7 and 8..15 of a step, then their last eight. A step
  // further on is another place of the same 128 bytes, which differs in some bits.
  const uint32_t matrix_row = my_row + lane / 16 * 8 + lane % 8, matrix_unit = lane / 8 % 2;
  const uint32_t b_place = WEIGHT_BYTES + matrix_row * ROW_BYTES + (matrix_unit ^ matrix_row % 8) * 16;
  auto load = [&](Fragments& to, uint32_t stage_at, int step) {
#pragma unroll
    for (int pair = 0; pair < MY_ROW_TILES / 2; pair++) {
      uint32_t r[4];
      ldmatrix_x4(r, shared + ((stage_at + b_place) ^ (step * 2 * 16)) + pair * 16 * ROW_BYTES);
      to.b[2 * pair][0] = r[0], to.b[2 * pair][1] = r[1];
      to.b[2 * pair + 1][0] = r[2], to.b[2 * pair + 1][1] = r[3];
    }
#pragma unroll
    for (int tile = 0; tile < MINE; tile++) {
      const uint4 v = load_16(shared + stage_at + a_place + (tile * TILE_UNITS + step * TILE_VECTORS) * 16);
      to.a[tile][0] = v.x, to.a[tile][1] = v.y, to.a[tile][2] = v.z, to.a[tile][3] = v.w;
    }
  };
  using Sums = float[MINE][MY_ROW_TILES][4];
  Sums totals = {}, sums = {};
  auto multiply = [&](const Fragments& of) {
#pragma unroll
    for (int tile = 0; tile < MINE; tile++) {
#pragma unroll
      for (int row = 0; row < MY_ROW_TILES; row++) mma_m16n8k16_bf16(sums[tile][row], of.a[tile], of.b[row]);
    }
  };
  // Where the thread leaves a slice's sums, or part 0's: place 0 is part 0's, then come the slices behind it.
  const uint32_t block = blockIdx.y * gridDim.x + blockIdx.x, places = 1 + SLICES - slices_0;
  auto partial_of = [&](uint32_t place, int tile, int row) {
    const size_t accumulator = (size_t(block) * places + place) * (MINE * MY_ROW_TILES) + tile * MY_ROW_TILES + row;
    return split.partials + (accumulator * PRODUCT_THREADS + threadIdx.x) * 4;
  };
  // What lies beyond R is neither left nor taken.
  auto some_of = [&](int row) { return row_0 + my_row + row * 8 < rows; };
  auto leave = [&](uint32_t place, const Sums& of) {
#pragma unroll
    for (int tile = 0; tile < MINE; tile++) {
#pragma unroll
      for (int row = 0; row < MY_ROW_TILES; row++) {
        if (!some_of(row)) continue;
        const float* v = of[tile][row];
        *reinterpret_cast<float4*>(partial_of(place, tile, row)) = make_float4(v[0], v[1], v[2], v[3]);
      }
    }
  };
  uint32_t slice = first_slice;
  auto close_slice = [&]() {
    if constexpr (Split::SPLIT) {
      if (part > 0) leave(1 + slice - slices_0, sums);
    }
    slice++;
#pragma unroll
    for (int tile = 0; tile < MINE; tile++) {
#pragma unroll
      for (int row = 0; row < MY_ROW_TILES; row++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
          totals[tile][row][e] += sums[tile][row][e];
          sums[tile][row][e] = 0.0f;
        }
      }
    }
  };

  Fragments fragments[2] = {};  // before the first step: zeros, which add nothing
  uint32_t slice_end = per_slice;
  // In bytes: the stage that is there, and the one that is copied.
  uint32_t from = 0, to = (STAGES - 1) * STAGE_BYTES;
  auto load_and_multiply = [&](uint32_t first, auto ends) {
#pragma unroll
    for (int i = 0; i < STAGE_STEPS; i++) {
      load(fragments[i % 2], from, i);
#pragma unroll
      for (int copy = i; copy < weight_copies.COUNT + input_copies.COUNT; copy += STAGE_STEPS) {
        if (copy < weight_copies.COUNT) {
          weight_copies.copy(copy, shared + to);
        } else {
          input_copies.copy(copy - weight_copies.COUNT, shared + to + WEIGHT_BYTES);
        }
      }
      multiply(fragments[(i + 1) % 2]);
      if (ends.value && first + i == slice_end && slice < end_slice) {
        close_slice();
        slice_end += per_slice;
      }
    }
  };
  for (uint32_t stage = 0; stage < stages; stage++) {
    cp_async_wait<STAGES - 2>();
    __syncthreads();  // all have this stage, and have loaded the last of the one before it, whose place is taken now
    if (stage + STAGES >= stages) grid_dependency_trigger();
    // Most stages have no slice's end, and are spared its additions under a condition behind each step.
    if (slice_end < (stage + 1) * STAGE_STEPS) {
      load_and_multiply(stage * STAGE_STEPS, Known<true>());
    } else {
      load_and_multiply(stage * STAGE_STEPS, Known<false>());
    }
    weight_copies.next_stage();
    input_copies.next_stage();
    cp_async_commit();
    to = from;
    from = from == (STAGES - 1) * STAGE_BYTES ? 0 : from + STAGE_BYTES;
  }
  multiply(fragments[1]);
  while (slice < end_slice) close_slice();  // the last one, and those that K leaves empty
  cp_async_wait<0>();
  __syncthreads();  // the stages are free

  if constexpr (Split::SPLIT) {
    SMEM_ARRAY(uint32_t, arrived, [1]);
    if (parts > 1) {
      if (part == 0) leave(0, totals);
      __syncthreads();  // the part's sums are written
      if (threadIdx.x == 0) arrived[0] = count_in(&split.counters[block]);
      __syncthreads();  // the others' are there
      if (arrived[0] + 1 < parts) return;
      if (threadIdx.x == 0) split.counters[block] = 0;
      for (uint32_t place = 0; place < places; place++) {
#pragma unroll
        for (int tile = 0; tile < MINE; tile++) {
#pragma unroll
          for (int row = 0; row < MY_ROW_TILES; row++) {
            if (!some_of(row)) continue;
            const float4 v = *reinterpret_cast<const float4*>(partial_of(place, tile, row));
            const float sum[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
            for (int e = 0; e < 4; e++) totals[tile][row][e] = place == 0 ? sum[e] : totals[tile][row][e] + sum[e];
          }
        }
      }
    }
  }

  // Through shared memory, so that a row's columns are stored side by side. 4 floats more than a multiple of 32
  // keep the lanes of a fragment in banks of their own.
  constexpr uint32_t STRIDE = 16 * TILES + 4;
  constexpr uint32_t PAIRS = COLUMNS<Epilogue, TILES> / 2;
  float* stored = reinterpret_cast<float*>(shared);
  const uint32_t g = lane / 4, t = lane % 4;
#pragma unroll
  for (int tile = 0; tile < MINE; tile++) {
#pragma unroll
    for (int row = 0; row < MY_ROW_TILES; row++) {
#pragma unroll
      for (int e = 0; e < 4; e++) {
        const uint32_t r = my_row + row * 8 + 2 * t + e % 2, column = (my_tile + tile) * 16 + g + e / 2 * 8;
        stored[r * STRIDE + column] = totals[tile][row][e];
      }
    }
  }
  __syncthreads();
  for (uint32_t output = threadIdx.x; output < ROWS * PAIRS; output += PRODUCT_THREADS) {
    const uint32_t r = output / PAIRS, column = output % PAIRS * 2;
    const uint32_t n = blockIdx.y * COLUMNS<Epilogue, TILES> + column;
    if (row_0 + r < rows && n < width) {
      const typename Epilogue::Early early = epilogue.load(row_0 + r, n);
      float2 y[Epilogue::MATRICES];
#pragma unroll
      for (int matrix = 0; matrix < Epilogue::MATRICES; matrix++) {
        const uint32_t tile = column / 16 * Epilogue::MATRICES + matrix;
        y[matrix] = *reinterpret_cast<const float2*>(stored + r * STRIDE + tile * 16 + column % 16);
      }
      epilogue.store(early, row_0 + r, n, y);
    }
  }
}
