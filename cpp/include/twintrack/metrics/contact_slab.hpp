// ContactSlab: the voxels around the vessels of some slices, for contact angles
// (contact_angle.hpp).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "twintrack/metrics/contact_rule.hpp"
#include "twintrack/metrics/vessel_rows.hpp"

namespace twintrack::detail {

/// Some outermost slices around vessels: of each voxel its masks, its vessel and on which slices'
/// edges it is. Loaded are only the parts of rows that vessels in the middle slices reach; nothing
/// else is ever read.
class ContactSlab {
 public:
  /// Makes room for what vessels in slices [first, last) reach.
  void place(const VesselRows& rows, std::int64_t first, std::int64_t last) {
    const std::array<RowRange, 3> box = rows.box(first, last);
    for (std::size_t axis = 0; axis < 3; ++axis) {
      begin_[axis] = box[axis].first - contact_before;
      end_[axis] = box[axis].last + contact_after;
    }
    stride_[2] = 1;
    stride_[1] = end_[2] - begin_[2];
    stride_[0] = stride_[1] * (end_[1] - begin_[1]);
    const auto voxels = static_cast<std::size_t>(stride_[0] * (end_[0] - begin_[0]));
    if (code.size() < voxels) {
      mask.resize(voxels);
      code.resize(voxels);
      edge.resize(voxels);
    }
    row_union.assign(voxels / static_cast<std::size_t>(stride_[1]), 0);
  }

  std::int64_t begin(std::size_t axis) const { return begin_[axis]; }
  std::int64_t end(std::size_t axis) const { return end_[axis]; }
  std::int64_t stride(std::size_t axis) const { return stride_[axis]; }

  std::int64_t index(std::int64_t outer, std::int64_t middle, std::int64_t inner) const {
    return (outer - begin_[0]) * stride_[0] + (middle - begin_[1]) * stride_[1] + inner - begin_[2];
  }
  MaskWord& union_of_row(std::int64_t outer, std::int64_t middle) {
    return row_union[static_cast<std::size_t>(index(outer, middle, begin_[2]) / stride_[1])];
  }

  std::vector<MaskWord> mask;
  std::vector<std::uint8_t> code;   // VesselLabels' code
  std::vector<std::uint8_t> edge;   // edge_planes of vessel voxels, 0 elsewhere
  std::vector<MaskWord> row_union;  // masks that occur in a row

 private:
  std::array<std::int64_t, 3> begin_{};
  std::array<std::int64_t, 3> end_{};
  std::array<std::int64_t, 3> stride_{};
};

}  // namespace twintrack::detail
