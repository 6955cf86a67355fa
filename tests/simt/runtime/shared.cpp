// Shared memory. Dynamic memory ends at a guard page; static arrays stand between red zones. All of it holds
// 0xFF, which is NaN in every float type and -1 as an integer, until it is written.
#include <cstring>
#include <mutex>
#include <sys/mman.h>

#include "runtime.h"

namespace simt {

constexpr size_t STATIC_BYTES = 48 << 10, RED_ZONE = 16;
constexpr unsigned char UNWRITTEN = 0xFF, RED = 0xA5;
// Offsets of static arrays, as the instructions take them, lie behind those of dynamic memory.
constexpr uint32_t STATIC_OFFSET = 1 << 18;

namespace {

struct ArrayInfo {
  size_t bytes;
  const char* name;
};

// Filled by static objects, so it has to be there before them.
std::vector<ArrayInfo>& array_table() {
  static auto* table = new std::vector<ArrayInfo>();
  return *table;
}

std::mutex array_mutex;

ArrayInfo array_info(int index) {
  std::lock_guard<std::mutex> lock(array_mutex);
  return array_table()[index];
}

}  // namespace

SharedArray::SharedArray(size_t bytes, const char* name) {
  std::lock_guard<std::mutex> lock(array_mutex);
  index = int(array_table().size());
  array_table().push_back({bytes, name});
}

void Region::reserve(size_t bytes) {
  bytes = round_up(bytes ? bytes : 1, PAGE);
  if (low && bytes <= size_t(end - low)) return;
  if (low) munmap(low - PAGE, end - low + 2 * PAGE);
  void* memory = mmap(nullptr, bytes + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) fail("no memory for %zu bytes of shared memory", bytes);
  low = static_cast<unsigned char*>(memory) + PAGE;
  end = low + bytes;
  mprotect(low, bytes, PROT_READ | PROT_WRITE);
}

void begin_shared(Block* block) {
  const size_t bytes = block->launch->config.shared_bytes;
  for (const ArrayInUse& array : block->arrays_in_use) block->arrays[array.index] = nullptr;
  block->arrays_in_use.clear();
  block->static_bytes = 0;
  block->dynamic_region.reserve(bytes);
  // As aligned as its size is, so that it ends at the guard page wherever that is possible.
  size_t alignment = 16;
  while (alignment < 1024 && bytes % (2 * alignment) == 0) alignment *= 2;
  block->dynamic = block->dynamic_region.end - round_up(bytes, alignment);
  block->dynamic_bytes = bytes;
  memset(block->dynamic, UNWRITTEN, bytes);
  memset(block->dynamic + bytes, RED, block->dynamic_region.end - block->dynamic - bytes);
}

void* shared_array(const SharedArray& array) {
  Block* block = this_worker->current->block;
  if (size_t(array.index) >= block->arrays.size()) block->arrays.resize(array.index + 16, nullptr);
  void*& memory = block->arrays[array.index];
  if (__builtin_expect(memory != nullptr, 1)) return memory;
  const ArrayInfo info = array_info(array.index);
  block->static_region.reserve(STATIC_BYTES);
  const size_t padded = round_up(info.bytes, 16);
  if (block->static_bytes + padded + 2 * RED_ZONE > STATIC_BYTES) {
    fail("over %zu bytes of static shared memory with %s", STATIC_BYTES, info.name);
  }
  unsigned char* start = block->static_region.low + block->static_bytes + RED_ZONE;
  memset(start - RED_ZONE, RED, padded + 2 * RED_ZONE);
  memset(start, UNWRITTEN, info.bytes);
  block->static_bytes += padded + RED_ZONE;
  block->arrays_in_use.push_back({array.index, start, info.bytes, info.name});
  return memory = start;
}

unsigned char* dynamic_shared() { return this_worker->current->block->dynamic; }

uint32_t shared_offset(const void* p) {
  const Block* block = this_worker->current->block;
  auto* at = static_cast<const unsigned char*>(p);
  if (at >= block->dynamic_region.low && at <= block->dynamic_region.end) return at - block->dynamic_region.low;
  if (block->static_bytes && at >= block->static_region.low && at <= block->static_region.end) {
    return STATIC_OFFSET + (at - block->static_region.low);
  }
  fail("address %p is not in shared memory", p);
}

bool in_shared(const Block* block, const void* p, size_t bytes) {
  auto* at = static_cast<const unsigned char*>(p);
  if (at >= block->dynamic && at + bytes <= block->dynamic + block->dynamic_bytes) return true;
  for (const ArrayInUse& array : block->arrays_in_use) {
    if (at >= array.start && at + bytes <= array.start + array.bytes) return true;
  }
  return false;
}

// Called on a thread of the block that ends.
void check_red_zones(Block* block) {
  for (const ArrayInUse& array : block->arrays_in_use) {
    const size_t behind = round_up(array.bytes, 16) - array.bytes + RED_ZONE;
    for (size_t i = 0; i < behind; i++) {
      if (array.start[array.bytes + i] != RED) fail("write past the end of the shared array %s (+%zu)", array.name, i);
    }
    for (size_t i = 1; i <= RED_ZONE; i++) {
      if (*(array.start - i) != RED) fail("write before the shared array %s (-%zu)", array.name, i);
    }
  }
  const unsigned char* end = block->dynamic + block->dynamic_bytes;
  for (const unsigned char* at = end; at < block->dynamic_region.end; at++) {
    if (*at != RED) fail("write past the end of dynamic shared memory (+%zu)", size_t(at - end));
  }
}

}  // namespace simt
