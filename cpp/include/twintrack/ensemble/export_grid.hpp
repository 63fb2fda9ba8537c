// How the grids of an export's members lie in the output's.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "twintrack/arrays/array_view.hpp"
#include "twintrack/arrays/element.hpp"
#include "twintrack/arrays/input_error.hpp"
#include "twintrack/ensemble/members.hpp"
#include "twintrack/ensemble/merge.hpp"
#include "twintrack/ensemble/merged_scores.hpp"
#include "twintrack/ensemble/resample.hpp"

namespace twintrack {

/// How one member's grid lies in the output's.
struct ExportGrid {
  /// axes[a]: the member's spatial axis, 0 to 2, that runs along axis a of the output.
  std::array<int, 3> axes{0, 1, 2};
  /// By axis of the output.
  std::array<Interpolation, 3> interpolation{};
  Coordinates coordinates = Coordinates::float64;
  /// Round resampled values to float16 if that is what the member is.
  bool round_to_input = false;
};

namespace detail {

/// A member seen along the output's axes.
struct ExportSource {
  const std::byte* data;
  std::int64_t channel_stride;
  std::array<std::int64_t, 3> extent;
  std::array<std::int64_t, 3> stride;
  std::array<AxisTaps, 3> taps;
  std::array<int, 3> order;  // the output's axis of each of the member's
  bool round;                // resample in float64 and round to float16
  double tie_margin;         // as near to a tie the order of roundings may decide
};

/// How far `lerp` along the axes and SciPy's sum may be apart, for values of a float16's size.
/// Nothing if the weights are so simple, as for factors of 2, that all of it is exact: values are
/// multiples of 2^-24 below 2^16, their differences below 2^17.
inline double tie_margin(const std::array<AxisTaps, 3>& taps) {
  int places = 0;
  for (const AxisTaps& axis : taps) places += weight_places(axis);
  return places <= 53 - 24 - 17 ? 0.0 : 0x1p-32;
}

/// The rule, checked against the arrays of an export. Throws InputError.
inline Merge export_merge(const std::vector<ArrayView>& members,
                          const std::vector<ExportGrid>& grids, const MergeRule& rule,
                          const WritableArrayView& out) {
  check_members(members, 3);
  check_out(out);
  if (grids.size() != members.size())
    throw InputError("", "there are " + std::to_string(members.size()) + " members but " +
                             std::to_string(grids.size()) + " grids");
  if (out.shape.size() != 3)
    throw InputError("out", "has shape " + to_text(out.shape) + "; it must be a volume");
  for (const ExportGrid& grid : grids) {
    std::array<int, 3> sorted = grid.axes;
    std::sort(sorted.begin(), sorted.end());
    if (sorted != std::array<int, 3>{0, 1, 2})
      throw InputError("axes", "must be an order of 0, 1 and 2");
  }
  return Merge(rule, members[0].shape[0]);
}

inline ExportSource export_source(const ArrayView& member, const ExportGrid& grid,
                                  const WritableArrayView& out) {
  ExportSource made{member.data, member.strides[0], {}, {}, {}, {}, false, 0};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const auto from = static_cast<std::size_t>(grid.axes[axis]) + 1;
    made.order[from - 1] = static_cast<int>(axis);
    made.extent[axis] = member.shape[from];
    made.stride[axis] = member.strides[from];
    if (element_count(out.shape) > 0)
      made.taps[axis] = axis_taps(grid.interpolation[axis], grid.coordinates, member.shape[from],
                                  out.shape[axis]);
  }
  const bool resampled = !(made.taps[0].identity && made.taps[1].identity && made.taps[2].identity);
  made.round = grid.round_to_input && resampled && member.element == Element::float16;
  if (made.round) made.tie_margin = tie_margin(made.taps);
  return made;
}

/// The members of an export that `export_merge` has checked. Throws InputError if logits
/// are to be averaged that lie on different grids.
inline std::vector<ExportSource> export_sources(const std::vector<ArrayView>& members,
                                                const std::vector<ExportGrid>& grids,
                                                const MergeRule& rule,
                                                const WritableArrayView& out) {
  std::vector<ExportSource> sources;
  for (std::size_t k = 0; k < members.size(); ++k)
    sources.push_back(export_source(members[k], grids[k], out));
  if (rule.mean_of_logits)
    for (std::size_t k = 1; k < members.size(); ++k)
      if (sources[k].extent != sources[0].extent ||
          grids[k].interpolation != grids[0].interpolation ||
          grids[k].coordinates != grids[0].coordinates)
        throw InputError("", "the mean of logits needs members on one grid, but " + member_name(k) +
                                 " is on another than members[0]");
  return sources;
}

}  // namespace detail
}  // namespace twintrack
