// All tumour masks of a case at once: the raters' and the scores above each threshold, as the bits
// of one word per voxel.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "twintrack/arrays/array_view.hpp"
#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/element.hpp"
#include "twintrack/arrays/element_runs.hpp"
#include "twintrack/arrays/streaming.hpp"
#include "twintrack/arrays/voxel_blocks.hpp"
#include "twintrack/metrics/contact_rule.hpp"
#include "twintrack/metrics/volume_order.hpp"

namespace twintrack {

namespace detail {

// The largest value of Real that is not above `x`: y > x in double is y > it in Real.
template <class Real>
Real at_most(double x) {
  const auto rounded = static_cast<Real>(x);
  return static_cast<double>(rounded) > x
             ? std::nextafter(rounded, -std::numeric_limits<Real>::infinity())
             : rounded;
}

}  // namespace detail

/// Reads rows of voxels as words, from score and raters where they lie.
class MaskRows {
 public:
  /// `view` has no region, and raters and thresholds are at most `max_masks` together.
  MaskRows(const CaseView& view, const std::vector<double>& thresholds, const VolumeOrder& order)
      : middles_(order.extent(1)), score_(order.arrange(view.score)) {
    for (const ArrayView& rater : view.raters) raters_.push_back(order.arrange(rater));
    for (const double threshold : thresholds) {
      thresholds_.push_back(threshold);
      float_thresholds_.push_back(detail::at_most<float>(threshold));
    }
  }

  /// Room for the longest row of one thread.
  struct Room {
    std::vector<double> score;  // or floats
    std::vector<std::uint8_t> label;
    void reserve(std::int64_t voxels) {
      if (label.size() >= static_cast<std::size_t>(voxels)) return;
      score.resize(static_cast<std::size_t>(voxels));
      label.resize(static_cast<std::size_t>(voxels));
    }
  };

  /// Words of `n` voxels from (outer, middle, inner) on. False if one is not valid.
  TWINTRACK_INLINE bool load(std::int64_t outer, std::int64_t middle, std::int64_t inner,
                             std::int64_t n, Room& room, MaskWord* __restrict words) const {
    if (middle + rows_ahead < middles_) prefetch(outer, middle + rows_ahead, inner, n);
    return score_.element == Element::float64
               ? load_as(thresholds_, outer, middle, inner, n, room, words)
               : load_as(float_thresholds_, outer, middle, inner, n, room, words);
  }

 private:
  // Rows near vessels are short and far apart in memory, so that the processor does not foresee
  // them by itself; this many rows on is about the latency of memory.
  static constexpr std::int64_t rows_ahead = 2;

  TWINTRACK_INLINE void prefetch(std::int64_t outer, std::int64_t middle, std::int64_t inner,
                                 std::int64_t n) const {
    const auto ask = [&](const WalkedVolume& volume) TWINTRACK_INLINE_LAMBDA {
      if (!volume.rows_contiguous()) return;
      const std::byte* first = volume.at(outer, middle, inner);
      const auto bytes = static_cast<std::size_t>(n * volume.stride[2]);
      twintrack::prefetch(first, bytes);
      twintrack::prefetch(first + bytes - 1, 1);  // the line in which the row ends
    };
    ask(score_);
    for (const WalkedVolume& rater : raters_) ask(rater);
  }

  template <class Real>
  TWINTRACK_INLINE bool load_as(const std::vector<Real>& thresholds, std::int64_t outer,
                                std::int64_t middle, std::int64_t inner, std::int64_t n, Room& room,
                                MaskWord* __restrict words) const {
    // Where the scores lie if they are ready in memory, else converted into the room.
    const std::byte* at = score_.at(outer, middle, inner);
    const auto* score = reinterpret_cast<const Real*>(at);
    if (size_of(score_.element) != sizeof(Real) || !score_.rows_contiguous() ||
        reinterpret_cast<std::uintptr_t>(at) % alignof(Real) != 0) {
      auto* converted = reinterpret_cast<Real*>(room.score.data());
      if (score_.rows_contiguous())
        detail::read_reals(score_.element, at, n, converted);
      else
        detail::gather_reals(score_.element, at, score_.stride[2], n, converted);
      score = converted;
    }
    bool valid = scores_valid(score, static_cast<int>(n));
    for (std::int64_t i = 0; i < n; ++i) words[i] = 0;
    unsigned bit = 0;
    for (const WalkedVolume& rater : raters_) {
      const std::byte* p = rater.at(outer, middle, inner);
      const auto* label = reinterpret_cast<const std::uint8_t*>(p);
      if (size_of(rater.element) != 1 || !rater.rows_contiguous()) {
        detail::read_labels(rater.element, p, rater.stride[2], n, room.label.data());
        label = room.label.data();
      }
      valid &= labels_valid(label, static_cast<int>(n));
      for (std::int64_t i = 0; i < n; ++i) words[i] |= MaskWord{label[i]} << bit;
      ++bit;
    }
    for (const Real threshold : thresholds) {
      const MaskWord mark = MaskWord{1} << bit;
      for (std::int64_t i = 0; i < n; ++i) words[i] |= score[i] > threshold ? mark : MaskWord{0};
      ++bit;
    }
    return valid;
  }

  std::int64_t middles_;
  WalkedVolume score_;
  std::vector<WalkedVolume> raters_;
  std::vector<double> thresholds_;
  std::vector<float> float_thresholds_;  // the same for scores of at most 32 bits
};

}  // namespace twintrack
