// device_math.cu
// What kernels/common.cuh has in common with the host, as words: tests/device_math.rs compares every bit.
#include "common.cuh"

#define EACH_WORD(name, result)                                                                             \
  extern "C" __global__ void name(uint32_t* out, uint32_t first, uint32_t stride) {                         \
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;                                               \
    const uint32_t bits = first + i * stride;                                                               \
    out[i] = result;                                                                                        \
  }                                                                                                         \
  KERNEL_EXPORT(name)

// out[i] = f(first + i * stride), both as the bits of a float
EACH_WORD(test_exp, __float_as_uint(exp_(__uint_as_float(bits))))
EACH_WORD(test_ln, __float_as_uint(ln_(__uint_as_float(bits))))
EACH_WORD(test_ln_1m, __float_as_uint(ln_1m(__uint_as_float(bits))))
EACH_WORD(test_silu, __float_as_uint(silu(__uint_as_float(bits))))
EACH_WORD(test_gelu_tanh, __float_as_uint(gelu_tanh(__uint_as_float(bits))))
EACH_WORD(test_gumbel_of, __float_as_uint(gumbel_of(bits)))
EACH_WORD(test_to_bf16, pack_bf16(__uint_as_float(bits), to_float(from_float<bf16>(__uint_as_float(bits)))))
EACH_WORD(test_from_bf16, __float_as_uint(unpack_bf16(bits).x) ^ (__float_as_uint(unpack_bf16(bits).y) >> 16))

// out (threads, 4): the random bits of quad i of one draw
extern "C" __global__ void test_draw_bits(uint4* out, uint64_t seed, uint64_t image, uint32_t token) {
  const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  store_16(out + i, draw_bits(seed, image, token, i));
}
KERNEL_EXPORT(test_draw_bits)

// out (16): the fields of a row and of a draw, one after another; of 8-byte ones the sum of both halves
extern "C" __global__ void test_tables(uint32_t* out, const Row* row, const Draw* draw) {
  if (threadIdx.x != 0) return;
  out[0] = row->slot;
  out[1] = row->position;
  out[2] = row->token;
  out[3] = static_cast<uint32_t>(draw->seed) + static_cast<uint32_t>(draw->seed >> 32);
  out[4] = static_cast<uint32_t>(draw->image) + static_cast<uint32_t>(draw->image >> 32);
  out[5] = draw->cond_row;
  out[6] = draw->uncond_row;
  out[7] = draw->token;
  out[8] = draw->picture;
  out[9] = __float_as_uint(draw->cfg_scale);
  out[10] = __float_as_uint(draw->temperature);
  out[11] = __float_as_uint(draw->top_p);
  out[12] = draw->top_k;
  out[13] = draw->greedy;
  out[14] = NO_ROW;
  out[15] = NO_CODE;
  out[16] = draw->guidance_end;
  out[17] = draw->window;
  out[18] = draw->guess;
}
KERNEL_EXPORT(test_tables)
