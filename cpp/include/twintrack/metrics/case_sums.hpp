// CaseSums: the sums of a CaseTally as one row of integers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "twintrack/arrays/fixed_sum.hpp"
#include "twintrack/metrics/evaluation_cells.hpp"

namespace twintrack {

/// The sums of a CaseTally (case_tally.hpp) and where in the row they are.
class CaseSums {
 public:
  /// Columns of a bin: voxels, whole and fraction of the sum of scores or confidences, then the
  /// voxels that each rater marked.
  static constexpr std::size_t first_vote_column = 3;

  CaseSums(std::size_t raters, std::size_t bins)
      : raters_(raters), bins_(bins), values_(rater_scores() + 2 * raters) {}

  std::size_t raters() const { return raters_; }
  std::size_t bins() const { return bins_; }
  std::size_t bin_columns() const { return first_vote_column + raters_; }
  std::size_t bin_rows() const { return bins_ + 1; }

  /// First value of each part. Voxels by thresholds exceeded (0 … 6) and votes (0 … N).
  std::size_t votes() const { return 0; }
  /// By bin of the score.
  std::size_t score_bins() const { return votes() + (dice_thresholds + 1) * (raters_ + 1); }
  /// By predicted class, background first, and bin of the confidence in it.
  std::size_t confidence_bins() const { return score_bins() + bin_rows() * bin_columns(); }
  /// Row of the scores with these parts, and of their confidences.
  std::size_t score_row(const ScoreParts& parts) const {
    return score_bins() + static_cast<std::size_t>(parts.bin) * bin_columns();
  }
  std::size_t confidence_row(const ScoreParts& parts) const {
    const auto bin = static_cast<std::size_t>(parts.confidence_bin);
    return confidence_bins() +
           (static_cast<std::size_t>(parts.tumour) * bin_rows() + bin) * bin_columns();
  }
  /// Sum of squared scores: whole and fraction.
  std::size_t squares() const { return confidence_bins() + 2 * bin_rows() * bin_columns(); }
  /// Sum of the scores of the voxels that each rater marked: whole and fraction.
  std::size_t rater_scores() const { return squares() + 2; }

  const std::vector<std::uint64_t>& values() const { return values_; }
  std::vector<std::uint64_t>& values() { return values_; }

  std::uint64_t& at(std::size_t index) { return values_[index]; }

  /// Adds to the fixed-point sum at `index` and `index + 1`.
  void add(std::size_t index, const fixed::Sum& sum) {
    fixed::Sum total{values_[index], values_[index + 1]};
    total.add(sum.whole, sum.fraction);
    values_[index] = total.whole;
    values_[index + 1] = total.fraction;
  }

  CaseSums& operator+=(const CaseSums& other) {
    std::vector<std::size_t> fixed_sums;
    for (std::size_t row = 0; row < 3 * bin_rows(); ++row)
      fixed_sums.push_back(score_bins() + row * bin_columns() + 1);
    for (std::size_t k = 0; k <= raters_; ++k) fixed_sums.push_back(squares() + 2 * k);
    std::size_t next = 0;
    for (const std::size_t index : fixed_sums) {
      for (; next < index; ++next) values_[next] += other.values_[next];
      add(index, fixed::Sum{other.values_[index], other.values_[index + 1]});
      next = index + 2;
    }
    return *this;
  }

 private:
  std::size_t raters_;
  std::size_t bins_;
  std::vector<std::uint64_t> values_;
};

}  // namespace twintrack
