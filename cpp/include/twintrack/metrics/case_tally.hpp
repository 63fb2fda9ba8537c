// CaseTally: everything the metrics need of a case, gathered in one pass.
//
// A voxel is looked at once: its score's cell (evaluation_cells.hpp) and its raters' votes address
// one entry of a table, which counts it and adds up its confidence and its score. All that the
// metrics use are sums over parts of that table:
//   - voxels by number of thresholds exceeded and number of votes: the Dice scores (TDSC);
//   - per bin of the score and per bin of the confidence in the predicted class: voxels, sum of
//     scores or confidences, voxels that each rater marked: calibration errors, per rater or
//     against the mean human response (MHR), and reliability curves;
//   - sum of scores and, per rater, of scores of marked voxels; sum of squared scores: predicted
//     volume and Brier scores.
// All of it is integer sums (fixed_sum.hpp), so a tally does not depend on the order, chunking or
// number of threads in which voxels came, and tallies of parts add up to the tally of the whole,
// bit for bit. Capacity: 2^64 voxels; a score is rounded to a multiple of 2^-46.
//
// Speed. Per voxel the loop does one read-modify-write of a 16-byte entry; with up to seven raters
// votes are kept apart by pattern, so nothing else is written per voxel. Background (score 0, no
// votes) is only counted, blocks of it at the speed of memory, and runs of one entry are added 32
// at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "twintrack/arrays/input_error.hpp"
#include "twintrack/arrays/parallel.hpp"
#include "twintrack/arrays/voxel_blocks.hpp"
#include "twintrack/metrics/case_sums.hpp"
#include "twintrack/metrics/marked_extent.hpp"
#include "twintrack/metrics/uniform_bins.hpp"

namespace twintrack {

/// What a first look at a case tells besides its sums.
struct CaseOverview {
  /// Bounding box of the voxels that a rater marks, empty if there are none.
  std::vector<MarkedExtent::Range> marked;
  /// Whether a block of `block_voxels` voxels, in the order of the score's memory, may hold a score
  /// other than 0. Empty if the score is not contiguous.
  std::vector<std::uint8_t> scored;
};

class CaseTally {
 public:
  static constexpr std::size_t most_raters = 255;

  CaseTally(std::size_t raters, int bins)
      : bins_(bins), sums_(checked(raters), static_cast<std::size_t>(UniformBins(bins).count())) {}

  std::size_t raters() const { return sums_.raters(); }
  int bins() const { return bins_; }
  const CaseSums& sums() const { return sums_; }
  CaseSums& sums() { return sums_; }

  /// Adds the voxels of a case. Either all of them are added or, when InputError is
  /// thrown, none. If `overview` is given, it is filled in; the case must
  /// not have a region then.
  void update(const CaseView& view, CaseOverview* overview = nullptr, int threads = max_threads());

  CaseTally& operator+=(const CaseTally& other) {
    if (other.raters() != raters() || other.bins_ != bins_)
      throw InputError("", "cannot add a tally of " + std::to_string(other.raters()) +
                               " raters and " + std::to_string(other.bins_) + " bins to one of " +
                               std::to_string(raters()) + " raters and " + std::to_string(bins_) +
                               " bins");
    sums_ += other.sums_;
    return *this;
  }

 private:
  static std::size_t checked(std::size_t raters) {
    if (raters < 1 || raters > most_raters)
      throw InputError("raters", "is " + std::to_string(raters) + "; it must be 1 to " +
                                     std::to_string(most_raters));
    return raters;
  }

  int bins_;
  CaseSums sums_;
};

}  // namespace twintrack

#if !defined(TWINTRACK_LINKED)
#include "twintrack/metrics/case_tally_loops.hpp"
#endif
