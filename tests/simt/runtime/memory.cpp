// Buffers ended by guard pages, and what a fault in a kernel becomes: an error of its launch.
#include <csignal>
#include <cstdio>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <sys/mman.h>
#include <ucontext.h>

#include "runtime.h"

namespace simt {

namespace {

std::mutex buffer_mutex;

// Bytes by address.
std::map<uintptr_t, size_t>& buffers() {
  static auto* map = new std::map<uintptr_t, size_t>();
  return *map;
}

struct Freed {
  char* low;  // With its guard pages.
  size_t bytes;
};

// The last buffers that were freed. Nobody else gets their addresses, so a use of one is found for certain.
std::deque<Freed>& freed() {
  static auto* queue = new std::deque<Freed>();
  return *queue;
}
constexpr size_t FREED_KEPT = 1024;

bool was_freed(const char* byte) {
  for (const Freed& buffer : freed()) {
    if (byte >= buffer.low + PAGE && byte < buffer.low + buffer.bytes - PAGE) return true;
  }
  return false;
}

struct sigaction before_segv, before_bus;

void on_fault(int signal, siginfo_t* info, void* context) {
  Worker* worker = this_worker;
  if (!worker || !worker->current) {
    // Not a kernel's: the same instruction faults again under the handler that was there before.
    sigaction(signal, signal == SIGBUS ? &before_bus : &before_segv, nullptr);
    return;
  }
  worker->fault_address = info->si_addr;
#ifdef __x86_64__
  worker->fault_pc = reinterpret_cast<void*>(static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP]);
#endif
  worker->failed = true;
  void* unused;
  simt_switch(&unused, worker->main_stack);
}

}  // namespace

// For the calling worker; the handler has a stack of its own, as a fiber's may be what overflowed.
void install_fault_handler() {
  stack_t stack{};
  stack.ss_size = 64 << 10;
  stack.ss_sp = mmap(nullptr, stack.ss_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  sigaltstack(&stack, nullptr);
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action {};
    action.sa_sigaction = on_fault;
    // The handler is left by a switch, so the signal must not stay blocked.
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigaction(SIGSEGV, &action, &before_segv);
    sigaction(SIGBUS, &action, &before_bus);
  });
}

std::string fault_text(Worker* worker) {
  const Thread* thread = worker->current;
  const Block* block = thread->block;
  const auto address = reinterpret_cast<uintptr_t>(worker->fault_address);
  char text[300];
  snprintf(text, sizeof text, ": invalid access to %p", worker->fault_address);
  std::string result = describe(thread) + text;
  const auto end = reinterpret_cast<uintptr_t>(block->dynamic_region.end);
  const auto stack = reinterpret_cast<uintptr_t>(thread->fiber->low);
  if (address >= end && address < end + PAGE) {
    const size_t past = address - reinterpret_cast<uintptr_t>(block->dynamic + block->dynamic_bytes);
    snprintf(text, sizeof text, ", %zu bytes past the end of %zu bytes of dynamic shared memory", past,
             block->dynamic_bytes);
    result += text;
  } else if (address >= stack - PAGE && address < stack) {
    result += ", past the end of the thread's stack";
  } else {
    std::lock_guard<std::mutex> lock(buffer_mutex);
    auto behind = buffers().upper_bound(address);
    if (behind != buffers().begin()) {
      --behind;
      const size_t past = address - behind->first - behind->second;
      if (address >= behind->first + behind->second && past < 2 * PAGE) {
        snprintf(text, sizeof text, ", %zu bytes past the end of a buffer of %zu", past, behind->second);
        result += text;
      }
    }
    if (was_freed(static_cast<char*>(worker->fault_address))) result += ", use of a buffer that was freed";
  }
  if (worker->fault_pc) result += ", at " + where(static_cast<char*>(worker->fault_pc) + 1);
  return result;
}

}  // namespace simt

using namespace simt;

extern "C" {

// Filled with 0xFF. Its end stands at a page that may not be touched, up to 15 bytes before it.
SIMT_PUBLIC void* simt_alloc(size_t bytes) {
  if (checks) return checks->allocate(bytes);
  const size_t padded = round_up(bytes ? bytes : 1, 16), pages = round_up(padded, PAGE);
  void* memory = mmap(nullptr, pages + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  char* low = static_cast<char*>(memory) + PAGE;
  mprotect(low, pages, PROT_READ | PROT_WRITE);
  char* start = low + pages - padded;
  memset(start, 0xFF, padded);
  std::lock_guard<std::mutex> lock(buffer_mutex);
  buffers()[reinterpret_cast<uintptr_t>(start)] = bytes;
  return start;
}

SIMT_PUBLIC void simt_free(void* p) {
  if (!p) return;
  if (checks) return checks->release(p);
  std::lock_guard<std::mutex> lock(buffer_mutex);
  auto found = buffers().find(reinterpret_cast<uintptr_t>(p));
  const size_t padded = round_up(found->second ? found->second : 1, 16), pages = round_up(padded, PAGE);
  buffers().erase(found);
  char* low = static_cast<char*>(p) + padded - pages - PAGE;
  // In place of the old pages, whose memory goes back.
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
  if (mmap(low, pages + 2 * PAGE, PROT_NONE, flags, -1, 0) == MAP_FAILED) fail("no memory to free %p", p);
  freed().push_back({low, pages + 2 * PAGE});
  if (freed().size() <= FREED_KEPT) return;
  munmap(freed().front().low, freed().front().bytes);
  freed().pop_front();
}

SIMT_PUBLIC void simt_host_wrote(void* p, size_t bytes) {
  if (checks) checks->host_wrote(p, bytes);
}

SIMT_PUBLIC uint32_t simt_now() { return checks ? checks->now() : 0; }
}
