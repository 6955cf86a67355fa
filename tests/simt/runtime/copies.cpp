// cp.async. A copy takes effect when it is issued (eager) or when it is waited for (lazy): a device may do
// either, and each hides mistakes that the other shows.
#include <cstring>

#include "runtime.h"

namespace simt {

static void transfer(const Copy& copy) {
  memcpy(copy.dst, copy.src, copy.src_bytes);
  memset(static_cast<char*>(copy.dst) + copy.src_bytes, 0, copy.bytes - copy.src_bytes);
}

static void finish(Thread* thread, const Copy& copy) {
  if (!copy.done) transfer(copy);
  if (checks) {
    thread->what = "cp.async";
    thread->place = copy.place;
    if (copy.src_bytes) checks->access(thread, copy.src, copy.src_bytes, Access::Read, nullptr);
    checks->access(thread, copy.dst, copy.bytes, Access::CopyDone, nullptr);
  }
}

void copy_async(void* dst, const void* src, int bytes, int src_bytes, Place place) {
  Thread* thread = this_worker->current;
  Block* block = thread->block;
  thread->what = "cp.async";
  thread->place = place;
  if (src_bytes < 0 || src_bytes > bytes) fail("%s: src_bytes %d", where("cp.async", place).c_str(), src_bytes);
  if (!in_shared(block, dst, bytes)) {
    fail("%s: destination %p is outside this block's shared memory", where("cp.async", place).c_str(), dst);
  }
  aligned(dst, bytes);
  aligned(src, bytes);
  Copy copy{dst, src, uint8_t(bytes), uint8_t(src_bytes), false, thread->copy_group, place};
  if (src_bytes) {
    // Touched now even if it is copied later: a fault then names this place.
    auto* source = static_cast<const volatile char*>(src);
    (void)source[0];
    (void)source[src_bytes - 1];
  }
  if (checks) {
    if (src_bytes) checks->access(thread, src, src_bytes, Access::Read, nullptr);
    checks->access(thread, dst, bytes, Access::CopyIssued, nullptr);
  }
  if (!block->launch->config.lazy_copies) {
    transfer(copy);
    copy.done = true;
  }
  if (!copy.done || checks) thread->copies.push_back(copy);
}

void copy_async_commit() { this_worker->current->copy_group++; }

void copy_async_wait(int groups) {
  Thread* thread = this_worker->current;
  size_t kept = 0;
  for (const Copy& copy : thread->copies) {
    if (int32_t(thread->copy_group - copy.group) > groups) {
      finish(thread, copy);
    } else {
      thread->copies[kept++] = copy;
    }
  }
  thread->copies.resize(kept);
}

void finish_copies(Thread* thread) {
  for (const Copy& copy : thread->copies) finish(thread, copy);
  thread->copies.clear();
}

}  // namespace simt
