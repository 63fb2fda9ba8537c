// CalibrationMap: a non-decreasing, piecewise-linear map from score to calibrated probability.
//
// Knots (x_i, y_i) with x strictly and y weakly increasing, all in [0, 1]; linear between knots,
// constant outside them. The map is compiled into a table for each type it computes in: float for
// scores of at most 32 bits, double for float64. A table node is a segment that starts at X, the
// smallest value of the type that is not below x_i; its value there is computed in double from the
// knots, so a segment is accurate to about one unit in the last place of its own range however
// steep it is. In the type of the table
//
//     m(p) = min(Y + (p - X) · slope, Y of the next node),
//
// where every operation rounds monotonically and none is contracted: m never decreases, stays in
// [0, 1], and has the same bits on every instruction set and device.
//
// Finding the segment. The score grid (score_grid.hpp), coarsened, gives a first guess from a small
// table that says which segment the lower end of a coarse cell is in; what is left inside the cell
// is a fixed number of halving steps without branches, usually one.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "twintrack/array_view.hpp"
#include "twintrack/element.hpp"
#include "twintrack/instruction_set.hpp"
#include "twintrack/parallel.hpp"
#include "twintrack/score_grid.hpp"
#include "twintrack/voxel_blocks.hpp"

namespace twintrack {

/// A segment of the map: 16 bytes for float, so that one aligned load brings all of it.
template <class Real>
struct alignas(4 * sizeof(Real)) MapNode {
  Real x;      // first score of the segment
  Real slope;  // not negative, finite
  Real y;      // value at x
  Real next;   // value at the start of the next segment
};

/// What a loop or kernel needs of a map; does not own.
template <class Real>
struct MapView {
  const MapNode<Real>* nodes;  // ascending x, closed by nodes whose x is above every score
  const std::uint16_t* guess;  // by coarse cell: the node at the cell's lowest score
  unsigned shift;              // grid cell >> shift is the coarse cell
  unsigned steps;              // halving steps that end every search inside a coarse cell
};

/// Index of the node that holds `p`, given the coarse cell's guess.
template <class Real>
TWINTRACK_HD unsigned find_node(const MapView<Real>& map, unsigned guess, unsigned steps, Real p) {
  unsigned node = guess;
  for (unsigned step = steps; step-- > 0;) {
    const unsigned ahead = node + (1u << step);
    node = map.nodes[ahead].x <= p ? ahead : node;
  }
  return node;
}

template <class Real>
TWINTRACK_HD Real map_value(const MapNode<Real>& node, Real p) {
  const Real risen = (p - node.x) * node.slope;
  const Real y = node.y + risen;
  return y < node.next ? y : node.next;
}

/// The rule for one voxel; `p` in [0, 1].
template <class Real>
TWINTRACK_HD Real map_score(const MapView<Real>& map, Real p) {
  const unsigned guess = map.guess[grid::position(p).cell >> map.shift];
  return map_value(map.nodes[find_node(map, guess, map.steps, p)], p);
}

namespace detail {

template <class Real>
class MapTable {
 public:
  MapTable(const std::vector<double>& x, const std::vector<double>& y) {
    add_nodes(x, y);
    // The coarsest grid whose cells hold at most one segment start each; if there is none, one that
    // still fits in the first-level cache, and more steps.
    for (shift_ = 5; shift_ > 3; --shift_) {
      build_guesses();
      if (steps_ <= 1) break;
    }
    if (shift_ == 3) build_guesses();
    close();
  }

  MapView<Real> view() const { return {nodes_.data(), guess_.data(), shift_, steps_}; }

 private:
  static Real round_up(double value) {
    const Real rounded = static_cast<Real>(value);
    return static_cast<double>(rounded) < value
               ? std::nextafter(rounded, std::numeric_limits<Real>::infinity())
               : rounded;
  }

  void push(Real x, double slope, double y) {
    // A segment without any value of the type is overwritten by the one that starts at the same x.
    if (!nodes_.empty() && nodes_.back().x == x) nodes_.pop_back();
    const double limit = static_cast<double>(std::numeric_limits<Real>::max());
    nodes_.push_back({x, static_cast<Real>(std::min(slope, limit)), static_cast<Real>(y), 0});
  }

  void add_nodes(const std::vector<double>& x, const std::vector<double>& y) {
    push(Real{0}, 0, y.front());
    for (std::size_t i = 0; i + 1 < x.size(); ++i) {
      const double slope = (y[i + 1] - y[i]) / (x[i + 1] - x[i]);
      const Real start = round_up(x[i]);
      const double offset = static_cast<double>(start) - x[i];
      const double value = y[i] == y[i + 1] ? y[i] : y[i] + offset * slope;
      push(start, y[i] == y[i + 1] ? 0 : slope, std::clamp(value, y[i], y[i + 1]));
    }
    push(round_up(x.back()), 0, y.back());
    for (std::size_t i = 0; i < nodes_.size(); ++i)
      nodes_[i].next = i + 1 < nodes_.size() ? nodes_[i + 1].y : nodes_[i].y;
    used_ = nodes_.size();
    if (used_ > std::numeric_limits<std::uint16_t>::max())
      throw std::invalid_argument("the map has " + std::to_string(x.size()) +
                                  " knots; at most 65000 are supported");
  }

  void build_guesses() {
    const std::size_t coarse = (grid::cells >> shift_) + 1;
    // starts[c]: nodes that start in coarse cell c. One that starts at the very lowest score of the
    // cell is counted too: harmless, the search finds it at once.
    std::vector<unsigned> starts(coarse, 0);
    for (std::size_t node = 1; node < used_; ++node)
      ++starts[grid::position(nodes_[node].x).cell >> shift_];
    guess_.assign(coarse, 0);
    unsigned most = 0;
    unsigned before = 0;
    for (std::size_t cell = 0; cell < coarse; ++cell) {
      guess_[cell] = static_cast<std::uint16_t>(before);
      before += starts[cell];
      most = std::max(most, starts[cell]);
    }
    steps_ = 0;
    while ((1u << steps_) <= most) ++steps_;
  }

  // Every halving search may look up to 2^steps - 1 nodes past the last.
  void close() {
    MapNode<Real> end = nodes_.back();
    end.x = Real{2};
    nodes_.insert(nodes_.end(), std::size_t{1} << steps_, end);
  }

  std::vector<MapNode<Real>> nodes_;
  std::size_t used_ = 0;
  std::vector<std::uint16_t> guess_;
  unsigned shift_ = 0;
  unsigned steps_ = 0;
};

}  // namespace detail

class CalibrationMap {
 public:
  /// Throws std::invalid_argument unless 0 <= x_1 < … < x_n <= 1 and 0 <= y_1 <= … <= y_n <= 1 with
  /// n >= 1.
  CalibrationMap(std::vector<double> x, std::vector<double> y)
      : x_((check(x, y), std::move(x))),
        y_(std::move(y)),
        float_table_(x_, y_),
        double_table_(x_, y_) {}

  const std::vector<double>& x() const { return x_; }
  const std::vector<double>& y() const { return y_; }

  template <class Real>
  MapView<Real> view() const {
    if constexpr (std::is_same_v<Real, double>)
      return double_table_.view();
    else
      return float_table_.view();
  }

  /// Writes the map of every score to `out`, which has the same shape and element type and may be
  /// the score itself. Throws InvalidVoxel for a score outside [0, 1] or NaN; `out` is then
  /// unspecified, unless it is the score, which is left as it was. Other overlaps of the two are
  /// not allowed.
  void apply(const ArrayView& score, const WritableArrayView& out,
             int threads = max_threads()) const;

 private:
  static void check(const std::vector<double>& x, const std::vector<double>& y) {
    const auto fail = [](const std::string& what) { throw std::invalid_argument(what); };
    if (x.empty()) fail("the map has no knots");
    if (x.size() != y.size())
      fail("the map has " + std::to_string(x.size()) + " x values but " + std::to_string(y.size()) +
           " y values");
    for (std::size_t i = 0; i < x.size(); ++i) {
      const std::string at = "[" + std::to_string(i) + "] is ";
      if (!(x[i] >= 0 && x[i] <= 1)) fail("x" + at + detail::number_text(x[i]) + ", not in [0, 1]");
      if (!(y[i] >= 0 && y[i] <= 1)) fail("y" + at + detail::number_text(y[i]) + ", not in [0, 1]");
      if (i > 0 && !(x[i] > x[i - 1]))
        fail("x" + at + detail::number_text(x[i]) + ", not above the knot before it");
      if (i > 0 && !(y[i] >= y[i - 1]))
        fail("y" + at + detail::number_text(y[i]) + ", below the knot before it");
    }
  }

  std::vector<double> x_;
  std::vector<double> y_;
  detail::MapTable<float> float_table_;
  detail::MapTable<double> double_table_;
};

namespace detail {

template <class Real>
struct MapRoom {
  alignas(64) std::array<std::uint16_t, block_voxels> guess;
  alignas(64) std::array<Real, block_voxels> value;
};

template <unsigned steps, class Real>
TWINTRACK_INLINE void map_found(const MapView<Real>& map, const std::uint16_t* guess,
                                const Real* score, int n, Real* out) {
  for (int i = 0; i < n; ++i)
    out[i] = map_value(map.nodes[find_node(map, guess[i], steps, score[i])], score[i]);
}

// A valid block, ready in memory, to `out`. A block of one value, as background is, costs no
// search.
template <class Real>
TWINTRACK_INLINE void map_block(const MapView<Real>& map, const Real* score, int n,
                                MapRoom<Real>& room, Real* out) {
  using Bits = std::conditional_t<sizeof(Real) == 4, std::uint32_t, std::uint64_t>;
  Bits differs = 0;
  for (int i = 0; i < n; ++i) differs |= bits_as<Bits>(score[i]) ^ bits_as<Bits>(score[0]);
  if (differs == 0) {
    std::fill_n(out, n, map_score(map, score[0]));
    return;
  }
  std::uint16_t* guess = room.guess.data();
  for (int i = 0; i < n; ++i)
    guess[i] = static_cast<std::uint16_t>(grid::position(score[i]).cell >> map.shift);
  for (int i = 0; i < n; ++i) guess[i] = map.guess[guess[i]];
  switch (map.steps) {
    case 0:
      return map_found<0>(map, guess, score, n, out);
    case 1:
      return map_found<1>(map, guess, score, n, out);
    case 2:
      return map_found<2>(map, guess, score, n, out);
    case 3:
      return map_found<3>(map, guess, score, n, out);
    default:
      for (int i = 0; i < n; ++i)
        out[i] = map_value(map.nodes[find_node(map, guess[i], map.steps, score[i])], score[i]);
  }
}

// Stores `n` mapped values at ranks [first, first + n) of `out`, in T.
template <class T, class Real>
TWINTRACK_NOINLINE void store(const Walk& walk, std::size_t k, std::int64_t first, int n,
                              const Real* value) {
  walk.for_each_run(
      k, first, n,
      [&](const std::byte* p, std::int64_t stride, std::int64_t length, std::int64_t done) {
        std::byte* to = const_cast<std::byte*>(p);  // a WritableArrayView's
        for (std::int64_t i = 0; i < length; ++i) {
          const T element = from_unit<T>(value[done + i]);
          std::memcpy(to + i * stride, &element, sizeof element);
        }
      });
}

template <class T, class Real>
void apply_map(const MapView<Real>& map, const ArrayView& score, const WritableArrayView& out,
               int threads) {
  CaseView view;
  view.score = score;
  const VoxelBlocks<Real> blocks(view);
  // The same first array as in `blocks`, so the same order of voxels.
  const Walk walk(score.shape, {&score, &out});
  const bool direct = std::is_same_v<T, Real> && walk.contiguous(1, sizeof(T)) &&
                      reinterpret_cast<std::uintptr_t>(out.data) % alignof(Real) == 0;
  const bool in_place = out.data == score.data;

  struct Room {
    explicit Room(const VoxelBlocks<Real>& all) : buffers(all) {}
    typename VoxelBlocks<Real>::Buffers buffers;
    MapRoom<Real> map;
  };
  threads = static_cast<int>(std::clamp<std::int64_t>(blocks.tasks(), 1, std::max(threads, 1)));
  std::vector<std::unique_ptr<Room>> rooms;
  for (int thread = 0; thread < threads; ++thread) rooms.push_back(std::make_unique<Room>(blocks));

  std::atomic<bool> valid{true};
  const auto pass = [&](bool write) {
    parallel_tasks(threads, blocks.tasks(), [&](int thread, std::int64_t task) {
      if (!valid.load(std::memory_order_relaxed)) return;
      Room& room = *rooms[static_cast<std::size_t>(thread)];
      const std::int64_t last = std::min((task + 1) * task_voxels, blocks.voxels());
      with_instruction_set(instruction_set(), [&]() TWINTRACK_INLINE_LAMBDA {
        VoxelBlock<Real> block;
        for (std::int64_t rank = task * task_voxels; rank < last; rank += block_voxels) {
          const int n = static_cast<int>(std::min<std::int64_t>(block_voxels, last - rank));
          if (!blocks.load(rank, n, room.buffers, block)) {
            valid.store(false, std::memory_order_relaxed);
            return;
          }
          if (!write) continue;
          if (direct) {
            Real* to = reinterpret_cast<Real*>(const_cast<std::byte*>(walk.start(1))) + rank;
            map_block(map, block.score, n, room.map, to);
          } else {
            map_block(map, block.score, n, room.map, room.map.value.data());
            store<T>(walk, 1, rank, n, room.map.value.data());
          }
        }
      });
    });
    if (!valid) blocks.explain();
  };
  // Scores that are to be overwritten are all checked before the first one is.
  if (in_place) pass(false);
  pass(true);
}

}  // namespace detail

inline void CalibrationMap::apply(const ArrayView& score, const WritableArrayView& out,
                                  int threads) const {
  if (out.shape != score.shape)
    throw std::invalid_argument("out has shape " + detail::to_text(out.shape) +
                                " but score has shape " + detail::to_text(score.shape));
  if (out.element != score.element)
    throw std::invalid_argument("out and score have different dtypes");
  switch (score.element) {
    case Element::float16:
      return detail::apply_map<float16>(view<float>(), score, out, threads);
    case Element::bfloat16:
      return detail::apply_map<bfloat16>(view<float>(), score, out, threads);
    case Element::float32:
      return detail::apply_map<float>(view<float>(), score, out, threads);
    case Element::float64:
      return detail::apply_map<double>(view<double>(), score, out, threads);
    default:
      throw std::invalid_argument("score must be float16, bfloat16, float32 or float64");
  }
}

}  // namespace twintrack
