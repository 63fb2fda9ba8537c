// A tally has the sums that counting one voxel after the other gives, for every number of raters
// and threads, however often records are full, and for tallies that follow one another in the same
// memory.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "twintrack/arrays/parallel.hpp"
#include "twintrack/arrays/zeroed.hpp"
#include "twintrack/calibration/score_grid.hpp"
#include "twintrack/calibration/score_tally.hpp"
#include "twintrack/calibration/tally_rows.hpp"

using namespace twintrack;
using twintrack::tests::check;

namespace {

#if defined(__SANITIZE_THREAD__)                   // which makes everything twenty times slower
constexpr std::size_t large = 9 * (1 << 16) + 77;  // voxels with work for three threads
constexpr std::size_t small = 5 * (1 << 16) + 77;  // for two
constexpr std::size_t alone = 5000;                // for one
#else
constexpr std::size_t large = 45 * (1 << 16) + 77;  // for as many as have counters of their own
constexpr std::size_t small = 9 * (1 << 16) + 77;
constexpr std::size_t alone = 1 << 16;
#endif

enum class Scores { few, uniform, runs };

template <class Real>
struct Case {
  // `few` scores fill records of few cells with the largest residuals; `runs` are of voxels that
  // are alike, most of them blank.
  Case(std::size_t voxels, std::size_t raters, Scores kind, unsigned seed)
      : score(voxels), region(voxels, 1), labels(raters, std::vector<std::uint8_t>(voxels)) {
    std::mt19937 random(seed);
    const Real greatest = std::nextafter(Real(0.25), Real(0));
    const Real values[] = {0, 1, greatest, 1 - greatest, Real(0.3001234)};
    std::uint32_t votes = 0;
    for (std::size_t i = 0; i < voxels; ++i) {
      if (kind != Scores::runs || i % 256 == 0) {
        const auto draw = static_cast<std::uint32_t>(random());
        votes = draw % 4 < 2 ? 0 - draw % 2 : static_cast<std::uint32_t>(random());
        score[i] = kind == Scores::uniform ? static_cast<Real>(draw >> 8) * Real(0x1p-24)
                                           : values[draw / 4 % 5];
      } else {
        score[i] = score[i - 1];
      }
      region[i] = random() % 64 != 0;
      for (std::size_t k = 0; k < raters; ++k) labels[k][i] = votes >> k * 5 % 32 & 1;
    }
  }

  CaseView view(bool with_region) {
    const Shape shape{static_cast<std::int64_t>(score.size())};
    CaseView made;
    made.score = contiguous(score.data(), shape);
    for (const auto& label : labels) made.raters.push_back(contiguous(label.data(), shape));
    region_view = contiguous(region.data(), shape);
    if (with_region) made.region = &region_view;
    return made;
  }

  std::vector<Real> score;
  std::vector<std::uint8_t> region;
  std::vector<std::vector<std::uint8_t>> labels;
  ArrayView region_view;
};

using Rows = std::map<std::uint32_t, std::vector<std::uint64_t>>;

template <class Real>
void count(const Case<Real>& from, bool with_region, Rows& rows) {
  const std::size_t raters = from.labels.size();
  std::vector<std::vector<std::uint64_t>*> row_of(grid::cells, nullptr);
  for (std::size_t i = 0; i < from.score.size(); ++i) {
    if (with_region && from.region[i] == 0) continue;
    const grid::Position at = grid::position(from.score[i]);
    if (row_of[at.cell] == nullptr) {
      row_of[at.cell] = &rows[at.cell];
      rows[at.cell].resize(TallyColumns::all(raters));
    }
    std::vector<std::uint64_t>& row = *row_of[at.cell];
    row[TallyColumns::count] += 1;
    row[TallyColumns::residual] += at.residual;
    std::size_t votes = 0;
    for (std::size_t k = 0; k < raters; ++k) {
      row[TallyColumns::first_vote + k] += from.labels[k][i];
      votes += from.labels[k][i];
    }
    if (votes > 0) row[TallyColumns::first_exactly(raters) + votes - 1] += 1;
  }
}

void compare(const ScoreTally& tally, const Rows& expected, const std::string& what) {
  const OccurringRows found(tally.sums());
  check(found.cells.size() == expected.size(), "a tally has other cells: " + what);
  std::size_t i = 0;
  for (const auto& [cell, row] : expected) {
    check(found.cells[i] == cell, "a tally has other cells: " + what);
    check(std::equal(row.begin(), row.end(), found.view().row(i++)),
          "the sums of cell " + std::to_string(cell) + " differ: " + what);
  }
}

template <class Real>
void tally_cases(std::size_t voxels, std::size_t raters, Scores kind,
                 const std::vector<int>& thread_counts) {
  const std::string what = std::to_string(raters) + " raters, " + std::to_string(sizeof(Real)) +
                           " bytes, scores " + std::to_string(static_cast<int>(kind));
  Case<Real> first(voxels, raters, kind, 1);
  Case<Real> second(1000, raters, Scores::uniform, 2);
  Rows one, both;
  count(first, false, one);
  both = one;
  count(second, true, both);
  count(first, true, both);
  for (const int threads : thread_counts) {
    const std::string with = what + ", " + std::to_string(threads) + " threads";
    ScoreTally tally(raters);
    tally.update(first.view(false), threads);
    compare(tally, one, with);
    tally.update(second.view(true), threads);
    tally.update(first.view(true), threads);
    compare(tally, both, with + ", three cases");
    // What was counted before an error is forgotten, and what was added before it is not.
    const Real before = std::exchange(first.score[voxels - 1], Real(1.5));
    check(tests::message_of([&] { tally.update(first.view(false), threads); }).find("score[") == 0,
          "a score of 1.5 is taken: " + with);
    compare(tally, both, with + ", after an error");
    ScoreTally refused(raters);
    tests::message_of([&] { refused.update(first.view(false), threads); });
    compare(refused, {}, with + ", after nothing but an error");
    first.score[voxels - 1] = before;
    refused.update(first.view(false), threads);
    compare(refused, one, with + ", after an error and a case");
    refused += tally;
    refused.update(second.view(false), threads);
    Rows all = both;
    count(first, false, all);
    count(second, false, all);
    compare(refused, all, with + ", a sum and a case");
  }
}

void every_number_of_raters() {
  for (std::size_t raters = 1; raters <= 9; ++raters) {
    tally_cases<float>(alone, raters, Scores::few, {1});
    tally_cases<float>(alone, raters, Scores::uniform, {1});
    tally_cases<float>(alone, raters, Scores::runs, {1});
    tally_cases<double>(alone, raters, Scores::few, {1});
  }
  for (const std::size_t raters : {14, 15, 21, 22, 255})
    tally_cases<float>(5000, raters, Scores::few, {1});
}

void every_number_of_threads() {
  detail::processors() = 64;  // or there would be no more counters than this machine has
  tally_cases<float>(large, 5, Scores::few, {2, 8, 64});
  for (const std::size_t raters : {5, 8})
    for (const Scores kind : {Scores::uniform, Scores::runs})
      tally_cases<float>(small, raters, kind, {1, 3});
}

void memory_is_zero_again() {
  constexpr std::size_t size = 100'000;
  const std::uint64_t* where = nullptr;
  {
    Zeroed<std::uint64_t> first(size);
    where = first.data();
    for (std::size_t i = 0; i < size; ++i) check(first.data()[i] == 0, "new memory is not zero");
    first.keep();
    check(first.data() == nullptr, "memory that was left to others is still used");
  }
  Zeroed<std::uint64_t> second(size), third(size);
  check(second.data() == where, "memory that was kept is not used");
  check(third.data() != where, "memory is used twice");
  for (int i = 0; i < 100; ++i) Zeroed<std::uint8_t>(std::size_t(i) + 1).keep();
  second.keep();
  check(Zeroed<std::uint64_t>(size).data() == where, "what is kept longest stays");
  check(!Zeroed<std::uint8_t>(Zeroed<std::uint8_t>::most_kept_bytes + 1).keepable(),
        "large memory is kept");
}

}  // namespace

int main() {
  return tests::run([] {
    every_number_of_raters();
    every_number_of_threads();
    memory_is_zero_again();
  });
}
