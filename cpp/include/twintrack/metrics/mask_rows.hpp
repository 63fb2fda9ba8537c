// All tumour masks of a case at once: the raters' and the scores above each threshold, as the bits
// of one word per voxel.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/element.hpp"
#include "twintrack/arrays/streaming.hpp"
#include "twintrack/arrays/voxel_blocks.hpp"
#include "twintrack/metrics/volume_order.hpp"

namespace twintrack {

/// The masks that mark a voxel: bit k is mask k, raters first, then thresholds.
using MaskWord = std::uint64_t;
inline constexpr std::size_t max_masks = 64;

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
template <class Real>
class MaskRows {
 public:
  /// `view` has no region, and raters and thresholds are at most `max_masks` together.
  MaskRows(const CaseView& view, const std::vector<double>& thresholds, const VolumeOrder& order)
      : middles_(order.extent(1)), score_(order.arrange(view.score)) {
    for (const ArrayView& rater : view.raters) raters_.push_back(order.arrange(rater));
    for (const double threshold : thresholds)
      thresholds_.push_back(detail::at_most<Real>(threshold));
  }

  /// Room for the longest row of one thread.
  struct Room {
    std::vector<Real> score;
    std::vector<std::uint8_t> label;
    void reserve(std::int64_t voxels) {
      if (score.size() >= static_cast<std::size_t>(voxels)) return;
      score.resize(static_cast<std::size_t>(voxels));
      label.resize(static_cast<std::size_t>(voxels));
    }
  };

  /// Words of `n` voxels from (outer, middle, inner) on. False if one is not valid.
  TWINTRACK_INLINE bool load(std::int64_t outer, std::int64_t middle, std::int64_t inner,
                             std::int64_t n, Room& room, MaskWord* __restrict words) const {
    if (middle + rows_ahead < middles_) prefetch(outer, middle + rows_ahead, inner, n);
    const Real* score = scores(outer, middle, inner, n, room);
    bool valid = scores_valid(score, static_cast<int>(n));
    for (std::int64_t i = 0; i < n; ++i) words[i] = 0;
    unsigned bit = 0;
    for (const WalkedVolume& rater : raters_) {
      const std::uint8_t* label = labels(rater, outer, middle, inner, n, room);
      valid &= labels_valid(label, static_cast<int>(n));
      for (std::int64_t i = 0; i < n; ++i) words[i] |= MaskWord{label[i]} << bit;
      ++bit;
    }
    for (const Real threshold : thresholds_) {
      const MaskWord mark = MaskWord{1} << bit;
      for (std::int64_t i = 0; i < n; ++i) words[i] |= score[i] > threshold ? mark : MaskWord{0};
      ++bit;
    }
    return valid;
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

  template <class T, class To, class Out>
  TWINTRACK_NOINLINE static void gather(const std::byte* p, std::int64_t stride, std::int64_t n,
                                        To to, Out* out) {
    detail::convert_run<T>(p, stride, n, to, out);
  }

  // Where the row lies if it is ready in memory, else converted into the room.
  TWINTRACK_INLINE const Real* scores(std::int64_t outer, std::int64_t middle, std::int64_t inner,
                                      std::int64_t n, Room& room) const {
    const std::byte* p = score_.at(outer, middle, inner);
    const std::int64_t stride = score_.stride[2];
    const detail::ToReal to;
    Real* out = room.score.data();
    if constexpr (std::is_same_v<Real, double>) {
      if (ready(p)) return reinterpret_cast<const Real*>(p);
      gather<double>(p, stride, n, to, out);
    } else if (score_.element == Element::float16) {
      if (score_.rows_contiguous())
        detail::convert_run<float16>(p, std::int64_t{sizeof(float16)}, n, to, out);
      else
        gather<float16>(p, stride, n, to, out);
    } else if (score_.element == Element::bfloat16) {
      gather<bfloat16>(p, stride, n, to, out);
    } else {
      if (ready(p)) return reinterpret_cast<const Real*>(p);
      gather<float>(p, stride, n, to, out);
    }
    return out;
  }

  TWINTRACK_INLINE const std::uint8_t* labels(const WalkedVolume& rater, std::int64_t outer,
                                              std::int64_t middle, std::int64_t inner,
                                              std::int64_t n, Room& room) const {
    const std::byte* p = rater.at(outer, middle, inner);
    if (size_of(rater.element) == 1 && rater.rows_contiguous())
      return reinterpret_cast<const std::uint8_t*>(p);
    detail::visit_element(rater.element, [&](auto sample) {
      gather<decltype(sample)>(p, rater.stride[2], n, LabelByte{}, room.label.data());
    });
    return room.label.data();
  }

  bool ready(const std::byte* p) const {
    return score_.rows_contiguous() && reinterpret_cast<std::uintptr_t>(p) % alignof(Real) == 0;
  }

  std::int64_t middles_;
  WalkedVolume score_;
  std::vector<WalkedVolume> raters_;
  std::vector<Real> thresholds_;
};

}  // namespace twintrack
