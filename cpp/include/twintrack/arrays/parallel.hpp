// Tasks shared out over CPU threads: OpenMP, so that OMP_NUM_THREADS and threadpoolctl have their
// say where this thread has no limit of its own, or std::thread where OpenMP is absent, cannot be
// seen by ThreadSanitizer, or does not work: in a process forked since this was loaded (data
// loaders do that), where GNU's OpenMP would hang if anyone had used it before.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <functional>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "twintrack/arrays/standard_arithmetic.hpp"

#if defined(_OPENMP) && !defined(TWINTRACK_STD_THREADS)
#include <omp.h>
#define TWINTRACK_OPENMP 1
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif
#else
#define TWINTRACK_OPENMP 0
#endif

namespace twintrack {

namespace detail {

// The limit of the calling thread; 0 for none.
inline int& thread_limit() {
  thread_local int limit = 0;
  return limit;
}

}  // namespace detail

/// Lets parallel loops that this thread begins use at most `threads` threads, whatever OpenMP's own
/// number is; that one stays as it is, for it is every library's. 0 lifts the limit. Returns the
/// limit before, or 0. Throws std::invalid_argument if `threads` is negative.
inline int set_thread_limit(int threads) {
  if (threads < 0)
    throw std::invalid_argument("threads is " + std::to_string(threads) +
                                "; it must be at least 1, or 0 for no limit");
  return std::exchange(detail::thread_limit(), threads);
}

/// Threads that a parallel loop may use now: this thread's limit, or else OpenMP's number.
inline int max_threads() {
  if (const int limit = detail::thread_limit(); limit > 0) return limit;
#if TWINTRACK_OPENMP
  return omp_get_max_threads();
#else
  if (const char* wanted = std::getenv("OMP_NUM_THREADS")) {
    const int threads = std::atoi(wanted);
    if (threads > 0) return threads;
  }
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
#endif
}

namespace detail {

#if TWINTRACK_OPENMP
// False in a process that was forked after this was loaded.
inline bool openmp_works() {
#if defined(__unix__) || defined(__APPLE__)
  static std::atomic<bool> forked{false};
  static const int watched =
      pthread_atfork(nullptr, nullptr, [] { forked.store(true, std::memory_order_relaxed); });
  (void)watched;
  return !forked.load(std::memory_order_relaxed);
#else
  return true;
#endif
}
// Other users of the same OpenMP may be there, and fork, before the first parallel loop of ours.
inline const bool openmp_works_at_load = openmp_works();
#endif

// Calls `run(thread)` on `threads` threads, thread 0 being the caller's.
template <class Run>
void run_team(int threads, Run& run) {
  if (threads == 1) return run(0);
#if TWINTRACK_OPENMP
  if (openmp_works()) {
#pragma omp parallel num_threads(threads)
    run(omp_get_thread_num());
    return;
  }
#endif
  std::vector<std::thread> team;
  team.reserve(static_cast<std::size_t>(threads));
  try {
    for (int thread = 1; thread < threads; ++thread) team.emplace_back(std::ref(run), thread);
  } catch (const std::system_error&) {
    // No more threads are to be had: those that are there do all of the tasks.
  }
  run(0);
  for (std::thread& member : team) member.join();
}

}  // namespace detail

/// Calls `work(thread, task)` once for each task in [0, tasks), handing tasks out in ascending
/// order to whichever thread is free; `thread` is in [0, threads). Results must not depend on who
/// gets which task. The first exception thrown stops the handing out and is rethrown here.
template <class Work>
void parallel_tasks(int threads, std::int64_t tasks, Work&& work) {
  threads = static_cast<int>(std::clamp<std::int64_t>(tasks, 1, std::max(threads, 1)));
  std::atomic<std::int64_t> next{0};
  std::exception_ptr failure;
  std::mutex failure_mutex;
  auto run = [&](int thread) {
    const StandardArithmetic standard;
    try {
      for (std::int64_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < tasks;)
        work(thread, task);
    } catch (...) {
      next.store(tasks, std::memory_order_relaxed);
      const std::lock_guard<std::mutex> lock(failure_mutex);
      if (!failure) failure = std::current_exception();
    }
  };
  detail::run_team(threads, run);
  if (failure) std::rethrow_exception(failure);
}

}  // namespace twintrack
