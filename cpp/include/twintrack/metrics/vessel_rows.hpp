// Where the vessels lie: for each row of voxels of a label map, the range that holds its vessels.
//
// Vessels fill less than a hundredth of a CT, so the map is read once, at the speed of memory, and
// everything that is asked near vessels afterwards goes by these ranges.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "twintrack/arrays/array_view.hpp"
#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/input_error.hpp"
#include "twintrack/metrics/vessel_labels.hpp"
#include "twintrack/metrics/volume_order.hpp"

namespace twintrack {

/// Half-open range along a row; empty if `first >= last`.
struct RowRange {
  std::int32_t first = 0;
  std::int32_t last = 0;

  bool empty() const { return first >= last; }
  /// The smallest range that holds both.
  TWINTRACK_INLINE void include(RowRange other) {
    if (other.empty()) return;
    if (empty()) {
      *this = other;
    } else {
      first = std::min(first, other.first);
      last = std::max(last, other.last);
    }
  }
};

/// Throws InputError for a voxel, given in walking order, that is not a whole number.
[[noreturn]] inline void refuse_vessel(const VolumeOrder& order,
                                       const std::array<std::int64_t, 3>& walked, double value) {
  throw InputError("vessels", order.index_of(walked), value, "labels must be whole numbers");
}

/// For each row of a label map, the range that holds the voxels of the labels asked for.
class VesselRows {
 public:
  /// Scans the map. Throws InputError if an element is not a whole number, with the voxel in the
  /// caller's axes.
  VesselRows(const ArrayView& vessels, const VolumeOrder& order, const VesselLabels& labels,
             int threads);

  /// The box of all vessels, in walking order; ranges are empty if there are none.
  const std::array<RowRange, 3>& box() const { return box_; }

  /// The box of the vessels in outermost slices [first, last).
  std::array<RowRange, 3> box(std::int64_t first, std::int64_t last) const {
    std::array<RowRange, 3> box{
        RowRange{static_cast<std::int32_t>(first), static_cast<std::int32_t>(last)}, {}, {}};
    for (std::int64_t outer = first; outer < last; ++outer) {
      box[1].include(slices_[static_cast<std::size_t>(outer)].middle);
      box[2].include(slices_[static_cast<std::size_t>(outer)].inner);
    }
    return box;
  }

  /// Vessels of a row of the volume.
  RowRange row(std::int64_t outer, std::int64_t middle) const {
    return rows_[static_cast<std::size_t>(outer * order_.extent(1) + middle)];
  }

  /// The part of row (outer, middle), which may lie outside the volume, that vessels in slices
  /// [first, last) reach when each voxel reaches `before` voxels down and `after` voxels up along
  /// all axes. The range may go beyond the ends of the row.
  RowRange reached(std::int64_t outer, std::int64_t middle, std::int64_t first, std::int64_t last,
                   int before, int after) const {
    RowRange range;
    const std::int64_t outer_end = std::min(outer + before + 1, last);
    const std::int64_t middle_end = std::min(middle + before + 1, order_.extent(1));
    for (std::int64_t o = std::max(outer - after, first); o < outer_end; ++o)
      for (std::int64_t m = std::max<std::int64_t>(middle - after, 0); m < middle_end; ++m)
        range.include(row(o, m));
    if (!range.empty()) {
      range.first -= before;
      range.last += after;
    }
    return range;
  }

 private:
  struct Slice {
    RowRange middle;
    RowRange inner;
  };

  bool scan_slice(const WalkedVolume& volume, const VesselLabels& labels, std::int64_t outer);
  [[noreturn]] void explain(const WalkedVolume& volume, const VesselLabels& labels) const;

  VolumeOrder order_;
  std::vector<Slice> slices_;
  std::vector<RowRange> rows_;
  std::array<RowRange, 3> box_{};
};

}  // namespace twintrack

#if !defined(TWINTRACK_LINKED)
#include "twintrack/metrics/vessel_rows_loops.hpp"
#endif
