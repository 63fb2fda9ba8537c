// ScoreTally: everything a calibration map can be fitted from, gathered in one pass.
//
// For every cell of the score grid (score_grid.hpp) it holds the number of voxels, the sum of their
// residuals, for each rater the number of them that the rater marked and, for k = 1 … N, the number
// of them that exactly k of the N raters marked. All of it is integer sums, so a tally does not
// depend on the order, chunking or number of threads in which voxels came, and tallies of parts add
// up to the tally of the whole, bit for bit.
//
// Capacity: 2^40 voxels in one cell (a residual is at most 2^24, its sum is 64 bits wide); counts
// and votes alone would go on to 2^64.
//
// Speed. Per voxel the loop does two 64-bit read-modify-writes on one 16-byte entry
// (score_counter.hpp), and with seven raters or more another addition where two or more of them
// mark. Runs of one cell and one vote pattern, which is what background is, are
// added 32 at a time. What is left is bounded by second-level cache misses on random scores and by
// reading the inputs otherwise.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "twintrack/arrays/input_error.hpp"
#include "twintrack/arrays/parallel.hpp"
#include "twintrack/arrays/voxel_blocks.hpp"
#include "twintrack/calibration/score_counter.hpp"
#include "twintrack/calibration/score_grid.hpp"
#include "twintrack/calibration/tally_rows.hpp"

namespace twintrack {

class ScoreTally {
 public:
  static constexpr std::size_t most_raters = 255;

  explicit ScoreTally(std::size_t raters)
      : raters_(checked(raters)), sums_(grid::cells * TallyColumns::all(raters)) {}

  ScoreTally(ScoreTally&&) = default;
  ScoreTally& operator=(ScoreTally&&) = default;

  std::size_t raters() const { return raters_; }
  std::size_t columns() const { return TallyColumns::all(raters_); }

  /// Sums by cell and column (TallyColumns), `cells` × `columns()`, row-major.
  const std::vector<std::uint64_t>& sums() const { return sums_; }
  std::vector<std::uint64_t>& sums() { return sums_; }

  /// Adds the voxels of a case. Either all of them are added or, when InputError is
  /// thrown, none.
  void update(const CaseView& view, int threads = max_threads());

  ScoreTally& operator+=(const ScoreTally& other) {
    if (other.raters_ != raters_)
      throw InputError("", "cannot add a tally of " + std::to_string(other.raters_) +
                               " raters to one of " + std::to_string(raters_));
    for (std::size_t i = 0; i < sums_.size(); ++i) sums_[i] += other.sums_[i];
    return *this;
  }

  /// Throws InputError unless a tally can have so many raters.
  static std::size_t checked(std::size_t raters) {
    if (raters == 0) throw InputError("raters", "is 0; a tally needs at least one rater");
    if (raters > most_raters)
      throw InputError("raters", "is " + std::to_string(raters) + "; it must be 1 to " +
                                     std::to_string(most_raters));
    return raters;
  }

 private:
  std::size_t raters_;
  std::vector<std::uint64_t> sums_;
  std::vector<std::unique_ptr<detail::ScoreCounter>>
      counters_;  // one a thread, kept from case to case
};

}  // namespace twintrack

#if !defined(TWINTRACK_LINKED)
#include "twintrack/calibration/score_tally_loops.hpp"
#endif
