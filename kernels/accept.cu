// accept.cu
// a = 1 + how many guesses of a window are confirmed before one is not: guess j, the token of row j, by draw j - 1
// codes[t + j] = drawn[j] for j < a; the window moves on to token t + a, and its rows get new guesses
//
// What reaches behind the last token loses its rows: NO_SLOT, NO_ROW, for the steps that are enqueued already.
//
//   shapes   codes (pictures, N)   sure (pictures)   runs (pictures, largest W)   rows (R)   draws, drawn (grid)
//   launch   a block of one warp per draw, no shared memory; but those of a window's first draw have nothing to do
//   needs    a window's draws lie in the grid; no two draws name the same row or place  (by graph::state::Draw)
//   cost     a few microseconds of latency, of which one or two are codes above the window, that lie in the host's
//            memory: all lanes ask for theirs at once
//   matches  graph::ops::accept::twin, all bits (tests/ops/accept.rs)
#include "common.cuh"

// `Guess` of graph/ops/accept.rs.
constexpr uint32_t GUESS_DRAWN = 0, GUESS_LEFT = 2;

// What is no number has no code: a harmless token stands for it.
__device__ __forceinline__ uint32_t input_of(uint32_t code) { return code == NO_CODE ? 0 : code; }

// `Guess::like`: which of the sure tokens has the code that stands for `token`.
__device__ __forceinline__ uint32_t like(uint32_t guess, uint32_t token, uint32_t sure, uint32_t latent_size) {
  const uint32_t up = ((token - sure) / latent_size + 1) * latent_size;
  return guess != GUESS_LEFT && up <= token ? token - up : sure - 1;
}

extern "C" __global__ void __launch_bounds__(WARP)
accept(uint32_t* codes,        // (pictures, N); the host's memory
       uint32_t* sure,         // (pictures); the host's memory
       uint32_t* runs,         // (pictures, largest W)
       Row* rows,              // (R)
       Draw* draws,            // (grid)
       const uint32_t* drawn,  // (grid)
       uint32_t latent_size,   // P
       uint32_t tokens,        // N
       uint32_t largest) {     // the largest W
  grid_dependency_trigger();
  grid_dependency_wait();
  Draw* const all = draws + blockIdx.x;
  const uint32_t* const own = drawn + blockIdx.x;
  const uint32_t window = all->window;
  if (window == 0) return;
  const uint32_t token = all->token, picture = all->picture, guess = all->guess;
  if (token >= tokens) return;
  codes += size_t(picture) * tokens;

  const uint32_t lane = threadIdx.x, count = min(window, tokens - token);
  uint32_t accepted = count;
  for (uint32_t first = 1; first < count && accepted == count; first += WARP) {
    const uint32_t j = first + lane;
    const bool wrong = j < count && rows[all[j].cond_row].token != input_of(own[j - 1]);
    const uint32_t wrongs = __ballot_sync(ALL_LANES, wrong);
    if (wrongs) accepted = first + __ffs(wrongs) - 1;
  }
  const uint32_t end = token + accepted;
  for (uint32_t j = lane; j < accepted; j += WARP) codes[token + j] = own[j];
  __syncwarp();  // all codes are written, and all guesses were read

  for (uint32_t j = lane; j < window; j += WARP) {
    const uint32_t position = end + j, before = position - 1;
    const uint32_t moved[2] = {all[j].cond_row, all[j].uncond_row};
    const bool idle = position >= tokens;
    uint32_t code = 0;
    if (!idle) {
      const bool drew = before < token + count && (before < end || guess == GUESS_DRAWN);
      const uint32_t from = drew ? before : like(guess, before, end, latent_size);
      // What was accepted just now is read where it was drawn.
      code = input_of(from >= token ? own[from - token] : codes[from]);
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
      if (moved[i] == NO_ROW) continue;
      Row& row = rows[moved[i]];
      if (idle) {
        row.slot = NO_SLOT;
      } else {
        row.token = code;
        row.position = position;
        row.settled = end;
      }
    }
    all[j].token = position;
    if (idle) all[j].cond_row = all[j].uncond_row = NO_ROW;
  }
  if (lane == 0) {
    runs[size_t(picture) * largest + accepted - 1]++;
    __threadfence_system();  // whoever sees the count sees the codes
    sure[picture] = end;
  }
}
KERNEL_EXPORT(accept)
