// Kernels by name, called with an array of pointers to their arguments, as the driver's launch is.
#pragma once

#include <type_traits>
#include <utility>

namespace simt {

struct Kernel {
  const char* name;
  void (*call)(void** arguments);
  uint32_t count;             // of arguments
  const uint32_t* sizes;      // in bytes
};

// Enters a kernel into the table; static objects of this type stand behind KERNEL_EXPORT.
struct Registered {
  explicit Registered(Kernel);
};

template <class F>
struct Signature;

template <class... A>
struct Signature<void (*)(A...)> {
  static constexpr uint32_t count = sizeof...(A);
  static constexpr uint32_t sizes[count + 1] = {sizeof(A)..., 0};

  template <void (*F)(A...), size_t... I>
  SIMT_UNSEEN static void call_each(void** arguments, std::index_sequence<I...>) {
    F(*static_cast<std::remove_cv_t<A>*>(arguments[I])...);
  }

  template <void (*F)(A...)>
  static void call(void** arguments) {
    call_each<F>(arguments, std::index_sequence_for<A...>{});
  }
};

}  // namespace simt

#define KERNEL_EXPORT(kernel)                                                                          \
  static ::simt::Registered simt_registered_##kernel(                                                  \
      ::simt::Kernel{#kernel, &::simt::Signature<decltype(&kernel)>::call<&kernel>,                    \
                     ::simt::Signature<decltype(&kernel)>::count, ::simt::Signature<decltype(&kernel)>::sizes});
