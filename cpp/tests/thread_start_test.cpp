// Threads for which there is no memory: those that have started do all of the work, and are waited
// for. Allocations fail on request, in this thread alone.
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <functional>
#include <new>
#include <stdexcept>
#include <vector>

#include "check.hpp"
#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/parallel.hpp"

namespace {

// Allocations until the one that fails, and with it all after it; -1 for none.
thread_local int allocations_left = -1;

}  // namespace

// Not inlined, for GCC warns of `free` after what it takes for another `new`.
TWINTRACK_NOINLINE void* operator new(std::size_t bytes) {
  if (allocations_left == 0) throw std::bad_alloc();
  if (allocations_left > 0) --allocations_left;
  if (void* memory = std::malloc(std::max<std::size_t>(bytes, 1))) return memory;
  throw std::bad_alloc();
}
TWINTRACK_NOINLINE void operator delete(void* memory) noexcept {
  std::free(memory);
}
TWINTRACK_NOINLINE void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}

using namespace twintrack;
using twintrack::tests::check;

namespace {

constexpr int threads = 4;

// Which threads ran when only so many allocations succeeded, each of them once.
std::vector<int> ran(int allocations) {
  std::vector<std::atomic<int>> times(threads);
  const std::function<void(int)> run = [&](int thread) { ++times[std::size_t(thread)]; };
  allocations_left = allocations;
  try {
    detail::run_threads(threads, run);
  } catch (...) {
    allocations_left = -1;
    throw;
  }
  allocations_left = -1;
  std::vector<int> who;
  for (int thread = 0; thread < threads; ++thread) {
    check(times[std::size_t(thread)] <= 1, "a thread ran twice");
    if (times[std::size_t(thread)] == 1) who.push_back(thread);
  }
  return who;
}

void those_that_start_are_all_that_run() {
  std::vector<std::size_t> sizes;
  for (int allocations = 0; allocations < 50; ++allocations) {
    const std::vector<int> who = ran(allocations);
    for (std::size_t i = 0; i < who.size(); ++i)
      check(who[i] == static_cast<int>(i), "a thread is left out before one that ran");
    sizes.push_back(who.size());
    if (who.size() == threads) break;
  }
  check(sizes.front() == 1, "the caller's thread does not run alone");
  check(sizes.back() == threads, "not all threads run where there is memory");
  check(std::find(sizes.begin(), sizes.end(), std::size_t{2}) != sizes.end(),
        "no team was left incomplete: nothing was tested");
  check(std::is_sorted(sizes.begin(), sizes.end()), "more memory made for fewer threads");
  check(ran(-1).size() == threads, "not all threads run");
}

// What the caller's own part throws arrives after all others have ended.
void others_are_waited_for_if_the_caller_fails() {
  std::atomic<int> ended{0};
  bool thrown = false;
  try {
    detail::run_threads(threads, [&](int thread) {
      if (thread == 0) throw std::runtime_error("the caller's part");
      ++ended;
    });
  } catch (const std::runtime_error&) {
    thrown = true;
  }
  check(thrown && ended == threads - 1, "threads were left behind");
}

}  // namespace

int main() {
  return tests::run([] {
    those_that_start_are_all_that_run();
    others_are_waited_for_if_the_caller_fails();
  });
}
