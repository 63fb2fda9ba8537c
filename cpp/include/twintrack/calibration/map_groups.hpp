// Where the nodes of a calibration map (map_nodes.hpp) lie: its scores cut into pieces with at most
// one knot inside, found by a few integer operations.
//
// A score is placed by its distance u to the nearer of 0 and 1. The first level are groups: equal
// parts of every octave from 2^lowest up to 1/2, and one group below. Means of K networks pile up
// near k / K, and knots crowd there, ever closer towards the centre of the pile. So the second
// level cuts a group by the distance to a centre, into equal parts of every octave of it: what is
// `2^-20` away from a knot at 1/3 gets pieces as fine as what is `2^-20` away from 0. Neighbouring
// groups with at most one knot together are one piece. Where groups alone do, as for scores without
// piles, each has one node, and the second level is not asked.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "twintrack/arrays/element.hpp"
#include "twintrack/calibration/map_rule.hpp"

namespace twintrack::detail {

/// Half of the scores, p <= 1/2 or p > 1/2, as distances u = min(p, 1 - p).
template <class Real>
class MapHalf {
 public:
  MapHalf(const KnotsView& knots, bool high) : knots_(knots), high_(high) {
    for (unsigned k = 0; k < knots.count; ++k)
      if ((knots.x[k] > 0.5) == high) u_.push_back(high ? 1.0 - knots.x[k] : knots.x[k]);
    if (high) std::reverse(u_.begin(), u_.end());
  }

  bool high() const { return high_; }
  /// Knots in ascending order of u; exact.
  std::span<const double> knots() const { return u_; }
  /// Index in the map of the knot with this index here.
  unsigned index(std::size_t k) const {
    return static_cast<unsigned>(high_ ? knots_.count - 1 - k : k);
  }
  /// The map at distance `u`.
  double at(Real u) const {
    return interpolate(knots_, high_ ? 1.0 - static_cast<double>(u) : static_cast<double>(u));
  }

  double knot_value(std::size_t k) const { return knots_.y[index(k)]; }

  /// Knots inside of (first, last): from and to.
  std::pair<std::size_t, std::size_t> inside(Real first, Real last) const {
    const auto from = std::upper_bound(u_.begin(), u_.end(), static_cast<double>(first));
    const auto to = std::lower_bound(from, u_.end(), static_cast<double>(last));
    return {from - u_.begin(), to - u_.begin()};
  }

  /// Slopes along u before knot `from` and from knot `to` - 1 on, the next segment's.
  std::pair<double, double> slopes(std::size_t from, std::size_t to) const {
    return high_ ? std::pair(-slope(upwards(from)), -slope(upwards(to)))
                 : std::pair(slope(upwards(from)), slope(upwards(to)));
  }

  /// Whether the map is within rounding of one bend from knot `a` to knot `b`.
  bool flat(std::size_t a, std::size_t b) const {
    const auto [before, after] = slopes(a, b + 1);
    return (std::abs(before) + std::abs(after)) * (u_[b] - u_[a]) +
               std::abs(knot_value(b) - knot_value(a)) <=
           rounding;
  }

  /// Whether knot `k` may be rounded to the type.
  bool meets(std::size_t k) const {
    return meets(slopes(k, k + 1), static_cast<double>(static_cast<Real>(u_[k])) - u_[k]);
  }
  /// Whether half lines of these slopes that meet this far off are within rounding of the map.
  static bool meets(std::pair<double, double> slopes, double moved) {
    return moved == 0 || std::abs((slopes.second - slopes.first) * moved) / 2 <= 2 * rounding;
  }
  static constexpr double rounding = static_cast<double>(std::numeric_limits<Real>::epsilon()) / 8;

  /// Whether no knot lies inside of (first, end).
  bool empty(Real first, Real end) const {
    const auto [from, to] = inside(first, end);
    return from == to;
  }

  /// The largest distance of a score that is not above `u`, the least that is not below it. Those
  /// of the upper half are multiples of the spacing of scores there.
  Real down(double u) const {
    if (high_) return static_cast<Real>(std::floor(u / spacing) * spacing);
    const Real near = static_cast<Real>(u);
    return static_cast<double>(near) <= u ? near : std::nextafter(near, Real{-1});
  }
  Real up(double u) const {
    if (high_) return static_cast<Real>(std::ceil(u / spacing) * spacing);
    const Real near = static_cast<Real>(u);
    return static_cast<double>(near) >= u ? near : std::nextafter(near, Real{1});
  }
  /// The distances next to that of a score.
  Real before(Real u) const {
    return high_ ? u - static_cast<Real>(spacing) : std::nextafter(u, Real{-1});
  }
  Real after(Real u) const {
    return high_ ? u + static_cast<Real>(spacing) : std::nextafter(u, Real{1});
  }

 private:
  static constexpr double spacing = static_cast<double>(std::numeric_limits<Real>::epsilon()) / 2;

  // The knot whose segment, in the order of p, lies between knots k - 1 and k of this half; -1 is
  // the constant before the first.
  std::ptrdiff_t upwards(std::size_t k) const {
    const auto at = static_cast<std::ptrdiff_t>(k);
    return high_ ? static_cast<std::ptrdiff_t>(knots_.count) - 1 - at : at - 1;
  }
  double slope(std::ptrdiff_t knot) const { return knot < 0 ? 0 : knots_.slope[knot]; }

  KnotsView knots_;
  bool high_;
  std::vector<double> u_;
};

/// How finely a map is cut.
template <class Real>
struct MapCut {
  static constexpr unsigned digits = sizeof(Real) == 4 ? 23 : 20;  // of a word, below the exponent
  static constexpr std::uint32_t half_word = sizeof(Real) == 4 ? 0x3f000000u : 0x3fe00000u;
  /// Groups, and pieces, of an octave: 2^this.
  unsigned groups = 0;
  unsigned pieces = 0;
  /// Octaves below 1/2 that are cut into groups.
  unsigned octaves = 0;
  /// Every group is one piece, with a node of its own: groups need not be looked up.
  bool direct = false;

  unsigned group_shift() const { return digits - groups; }
  unsigned key_shift() const { return digits - pieces; }
  /// Of the groups of either half: the one at 0, those of the octaves, that of 1/2.
  unsigned half() const { return (octaves << groups) + 2; }
  unsigned lowest() const { return (half_word >> group_shift()) - (octaves << groups) - 1; }

  /// The least distance of a group.
  static Real of_word(std::uint32_t word) {
    if constexpr (sizeof(Real) == 4)
      return bits_as<float>(word);
    else
      return bits_as<double>(static_cast<std::uint64_t>(word) << 32);
  }
  Real start(unsigned group) const {
    return group == 0 ? Real{0} : of_word((lowest() + group) << group_shift());
  }
};

/// How one group is cut.
template <class Real>
struct GroupPlan {
  Real centre = 0;
  std::uint32_t nearest = MapGroup<Real>::last_key;  // key
  unsigned below = 0;                                // pieces below the centre
  unsigned from = 1;                                 // and from the centre on
  unsigned crowded = 0;                              // knots that are not alone in their piece

  bool better_than(const GroupPlan& other) const {
    return std::pair(crowded, below + from) < std::pair(other.crowded, other.below + other.from);
  }
};

/// Plans how to cut groups of one half.
template <class Real>
class GroupPlanner {
 public:
  GroupPlanner(const MapHalf<Real>& half, unsigned key_shift)
      : half_(half), key_shift_(key_shift) {}

  /// For the scores with distances in [first, last], within an octave or first = 0.
  GroupPlan<Real> plan(Real first, Real last) {
    const auto inside = half_.inside(first, last);
    const std::size_t from = inside.first;  // clang 14 does not capture bindings
    const std::size_t to = inside.second;
    // Next to 0 the map is kept exact to its digits: no knot in the piece at 0.
    if (first == 0) return to == from ? GroupPlan<Real>{} : cut(first, last, from, to, 0);
    if (to == from) return {};
    gaps_.clear();
    for (std::size_t k = from; k + 1 < to; ++k) gaps_.push_back(k);
    // The centre is sought where knots are closest.
    const auto middle = gaps_.begin() + std::min<std::ptrdiff_t>(std::ssize(gaps_), tried_gaps);
    const auto width = [&](std::size_t k) { return half_.knots()[k + 1] - half_.knots()[k]; };
    std::partial_sort(gaps_.begin(), middle, gaps_.end(), [&](std::size_t a, std::size_t b) {
      return std::pair(width(a), a) < std::pair(width(b), b);
    });
    GroupPlan<Real> best;
    best.crowded = std::numeric_limits<unsigned>::max();
    const auto attempt = [&](double centre) {
      const auto plan = cut(first, last, from, to, std::clamp(half_.up(centre), first, last));
      if (plan.better_than(best)) best = plan;
    };
    attempt(half_.knots()[from + (to - from) / 2]);
    for (auto gap = gaps_.begin(); gap != middle; ++gap) {
      const double low = half_.knots()[*gap];
      attempt(low);
      attempt(low + width(*gap) / 2);
      attempt(low + width(*gap));
    }
    return best;
  }

 private:
  static constexpr std::ptrdiff_t tried_gaps = 8;

  std::uint32_t key(Real offset) const { return map_grid::word(offset) >> key_shift_; }

  // A knot lies inside of a piece if the scores to its left and right are in there.
  struct Keys {
    std::size_t knot;
    std::uint32_t near;
    std::uint32_t far;
  };

  GroupPlan<Real> cut(Real first, Real last, std::size_t from, std::size_t to, Real centre) {
    below_.clear();
    from_.clear();
    for (std::size_t k = from; k < to; ++k) {
      const double knot = half_.knots()[k];
      const Real down = half_.down(knot);
      const Real up = half_.up(knot);
      const Real left = (down == up ? half_.before(down) : down) - centre;
      const Real right = (down == up ? half_.after(up) : up) - centre;
      if (left >= 0)
        from_.push_back({k, key(left), key(right)});
      else if (right < 0)
        below_.push_back({k, key(right), key(left)});
    }
    std::reverse(below_.begin(), below_.end());
    GroupPlan<Real> plan;
    plan.centre = centre;
    // The pieces next to the centre are as wide as may be.
    const std::size_t free = first == 0 ? 0 : 1;
    for (const auto* side : {&below_, &from_})
      if (side->size() > free)
        plan.nearest = std::min(plan.nearest, std::max((*side)[free].far, 1u) - 1);
    const auto pieces = [&](Real end) {
      return std::max(key(end), plan.nearest) - plan.nearest + 1;
    };
    plan.below = first < centre ? pieces(first - centre) : 0;
    plan.from = last >= centre ? pieces(last - centre) : 0;
    plan.crowded = crowded(below_, plan.nearest) + crowded(from_, plan.nearest);
    return plan;
  }

  unsigned crowded(const std::vector<Keys>& side, std::uint32_t nearest) const {
    unsigned result = 0;
    const Keys* first = nullptr;  // knot of the piece
    bool counted = false;
    for (const Keys& knot : side) {
      const std::uint32_t piece = std::max(knot.far, nearest);
      if (std::max(knot.near, nearest) != piece) continue;
      if (first == nullptr || std::max(first->far, nearest) != piece) {
        first = &knot;
        counted = false;
      } else if (!half_.flat(std::min(first->knot, knot.knot), std::max(first->knot, knot.knot))) {
        result += counted ? 1 : 2;
        counted = true;
      }
    }
    return result;
  }

  const MapHalf<Real>& half_;
  unsigned key_shift_;
  std::vector<std::size_t> gaps_;
  std::vector<Keys> below_;
  std::vector<Keys> from_;
};

}  // namespace twintrack::detail
