// The nodes of a calibration map: it is applied without a search for the segment of a score.
//
// Scores are cut into pieces (map_groups.hpp) with at most one knot inside. On a piece the map is
// two half lines that meet at one point, a node of four numbers that one aligned load brings:
//
//     m(p) = Y + (d < 0 ? before : after) · d,      d = (u - C) - D,
//
// where u = min(p, 1 - p) is the distance to the nearer end and C the centre of the group. Both
// differences u and u - C are exact, which keeps all digits where scores crowd. A piece with more
// knots, or one too steep for the type, has Y = NaN and is left to `interpolate`. Slopes are
// reduced, by no more than rounding, until the value at either end of a piece lies within the
// rounded values of `interpolate` there; every operation rounds monotonically and none is
// contracted. So m never decreases, stays in [0, 1], and has the same bits on every instruction set
// and device. It is within 2^-23 of `interpolate`.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "twintrack/calibration/map_groups.hpp"
#include "twintrack/calibration/map_rule.hpp"

namespace twintrack::detail {

/// The nodes of a map for one type.
template <class Real>
class MapNodes {
 public:
  explicit MapNodes(const KnotsView& knots)
      : knots_(knots), halves_{MapHalf<Real>(knots, false), MapHalf<Real>(knots, true)} {
    if (!choose_direct()) choose_cut();
    for (const MapHalf<Real>& half : halves_) build(half);
  }

  MapView<Real> view() const {
    return {
        groups_.data(),     nodes_.data(), cut_.half(),      static_cast<unsigned>(nodes_.size()),
        cut_.group_shift(), cut_.lowest(), cut_.key_shift(), cut_.direct,
        searches_,          knots_};
  }

 private:
  using Half = MapHalf<Real>;
  using Group = MapGroup<Real>;
  static constexpr unsigned octaves = 23;  // at most, down to 2^-24
  static constexpr unsigned coarsest = 3;  // groups of an octave: 2^this
  static constexpr unsigned finest = 9;
  static constexpr unsigned finest_direct = 6;
  static constexpr std::size_t direct_bytes = 24 << 10;
  static constexpr unsigned coarsest_pieces = 1;  // likewise
  static constexpr unsigned finest_pieces = 6;

  // A run of groups or single group within an octave, and its pieces.
  struct Run {
    unsigned groups = 0;
    GroupPlan<Real> plan;
  };

  static Real last_of(const Half& half, const MapCut<Real>& cut, unsigned group) {
    return group + 1 == cut.half()
               ? Real(0.5)
               : half.down(static_cast<double>(std::nextafter(cut.start(group + 1), Real{0})));
  }
  static Real first_of(const Half& half, const MapCut<Real>& cut, unsigned group) {
    return half.up(static_cast<double>(cut.start(group)));
  }

  // The groups from `group` on, up to `end`, that can be one piece, or else how the first is cut.
  static Run run_from(const Half& half, GroupPlanner<Real>& planner, const MapCut<Real>& cut,
                      unsigned group, unsigned end) {
    const Real first = first_of(half, cut, group);
    Run run;
    const double start = half.at(first);
    while (group + run.groups < end) {
      const Real last = last_of(half, cut, group + run.groups);
      const auto [from, to] = half.inside(first, last);
      // What is wide is not steep, so that rounding stays within its bound.
      if (to - from > 1 || (to > from && !half.meets(from))) break;
      if (run.groups > 0 && std::abs(half.at(last) - start) > 0.25) break;
      ++run.groups;
      if (cut.direct) break;
    }
    if (run.groups > 0) return run;
    run.groups = 1;
    run.plan = planner.plan(first, last_of(half, cut, group));
    return run;
  }

  // Of both halves together.
  struct Cost {
    std::size_t groups = 0;
    std::size_t nodes = 0;
    unsigned crowded = 0;  // knots

    void add(const GroupPlan<Real>& plan) {
      nodes += plan.below + plan.from;
      crowded += plan.crowded;
    }
  };

  // In bytes, and more for crowded knots: a search takes much longer than a look-up.
  double price(const Cost& cost) const {
    if (cost.nodes > Group::most_nodes) return std::numeric_limits<double>::infinity();
    return static_cast<double>(cost.groups * sizeof(Group) + cost.nodes * sizeof(MapNode<Real>)) *
           (1 + 4096.0 * cost.crowded / knots_.count);
  }

  // Groups alone, if few do. One look-up less is faster, as long as the nodes stay in the
  // first-level cache.
  bool choose_direct() {
    for (unsigned groups = coarsest; groups <= finest_direct; ++groups)
      for (unsigned above = 0; above <= octaves; ++above) {
        const MapCut<Real> cut{groups, 0, above, true};
        if (2 * cut.half() * sizeof(MapNode<Real>) > direct_bytes) break;
        if (!halves_[0].empty(cut.start(0), cut.start(1)) ||
            !halves_[1].empty(cut.start(0), cut.start(1)))
          continue;
        if (!one_bend_each(halves_[0], cut) || !one_bend_each(halves_[1], cut)) break;
        cut_ = cut;
        return true;
      }
    return false;
  }

  static bool one_bend_each(const Half& half, const MapCut<Real>& cut) {
    for (unsigned group = 1; group < cut.half(); ++group) {
      const auto [from, to] = half.inside(first_of(half, cut, group), last_of(half, cut, group));
      if (to - from > 1 || (to > from && !half.meets(from))) return false;
    }
    return true;
  }

  void choose_cut() {
    double least = std::numeric_limits<double>::infinity();
    for (unsigned groups = coarsest; groups <= finest; ++groups)
      for (unsigned pieces = coarsest_pieces; pieces <= finest_pieces; ++pieces)
        choose_octaves(groups, pieces, least);
  }

  // Takes the cut with the number of octaves that costs least, if that is less than `least`.
  void choose_octaves(unsigned groups, unsigned pieces, double& least) {
    const MapCut<Real> all{groups, pieces, octaves};
    std::array<GroupPlanner<Real>, 2> planners{GroupPlanner<Real>(halves_[0], all.key_shift()),
                                               GroupPlanner<Real>(halves_[1], all.key_shift())};
    Cost cost{.groups = 4, .nodes = 2};  // those at 0 and of 1/2
    for (unsigned above = 0;; ++above) {
      // What lies below that many octaves is one group.
      const MapCut<Real> cut{groups, pieces, above};
      Cost with_bottom = cost;
      for (std::size_t k = 0; k < 2; ++k)
        with_bottom.add(planners[k].plan(0, last_of(halves_[k], cut, 0)));
      if (const double now = price(with_bottom); now < least) {
        least = now;
        cut_ = cut;
      }
      if (above == octaves) return;
      cost.groups += std::size_t{2} << groups;
      const unsigned end = all.half() - 1 - (above << groups);
      for (std::size_t k = 0; k < 2; ++k)
        for (unsigned group = end - (1u << groups); group < end;) {
          const Run run = run_from(halves_[k], planners[k], all, group, end);
          cost.add(run.plan);
          group += run.groups;
        }
      if (price(cost) > least) return;
    }
  }

  void build(const Half& half) {
    GroupPlanner<Real> planner(half, cut_.key_shift());
    const unsigned count = cut_.half();
    for (unsigned group = 0; group < count;) {
      // Octaves begin after the first group.
      const unsigned octave = 1u << cut_.groups;
      const unsigned end =
          group == 0 ? 1 : std::min(count, ((group - 1) / octave + 1) * octave + 1);
      Run run;
      const Real first = first_of(half, cut_, group);
      if (group == 0) {
        run.groups = 1;
        run.plan = planner.plan(first, last_of(half, cut_, group));
      } else {
        run = run_from(half, planner, cut_, group, end);
      }
      const auto node = static_cast<std::uint32_t>(nodes_.size()) + run.plan.below;
      const Group entry{run.plan.centre, Group::place_of(node, run.plan.nearest)};
      groups_.insert(groups_.end(), run.groups, entry);
      nodes_.resize(nodes_.size() + run.plan.below + run.plan.from, MapNode<Real>{});
      group += run.groups;
      build_pieces(half, entry, first, last_of(half, cut_, group - 1));
    }
  }

  // Finds the pieces of a group by the very rule that a voxel is mapped by.
  void build_pieces(const Half& half, const Group& group, Real first, Real last) {
    const auto node_of = [&](Real u) {
      return map_grid::node(group.place, u - group.centre, cut_.key_shift());
    };
    while (first <= last) {
      const std::uint32_t node = node_of(first);
      // The last score of the same node, by halving.
      Real end = first;
      Real beyond = last;
      if (node_of(last) == node) {
        end = last;
      } else {
        for (Real middle; half.after(end) < beyond;) {
          middle = halfway(half, end, beyond);
          (node_of(middle) == node ? end : beyond) = middle;
        }
      }
      build_node(half, nodes_[node], group.centre, first, end);
      first = half.after(end);
    }
  }

  // A score between two that are not neighbours.
  static Real halfway(const Half& half, Real a, Real b) {
    using Bits = std::conditional_t<sizeof(Real) == 4, std::uint32_t, std::uint64_t>;
    if (half.high()) {
      const Real middle = half.down(static_cast<double>(a + (b - a) / 2));
      return middle > a ? middle : half.after(a);
    }
    const Bits low = bits_as<Bits>(a);
    return bits_as<Real>(static_cast<Bits>(low + (bits_as<Bits>(b) - low) / 2));
  }

  // The piece's distances run from `first` to `last`.
  void build_node(const Half& half, MapNode<Real>& node, Real centre, Real first, Real last) {
    const Real first_value = static_cast<Real>(half.at(first));
    const Real last_value = static_cast<Real>(half.at(last));
    const bool fits = bend(half, node, centre, first, last);
    // + 0: a map of -0 would not have the bits of a number in [0, 1].
    node.y =
        std::clamp(node.y, std::min(first_value, last_value), std::max(first_value, last_value)) +
        Real{0};
    if (!fits || !std::isfinite(node.y) || !std::isfinite(node.before) ||
        !std::isfinite(node.after)) {
      node.y = std::numeric_limits<Real>::quiet_NaN();
      searches_ = true;
      return;
    }
    // Along u the map falls in the upper half.
    const auto too_far = [high = half.high()](Real value, Real end, bool at_last) {
      return at_last != high ? value > end : value < end;
    };
    drop_slope(node, node.before, first - centre);
    drop_slope(node, node.after, last - centre);
    if (node.before == 0 && node.after == 0) node.offset = 0;
    fit_slope(node, node.before, first - centre, first_value, false, too_far);
    fit_slope(node, node.after, last - centre, last_value, true, too_far);
  }

  // Two half lines for the map on a piece. False if it bends more than once there.
  bool bend(const Half& half, MapNode<Real>& node, Real centre, Real first, Real last) const {
    const auto [from, to] = half.inside(first, last);
    const double low = static_cast<double>(first);
    const double high = static_cast<double>(last);
    const double low_value = half.at(first);
    const double high_value = half.at(last);
    const auto set = [&](double u, double y, std::pair<double, double> slopes) {
      const double offset = u - static_cast<double>(centre);
      node.offset = static_cast<Real>(offset);
      // Where rounding moves the bend, the half lines meet half-way between themselves.
      const double moved = static_cast<double>(node.offset) - offset;
      node.y = static_cast<Real>(moved == 0 ? y : y + (slopes.first + slopes.second) / 2 * moved);
      node.before = static_cast<Real>(slopes.first);
      node.after = static_cast<Real>(slopes.second);
      return Half::meets(slopes, moved);
    };
    if (to == from) return set(low, low_value, half.slopes(from, to));
    if (to - from == 1 && set(half.knots()[from], half.knot_value(from), half.slopes(from, to)))
      return true;
    // Through the values at both ends and at one place between.
    const auto through = [&](double u, double y) {
      return set(u, y, {(y - low_value) / (u - low), (high_value - y) / (high - u)});
    };
    // Two or three scores are met whatever lies between them.
    const Real second = half.after(first);
    if (second == last) return set(low, low_value, {0.0, (high_value - low_value) / (high - low)});
    if (half.after(second) == last) return through(static_cast<double>(second), half.at(second));
    // Knots may be so flat that all but one are within rounding of the half lines.
    const auto off = [&](std::size_t k, double u, double y, double end, double end_value) {
      const double at = half.knots()[k];
      return std::abs(y + (end_value - y) / (end - u) * (at - u) - half.knot_value(k));
    };
    std::size_t sharpest = from;
    for (std::size_t k = from; k < to; ++k)
      if (off(k, low, low_value, high, high_value) >
          off(sharpest, low, low_value, high, high_value))
        sharpest = k;
    const double u = half.knots()[sharpest];
    const double y = half.knot_value(sharpest);
    for (std::size_t k = from; k < to; ++k)
      if (k != sharpest && !(off(k, u, y, k < sharpest ? low : high,
                                 k < sharpest ? low_value : high_value) <= Half::rounding))
        return false;
    return through(u, y);
  }

  // A slope that changes no result up to `offset`, an end of the piece, becomes 0, and where there
  // is none it does not matter where half lines meet: processors are slow at subnormal numbers,
  // which differences and products might be.
  static void drop_slope(const MapNode<Real>& node, Real& slope, Real offset) {
    constexpr Real least = std::numeric_limits<Real>::epsilon() / 16;
    if (std::abs(slope * (offset - node.offset)) < least * node.y) slope = 0;
  }

  // Reduces `slope` until the value at `offset`, an end of the piece, does not pass `end`.
  template <class TooFar>
  static void fit_slope(const MapNode<Real>& node, Real& slope, Real offset, Real end, bool at_last,
                        const TooFar& too_far) {
    if (!too_far(map_value(node, offset), end, at_last)) return;
    Real good = 0;
    Real bad = slope;
    for (int step = 0; step < 2 * std::numeric_limits<Real>::digits; ++step) {
      slope = good + (bad - good) / 2;
      (too_far(map_value(node, offset), end, at_last) ? bad : good) = slope;
    }
    slope = good;
  }

  KnotsView knots_;
  std::array<Half, 2> halves_;
  MapCut<Real> cut_;
  std::vector<Group> groups_;
  std::vector<MapNode<Real>> nodes_;
  bool searches_ = false;
};

}  // namespace twintrack::detail
