// How parallel.hpp runs its threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <functional>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/parallel.hpp"
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

// Threads that are waited for, whatever happens meanwhile.
struct Team {
  ~Team() {
    for (std::thread& member : members) member.join();
  }
  std::vector<std::thread> members;
};

TWINTRACK_ENTRY void run_threads(int threads, const std::function<void(int thread)>& run) {
  Team team;
  try {
    team.members.reserve(static_cast<std::size_t>(threads));
    for (int thread = 1; thread < threads; ++thread)
      team.members.emplace_back(std::ref(run), thread);
  } catch (const std::system_error&) {
    // No more threads are to be had: those that are there do all of the tasks.
  } catch (const std::bad_alloc&) {
    // The same.
  }
  run(0);
}

// Calls `run(thread)` on `threads` threads, thread 0 being the caller's.
TWINTRACK_ENTRY void run_team(int threads, const std::function<void(int thread)>& run) {
  if (threads == 1) return run(0);
#if TWINTRACK_OPENMP
  if (openmp_works()) {
#pragma omp parallel num_threads(threads)
    run(omp_get_thread_num());
    return;
  }
#endif
  run_threads(threads, run);
}

TWINTRACK_ENTRY std::atomic<int>& processors() {
#if TWINTRACK_OPENMP
  static std::atomic<int> found{omp_get_num_procs()};
#else
  static std::atomic<int> found{std::max(1, static_cast<int>(std::thread::hardware_concurrency()))};
#endif
  return found;
}

}  // namespace detail

TWINTRACK_ENTRY int max_threads() {
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

TWINTRACK_ENTRY void parallel_tasks(
    int threads, std::int64_t tasks,
    const std::function<void(int thread, std::int64_t task)>& work) {
  std::atomic<std::int64_t> next{0};
  std::exception_ptr failure;
  std::mutex failure_mutex;
  detail::run_team(team_size(threads, tasks), [&](int thread) {
    const StandardArithmetic standard;
    try {
      for (std::int64_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < tasks;)
        work(thread, task);
    } catch (...) {
      next.store(tasks, std::memory_order_relaxed);
      const std::lock_guard<std::mutex> lock(failure_mutex);
      if (!failure) failure = std::current_exception();
    }
  });
  if (failure) std::rethrow_exception(failure);
}

}  // namespace twintrack
