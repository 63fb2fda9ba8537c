// Threads inside one call, and calls from several threads at once, give the bits that one thread
// gives. Built with -DTWINTRACK_SANITIZE=thread this is the run that finds data races.
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "check.hpp"
#include "twintrack/arrays/parallel.hpp"
#include "twintrack/calibration/calibration_map.hpp"
#include "twintrack/calibration/cut_refinement.hpp"
#include "twintrack/calibration/score_tally.hpp"
#include "twintrack/calibration/tally_rows.hpp"

using namespace twintrack;
using twintrack::tests::check;
using twintrack::tests::SampleCase;

namespace {

constexpr int threads = 4;
constexpr std::size_t raters = 9;                    // two groups of votes
constexpr std::size_t voxels = 5 * (1 << 16) + 321;  // several tasks, the last one short

using Sums = std::vector<std::uint64_t>;

ScoreTally tallied(const CaseView& view, int with_threads) {
  ScoreTally tally(raters);
  tally.update(view, with_threads);
  return tally;
}

Sums refined(const CaseView& view, const OccurringRows& rows, int with_threads) {
  CutRefinement refinement(rows.view(), 50);
  while (!refinement.done()) {
    refinement.update(view, with_threads);
    refinement.advance();
  }
  return refinement.sums();
}

std::vector<float> mapped(const CalibrationMap& map, const CaseView& view, int with_threads) {
  std::vector<float> out(voxels);
  const WritableArrayView to = writable(out.data(), view.score.shape);
  map.apply(view.score, to, with_threads);
  return out;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

void every_task_is_done_once_and_a_failure_comes_back() {
  std::vector<int> done(1000, 0);
  parallel_tasks(threads, 1000, [&](int, std::int64_t task) { ++done[std::size_t(task)]; });
  for (const int times : done) check(times == 1, "a task was left out or done twice");
  bool thrown = false;
  try {
    parallel_tasks(threads, 1000, [&](int, std::int64_t task) {
      if (task == 500) throw std::runtime_error("task 500");
    });
  } catch (const std::runtime_error&) {
    thrown = true;
  }
  check(thrown, "an exception thrown by a task was lost");
}

void a_limit_is_its_thread_s_own() {
  const int before = max_threads();
  check(set_thread_limit(3) == 0 && max_threads() == 3, "a limit does not hold");
  tests::from_many_threads([&] {
    check(max_threads() == before, "another thread's limit holds here");
    check(set_thread_limit(2) == 0 && max_threads() == 2, "a limit does not hold in a thread");
  });
  check(set_thread_limit(0) == 3 && max_threads() == before, "a limit is not lifted");
  check(tests::message_of([] { set_thread_limit(-1); }).find("threads is -1") == 0,
        "a negative limit is taken");
}

void threads_inside_a_call() {
  const SampleCase sample(voxels, raters, 1);
  const CaseView view = sample.view();
  const ScoreTally serial = tallied(view, 1);
  check(tallied(view, threads).sums() == serial.sums(), "a tally depends on the threads");
  const OccurringRows rows(serial.sums());
  check(refined(view, rows, threads) == refined(view, rows, 1), "refined cuts depend on threads");
  const CalibrationMap map({0.1, 0.4, 0.9}, {0.0, 0.2, 0.7});
  check(same_bits(mapped(map, view, threads), mapped(map, view, 1)), "a map depends on threads");
}

void an_invalid_voxel_leaves_the_tally_as_it_was() {
  SampleCase sample(voxels, raters, 2);
  ScoreTally tally = tallied(sample.view(), threads);
  const Sums before = tally.sums().dense();
  sample.score[voxels / 2] = 1.5f;
  bool thrown = false;
  try {
    tally.update(sample.view(), threads);
  } catch (const InputError& error) {
    thrown = std::string(error.what()).find(std::to_string(voxels / 2)) != std::string::npos;
  }
  check(thrown, "a score of 1.5 was not reported with its voxel");
  check(tally.sums().dense() == before, "a case that was refused has changed the tally");
}

// A program may take subnormal numbers for 0: in one of its threads, and not in ours.
void arithmetic_is_the_same_in_every_thread() {
#if defined(__SSE2__)
  SampleCase sample(voxels, raters, 4);
  for (std::size_t i = 0; i < voxels; i += 3) sample.score[i] *= 0x1p-127f;
  const CaseView view = sample.view();
  const CalibrationMap map({0.0, 1.0}, {0.0, 0.5});
  const std::vector<float> expected = mapped(map, view, 1);
  const Sums sums = tallied(view, 1).sums().dense();
  const unsigned before = _mm_getcsr();
  const unsigned flushing = before | 0x8040;  // results, and what is read
  _mm_setcsr(flushing);
  const std::vector<float> alone = mapped(map, view, 1);
  const std::vector<float> together = mapped(map, view, threads);
  const Sums flushed_sums = tallied(view, threads).sums().dense();
  const bool kept = (_mm_getcsr() & 0x8040) == 0x8040;
  _mm_setcsr(before);
  check(same_bits(alone, expected), "a thread's setting for subnormal numbers decides");
  check(same_bits(together, expected), "threads take subnormal numbers in different ways");
  check(flushed_sums == sums, "a tally depends on a thread's setting");
  check(kept, "the thread has lost its setting");
#endif
}

void calls_from_many_threads() {
  const SampleCase sample(voxels, raters, 3);
  const CaseView view = sample.view();
  const Sums serial = tallied(view, 1).sums().dense();
  const CalibrationMap map({0.0, 0.3, 1.0}, {0.1, 0.2, 0.9});
  const std::vector<float> expected = mapped(map, view, 1);
  tests::from_many_threads([&] {
    check(tallied(view, 2).sums().dense() == serial, "concurrent tallies disagree");
    check(same_bits(mapped(map, view, 2), expected), "concurrent uses of one map disagree");
  });
}

}  // namespace

int main() {
  return tests::run([] {
    detail::processors() = threads;  // or a tally would have no more counters than this machine has
    every_task_is_done_once_and_a_failure_comes_back();
    a_limit_is_its_thread_s_own();
    threads_inside_a_call();
    an_invalid_voxel_leaves_the_tally_as_it_was();
    arithmetic_is_the_same_in_every_thread();
    calls_from_many_threads();
  });
}
