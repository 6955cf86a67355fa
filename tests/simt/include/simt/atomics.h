// Atomic operations. They are real ones: several threads of the operating system may run blocks.
#pragma once

#include <type_traits>

namespace simt {

// Tells the race checks of an atomic access.
void note_atomic(void* p, size_t bytes, Place);

template <class T, class F>
SIMT_UNSEEN inline T atomic(T* p, F f, Place place) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "atomics of 4 and 8 bytes");
  aligned(p, sizeof(T));
  note_atomic(p, sizeof(T), place);
  using Word = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  auto* word = reinterpret_cast<Word*>(p);
  Word found = __atomic_load_n(word, __ATOMIC_RELAXED), next;
  T old;
  do {
    std::memcpy(&old, &found, sizeof(T));
    const T value = f(old);
    std::memcpy(&next, &value, sizeof(T));
  } while (!__atomic_compare_exchange_n(word, &found, next, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED));
  return old;
}

// Keeps the second argument from taking part in the deduction of T.
template <class T>
struct As {
  using Type = T;
};
template <class T>
using as = typename As<T>::Type;

}  // namespace simt

template <class T>
inline T atomicAdd(T* p, simt::as<T> v, SIMT_PLACE) {
  return simt::atomic(p, [v](T old) { return T(old + v); }, SIMT_HERE);
}
template <class T>
inline T atomicMax(T* p, simt::as<T> v, SIMT_PLACE) {
  return simt::atomic(p, [v](T old) { return old < v ? v : old; }, SIMT_HERE);
}
template <class T>
inline T atomicMin(T* p, simt::as<T> v, SIMT_PLACE) {
  return simt::atomic(p, [v](T old) { return v < old ? v : old; }, SIMT_HERE);
}
template <class T>
inline T atomicExch(T* p, simt::as<T> v, SIMT_PLACE) {
  return simt::atomic(p, [v](T) { return v; }, SIMT_HERE);
}
template <class T>
inline T atomicOr(T* p, simt::as<T> v, SIMT_PLACE) {
  return simt::atomic(p, [v](T old) { return T(old | v); }, SIMT_HERE);
}
template <class T>
inline T atomicAnd(T* p, simt::as<T> v, SIMT_PLACE) {
  return simt::atomic(p, [v](T old) { return T(old & v); }, SIMT_HERE);
}
template <class T>
inline T atomicCAS(T* p, simt::as<T> expected, simt::as<T> v, SIMT_PLACE) {
  const auto swap = [expected, v](T old) { return std::memcmp(&old, &expected, sizeof(T)) == 0 ? v : old; };
  return simt::atomic(p, swap, SIMT_HERE);
}
inline unsigned atomicInc(unsigned* p, unsigned last, SIMT_PLACE) {
  return simt::atomic(p, [last](unsigned old) { return old >= last ? 0u : old + 1; }, SIMT_HERE);
}
