// Runs a grid on the CPU: blocks on several operating-system threads, the CUDA threads of a block
// on fibers. This file is not instrumented by ThreadSanitizer, which is told here of fibers and
// barriers instead.
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <list>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "cuda_runtime.h"

#if defined(TWINTRACK_EMULATION_TSAN)
#include <sanitizer/tsan_interface.h>
#define TSAN(call) call
#else
#define TSAN(call)
#endif

namespace emulation {

namespace {

constexpr std::size_t stack_bytes = 256 * 1024;
constexpr unsigned lanes_of_warp = 32;

[[noreturn]] void fail(const char* what, const char* detail = "") {
  std::fprintf(stderr, "emulated kernel: %s%s\n", what, detail);
  std::abort();
}

// A warp-wide operation that lanes have begun; none if `lanes` is 0.
struct Meeting {
  unsigned lanes = 0;
  const char* operation = "";
  unsigned arrived = 0;
  unsigned left = 0;
  Exchanged values{};
};
// At most 32 disjoint masks that have begun, and as many that not everybody has left. Of a fixed
// size: memory allocated on one fiber and freed on another would look like a race.
using Meetings = std::array<Meeting, 64>;

class Block;

// A stack on which CUDA threads run, one after the other; they are one thread to ThreadSanitizer.
struct Fiber {
  ucontext_t context{};
  std::unique_ptr<char[]> stack;
  Block* block = nullptr;
  Place place{};
  bool ended = true;
  bool at_barrier = false;
  void* tsan = nullptr;
};

// What runs on this operating-system thread.
thread_local Fiber* running = nullptr;

// Fibers of one operating-system thread of a grid, used again from block to block and by the next
// grid: making one is slow under ThreadSanitizer. They live as long as the program.
class Fibers {
 public:
  Fiber& ended() {
    for (Fiber& fiber : all_)
      if (fiber.ended) return fiber;
    Fiber& made = all_.emplace_back();
    made.stack = std::unique_ptr<char[]>(new char[stack_bytes]);
    TSAN(made.tsan = __tsan_create_fiber(0));
    return made;
  }

 private:
  std::list<Fiber> all_;
};

// What the host's work before a grid and after it is ordered by.
[[maybe_unused]] char grid_begin;
[[maybe_unused]] char grid_end;

constexpr unsigned most_workers = 4;

Fibers& fibers_of(unsigned worker) {
  static auto* const all = new std::array<Fibers, most_workers>;
  return (*all)[worker];
}

class Block {
 public:
  Block(const cudaLaunchConfig_t& config, unsigned index, const std::function<void()>& kernel,
        std::byte* shared, Fibers& fibers)
      : config_(config),
        index_(index),
        kernel_(kernel),
        shared_(shared),
        fibers_(fibers),
        order_(config.blockDim.x),
        warps_((config.blockDim.x + lanes_of_warp - 1) / lanes_of_warp),
        random_(index) {
    for (unsigned i = 0; i < order_.size(); ++i) order_[i] = i;
    std::shuffle(order_.begin(), order_.end(), random_);
  }

  // Runs all threads to their ends, in an order that changes from round to round.
  void run() {
    TSAN(tsan_scheduler_ = __tsan_get_current_fiber());
    while (ended_ < order_.size()) {
      progress_ = false;
      std::shuffle(active_.begin(), active_.end(), random_);
      for (std::size_t i = 0; i < active_.size(); ++i)
        if (!active_[i]->ended && !active_[i]->at_barrier) resume(*active_[i]);
      std::erase_if(active_, [](const Fiber* fiber) { return fiber->ended; });
      if (started_ < order_.size()) {
        start();
      } else if (!progress_) {
        fail("threads wait for each other for ever");
      }
    }
  }

  std::byte* shared() const { return shared_; }

  void barrier() {
    Fiber& self = *running;
    TSAN(__tsan_release(&arrived_));
    ++arrived_;
    progress_ = true;
    if (ended_ > 0) fail("__syncthreads is not reached by all threads of the block");
    if (arrived_ == order_.size()) {
      arrived_ = 0;
      for (Fiber* fiber : active_) fiber->at_barrier = false;
    } else {
      self.at_barrier = true;
      pause();
    }
    TSAN(__tsan_acquire(&arrived_));
  }

  Exchanged exchange(unsigned lanes, std::uint64_t value, const char* operation) {
    const unsigned thread = running->place.thread_index.x;
    const unsigned lane = thread % lanes_of_warp;
    Meetings& meetings = warps_[thread / lanes_of_warp];
    if ((lanes >> lane & 1u) == 0) fail("a lane is not in its own mask in ", operation);
    progress_ = true;
    Meeting* mine = find(meetings, lanes);
    // The one before this may still have lanes that have not been told.
    while (mine != nullptr && (mine->arrived >> lane & 1u) != 0) {
      pause();
      mine = find(meetings, lanes);
    }
    if (mine == nullptr) {
      for (const Meeting& other : meetings)
        if ((other.lanes & lanes) != 0 && other.arrived != other.lanes)
          fail("lanes meet under different masks in ", operation);
      mine = find(meetings, 0);
      *mine = Meeting{};
      mine->lanes = lanes;
      mine->operation = operation;
    }
    if (std::strcmp(mine->operation, operation) != 0)
      fail("lanes meet in different operations, one of which is ", operation);
    mine->values.value[lane] = value;
    mine->arrived |= 1u << lane;
    while (mine->arrived != lanes) pause();
    const Exchanged result = mine->values;
    mine->left |= 1u << lane;
    if (mine->left == lanes) mine->lanes = 0;
    progress_ = true;
    return result;
  }

  void warp_barrier(unsigned lanes) {
    void* const key = &warps_[running->place.thread_index.x / lanes_of_warp];
    TSAN(__tsan_release(key));
    exchange(lanes, 0, "syncwarp");
    TSAN(__tsan_acquire(key));
    (void)key;
  }

  void interleave() {
    if (random_() % 8 != 0) return;
    progress_ = true;
    pause();
  }

 private:
  static Meeting* find(Meetings& meetings, unsigned lanes) {
    for (Meeting& meeting : meetings)
      if (meeting.lanes == lanes) return &meeting;
    return nullptr;
  }

  // Runs one thread; in all but the first blocks, where races are looked for between all threads,
  // then others that have not been started, until one has to wait.
  static void enter() {
    Fiber& self = *running;
    Block& block = *self.block;
    do {
      self.place = {{block.order_[block.started_++], 0, 0},
                    {block.index_, 0, 0},
                    block.config_.blockDim,
                    block.config_.gridDim};
      TSAN(__tsan_acquire(&grid_begin));
      block.kernel_();
      TSAN(__tsan_release(&grid_end));
      ++block.ended_;
      block.progress_ = true;
      if (block.arrived_ > 0) fail("a thread ended while others wait at __syncthreads");
    } while (block.index_ >= 4 && block.started_ < block.order_.size());
    self.ended = true;
    block.pause();
    fail("a thread went on after its end");
  }

  void start() {
    Fiber& fiber = fibers_.ended();
    fiber.block = this;
    fiber.ended = false;
    fiber.at_barrier = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = stack_bytes;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, &Block::enter, 0);
    active_.push_back(&fiber);
    progress_ = true;
    resume(fiber);
  }

  void resume(Fiber& fiber) {
    running = &fiber;
    TSAN(__tsan_switch_to_fiber(fiber.tsan, __tsan_switch_to_fiber_no_sync));
    swapcontext(&scheduler_, &fiber.context);
    running = nullptr;
  }

  void pause() {
    TSAN(__tsan_switch_to_fiber(tsan_scheduler_, __tsan_switch_to_fiber_no_sync));
    swapcontext(&running->context, &scheduler_);
  }

  const cudaLaunchConfig_t& config_;
  const unsigned index_;
  const std::function<void()>& kernel_;
  std::byte* const shared_;
  Fibers& fibers_;
  std::vector<unsigned> order_;  // in which threads are started
  std::vector<Fiber*> active_;
  std::vector<Meetings> warps_;
  std::minstd_rand random_;
  std::size_t started_ = 0;
  std::size_t arrived_ = 0;  // at the barrier
  std::size_t ended_ = 0;
  bool progress_ = false;
  ucontext_t scheduler_{};
  [[maybe_unused]] void* tsan_scheduler_ = nullptr;
};

Launch last;

}  // namespace

const Place& place() {
  if (running == nullptr) fail("a device function was called outside a kernel");
  return running->place;
}
std::byte* shared_memory() {
  return running->block->shared();
}
void barrier() {
  running->block->barrier();
}
void warp_barrier(unsigned lanes) {
  running->block->warp_barrier(lanes);
}
Exchanged exchange(unsigned lanes, std::uint64_t value, const char* operation) {
  return running->block->exchange(lanes, value, operation);
}
void interleave() {
  if (running != nullptr) running->block->interleave();
}
const Launch& last_launch() {
  return last;
}

cudaError_t run_grid(const cudaLaunchConfig_t& config, const std::function<void()>& kernel) {
  static std::mutex one_grid;  // at a time
  const std::lock_guard<std::mutex> lock(one_grid);
  const unsigned blocks = config.gridDim.x;
  const unsigned threads = config.blockDim.x;
  if (blocks == 0 || threads == 0 || threads > 1024 ||
      config.dynamicSmemBytes > static_cast<std::size_t>(device().shared))
    return cudaErrorInvalidConfiguration;
  int current = 0;
  cudaGetDevice(&current);
  last = {config.stream, current, blocks, threads};
  const unsigned skipped = blocks > device().skip ? device().skip - 1 : 0;
  const unsigned executed = blocks - skipped;
  // Memory of its own for every block, until all have ended: were it used again, that would look
  // like a race between blocks.
  std::vector<std::unique_ptr<std::byte[]>> shared(executed);
  for (auto& memory : shared) {
    memory.reset(new std::byte[config.dynamicSmemBytes]);
    std::memset(memory.get(), 0xa5, config.dynamicSmemBytes);
  }
  TSAN(__tsan_release(&grid_begin));
  std::atomic<unsigned> next{0};
  std::vector<std::thread> workers;
  for (unsigned worker = 0; worker < std::min(executed, most_workers); ++worker)
    workers.emplace_back([&, worker] {
      for (unsigned turn; (turn = next.fetch_add(1)) < executed;) {
        const unsigned index = turn == 0 ? 0 : turn + skipped;
        Block(config, index, kernel, shared[turn].get(), fibers_of(worker)).run();
      }
    });
  for (std::thread& worker : workers) worker.join();
  TSAN(__tsan_acquire(&grid_end));
  return cudaSuccess;
}

}  // namespace emulation
