// The cells into which an evaluation sorts scores.
//
// What the metrics ask of a score p, besides its value, is
//   - its bin, among B uniform bins of [0, 1];
//   - the class it predicts, tumour if p > 1/2, and the bin of the confidence in that class;
//   - how many of the six thresholds of the Dice score it exceeds.
// Each divides [0, 1] into intervals. Their common refinement has at most 3B/2 + 10 intervals, the
// cells; counts per cell answer all three questions from one look at a voxel. Each answer is a
// monotone function of p, so the sum of their ranks numbers the cells without any table.
//
// Confidence. The evaluator clamps 1 - p and p to at least 1e-8, divides them by their sum, all in
// the score's own type, takes the larger and converts it to float32. That is max(p, fl(1 - p))
// converted to float32, fl being rounding in the own type: fl(1 - p) is off from 1 - p by at most a
// quarter of the own type's spacing above 1, so that fl(1 - p) + p rounds to 1 exactly and the
// division changes nothing; the clamp acts on float64 alone (float32 and 16-bit sums still round to
// 1), where confidences that it changes are above 1 - 2.1e-8 before and after and convert to 1.
// A confidence lies in [1/2, 1], so it is a multiple of 2^-24: sums of confidences are exact.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/element.hpp"
#include "twintrack/metrics/uniform_bins.hpp"

namespace twintrack {

inline constexpr int dice_thresholds = 6;

/// numpy.linspace(0.1, 0.8, 6), bit for bit.
inline std::array<double, dice_thresholds> dice_threshold_values() {
  std::array<double, dice_thresholds> values{};
  for (int k = 0; k < dice_thresholds; ++k)
    values[static_cast<std::size_t>(k)] = k * ((0.8 - 0.1) / 5) + 0.1;
  values.back() = 0.8;
  return values;
}

/// A confidence, float32 in [1/2, 1], is a multiple of 2^-24.
inline constexpr int confidence_bits = 24;
inline constexpr std::uint32_t confidence_one = 1u << confidence_bits;

TWINTRACK_HD std::uint32_t confidence_units(float confidence) {
  return static_cast<std::uint32_t>(
      static_cast<std::int32_t>(confidence * static_cast<float>(confidence_one)));
}

/// What the metrics ask of a score.
struct ScoreParts {
  int bin;             // of the score, 0 … B
  int confidence_bin;  // of the confidence in the predicted class, 0 … B
  int exceeded;        // thresholds below the score, 0 … 6
  int tumour;          // predicted class: 1 for tumour, 0 for background
  float confidence;    // in [1/2, 1]
};

/// `Real` is float for scores of at most 32 bits, else double.
template <class Real>
class EvaluationCells {
 public:
  /// `score` is the type of the scores before they became `Real`s.
  EvaluationCells(int bins, Element score) : bins_(bins) {
    // Adding and subtracting this rounds a float in [1/2, 1] to the spacing of the own type there.
    if (score == Element::float16) rounder_ = 0x1p12f;
    if (score == Element::bfloat16) rounder_ = 0x1p15f;
    high_rank_ = bins - bins_.lowest_upper_bin() + 1;
    const auto values = dice_threshold_values();
    for (std::size_t k = 0; k < values.size(); ++k) {
      // The least Real above the threshold: comparing with it in Real is comparing in float64.
      Real least = static_cast<Real>(values[k]);
      if (static_cast<double>(least) <= values[k]) least = std::nextafter(least, Real{1});
      least_above_[k] = least;
    }
  }

  TWINTRACK_HD int count() const { return bins_.count() + dice_thresholds + high_rank_ + 1; }

  /// 0 <= p <= 1; -0 counts as 0.
  TWINTRACK_HD ScoreParts parts(Real p) const {
    const Real q = complement(p);
    const float confidence = static_cast<float>(p < q ? q : p);
    int exceeded = 0;
    for (const Real least : least_above_) exceeded += p >= least ? 1 : 0;
    return {bins_.bin(static_cast<float>(p)), bins_.upper_bin(confidence), exceeded,
            p > Real{0.5} ? 1 : 0, confidence};
  }

  /// Number of the cell of a score with these parts. No branch, so that loops vectorise: a tumour
  /// prediction has one rank whatever its confidence, whose bin is the bin of the score.
  TWINTRACK_HD int cell(const ScoreParts& parts) const {
    const int falling = bins_.count() - parts.confidence_bin;
    return parts.bin + parts.exceeded + falling + parts.tumour * (high_rank_ - falling);
  }

  /// The least score of a cell and what its scores have in common: their parts less confidence.
  struct Cell {
    Real first;
    ScoreParts parts;
  };

  /// All cells by number. One that no score falls into repeats the next that has scores, or the
  /// last.
  std::vector<Cell> decode() const {
    using Bits = std::conditional_t<sizeof(Real) == 4, std::uint32_t, std::uint64_t>;
    std::vector<Cell> cells;
    Bits first = 0;  // the bits of scores are in the order of the scores
    for (int wanted = 0; wanted < count(); ++wanted) {
      Bits last = detail::bits_as<Bits>(Real{1});
      while (first < last) {
        const Bits middle = first + (last - first) / 2;
        if (cell(parts(detail::bits_as<Real>(middle))) >= wanted)
          last = middle;
        else
          first = middle + 1;
      }
      const Real score = detail::bits_as<Real>(first);
      cells.push_back({score, parts(score)});
    }
    return cells;
  }

  /// Scores below this are in cell 0 if the confidence in background is 1, else in cell 1.
  static Real faint_limit(const std::vector<Cell>& cells) {
    const ScoreParts& second = cells[1].parts;
    return second.bin == 0 && second.exceeded == 0 ? cells[2].first : Real{0};
  }

  /// Confidence in background of a score below 1/2.
  TWINTRACK_HD float background_confidence(Real p) const {
    return static_cast<float>(complement(p));
  }

 private:
  // 1 - p rounded in the score's own type. Where p > 1/2 no 16-bit rounding is needed, or wanted.
  TWINTRACK_HD Real complement(Real p) const {
    const Real q = Real{1} - p;
    if constexpr (std::is_same_v<Real, float>) {
      return (q + rounder_) - rounder_;
    } else {
      return q;
    }
  }

  UniformBins bins_;
  int high_rank_;  // rank of every tumour prediction among the classes and confidences
  float rounder_ = 0;
  std::array<Real, dice_thresholds> least_above_{};
};

}  // namespace twintrack
