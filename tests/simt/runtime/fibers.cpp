// Stacks and the switch between them.
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>

#include "runtime.h"

#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace simt {

#ifdef __x86_64__
// By hand: the C library's swapcontext asks the system for the signal mask each time, which is 15 times slower.
asm(R"(
.text
.globl simt_switch
.hidden simt_switch
.type simt_switch,@function
.align 16
simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size simt_switch,.-simt_switch
)");

void* make_context(const Fiber& fiber, unsigned number, void (*entry)()) {
  // Stacks begin at differing offsets, or equal locals of all threads would fall into the same cache set.
  const auto top = reinterpret_cast<uintptr_t>(fiber.low + fiber.size - 256 - number % 64 * 64) & ~uintptr_t(63);
  void** stack = reinterpret_cast<void**>(top);
  *--stack = nullptr;  // a return address, which leaves the alignment that a function expects on entry
  *--stack = reinterpret_cast<void*>(entry);
  for (int saved = 0; saved < 6; saved++) *--stack = nullptr;
  return stack;
}
#else
extern "C" void simt_switch(void** save, void* to) {
  ucontext_t here;
  *save = &here;
  swapcontext(&here, static_cast<ucontext_t*>(to));
}

void* make_context(const Fiber& fiber, unsigned, void (*entry)()) {
  auto* context = reinterpret_cast<ucontext_t*>(fiber.low + fiber.size - round_up(sizeof(ucontext_t), 64));
  getcontext(context);
  context->uc_stack.ss_sp = fiber.low;
  context->uc_stack.ss_size = reinterpret_cast<char*>(context) - fiber.low - 64;
  context->uc_link = nullptr;
  makecontext(context, entry, 0);
  return context;
}
#endif

Fiber* take_fiber(Worker* worker) {
  constexpr size_t STACK = 64 << 10, AT_ONCE = 64;
  // A system has a limit of mappings (65530 by default), and each guard page is one.
  constexpr size_t WITH_GUARD = 8192;
  if (worker->free_fibers.empty()) {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK;
    void* memory = mmap(nullptr, AT_ONCE * (STACK + PAGE), PROT_READ | PROT_WRITE, flags, -1, 0);
    if (memory == MAP_FAILED) {
      fprintf(stderr, "simt: no memory for stacks\n");
      abort();
    }
    for (size_t i = AT_ONCE; i-- > 0;) {
      char* low = static_cast<char*>(memory) + i * (STACK + PAGE);
      if (worker->fibers.size() < WITH_GUARD) mprotect(low, PAGE, PROT_NONE);
      worker->fibers.push_back(new Fiber{low + PAGE, STACK});
      worker->free_fibers.push_back(worker->fibers.back());
    }
  }
  Fiber* fiber = worker->free_fibers.back();
  worker->free_fibers.pop_back();
  return fiber;
}

}  // namespace simt
