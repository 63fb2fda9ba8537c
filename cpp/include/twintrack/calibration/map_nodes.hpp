// The nodes of a calibration map: it is applied without a search for the segment of a score.
//
// The score grid (score_grid.hpp), coarsened to groups of 2^shift cells, is fine enough that nearly
// every group has at most one knot inside, and then the map on the group is two half lines that
// meet at one point, a node of four numbers that one aligned load brings:
//
//     m(p) = Y + (d < 0 ? before : after) · d,      d = u - U,
//
// where u = min(p, 1 - p) is the distance to the nearer end, exact, which keeps all digits where
// scores crowd. A group with more knots, or one too steep for the type, has Y = NaN and is left to
// `interpolate`. Slopes are reduced, by no more than rounding, until the value at either end of a
// group lies within the rounded values of `interpolate` there; every operation rounds monotonically
// and none is contracted. So m never decreases, stays in [0, 1], and has the same bits on every
// instruction set and device. It is within 2^-23 of `interpolate`.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

#include "twintrack/calibration/map_rule.hpp"
#include "twintrack/calibration/score_grid.hpp"

namespace twintrack::detail {

/// The nodes of a map for one type.
template <class Real>
class MapNodes {
 public:
  explicit MapNodes(const KnotsView& knots) : knots_(knots) {
    // The coarsest grid that leaves few knots, and so few voxels, to the search: bins of equal mass
    // put as many voxels around every knot. A finer one would only take up more of the cache.
    for (shift_ = coarsest_shift;; --shift_) {
      const unsigned searched = build();
      if (searched * 64 <= knots.count || shift_ == finest_shift) break;
    }
  }

  MapView<Real> view() const { return {nodes_.data(), shift_, knots_}; }

 private:
  static constexpr unsigned coarsest_shift = 5;
  static constexpr unsigned finest_shift = 1;

  // Returns how many knots lie in groups that are left to the search.
  unsigned build() {
    const unsigned half = map_grid::groups(shift_) / 2;
    nodes_.resize(2 * std::size_t{half});
    unsigned searched = 0;
    // In ascending order of p, so that `next_` runs through the knots once.
    next_ = 0;
    for (unsigned group = 0; group < half; ++group) searched += build_group(group, group, false);
    for (unsigned group = half; group-- > 0;)
      searched += build_group(2 * half - 1 - group, group, true);
    return searched;
  }

  static double next_below(double x) {
    return static_cast<double>(std::nextafter(static_cast<Real>(x), Real{0}));
  }

  double at(double u, bool high) const { return interpolate(knots_, high ? 1.0 - u : u); }

  // Slope in u of the segment below knot `k`, seen along p.
  double slope_before(unsigned k) const { return k == 0 ? 0 : knots_.slope[k - 1]; }

  unsigned build_group(std::size_t index, unsigned mirrored, bool high) {
    // The group's distances run from `first` to `last`.
    const std::uint32_t end_cell = (mirrored + 1) << shift_;
    const double first = mirrored == 0 ? 0 : grid::scale(mirrored << shift_).base;
    double last = end_cell > grid::half_cell ? 0.5 : next_below(grid::scale(end_cell).base);
    const double low_p = high ? 1.0 - last : first;
    const double high_p = high ? 1.0 - first : last;

    while (next_ < knots_.count && knots_.x[next_] <= low_p) ++next_;
    const unsigned inside_from = next_;
    unsigned inside_to = inside_from;
    while (inside_to < knots_.count && knots_.x[inside_to] < high_p) ++inside_to;
    const unsigned inside = inside_to - inside_from;

    const Real first_value = static_cast<Real>(at(first, high));
    const Real last_value = static_cast<Real>(at(last, high));
    MapNode<Real>& node = nodes_[index];
    double before;
    double after;
    bool searched = inside > 1;
    if (inside == 1) {
      const double knot = high ? 1.0 - knots_.x[inside_from] : knots_.x[inside_from];
      before = slope_before(inside_from);
      after = knots_.slope[inside_from];
      if (high) std::swap(before, after);
      node.u = static_cast<Real>(knot);
      // Where rounding moves the knot, the half lines meet half-way between themselves.
      const double moved = static_cast<double>(node.u) - knot;
      const double sign = high ? -1 : 1;
      node.y = static_cast<Real>(knots_.y[inside_from] + sign * (before + after) / 2 * moved);
      const double apart = std::abs(after - before) * std::abs(moved) / 2;
      searched |= apart > static_cast<double>(std::numeric_limits<Real>::epsilon()) / 4;
    } else {
      before = after = inside_from == 0 ? 0 : knots_.slope[inside_from - 1];
      node.u = static_cast<Real>(first);
      node.y = first_value;
    }
    // + 0: a map of -0 would not have the bits of a number in [0, 1].
    node.y =
        std::clamp(node.y, std::min(first_value, last_value), std::max(first_value, last_value)) +
        Real{0};
    node.before = static_cast<Real>(high ? -before : before);
    node.after = static_cast<Real>(high ? -after : after);
    searched |= !std::isfinite(node.y) || !std::isfinite(node.before) || !std::isfinite(node.after);
    // Next to 1 the ends of a group lie between doubles, up to 2^-54 from those of `interpolate`.
    if (std::is_same_v<Real, double> && high && first < 0x1p-42)
      searched |= std::max(before, after) > 0x1p29;
    if (searched) {
      node.y = std::numeric_limits<Real>::quiet_NaN();
      return std::max(inside, 1u);
    }
    // Along u the map falls in the upper half.
    const auto too_far = [&](Real value, Real end, bool at_last) {
      return at_last != high ? value > end : value < end;
    };
    fit_slope(node, node.before, static_cast<Real>(first), first_value, false, too_far);
    fit_slope(node, node.after, static_cast<Real>(last), last_value, true, too_far);
    return 0;
  }

  // Reduces `slope` until the value at distance `u`, an end of the group, does not pass `end`.
  template <class TooFar>
  static void fit_slope(const MapNode<Real>& node, Real& slope, Real u, Real end, bool at_last,
                        const TooFar& too_far) {
    if (!too_far(map_value(node, u), end, at_last)) return;
    Real good = 0;
    Real bad = slope;
    for (int step = 0; step < 2 * std::numeric_limits<Real>::digits; ++step) {
      slope = good + (bad - good) / 2;
      (too_far(map_value(node, u), end, at_last) ? bad : good) = slope;
    }
    slope = good;
  }

  KnotsView knots_;
  unsigned next_ = 0;
  std::vector<MapNode<Real>> nodes_;
  unsigned shift_ = 0;
};

}  // namespace twintrack::detail
