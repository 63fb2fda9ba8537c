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
// Speed. Per voxel the loop does one read-modify-write of a record of 8 or 16 bytes
// (score_record.hpp), ten instructions, and more for more than eight raters. Runs of voxels that
// are alike, which is what background is, are added 32 at a time. Meanwhile the voxels after the
// next block are brought near. What is left is bounded by the number of instructions and by
// second-level cache accesses on random scores, and by reading the inputs otherwise.
//
// Memory. The sums take up 8 × (2 + 2N) bytes for every cell that occurs, 12 MB at most for five
// raters, twice that while a case is added to others; each thread has records, 2 MB for five
// raters, and no more threads count than there are processors and than have room for them in 24 MB:
// 12 with up to eight raters. More would wait for each other or for memory anyway.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "twintrack/arrays/input_error.hpp"
#include "twintrack/arrays/parallel.hpp"
#include "twintrack/arrays/voxel_blocks.hpp"
#include "twintrack/calibration/score_grid.hpp"
#include "twintrack/calibration/tally_sums.hpp"

namespace twintrack {

class ScoreTally {
 public:
  static constexpr std::size_t most_raters = 255;

  explicit ScoreTally(std::size_t raters) : sums_(checked(raters)) {}

  ScoreTally(ScoreTally&&) = default;
  ScoreTally& operator=(ScoreTally&&) = default;

  std::size_t raters() const { return sums_.raters(); }
  std::size_t columns() const { return sums_.columns(); }

  const TallySums& sums() const { return sums_; }
  TallySums& sums() { return sums_; }

  /// Adds the voxels of a case. Either all of them are added or, when InputError is
  /// thrown, none.
  void update(const CaseView& view, int threads = max_threads());

  ScoreTally& operator+=(const ScoreTally& other) {
    if (other.raters() != raters())
      throw InputError("", "cannot add a tally of " + std::to_string(other.raters()) +
                               " raters to one of " + std::to_string(raters()));
    other.sums_.for_each(
        [&](std::uint32_t cell) { sums_.add(cell, other.sums_.row(cell), columns()); });
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
  TallySums sums_;
};

}  // namespace twintrack

#if !defined(TWINTRACK_LINKED)
#include "twintrack/calibration/score_tally_loops.hpp"
#endif
