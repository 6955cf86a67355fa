// contexts.cpp
// Contexts, and what lives in them: memory, modules, functions.
#include <cstring>
#include <map>

#include "driver.h"

namespace driver {

namespace {

// The calling thread's contexts, the current one last.
thread_local std::vector<Context*> stack;

std::mutex contexts_mutex;
std::vector<Context*>& contexts = *new std::vector<Context*>;

struct Allocation {
  Context* context;  // null: of a pool, which is a card's
  int device;
  size_t bytes;
  bool of_the_host;

  // A driver gives memory out in such pieces. What lies behind the bytes that were asked for is nobody's here.
  size_t taken_bytes() const { return simt::round_up(bytes, 256); }
};

std::mutex memory_mutex;
// Never destroyed: threads may still call when the process ends.
std::map<uint64_t, Allocation>& allocations = *new std::map<uint64_t, Allocation>;
size_t used_bytes = 0;

// The primary context of a card, and how many retain it.
struct Primary {
  Context* context = nullptr;
  int retained = 0;
};
std::mutex primary_mutex;
std::map<int, Primary>& primaries = *new std::map<int, Primary>;

// Aligned for vectors, and less than a driver's: behind its bytes stands what may not be touched.
Result allocate(const char* call, Context* context, bool of_a_pool, size_t bytes, bool of_the_host, uint64_t* address) {
  if (bytes == 0) return misuse(INVALID_VALUE, call, "no bytes");
  const Allocation allocation{of_a_pool ? nullptr : context, context->device, bytes, of_the_host};
  std::scoped_lock lock(runtime, memory_mutex);
  if (!of_the_host && used_bytes + allocation.taken_bytes() > size_t(card().memory_bytes)) return OUT_OF_MEMORY;
  void* memory = simt_alloc(bytes);
  if (!memory) return OUT_OF_MEMORY;
  if (!of_the_host) used_bytes += allocation.taken_bytes();
  *address = reinterpret_cast<uint64_t>(memory);
  allocations.insert_or_assign(*address, allocation);
  return SUCCESS;
}

void release(std::map<uint64_t, Allocation>::iterator found) {
  if (!found->second.of_the_host) used_bytes -= found->second.taken_bytes();
  simt_free(reinterpret_cast<void*>(found->first));
  allocations.erase(found);
}

// Freeing waits for all that runs in the context.
Result give_back(const char* call, Context* context, uint64_t address, bool of_the_host) {
  std::vector<Object*> objects;
  {
    std::lock_guard<std::mutex> lock(context->mutex);
    objects = context->objects;
  }
  for (Object* object : objects) {
    if (object->kind == Kind::Stream && object->alive) wait_for(object);
  }
  std::scoped_lock lock(runtime, memory_mutex);
  const auto found = allocations.find(address);
  if (found == allocations.end() || found->second.of_the_host != of_the_host) {
    return misuse(INVALID_VALUE, call, "no such memory");
  }
  release(found);
  return fault_of(context);
}

const char* name_of(Kind kind) {
  switch (kind) {
    case Kind::Context: return "context";
    case Kind::Module: return "module";
    case Kind::Function: return "function";
    case Kind::Stream: return "stream";
    case Kind::Event: return "event";
    case Kind::Graph: return "graph";
    case Kind::Exec: return "executable graph";
  }
  return "object";
}

// What is still there when a context ends that no fault has ended.
void tell_what_is_left(Context* context) {
  std::lock_guard<std::mutex> lock(memory_mutex);
  std::string left;
  for (Object* object : context->objects) {
    const Kind kind = object->kind;
    const bool counts = kind == Kind::Stream || kind == Kind::Event || kind == Kind::Graph || kind == Kind::Exec;
    if (counts && object->alive && object != context->default_stream) left += std::string(" a ") + name_of(kind);
  }
  for (const auto& [address, allocation] : allocations) {
    if (allocation.context == context) left += " " + std::to_string(allocation.bytes) + " bytes";
  }
  if (!left.empty()) misuse(SUCCESS, "cuCtxDestroy_v2", "left behind are" + left);
}

Context* make_context(int device) {
  Context* context = new Context(device);
  context->default_stream = make_stream(context);
  std::lock_guard<std::mutex> lock(contexts_mutex);
  contexts.push_back(context);
  return context;
}

void destroy(Context* context) {
  if (context->fault == SUCCESS) tell_what_is_left(context);
  for (Object* object : std::vector<Object*>(context->objects)) {
    if (object->kind == Kind::Stream && object->alive) end(object);
  }
  std::scoped_lock lock(runtime, memory_mutex);
  for (auto at = allocations.begin(); at != allocations.end();) {
    const auto next = std::next(at);
    if (at->second.context == context) release(at);
    at = next;
  }
  for (Object* object : context->objects) object->alive = false;
}

}  // namespace

Object::Object(Kind kind, Context* context) : kind(kind), context(context) {
  if (kind == Kind::Context) return;  // it is not whole yet
  std::lock_guard<std::mutex> lock(context->mutex);
  context->objects.push_back(this);
}

Context::Context(int device) : Object(Kind::Context, this), device(device) { objects.push_back(this); }

Result current(const char* call, Context** context) {
  if (stack.empty()) return misuse(INVALID_CONTEXT, call, "the thread is in no context");
  *context = stack.back();
  if (!(*context)->alive) return misuse(CONTEXT_IS_DESTROYED, call, "the context is destroyed");
  return SUCCESS;
}

Result check(const char* call, Kind kind, const Object* object, const Context* context) {
  const std::string name = name_of(kind);
  if (!object) return misuse(INVALID_HANDLE, call, "no " + name);
  if (object->kind != kind) return misuse(INVALID_HANDLE, call, "a handle of another kind, not of a " + name);
  if (!object->alive) return misuse(INVALID_HANDLE, call, "a destroyed " + name);
  if (object->context != context) return misuse(INVALID_CONTEXT, call, "a " + name + " of another context");
  return SUCCESS;
}

bool is_memory(const Context* context, uint64_t address, size_t bytes) {
  std::lock_guard<std::mutex> lock(memory_mutex);
  auto after = allocations.upper_bound(address);
  if (after == allocations.begin()) return false;
  const auto& [start, allocation] = *std::prev(after);
  if (allocation.context && allocation.context != context) return false;
  return address + bytes <= start + allocation.bytes;
}

}  // namespace driver

using namespace driver;

// Contexts of a card that are alive.
extern "C" SIMT_PUBLIC int simt_driver_contexts(int device) {
  std::lock_guard<std::mutex> lock(contexts_mutex);
  int alive = 0;
  for (const Context* context : contexts) alive += context->device == device && context->alive;
  return alive;
}

// Contexts that the calling thread has entered and not left.
extern "C" SIMT_PUBLIC size_t simt_driver_entered() { return stack.size(); }

// ---- contexts

CUDA_CALL cuCtxCreate_v4(Context** context, void* parameters, unsigned flags, int device) {
  NOT_CAPTURING;
  if (const Result wrong = check_card(__func__, device)) return wrong;
  if (parameters || flags) return misuse(INVALID_VALUE, __func__, "parameters and flags are not known here");
  *context = make_context(device);
  stack.push_back(*context);
  return SUCCESS;
}

CUDA_CALL cuCtxDestroy_v2(Context* context) {
  NOT_CAPTURING;
  CHECK(Kind::Context, context, context);
  if (!stack.empty() && stack.back() == context) stack.pop_back();
  destroy(context);
  return SUCCESS;
}

CUDA_CALL cuCtxPushCurrent_v2(Context* context) {
  CHECK(Kind::Context, context, context);
  stack.push_back(context);
  return SUCCESS;
}

CUDA_CALL cuCtxPopCurrent_v2(Context** context) {
  if (stack.empty()) return misuse(INVALID_CONTEXT, __func__, "the thread is in no context");
  *context = stack.back();
  stack.pop_back();
  return SUCCESS;
}

CUDA_CALL cuCtxGetDevice(int* device) {
  IN_CONTEXT(context);
  *device = context->device;
  return SUCCESS;
}

CUDA_CALL cuDevicePrimaryCtxRetain(Context** context, int device) {
  if (const Result wrong = check_card(__func__, device)) return wrong;
  std::lock_guard<std::mutex> lock(primary_mutex);
  Primary& primary = primaries[device];
  if (primary.retained++ == 0) primary.context = make_context(device);
  *context = primary.context;
  return SUCCESS;
}

CUDA_CALL cuDevicePrimaryCtxRelease_v2(int device) {
  std::lock_guard<std::mutex> lock(primary_mutex);
  Primary& primary = primaries[device];
  if (primary.retained == 0) return misuse(INVALID_CONTEXT, __func__, "nobody retains the primary context");
  if (--primary.retained == 0) destroy(primary.context);
  return SUCCESS;
}

// ---- memory

CUDA_CALL cuMemGetInfo_v2(size_t* free, size_t* total) {
  IN_CONTEXT(context);
  std::lock_guard<std::mutex> lock(memory_mutex);
  *total = size_t(card().memory_bytes);
  *free = *total - used_bytes;
  return SUCCESS;
}

CUDA_CALL cuMemAlloc_v2(uint64_t* address, size_t bytes) {
  IN_CONTEXT(context);
  NOT_CAPTURING;
  return allocate(__func__, context, false, bytes, false, address);
}

// Of the card's pool; there at once.
CUDA_CALL cuMemAllocAsync(uint64_t* address, size_t bytes, Object*) {
  IN_CONTEXT(context);
  return allocate(__func__, context, true, bytes, false, address);
}

CUDA_CALL cuMemFree_v2(uint64_t address) {
  IN_CONTEXT(context);
  NOT_CAPTURING;
  return give_back(__func__, context, address, false);
}

CUDA_CALL cuMemHostAlloc(void** host, size_t bytes, unsigned flags) {
  constexpr unsigned DEVICEMAP = 2;
  IN_CONTEXT(context);
  NOT_CAPTURING;
  if (flags != DEVICEMAP) return misuse(INVALID_VALUE, __func__, "flags other than CU_MEMHOSTALLOC_DEVICEMAP");
  uint64_t address = 0;
  const Result result = allocate(__func__, context, false, bytes, true, &address);
  *host = reinterpret_cast<void*>(address);
  return result;
}

CUDA_CALL cuMemHostGetDevicePointer_v2(uint64_t* address, void* host, unsigned flags) {
  IN_CONTEXT(context);
  if (flags != 0) return misuse(INVALID_VALUE, __func__, "flags must be 0");
  *address = reinterpret_cast<uint64_t>(host);
  if (!is_memory(context, *address, 1)) return misuse(INVALID_VALUE, __func__, "no such memory");
  return SUCCESS;
}

CUDA_CALL cuMemFreeHost(void* host) {
  IN_CONTEXT(context);
  NOT_CAPTURING;
  return give_back(__func__, context, reinterpret_cast<uint64_t>(host), true);
}

CUDA_CALL cuPointerGetAttribute(void* value, int attribute, uint64_t address) {
  constexpr int CONTEXT = 1, DEVICE_ORDINAL = 9;
  std::lock_guard<std::mutex> lock(memory_mutex);
  auto after = allocations.upper_bound(address);
  if (after == allocations.begin()) return INVALID_VALUE;
  const auto& [start, allocation] = *std::prev(after);
  if (address >= start + allocation.bytes) return INVALID_VALUE;
  switch (attribute) {
    case CONTEXT: *static_cast<Context**>(value) = allocation.context; return SUCCESS;
    case DEVICE_ORDINAL: *static_cast<int*>(value) = allocation.device; return SUCCESS;
  }
  return misuse(INVALID_VALUE, __func__, "attribute " + std::to_string(attribute) + " is not known here");
}

// ---- modules and functions

CUDA_CALL cuModuleLoadData(Object** module, const void* image) {
  IN_CONTEXT(context);
  NOT_CAPTURING;
  constexpr uint32_t FATBIN = 0xBA55ED50, ELF = 0x464C457F;
  if (reinterpret_cast<uintptr_t>(image) % 8) return misuse(INVALID_IMAGE, __func__, "machine code that is not aligned");
  uint32_t magic;
  memcpy(&magic, image, sizeof magic);
  if (magic != FATBIN && magic != ELF) return misuse(INVALID_IMAGE, __func__, "neither a fatbin nor a cubin");
  *module = new Object(Kind::Module, context);
  return SUCCESS;
}

CUDA_CALL cuModuleGetFunction(Function** function, Object* module, const char* name) {
  IN_CONTEXT(context);
  CHECK(Kind::Module, module, context);
  for (size_t number = 0; number < simt_kernel_count(); number++) {
    uint32_t count;
    const uint32_t* sizes;
    if (strcmp(simt_kernel(number, &count, &sizes), name)) continue;
    *function = new Function(context);
    (*function)->name = name;
    (*function)->sizes.assign(sizes, sizes + count);
    return SUCCESS;
  }
  return misuse(NOT_FOUND, __func__, std::string("there is no kernel ") + name);
}

CUDA_CALL cuFuncSetAttribute(Function* function, int attribute, int value) {
  constexpr int MAX_DYNAMIC_SHARED_BYTES = 8, CARVEOUT = 9;
  IN_CONTEXT(context);
  CHECK(Kind::Function, function, context);
  switch (attribute) {
    case MAX_DYNAMIC_SHARED_BYTES:
      if (value < 0 || value > card().shared_bytes) {
        return misuse(INVALID_VALUE, __func__, std::to_string(value) + " bytes of shared memory for " + function->name);
      }
      function->shared_bytes = uint32_t(value);
      return SUCCESS;
    case CARVEOUT:
      if (value < -1 || value > 100) return misuse(INVALID_VALUE, __func__, "no percentage");
      return SUCCESS;
  }
  return misuse(INVALID_VALUE, __func__, "attribute " + std::to_string(attribute) + " is not known here");
}
