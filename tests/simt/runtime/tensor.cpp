// ldmatrix and mma.sync.
#include <cstring>

#include "runtime.h"

namespace simt {

constexpr uint32_t ALL = 0xffffffffu;

namespace {

struct LoadOperands {
  uint32_t* r;
  const unsigned char* row;
  int count;
  bool transposed;
};

void run_load(void* const* operands, uint32_t lanes) {
  if (lanes != ALL) fail("ldmatrix needs all 32 lanes, and has %08x", lanes);
  const Thread* current = this_worker->current;
  Block* block = current->block;
  const int count = static_cast<LoadOperands*>(operands[0])->count;
  for (int matrix = 0; matrix < count; matrix++) {
    uint16_t m[8][8];
    for (int r = 0; r < 8; r++) {
      const int lane = 8 * matrix + r;
      const unsigned char* row = static_cast<LoadOperands*>(operands[lane])->row;
      if (uintptr_t(row) % 16) fail("ldmatrix: the row of lane %d is not 16-byte aligned", lane);
      if (!in_shared(block, row, 16)) fail("ldmatrix: the row of lane %d is outside shared memory", lane);
      if (checks) checks->access(&block->threads[current->warp * 32 + lane], row, 16, Access::Read, nullptr);
      memcpy(m[r], row, 16);
    }
    for (int lane = 0; lane < 32; lane++) {
      auto* mine = static_cast<LoadOperands*>(operands[lane]);
      const int a = lane / 4, b = lane % 4 * 2;
      mine->r[matrix] =
          mine->transposed ? m[b][a] | uint32_t(m[b + 1][a]) << 16 : m[a][b] | uint32_t(m[a][b + 1]) << 16;
    }
  }
}

struct MultiplyOperands {
  float* d;
  const uint32_t *a, *b;
};

void widen(float* to, const uint16_t* from, int count) {
  for (int i = 0; i < count; i++) {
    const uint32_t word = uint32_t(from[i]) << 16;
    memcpy(to + i, &word, 4);
  }
}

#if defined(__x86_64__) && !defined(__clang__)
#define SIMT_CLONES __attribute__((target_clones("arch=haswell", "default")))
#else
#define SIMT_CLONES
#endif

// d (16, 8) += a (16, 16) * b (8, 16)^T, one f32 sum over k in order: products of bf16 are exact in f32.
SIMT_CLONES void multiply(const uint16_t* a16, const uint16_t* b16, float* d) {
  float a[16 * 16], b[8 * 16];
  widen(a, a16, 16 * 16);
  widen(b, b16, 8 * 16);
  float by_k[16][8];
  for (int k = 0; k < 16; k++) {
    for (int n = 0; n < 8; n++) by_k[k][n] = b[n * 16 + k];
  }
  for (int m = 0; m < 16; m++) {
    float sum[8];
    memcpy(sum, d + m * 8, sizeof sum);
    for (int k = 0; k < 16; k++) {
      for (int n = 0; n < 8; n++) sum[n] += a[m * 16 + k] * by_k[k][n];
    }
    memcpy(d + m * 8, sum, sizeof sum);
  }
}

void run_multiply(void* const* operands, uint32_t lanes) {
  if (lanes != ALL) fail("mma.sync needs all 32 lanes, and has %08x", lanes);
  uint16_t a[16 * 16], b[8 * 16];
  float d[16 * 8];
  for (int lane = 0; lane < 32; lane++) {
    auto* mine = static_cast<MultiplyOperands*>(operands[lane]);
    const int g = lane / 4, t = lane % 4 * 2;
    memcpy(a + g * 16 + t, mine->a, 4);
    memcpy(a + (g + 8) * 16 + t, mine->a + 1, 4);
    memcpy(a + g * 16 + t + 8, mine->a + 2, 4);
    memcpy(a + (g + 8) * 16 + t + 8, mine->a + 3, 4);
    memcpy(b + g * 16 + t, mine->b, 4);
    memcpy(b + g * 16 + t + 8, mine->b + 1, 4);
    memcpy(d + g * 8 + t, mine->d, 8);
    memcpy(d + (g + 8) * 8 + t, mine->d + 2, 8);
  }
  multiply(a, b, d);
  for (int lane = 0; lane < 32; lane++) {
    auto* mine = static_cast<MultiplyOperands*>(operands[lane]);
    const int g = lane / 4, t = lane % 4 * 2;
    memcpy(mine->d, d + g * 8 + t, 8);
    memcpy(mine->d + 2, d + (g + 8) * 8 + t, 8);
  }
}

}  // namespace

void load_matrices(uint32_t* r, const void* row, int count, bool transposed, Place place) {
  LoadOperands operands{r, static_cast<const unsigned char*>(row), count, transposed};
  collective(ALL, &operands, &run_load, "ldmatrix", place);
}

void multiply_bf16(float* d, const uint32_t* a, const uint32_t* b, Place place) {
  MultiplyOperands operands{d, a, b};
  collective(ALL, &operands, &run_multiply, "mma.sync", place);
}

}  // namespace simt
