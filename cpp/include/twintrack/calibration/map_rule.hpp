// The rule by which a CalibrationMap (calibration_map.hpp) maps one voxel, shared by the CPU loops
// and the CUDA kernels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/element.hpp"

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

/// The map on a piece: two half lines that meet at one point, as a function of the offset from the
/// centre of the piece's group.
template <class Real>
struct alignas(4 * sizeof(Real)) MapNode {
  Real offset;  // where the half lines meet
  Real y;       // value there; NaN sends to `interpolate`
  Real before;  // slope below `offset`
  Real after;   // slope from `offset` on
};

/// A group of distances u to the nearer of 0 and 1, cut into pieces by the distance to a centre:
/// the closer to the centre, the finer.
template <class Real>
struct alignas(2 * sizeof(Real)) MapGroup {
  using Place = std::conditional_t<sizeof(Real) == 4, std::uint32_t, std::uint64_t>;
  static constexpr unsigned key_bits = sizeof(Real) == 4 ? 14 : 32;
  static constexpr auto last_key = static_cast<std::uint32_t>((std::uint64_t{1} << key_bits) - 1);
  static constexpr std::size_t most_nodes = std::size_t{1} << (sizeof(Real) == 4 ? 18 : 31);

  Real centre;
  Place place;  // node of the first piece from the centre on; below it the key that piece ends with

  TWINTRACK_HD static Place place_of(std::uint32_t node, std::uint32_t key) {
    return static_cast<Place>(node) << key_bits | key;
  }
};

/// What a loop or kernel needs of a map. Does not own.
template <class Real>
struct MapView {
  const MapGroup<Real>* groups;  // those of p <= 1/2, then those of p > 1/2, by distance
  const MapNode<Real>* nodes;
  unsigned half;         // groups of either half
  unsigned node_count;   // of all groups
  unsigned group_shift;  // of words of distances to groups
  unsigned lowest;       // what falls below this, shifted, is in the first group
  unsigned key_shift;    // of words of offsets to keys
  bool direct;           // whether every group is one piece with centre 0 and the node of its index
  bool searches;         // whether any node sends to `interpolate`
  KnotsView knots;

  TWINTRACK_HD std::size_t group_bytes() const {
    return 2 * std::size_t{half} * sizeof(MapGroup<Real>);
  }
  TWINTRACK_HD std::size_t node_bytes() const {
    return std::size_t{node_count} * sizeof(MapNode<Real>);
  }
};

namespace map_grid {

/// Exponent and first digits of a number without its sign, as an integer of their order.
TWINTRACK_HD std::uint32_t word(float x) {
  return twintrack::detail::bits_as<std::uint32_t>(x) & 0x7fffffffu;
}
TWINTRACK_HD std::uint32_t word(double x) {
  return static_cast<std::uint32_t>(twintrack::detail::bits_as<std::uint64_t>(x) >> 32) &
         0x7fffffffu;
}

/// Distance of a score to the nearer of 0 and 1. Exact: `1 - p` rounds only where p < 1/2. Of -0 it
/// may be -0, which counts as 0.
template <class Real>
TWINTRACK_HD Real distance(Real p) {
  const Real q = Real{1} - p;
  return p < q ? p : q;
}

/// Group of a score with this distance.
template <class Real>
TWINTRACK_HD std::uint32_t group(const MapView<Real>& map, Real u, bool high) {
  const std::uint32_t at = word(u) >> map.group_shift;
  return (at > map.lowest ? at - map.lowest : 0u) + (high ? map.half : 0u);
}

/// Node for an offset from the centre of a group.
template <class Real>
TWINTRACK_HD std::uint32_t node(typename MapGroup<Real>::Place place, Real offset,
                                unsigned key_shift) {
  using Group = MapGroup<Real>;
  const std::uint32_t key = word(offset) >> key_shift;
  const std::uint32_t nearest = static_cast<std::uint32_t>(place) & Group::last_key;
  const std::uint32_t beyond = key > nearest ? key - nearest : 0u;
  // Below the centre pieces count downwards from the one before `first`.
  const std::uint32_t below = offset < 0 ? ~0u : 0u;
  return static_cast<std::uint32_t>(place >> Group::key_bits) + (beyond ^ below);
}

}  // namespace map_grid

/// The map `offset` away from the centre of its group.
template <class Real>
TWINTRACK_HD Real map_value(const MapNode<Real>& node, Real offset) {
  const Real d = offset - node.offset;
  const Real slope = d < 0 ? node.before : node.after;
  return node.y + slope * d;
}

/// Whether a value is one, not NaN. By its bits, whatever the floating-point options.
TWINTRACK_HD bool is_value(float y) {
  return map_grid::word(y) <= 0x7f800000u;
}
TWINTRACK_HD bool is_value(double y) {
  return map_grid::word(y) < 0x7ff80000u;
}

/// The rule for one voxel; `p` in [0, 1].
template <class Real>
TWINTRACK_HD Real map_score(const MapView<Real>& map, Real p) {
  const Real u = map_grid::distance(p);
  const MapGroup<Real> group = map.groups[map_grid::group(map, u, p > Real(0.5))];
  const Real offset = u - group.centre;
  const Real y = map_value(map.nodes[map_grid::node(group.place, offset, map.key_shift)], offset);
  return is_value(y) ? y : static_cast<Real>(interpolate(map.knots, static_cast<double>(p)));
}

}  // namespace twintrack
