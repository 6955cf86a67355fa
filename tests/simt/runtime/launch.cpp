// Blocks, workers, and the functions that the Rust side calls.
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <thread>

#include "runtime.h"

namespace simt {

namespace {

// A C++ thread would end the process when a test binary leaves while it waits, so workers are never destroyed.
constexpr int WORKERS = 2;
// Below this many threads in a launch a second worker costs more than it does.
constexpr uint64_t WORTH_SHARING = 1024;

// Filled by static objects, so it has to be there before them.
std::map<std::string, Kernel>& kernels() {
  static auto* table = new std::map<std::string, Kernel>();
  return *table;
}

void number_threads(Block* block) {
  const Launch* launch = block->launch;
  const uint32_t* size = launch->config.block;
  if (block->threads.size() < launch->threads) block->threads.resize(launch->threads);
  uint3 index{0, 0, 0};
  for (uint32_t i = 0; i < launch->threads; i++) {
    Thread& thread = block->threads[i];
    thread.block = block;
    thread.fiber = nullptr;
    thread.index = index;
    thread.lane = i % 32;
    thread.warp = i / 32;
    thread.state = State::New;
    thread.what = nullptr;
    thread.place = {nullptr, 0};
    thread.copy_group = 0;
    thread.copies.clear();
    if (++index.x == size[0]) {
      index.x = 0;
      if (++index.y == size[1]) {
        index.y = 0;
        ++index.z;
      }
    }
  }
}

}  // namespace

Registered::Registered(Kernel kernel) {
  if (!kernels().emplace(kernel.name, kernel).second) {
    fprintf(stderr, "simt: two kernels are called %s\n", kernel.name);
    abort();
  }
}

// The `number`-th block in the launch's order.
void begin_block(Worker* worker, Block* block, uint64_t number) {
  Launch* launch = worker->launch;
  if (!launch->block_order.empty()) number = launch->block_order[number];
  const uint32_t* grid = launch->config.grid;
  block->launch = launch;
  block->worker = worker;
  block->number = number;
  block->active = true;
  block->index = {uint32_t(number % grid[0]), uint32_t(number / grid[0] % grid[1]),
                  uint32_t(number / grid[0] / grid[1])};
  block->random = (launch->config.seed * 0x9E3779B97F4A7C15ull) ^ (number * 0xD1B54A32D192ED03ull + 0x2545F491ull);
  for (int i = 0; i < 4; i++) random(block);
  number_threads(block);
  for (uint32_t i = 0; i < launch->warps; i++) {
    const uint32_t lanes = std::min(32u, launch->threads - i * 32);
    Warp& warp = block->warps[i];
    warp.live = warp.runnable = lanes == 32 ? ~0u : (1u << lanes) - 1;
    warp.waiting = warp.yielded = 0;
  }
  block->live = launch->threads;
  block->runnable_warps = launch->warps == 32 ? ~0u : (1u << launch->warps) - 1;
  block->at_grid = 0;
  block->barrier = Barrier{};
  block->grid_barrier = Barrier{};
  begin_shared(block);
  if (checks) checks->block_begins(block);
  block->current_warp = choose(block, block->runnable_warps);
}

// Runs blocks until there are no more; the whole grid at once where it is cooperative.
static void work(Worker* worker, Launch* launch) {
  worker->launch = launch;
  worker->failed = false;
  worker->fault_address = worker->fault_pc = nullptr;
  worker->error.clear();
  worker->fruitless = 0;
  const LaunchConfig& config = launch->config;
  blockDim = dim3(config.block[0], config.block[1], config.block[2]);
  gridDim = dim3(config.grid[0], config.grid[1], config.grid[2]);
  const uint64_t at_once = config.cooperative ? launch->blocks : 1;
  while (worker->resident.size() < at_once) worker->resident.push_back(std::make_unique<Block>());
  for (auto& block : worker->resident) block->active = false;
  bool any = false;
  for (uint64_t i = 0; i < at_once; i++) {
    const uint64_t number = launch->next.fetch_add(1);
    if (number >= launch->blocks) break;
    begin_block(worker, worker->resident[i].get(), number);
    any = true;
  }
  if (!any) return;
  Thread* first = pick_in(worker->resident[0].get());
  first->fiber = take_fiber(worker);
  first->state = State::Ready;
  first->stack = make_context(*first->fiber, 0, &fiber_main);
  set_current(worker, first);
  simt_switch(&worker->main_stack, first->stack);
  if (worker->failed) {
    launch->stop = true;
    if (worker->fault_pc || worker->fault_address) worker->error = fault_text(worker);
    worker->free_fibers = worker->fibers;  // what ran on them is given up
  }
  worker->current = nullptr;
}

namespace {

// One launch at a time.
class Pool {
 public:
  std::string run(Launch* launch) {
    const bool share =
        !checks && !launch->config.cooperative && launch->blocks * launch->threads >= WORTH_SHARING;
    std::unique_lock<std::mutex> lock(mutex_);
    wanted_ = share ? int(std::min<uint64_t>(WORKERS, launch->blocks)) : 1;
    while (started_ < wanted_) {
      std::thread(&Pool::serve, this, started_).detach();
      started_++;
    }
    launch_ = launch;
    left_ = wanted_;
    error_.clear();
    generation_++;
    begin_.notify_all();
    end_.wait(lock, [&] { return left_ == 0; });
    return error_;
  }

 private:
  void serve(int number) {
    install_fault_handler();
    Worker* worker = this_worker = new Worker();
    uint64_t seen = 0;
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      begin_.wait(lock, [&] { return generation_ != seen && number < wanted_; });
      seen = generation_;
      Launch* launch = launch_;
      lock.unlock();
      work(worker, launch);
      lock.lock();
      if (worker->failed && error_.empty()) error_ = worker->error;
      if (--left_ == 0) end_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable begin_, end_;
  Launch* launch_ = nullptr;
  uint64_t generation_ = 0;
  int started_ = 0, wanted_ = 0, left_ = 0;
  std::string error_;
};

void order_blocks(Launch* launch) {
  const Order order = launch->config.order;
  if (order == Order::Forward) return;
  launch->block_order.resize(launch->blocks);
  for (uint64_t i = 0; i < launch->blocks; i++) {
    launch->block_order[i] = uint32_t(order == Order::Reverse ? launch->blocks - 1 - i : i);
  }
  if (order != Order::Random) return;
  uint64_t state = launch->config.seed * 6364136223846793005ull + 1;
  for (uint64_t left = launch->blocks; left > 1; left--) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    std::swap(launch->block_order[left - 1], launch->block_order[(state >> 33) % left]);
  }
}

// What a device of compute capability 8.0 to 10.0 refuses; null where there is nothing.
const char* refusal(const LaunchConfig& config, uint64_t threads, uint64_t blocks) {
  if (threads == 0 || blocks == 0) return "a dimension is 0";
  if (config.grid[0] > 0x7fffffffu || config.grid[1] > 65535 || config.grid[2] > 65535) return "the grid is too large";
  if (threads > 1024 || config.block[2] > 64) return "the block is too large";
  if (config.shared_bytes > 227 * 1024) return "over 227 KiB of shared memory";
  if (blocks > 0xffffffffu) return "over 2^32 blocks";
  if (config.cooperative && blocks > 1024) return "a cooperative launch of over 1024 blocks";
  return nullptr;
}

}  // namespace
}  // namespace simt

using namespace simt;

extern "C" {

SIMT_PUBLIC size_t simt_kernel_count() { return kernels().size(); }

// The `number`-th kernel by name: its name, and the sizes of its arguments in bytes.
SIMT_PUBLIC const char* simt_kernel(size_t number, uint32_t* count, const uint32_t** sizes) {
  auto kernel = kernels().begin();
  std::advance(kernel, number);
  *count = kernel->second.count;
  *sizes = kernel->second.sizes;
  return kernel->second.name;
}

// 0, or what went wrong is in `error`. One call at a time.
SIMT_PUBLIC int simt_launch(const char* name, const LaunchConfig* config, void** arguments, char* error,
                            size_t error_bytes) {
  static Pool& pool = *new Pool();
  const auto found = kernels().find(name);
  if (found == kernels().end()) {
    snprintf(error, error_bytes, "there is no kernel %s", name);
    return 1;
  }
  Launch launch;
  launch.kernel = &found->second;
  launch.arguments = arguments;
  launch.config = *config;
  const uint64_t threads = uint64_t(config->block[0]) * config->block[1] * config->block[2];
  launch.blocks = uint64_t(config->grid[0]) * config->grid[1] * config->grid[2];
  if (const char* reason = refusal(*config, threads, launch.blocks)) {
    snprintf(error, error_bytes, "launch of %s: %s", name, reason);
    return 1;
  }
  launch.threads = uint32_t(threads);
  launch.warps = (launch.threads + 31) / 32;
  order_blocks(&launch);
  if (checks) checks->launch_begins();
  const std::string failure = pool.run(&launch);
  if (failure.empty()) return 0;
  snprintf(error, error_bytes, "%s", failure.c_str());
  return 2;
}
}
