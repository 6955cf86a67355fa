// product_thin.cuh
// The shape of product.cuh for few rows. A block has one slice per warp of TILES tiles of 16 weight rows; the slices
// meet in shared memory. Weights stream from memory to shared memory, 16 bytes per lane and step, DEPTH steps ahead,
// the first of them before the wait for the launch before this one; a lane reads what it copied itself, so nobody waits
// for others. Activations come from L2 in the layout of the fragments. Behind a norm the shape of 8 rows normalizes
// them on the way, and every block sums up their squares. So no more of its blocks are launched than have room at once:
// a block takes one group of tiles after the other, and the next one's weights are under way while sums of this one
// meet. Shapes of more rows have what norm_rows left: their blocks would read rows twice, of f32, and 16 of them are
// twice the bytes of the weights then.
//
// Tuning, from the machine code for sm_90a, not from measurements: at most 80 registers (of 32 rows 88), and 38 to 86 KB
// of shared memory, so that beside two blocks of 8 rows a multiprocessor of 228 KB has room for one of the next launch. 8 to 16
// LDGSTS.128 per lane are under way, 32 to 64 KiB per block, the first of them issued before the wait (ACQBULK), and a
// step waits for its own alone (DEPBAR counts groups). Through registers it would wait for all: a warp has six counters
// of loads under way, of which ptxas gives those of a loop one, and each step's wait took in what the step before had
// just asked for. Activations are plain loads: `const __restrict__` would make them LDG.CONSTANT, which neither the wait
// nor another launch's writes hold back.
#pragma once

#include "product.cuh"

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

  // Copies what no launch writes to `room`, and leaves the group open.
  __device__ __forceinline__ void before_wait(Slice, unsigned char*) {}

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

  // Once, by the whole block, after the first load, when each lane has what it copied before the wait.
  __device__ __forceinline__ void prepare(Slice) {}

  // Of step `step`, which is held as number i.
  __device__ __forceinline__ void fragment(int i, uint32_t, int tile, uint32_t (&b)[2]) const {
    b[0] = raw[i][tile][0];
    b[1] = raw[i][tile][1];
  }
};

// Rows of f32 through RMSNorm, with LlamaGen's casts: bf16(bf16(x * rstd) * norm). The norm's weights wait in shared
// memory, as many as K rounded up to whole steps: each warp copies those of its slice.
// MORE: steps that are squared at once beside those that are held, as many as a product's registers leave.
template <int STEPS_HELD, int MORE = 2>
struct NormedRows {
  static constexpr int HELD = STEPS_HELD;  // steps that are held at a time
  static constexpr bool MANY = true;       // a block may have several groups, and sums up the squares once
  const float* x;     // (rows, K): the block's rows
  const float* norm;  // (K)
  const float* near;  // the same in shared memory
  float eps;
  uint32_t rows;
  uint32_t depth;  // K; divisible by 8
  float2 raw[HELD][2];
  float rstd;

  __device__ __forceinline__ NormedRows(const float* all, const float* norm, float eps, uint32_t all_rows,
                                        uint32_t depth)
      : x(all + size_t(blockIdx.x) * 8 * depth),
        norm(norm),
        eps(eps),
        rows(all_rows - blockIdx.x * 8),
        depth(depth) {}

  __device__ __forceinline__ void before_wait(Slice slice, unsigned char* room) {
    float* to = reinterpret_cast<float*>(room);
    near = to;
    for (uint32_t k = slice.first * STEP + threadIdx.x % WARP * 4; k < slice.last * STEP; k += WARP * 4) {
      cp_async_16(to + k, norm + k, k < depth ? 16 : 0);
    }
  }

  template <int COUNT>
  __device__ __forceinline__ void load_x(float2 (&to)[COUNT][2], uint32_t first, Slice slice) const {
    const uint32_t g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
      const uint32_t k = (first + i) * STEP + 2 * t;
      const bool some = first + i < slice.last && g < rows;
      const float2 zero = make_float2(0.0f, 0.0f);
      const float* at = x + size_t(g) * depth + k;
      to[i][0] = some ? *reinterpret_cast<const float2*>(at) : zero;
      to[i][1] = some && k + 8 < depth ? *reinterpret_cast<const float2*>(at + 8) : zero;
    }
  }

  __device__ __forceinline__ void load(uint32_t first, Slice slice) { load_x(raw, first, slice); }

  template <int COUNT>
  static __device__ __forceinline__ void add_squares(float& sum, const float2 (&of)[COUNT][2]) {
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        sum = __fmaf_rn(of[i][half].x, of[i][half].x, sum);
        sum = __fmaf_rn(of[i][half].y, of[i][half].y, sum);
      }
    }
  }

  // rstd of the lane's row. The squares are summed up in one order too: a chain per lane over the slice, the
  // four lanes of a row as a tree, the slices ascending. The zeros beyond the slice change no bit. Up to HELD
  // steps per slice, x is read once and stays in registers.
  __device__ __forceinline__ void prepare(Slice slice) {
    SMEM_ARRAY(float, squares, [SLICES][8]);
    const uint32_t warp = threadIdx.x / WARP, g = threadIdx.x % WARP / 4;
    float sum = 0.0f;
    add_squares(sum, raw);
    for (uint32_t first = slice.first + HELD; first < slice.last; first += MORE) {
      float2 more[MORE][2];
      load_x(more, first, slice);
      add_squares(sum, more);
    }
    sum += __shfl_xor_sync(ALL_LANES, sum, 1);
    sum += __shfl_xor_sync(ALL_LANES, sum, 2);
    if (threadIdx.x % 4 == 0) squares[warp][g] = sum;
    const float mean = __frcp_rn(static_cast<float>(depth));
    __syncthreads();
    float all = 0.0f;
#pragma unroll
    for (uint32_t s = 0; s < SLICES; s++) all += squares[s][g];
    rstd = __frsqrt_rn(__fmaf_rn(all, mean, eps));
  }

  // The norm's weights for the lane's columns of half a step.
  __device__ __forceinline__ float2 weight(uint32_t step, int half) const {
    return *reinterpret_cast<const float2*>(near + step * STEP + threadIdx.x % 4 * 2 + 8 * half);
  }

  __device__ __forceinline__ void fragment(int i, uint32_t step, int, uint32_t (&b)[2]) const {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const float2 v = raw[i][half], w = weight(step, half);
      const float2 n = unpack_bf16(pack_bf16(__fmul_rn(v.x, rstd), __fmul_rn(v.y, rstd)));
      b[half] = pack_bf16(__fmul_rn(n.x, w.x), __fmul_rn(n.y, w.y));
    }
  }
};

// ---- the product ------------------------------------------------------------------------------------------

// Where a lane's weights are copied from: DEPTH steps, or as many as there are, of a warp's slice of a group's tiles.
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
  __device__ __forceinline__ void copy(uint4* to, const bf16* weight, int tile, uint32_t i) const {
    cp_async_16(to, reinterpret_cast<const uint4*>(weight) + (tile == 0 ? first : second) + i * TILE_VECTORS);
  }
};

// Blocks of PRODUCT_THREADS, x: blocks of 8 * ROW_TILES rows, so that blocks with the same weights run at the same
// time, y: each takes a group of COLUMNS of y, and of MANY every gridDim.y-th from there on; without MANY there are as
// many as groups. `input` holds the rows from the block's first on. The dynamic shared memory holds the weights ahead, 16
// bytes for each thread, tile and step, and behind them what `input` copies there.
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
  DYN_SMEM(shared);
  uint4* const ahead = reinterpret_cast<uint4*>(shared) + warp * (DEPTH * TILES * WARP) + lane;
  const auto place = [&](uint32_t i, int tile) { return ahead + (i * TILES + tile) * WARP; };
  // Step i of the stream takes its place, whose last one was used. A group for each step, also where nothing is left.
  const auto ask = [&](uint32_t i) {
    if (i < stream.count) {
#pragma unroll
      for (int tile = 0; tile < TILES; tile++) {
        stream.copy(place(i, tile), weights[tile / TILES_EACH], tile % TILES_EACH, i);
      }
    }
    cp_async_commit();
  };
  input.before_wait(slice, shared + PRODUCT_THREADS * DEPTH * TILES * sizeof(uint4));  // with the first step's
#pragma unroll
  for (uint32_t i = 0; i < DEPTH; i++) ask(i);
  grid_dependency_wait();
  input.load(slice.first, slice);

  for (uint32_t column_0 = blockIdx.y * GROUP; column_0 < width; column_0 += gridDim.y * GROUP) {
    typename Epilogue::Early early[ITEMS] = {};
#pragma unroll
    for (uint32_t item = 0; item < ITEMS; item++) {
      const uint32_t output = item * PRODUCT_THREADS + threadIdx.x;
      const uint32_t r = output / PAIRS, n = column_0 + output % PAIRS * 2;
      if (output < OUTPUTS && row_0 + r < rows && n < width) early[item] = epilogue.load(row_0 + r, n);
    }
    if (!Input::MANY || column_0 == blockIdx.y * GROUP) {
      cp_async_wait<DEPTH - 1>();
      input.prepare(slice);
    } else if (slice.last - slice.first > HELD) {
      input.load(slice.first, slice);
    }

    float sums[TILES][ROW_TILES][4] = {};
    for (uint32_t base = slice.first; base < slice.last; base += DEPTH) {
      // What is copied while these steps are used: the next ones, or the first of the block's next group.
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
        cp_async_wait<DEPTH - 1>();
        if (step < slice.last) {
          uint32_t b[ROW_TILES][2];
#pragma unroll
          for (int row = 0; row < ROW_TILES; row++) input.fragment(i % HELD, step, row, b[row]);
#pragma unroll
          for (int tile = 0; tile < TILES; tile++) {
            const uint4 v = load_16(place(i, tile));
            const uint32_t a[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
            for (int row = 0; row < ROW_TILES; row++) mma_m16n8k16_bf16(sums[tile][row], a, b[row]);
          }
        }
        ask(i);
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
