// product.cuh
// y[r, n] = Σ_k weight[n, k] * input[r, k], the body of every product of a transformer.
//
// One order of summation at every number of rows: K is cut into SLICES of whole steps of 16, by K alone; a slice
// is one chain of tensor-core steps in ascending k that starts from zero; the slices are added in ascending
// order. A step is mma.m16n8k16 with 16 rows of weights and 8 rows of activations, also where there is but one
// row: the weights' bytes bound the time, not the arithmetic. Two shapes keep this order, so their bits are equal:
//
//   thin   few rows. A block has one slice per warp of TILES tiles of 16 weight rows; the slices meet in shared
//          memory. Weights stream from memory to registers, 16 bytes per lane and step, DEPTH steps ahead, the
//          first of them before the wait for the launch before this one. Activations come from L2 in the layout of
//          the fragments, and are normalized on the way: every block sums up the squares of its rows. So where a norm
//          comes first no more blocks are launched than have room at once: a block takes one group of tiles after the
//          other, and the next one's weights are under way while sums of this one meet.
//   wide   many rows. A warp has a patch of weight rows x activation rows and all of K; weights and activations,
//          both bf16, come by cp.async through stages in shared memory. Where a norm comes first, norm_rows
//          (norm_rows.cu) has written its result: each of the N / 128 blocks of a row would read it as f32, twice.
//          The next launch may start when the last block is near its end: blocks of it that settled before would
//          crowd the few multiprocessors that this launch leaves free, and the others would wait for them.
//
// Weights are packed as fragments [N / 16][K / 16][lane][8] (backend/cuda/fragments.rs), zeros beyond N and K.
// An epilogue is a struct: MATRICES (2 where it wants two products of the same input, weight by weight), `Early`
// with `load(r, n)`, what it reads for columns n and n + 1 of row r, called before the sums are there, and
// `store(early, r, n, y)`. n is even.
//
// Tuning, from the machine code for sm_90a (no measurement yet): up to 128 registers in the thin shape, two blocks
// on a multiprocessor; 8 to 16 LDG.128 per lane are under way, 32 to 64 KiB per block, all of them issued before
// the wait (ACQBULK). A weight is loaded behind the mma that used its registers: before it, the compiler copies
// the new value over and waits for it there. Activations are plain loads: `const __restrict__` would make them
// LDG.CONSTANT, which neither the wait nor another launch's writes hold back.
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

// ---- activations as B fragments: lane 4 g + t holds of row g the columns 2t, 2t + 1, 2t + 8, 2t + 9 of a step --

// Rows of bf16, as they are.
template <int ROW_TILES, int STEPS_HELD>
struct PlainRows {
  static constexpr int HELD = STEPS_HELD;  // steps that are held at a time
  static constexpr bool MANY = false;      // a block has one group: a further one would begin as soon by itself
  const bf16* input;  // (rows, K): the block's rows
  uint32_t rows;
  uint32_t depth;     // K; divisible by 8
  uint32_t raw[HELD][ROW_TILES][2];

  __device__ __forceinline__ PlainRows(const bf16* all, uint32_t all_rows, uint32_t depth)
      : input(all + size_t(blockIdx.x) * 8 * ROW_TILES * depth),
        rows(all_rows - blockIdx.x * 8 * ROW_TILES),
        depth(depth) {}

  // Whatever no launch writes, of the first HELD steps.
  __device__ __forceinline__ void before_wait(Slice) {}

  __device__ __forceinline__ void load_first(Slice slice) { load(slice.first, slice); }

  // Steps first .. first + HELD - 1, zeros beyond the slice, K and R.
  __device__ __forceinline__ void load(uint32_t first, Slice slice) {
    const uint32_t g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < HELD; i++) {
      const uint32_t k = (first + i) * STEP + 2 * t;
#pragma unroll
      for (int tile = 0; tile < ROW_TILES; tile++) {
        const uint32_t row = tile * 8 + g;
        const bool some = first + i < slice.last && row < rows;
        const bf16* at = input + size_t(row) * depth + k;
        raw[i][tile][0] = some ? *reinterpret_cast<const uint32_t*>(at) : 0;
        raw[i][tile][1] = some && k + 8 < depth ? *reinterpret_cast<const uint32_t*>(at + 8) : 0;
      }
    }
  }

  // Once, by the whole block, after the first load.
  __device__ __forceinline__ void prepare(Slice) {}

  __device__ __forceinline__ void fragment(int i, int tile, uint32_t (&b)[2]) const {
    b[0] = raw[i][tile][0];
    b[1] = raw[i][tile][1];
  }
};

// Rows of f32 through RMSNorm, with LlamaGen's casts: bf16(bf16(x * rstd) * norm).
// MORE: steps that are squared at once beside those that are held, as many as a product's registers leave: 3 spill on
// sm_80.
template <int ROW_TILES, int STEPS_HELD, int MORE = ROW_TILES == 1 ? 2 : 4 / ROW_TILES>
struct NormedRows {
  static constexpr int HELD = STEPS_HELD;  // steps that are held at a time
  static constexpr bool MANY = true;       // a block may have several groups, and sums up the squares once
  const float* x;     // (rows, K): the block's rows
  const float* norm;  // (K)
  float eps;
  uint32_t rows;
  uint32_t depth;  // K; divisible by 8
  float2 raw[HELD][ROW_TILES][2];
  float2 scale[HELD][2];
  float rstd[ROW_TILES];

  __device__ __forceinline__ NormedRows(const float* all, const float* norm, float eps, uint32_t all_rows,
                                        uint32_t depth)
      : x(all + size_t(blockIdx.x) * 8 * ROW_TILES * depth),
        norm(norm),
        eps(eps),
        rows(all_rows - blockIdx.x * 8 * ROW_TILES),
        depth(depth) {}

  __device__ __forceinline__ void before_wait(Slice slice) { load_norm(slice.first, slice); }

  __device__ __forceinline__ void load_norm(uint32_t first, Slice slice) {
    const uint32_t t = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < HELD; i++) {
      const uint32_t k = (first + i) * STEP + 2 * t;
      const bool some = first + i < slice.last;
      const float2 zero = make_float2(0.0f, 0.0f);
      scale[i][0] = some ? *reinterpret_cast<const float2*>(norm + k) : zero;
      scale[i][1] = some && k + 8 < depth ? *reinterpret_cast<const float2*>(norm + k + 8) : zero;
    }
  }

  template <int COUNT>
  __device__ __forceinline__ void load_x(float2 (&to)[COUNT][ROW_TILES][2], uint32_t first, Slice slice) const {
    const uint32_t g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
      const uint32_t k = (first + i) * STEP + 2 * t;
#pragma unroll
      for (int tile = 0; tile < ROW_TILES; tile++) {
        const uint32_t row = tile * 8 + g;
        const bool some = first + i < slice.last && row < rows;
        const float2 zero = make_float2(0.0f, 0.0f);
        const float* at = x + size_t(row) * depth + k;
        to[i][tile][0] = some ? *reinterpret_cast<const float2*>(at) : zero;
        to[i][tile][1] = some && k + 8 < depth ? *reinterpret_cast<const float2*>(at + 8) : zero;
      }
    }
  }

  // The first steps, whose norm weights are there already.
  __device__ __forceinline__ void load_first(Slice slice) { load_x(raw, slice.first, slice); }

  __device__ __forceinline__ void load(uint32_t first, Slice slice) {
    load_x(raw, first, slice);
    load_norm(first, slice);
  }

  template <int COUNT>
  static __device__ __forceinline__ void add_squares(float (&sums)[ROW_TILES],
                                                     const float2 (&of)[COUNT][ROW_TILES][2]) {
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
#pragma unroll
      for (int tile = 0; tile < ROW_TILES; tile++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
          sums[tile] = __fmaf_rn(of[i][tile][half].x, of[i][tile][half].x, sums[tile]);
          sums[tile] = __fmaf_rn(of[i][tile][half].y, of[i][tile][half].y, sums[tile]);
        }
      }
    }
  }

  // rstd of the lane's rows. The squares are summed up in one order too: a chain per lane over the slice, the
  // four lanes of a row as a tree, the slices ascending. The zeros beyond the slice change no bit. Up to HELD
  // steps per slice, x is read once and stays in registers.
  __device__ __forceinline__ void prepare(Slice slice) {
    SMEM_ARRAY(float, squares, [SLICES][8 * ROW_TILES]);
    const uint32_t warp = threadIdx.x / WARP, g = threadIdx.x % WARP / 4;
    float sums[ROW_TILES] = {};
    add_squares(sums, raw);
    for (uint32_t first = slice.first + HELD; first < slice.last; first += MORE) {
      float2 more[MORE][ROW_TILES][2];
      load_x(more, first, slice);
      add_squares(sums, more);
    }
#pragma unroll
    for (int tile = 0; tile < ROW_TILES; tile++) {
      sums[tile] += __shfl_xor_sync(ALL_LANES, sums[tile], 1);
      sums[tile] += __shfl_xor_sync(ALL_LANES, sums[tile], 2);
      if (threadIdx.x % 4 == 0) squares[warp][tile * 8 + g] = sums[tile];
    }
    const float mean = __frcp_rn(static_cast<float>(depth));
    __syncthreads();
#pragma unroll
    for (int tile = 0; tile < ROW_TILES; tile++) {
      float sum = 0.0f;
#pragma unroll
      for (uint32_t s = 0; s < SLICES; s++) sum += squares[s][tile * 8 + g];
      rstd[tile] = __frsqrt_rn(__fmaf_rn(sum, mean, eps));
    }
  }

  __device__ __forceinline__ void fragment(int i, int tile, uint32_t (&b)[2]) const {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const float2 v = raw[i][tile][half], w = scale[i][half];
      const float2 n = unpack_bf16(pack_bf16(__fmul_rn(v.x, rstd[tile]), __fmul_rn(v.y, rstd[tile])));
      b[half] = pack_bf16(__fmul_rn(n.x, w.x), __fmul_rn(n.y, w.y));
    }
  }
};

// ---- thin -------------------------------------------------------------------------------------------------

// Columns of y that a block of TILES weight tiles makes.
template <class Epilogue, int TILES>
constexpr uint32_t COLUMNS = 16 * TILES / Epilogue::MATRICES;

// Where a lane's weights are loaded from: DEPTH steps, or as many as there are, of a warp's slice of a group's tiles.
// Places are counted in 16-byte vectors: a matrix has fewer than 2^32.
template <int TILES_EACH, int DEPTH>
struct Stream {
  uint32_t first, second;  // the first step in the group's first tile, and in its second one
  uint32_t count;          // steps; 0: there is nothing more

  // The beginning of the group whose first column is `column`.
  __device__ __forceinline__ void begin(uint32_t column, Slice slice, uint32_t width, uint32_t depth) {
    static_assert(TILES_EACH <= 2, "`first` and `second`");
    const uint32_t steps = ceil_div(depth, STEP);
    first = (column / 16 * steps + slice.first) * TILE_VECTORS + threadIdx.x % WARP;
    // A tile beyond the last is computed from the last one, and not stored.
    second = column + 16 < width ? first + steps * TILE_VECTORS : first;
    count = column < width ? min(slice.last - slice.first, uint32_t(DEPTH)) : 0;
  }

  // From those at `step` to the ones behind them, of the same group; there are some.
  __device__ __forceinline__ void advance(uint32_t step, Slice slice) {
    first += DEPTH * TILE_VECTORS;
    second += DEPTH * TILE_VECTORS;
    count = min(slice.last - step - DEPTH, uint32_t(DEPTH));
  }

  // Step i of them, of a tile of the group.
  __device__ __forceinline__ uint4 load(const bf16* weight, int tile, uint32_t i) const {
    return load_16_stream(reinterpret_cast<const uint4*>(weight) + (tile == 0 ? first : second) + i * TILE_VECTORS);
  }
};

// Blocks of PRODUCT_THREADS, x: blocks of 8 * ROW_TILES rows, so that blocks with the same weights run at the same
// time, y: each takes every gridDim.y-th group of COLUMNS of y, the first by its number. `input` holds the rows from
// the block's first on.
template <int TILES, int ROW_TILES, int DEPTH, class Epilogue, class Input>
__device__ __forceinline__ void product_thin(const Epilogue& epilogue,
                                             Input& input,
                                             const bf16* const (&weights)[Epilogue::MATRICES],
                                             uint32_t rows,     // R
                                             uint32_t width,    // N, of each matrix
                                             uint32_t depth) {  // K
  constexpr int HELD = Input::HELD;
  static_assert(DEPTH % HELD == 0, "whole parts");
  constexpr int TILES_EACH = TILES / Epilogue::MATRICES;
  constexpr uint32_t GROUP = COLUMNS<Epilogue, TILES>, PAIRS = GROUP / 2;
  constexpr uint32_t OUTPUTS = PAIRS * 8 * ROW_TILES;
  constexpr uint32_t ITEMS = (OUTPUTS + PRODUCT_THREADS - 1) / PRODUCT_THREADS;
  // A stride of 20 keeps the four lanes of a row in banks of their own.
  constexpr uint32_t STRIDE = 20;
  SMEM_ARRAY(float, partial, [SLICES][TILES][8 * ROW_TILES][STRIDE]);

  const uint32_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  const uint32_t g = lane / 4, t = lane % 4;
  const Slice slice(depth, warp);
  const uint32_t row_0 = blockIdx.x * 8 * ROW_TILES;
  Stream<TILES_EACH, DEPTH> stream;
  stream.begin(blockIdx.y * GROUP, slice, width, depth);
  uint4 ahead[DEPTH][TILES];
#pragma unroll
  for (uint32_t i = 0; i < DEPTH; i++) {
    if (i < stream.count) {
#pragma unroll
      for (int tile = 0; tile < TILES; tile++) {
        ahead[i][tile] = stream.load(weights[tile / TILES_EACH], tile % TILES_EACH, i);
      }
    }
  }
  input.before_wait(slice);
  grid_dependency_wait();
  input.load_first(slice);

  for (uint32_t column_0 = blockIdx.y * GROUP; column_0 < width; column_0 += gridDim.y * GROUP) {
    typename Epilogue::Early early[ITEMS] = {};
#pragma unroll
    for (uint32_t item = 0; item < ITEMS; item++) {
      const uint32_t output = item * PRODUCT_THREADS + threadIdx.x;
      const uint32_t r = output / PAIRS, n = column_0 + output % PAIRS * 2;
      if (output < OUTPUTS && row_0 + r < rows && n < width) early[item] = epilogue.load(row_0 + r, n);
    }
    if (!Input::MANY || column_0 == blockIdx.y * GROUP) {
      input.prepare(slice);
    } else if (slice.last - slice.first > HELD) {
      input.load(slice.first, slice);
    }

    float sums[TILES][ROW_TILES][4] = {};
    for (uint32_t base = slice.first; base < slice.last; base += DEPTH) {
      // What is loaded while these steps are used: the next ones, or the first of the block's next group.
      if (base + DEPTH < slice.last) {
        stream.advance(base, slice);
      } else if (Input::MANY) {
        stream.begin(column_0 + gridDim.y * GROUP, slice, width, depth);
      } else {
        stream.count = 0;
      }
#pragma unroll
      for (uint32_t i = 0; i < DEPTH; i++) {
        const uint32_t step = base + i;
        const bool some = step < slice.last;
        uint32_t b[ROW_TILES][2];
        if (some) {
#pragma unroll
          for (int row = 0; row < ROW_TILES; row++) input.fragment(i % HELD, row, b[row]);
        }
#pragma unroll
        for (int tile = 0; tile < TILES; tile++) {
          const uint32_t a[4] = {ahead[i][tile].x, ahead[i][tile].y, ahead[i][tile].z, ahead[i][tile].w};
          if (some) {
#pragma unroll
            for (int row = 0; row < ROW_TILES; row++) mma_m16n8k16_bf16(sums[tile][row], a, b[row]);
          }
          // Behind the use: into the same registers, without a copy that would wait for it.
          if (i < stream.count) ahead[i][tile] = stream.load(weights[tile / TILES_EACH], tile % TILES_EACH, i);
        }
        if ((i + 1) % HELD == 0 && step + 1 < slice.last) input.load(step + 1, slice);
      }
    }

#pragma unroll
    for (int tile = 0; tile < TILES; tile++) {
#pragma unroll
      for (int row = 0; row < ROW_TILES; row++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
          partial[warp][tile][row * 8 + 2 * t + e % 2][g + e / 2 * 8] = sums[tile][row][e];
        }
      }
    }
    __syncthreads();  // all slices are there
#pragma unroll
    for (uint32_t item = 0; item < ITEMS; item++) {
      const uint32_t output = item * PRODUCT_THREADS + threadIdx.x;
      const uint32_t r = output / PAIRS, column = output % PAIRS * 2, n = column_0 + column;
      if (output < OUTPUTS && row_0 + r < rows && n < width) {
        float2 y[Epilogue::MATRICES];
#pragma unroll
        for (int matrix = 0; matrix < Epilogue::MATRICES; matrix++) {
          const uint32_t tile = matrix * TILES_EACH + column / 16;
          y[matrix] = make_float2(0.0f, 0.0f);
#pragma unroll
          for (uint32_t s = 0; s < SLICES; s++) {
            const float2 v = *reinterpret_cast<const float2*>(&partial[s][tile][r][column % 16]);
            y[matrix].x += v.x;
            y[matrix].y += v.y;
          }
        }
        epilogue.store(early[item], row_0 + r, n, y);
      }
    }
    if (!Input::MANY) return;
    __syncthreads();  // the next group's may come
  }
}

// ---- wide -------------------------------------------------------------------------------------------------

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

// The same of the activations. A row is eight units of 16 bytes, unit u of row r in the place u ^ r % 8, so that ldmatrix
// finds the same unit of eight rows in eight different places.
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

// Whether blocks in z share out the slices of K where rows are many but columns few ("split K"). Part 0 leaves the sum of
// its slices, the others leave each of theirs, so that the last one to arrive adds all in their order.
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

// Blocks as for the thin shape. Dynamic shared memory: the stages, or what is stored (backend/cuda/product.rs).
//
// A step's fragments are loaded while the step before is multiplied, over the barrier between stages, too; and each step
// has its share of the copies of the stage to come. So tensor cores wait for neither.
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
  // Of each two row tiles: their first eight rows, columns 0..7 and 8..15 of a step, then their last eight. A step further
  // on is another place of the same 128 bytes, which differs in some bits.
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
  auto leave = [&](uint32_t place, const Sums& of) {
#pragma unroll
    for (int tile = 0; tile < MINE; tile++) {
#pragma unroll
      for (int row = 0; row < MY_ROW_TILES; row++) {
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
  uint32_t from = 0, to = (STAGES - 1) * STAGE_BYTES;  // in bytes: the stage that is there, and the one that is copied
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
    // Most stages have no slice's end, and are spared 64 additions under a condition for each step.
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

// Instances: a kernel file defines THIN_PARAMETERS and WIDE_PARAMETERS, the templates thin and wide with these
// parameters, and THIN_ARGUMENTS and WIDE_ARGUMENTS, their names. Registers for two blocks on a multiprocessor,
// but for the widest.
#define THIN_KERNEL(name, ...)                                                                \
  extern "C" __global__ void __launch_bounds__(PRODUCT_THREADS, 2) name(THIN_PARAMETERS) {    \
    grid_dependency_trigger();                                                                \
    thin<__VA_ARGS__>(THIN_ARGUMENTS);                                                        \
  }
#define WIDE_KERNEL(name, blocks, ...)                                                        \
  extern "C" __global__ void __launch_bounds__(PRODUCT_THREADS, blocks) name(WIDE_PARAMETERS) { \
    wide<__VA_ARGS__>(WIDE_ARGUMENTS);                                                        \
  }
