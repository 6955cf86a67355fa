// Arithmetic, bits and cached loads. Approximate functions of the device are exact to rounding here, which is
// one of the things that this executor cannot tell.
#pragma once

inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __frsqrt_rn(float x) { return float(1.0 / std::sqrt(double(x))); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
inline float __uint2float_rn(uint32_t x) { return float(x); }
inline float __int2float_rn(int x) { return float(x); }
inline int __float2int_rn(float x) { return int(std::nearbyint(x)); }
inline int __float2int_rd(float x) { return int(std::floor(x)); }
inline int __float2int_rz(float x) { return int(x); }

// The C library has some of these names for itself, declared and not exported.
inline float simt_expf(float x) { return std::exp(x); }
inline float simt_logf(float x) { return std::log(x); }
inline float simt_exp2f(float x) { return std::exp2(x); }
inline float simt_log2f(float x) { return std::log2(x); }
#define __expf simt_expf
#define __logf simt_logf
#define __exp2f simt_exp2f
#define __log2f simt_log2f

inline uint32_t __float_as_uint(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}
inline float __uint_as_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
inline int __float_as_int(float x) { return int(__float_as_uint(x)); }
inline float __int_as_float(int bits) { return __uint_as_float(uint32_t(bits)); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline uint32_t __umulhi(uint32_t a, uint32_t b) { return uint32_t(uint64_t(a) * b >> 32); }

template <class A, class B>
constexpr std::common_type_t<A, B> min(A a, B b) {
  using C = std::common_type_t<A, B>;
  return C(b) < C(a) ? C(b) : C(a);
}
template <class A, class B>
constexpr std::common_type_t<A, B> max(A a, B b) {
  using C = std::common_type_t<A, B>;
  return C(a) < C(b) ? C(b) : C(a);
}

template <class T>
inline T __ldg(const T* p) {
  simt::aligned(p, alignof(T));
  return *p;
}
template <class T>
inline T __ldcs(const T* p) {
  return __ldg(p);
}
template <class T>
inline T __ldcg(const T* p) {
  return __ldg(p);
}
template <class T>
inline void __stcs(T* p, simt::as<T> value) {
  simt::aligned(p, alignof(T));
  *p = value;
}
template <class T>
inline void __stcg(T* p, simt::as<T> value) {
  __stcs(p, value);
}
