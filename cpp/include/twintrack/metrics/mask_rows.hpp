// All tumour masks of a case at once: the raters' and the scores above each threshold, as the bits
// of one word per voxel.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "twintrack/arrays/array_view.hpp"
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
  bool load(std::int64_t outer, std::int64_t middle, std::int64_t inner, std::int64_t n, Room& room,
            MaskWord* words) const;

 private:
  void prefetch(std::int64_t outer, std::int64_t middle, std::int64_t inner, std::int64_t n) const;
  template <class Real>
  bool load_as(const std::vector<Real>& thresholds, std::int64_t outer, std::int64_t middle,
               std::int64_t inner, std::int64_t n, Room& room, MaskWord* words) const;

  std::int64_t middles_;
  WalkedVolume score_;
  std::vector<WalkedVolume> raters_;
  std::vector<double> thresholds_;
  std::vector<float> float_thresholds_;  // the same for scores of at most 32 bits
};

}  // namespace twintrack

#if !defined(TWINTRACK_LINKED)
#include "twintrack/metrics/mask_rows_loops.hpp"
#endif
