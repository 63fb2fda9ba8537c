// Volumes of one shape, walked row by row in one order whatever their memory order is.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>

#include "twintrack/arrays/array_view.hpp"
#include "twintrack/arrays/element.hpp"

namespace twintrack {

/// A three-dimensional array with its axes in walking order, outermost first.
struct WalkedVolume {
  const std::byte* data;
  Element element;
  std::array<std::int64_t, 3> stride;  // bytes

  const std::byte* at(std::int64_t outer, std::int64_t middle, std::int64_t inner) const {
    return data + outer * stride[0] + middle * stride[1] + inner * stride[2];
  }
  /// Elements along the innermost axis are neighbours in memory, in ascending order.
  bool rows_contiguous() const { return stride[2] == static_cast<std::int64_t>(size_of(element)); }
};

/// The order in which volumes of one shape are walked: as the first of them lies in memory. Axes
/// change places but not direction, whatever the sign of their strides.
class VolumeOrder {
 public:
  explicit VolumeOrder(const ArrayView& leader) {
    // An axis of one voxel goes outermost, where it does not cut rows short.
    const auto reach = [&](std::size_t axis) {
      return leader.shape[axis] == 1 ? std::numeric_limits<std::int64_t>::max()
                                     : std::abs(leader.strides[axis]);
    };
    std::stable_sort(axes_.begin(), axes_.end(),
                     [&](std::size_t a, std::size_t b) { return reach(a) > reach(b); });
    for (std::size_t i = 0; i < 3; ++i) extent_[i] = leader.shape[axes_[i]];
  }

  /// Caller's axis that is walked as axis `i`.
  std::size_t axis(std::size_t i) const { return axes_[i]; }
  std::int64_t extent(std::size_t i) const { return extent_[i]; }

  WalkedVolume arrange(const ArrayView& array) const {
    return {array.data,
            array.element,
            {array.strides[axes_[0]], array.strides[axes_[1]], array.strides[axes_[2]]}};
  }

  /// Index along the caller's axes.
  Shape index_of(const std::array<std::int64_t, 3>& walked) const {
    Shape index(3);
    for (std::size_t i = 0; i < 3; ++i) index[axes_[i]] = walked[i];
    return index;
  }

 private:
  std::array<std::size_t, 3> axes_{0, 1, 2};
  std::array<std::int64_t, 3> extent_{};
};

}  // namespace twintrack
