// The rule by which a CalibrationMap (calibration_map.hpp) maps one voxel, shared by the CPU loops
// and the CUDA kernels.
#pragma once

#include <cstdint>

#include "twintrack/arrays/config.hpp"
#include "twintrack/calibration/score_grid.hpp"

namespace twintrack {

/// The knots, each with the slope of the segment it starts. Does not own.
struct KnotsView {
  const double* x;
  const double* y;
  const double* slope;  // 0 for the last; infinite where the next knot is too close for a number
  unsigned count;
};

/// The map at `p`, in double. A segment of infinite slope, one narrower than 6e-309, is a step: up
/// to its lower knot the map is that knot's, above it the upper one's.
TWINTRACK_HD double interpolate(const KnotsView& knots, double p) {
  if (p < knots.x[0]) return knots.y[0];
  unsigned knot = 0;
  for (unsigned end = knots.count; end - knot > 1;) {
    const unsigned middle = knot + (end - knot) / 2;
    if (knots.x[middle] <= p)
      knot = middle;
    else
      end = middle;
  }
  const double beyond = p - knots.x[knot];
  const double y = knots.y[knot] + (beyond > 0 ? beyond * knots.slope[knot] : 0);
  const double limit = knots.y[knot + 1 < knots.count ? knot + 1 : knot];
  return y < limit ? y : limit;
}

/// The map on a group of cells, as a function of the distance u to the nearer of 0 and 1.
template <class Real>
struct alignas(4 * sizeof(Real)) MapNode {
  Real u;       // where the half lines meet
  Real y;       // value there; NaN sends to `interpolate`
  Real before;  // slope in u below `u`
  Real after;   // slope in u from `u` on
};

/// What a loop or kernel needs of a map. Does not own.
template <class Real>
struct MapView {
  const MapNode<Real>* nodes;
  unsigned shift;  // of grid cells to groups
  KnotsView knots;
};

namespace map_grid {

/// Group of the cell that the distance u falls in; the upper half mirrors the lower.
TWINTRACK_HD unsigned group(std::uint32_t cell, bool high, unsigned shift) {
  const unsigned low = cell >> shift;
  return high ? 2 * (grid::half_cell >> shift) + 1 - low : low;
}
TWINTRACK_HD unsigned groups(unsigned shift) {
  return 2 * (grid::half_cell >> shift) + 2;
}

}  // namespace map_grid

template <class Real>
TWINTRACK_HD Real map_value(const MapNode<Real>& node, Real u) {
  const Real d = u - node.u;
  const Real slope = d < 0 ? node.before : node.after;
  return node.y + slope * d;
}

/// The rule for one voxel; `p` in [0, 1].
template <class Real>
TWINTRACK_HD Real map_score(const MapView<Real>& map, Real p) {
  const grid::Distance<Real> at = grid::distance(p);
  const Real y = map_value(map.nodes[map_grid::group(at.cell, grid::is_high(p), map.shift)], at.u);
  return y == y ? y : static_cast<Real>(interpolate(map.knots, static_cast<double>(p)));
}

}  // namespace twintrack
