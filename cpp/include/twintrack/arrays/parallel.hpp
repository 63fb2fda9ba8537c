// Tasks shared out over CPU threads: OpenMP, so that OMP_NUM_THREADS and threadpoolctl have their
// say where this thread has no limit of its own, or std::thread where OpenMP is absent, cannot be
// seen by ThreadSanitizer, or does not work: in a process forked since this was loaded (data
// loaders do that), where GNU's OpenMP would hang if anyone had used it before.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/input_error.hpp"

namespace twintrack {

namespace detail {

// The limit of the calling thread; 0 for none.
inline int& thread_limit() {
  thread_local int limit = 0;
  return limit;
}

// Calls `run(thread)` on std::threads, thread 0 being the caller's, and waits for all of them. If
// the system or the memory has no room for so many, those that have started are all that run:
// `run` must do without the others. It may throw in the caller's thread alone.
void run_threads(int threads, const std::function<void(int thread)>& run);

}  // namespace detail

/// Lets parallel loops that this thread begins use at most `threads` threads, whatever OpenMP's own
/// number is; that one stays as it is, for it is every library's. 0 lifts the limit. Returns the
/// limit before, or 0. Throws InputError if `threads` is negative.
inline int set_thread_limit(int threads) {
  if (threads < 0)
    throw InputError(
        "threads", "is " + std::to_string(threads) + "; it must be at least 1, or 0 for no limit");
  return std::exchange(detail::thread_limit(), threads);
}

namespace detail {

// Processors that this process may use. Tests set it, to have many threads on any machine.
std::atomic<int>& processors();

}  // namespace detail

/// Threads that a parallel loop may use now: this thread's limit, or else OpenMP's number.
int max_threads();

/// Threads, at most `threads`, that a loop of so many tasks has work for. No more than twice as
/// many as there are processors: others would wait for these, and take their memory.
inline int team_size(int threads, std::int64_t tasks) {
  const int most = std::clamp(threads, 1, 2 * detail::processors());
  return static_cast<int>(std::clamp<std::int64_t>(tasks, 1, most));
}

/// Calls `work(thread, task)` once for each task in [0, tasks), handing tasks out in ascending
/// order to whichever thread is free; `thread` is in [0, team_size(threads, tasks)). Results must
/// not depend on who gets which task. The first exception thrown stops the handing out and is
/// rethrown here.
void parallel_tasks(int threads, std::int64_t tasks,
                    const std::function<void(int thread, std::int64_t task)>& work);

/// The same for work that returns whether its part of the input is valid; no task is begun after
/// one that is not. Returns whether all of them were.
template <class Work>
bool parallel_valid(int threads, std::int64_t tasks, const Work& work) {
  std::atomic<bool> valid{true};
  parallel_tasks(threads, tasks, [&](int thread, std::int64_t task) {
    if (valid.load(std::memory_order_relaxed) && !work(thread, task))
      valid.store(false, std::memory_order_relaxed);
  });
  return valid;
}

}  // namespace twintrack

#if !defined(TWINTRACK_LINKED)
#include "twintrack/arrays/parallel_loops.hpp"
#endif
