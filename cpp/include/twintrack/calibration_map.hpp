// CalibrationMap: a non-decreasing, piecewise-linear map from score to calibrated probability.
//
// Knots (x_i, y_i) with x strictly and y weakly increasing, all in [0, 1]; linear between knots,
// constant outside them.
//
// `interpolate` is the map by definition, in double, with a search for the segment. Scores are
// mapped without a search: the score grid (score_grid.hpp), coarsened to groups of 2^shift cells,
// is fine enough that nearly every group has at most one knot inside, and then the map on the group
// is two half lines that meet at one point, a node of four numbers that one aligned load brings:
//
//     m(p) = Y + (d < 0 ? before : after) · d,      d = u - U,
//
// where u = min(p, 1 - p) is the distance to the nearer end, exact, which keeps all digits where
// scores crowd. A group with more knots, or one too steep for the type, has Y = NaN and is left to
// `interpolate`. Slopes are reduced, by no more than rounding, until the value at either end of a
// group lies within the rounded values of `interpolate` there; every operation rounds monotonically
// and none is contracted. So m never decreases, stays in [0, 1], and has the same bits on every
// instruction set and device. For float it is within 2^-23 of `interpolate`.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "twintrack/array_view.hpp"
#include "twintrack/element.hpp"
#include "twintrack/instruction_set.hpp"
#include "twintrack/map_rule.hpp"
#include "twintrack/parallel.hpp"
#include "twintrack/score_grid.hpp"
#include "twintrack/streaming.hpp"
#include "twintrack/voxel_blocks.hpp"

namespace twintrack {

namespace detail {

/// The nodes of a map for one type.
template <class Real>
class MapTable {
 public:
  explicit MapTable(const KnotsView& knots) : knots_(knots) {
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
    node.y =
        std::clamp(node.y, std::min(first_value, last_value), std::max(first_value, last_value));
    node.before = static_cast<Real>(high ? -before : before);
    node.after = static_cast<Real>(high ? -after : after);
    searched |= !std::isfinite(node.before) || !std::isfinite(node.after);
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

/// The map of every 16-bit score by its bits: 16-bit types have so few values in [0, 1] that
/// looking them up costs less than computing them. Indexed without the sign, so that -0 is 0.
template <class T>
class MapTable16 {
 public:
  static constexpr std::uint16_t minus_zero = 0x8000;
  static constexpr std::uint16_t one = std::is_same_v<T, float16> ? 0x3c00 : 0x3f80;

  explicit MapTable16(const MapView<float>& map) {
    for (std::uint16_t bits = 0; bits <= one; ++bits)
      bits_[bits] = from_unit<T>(map_score(map, to_real(T{bits}))).bits;
  }

  /// Maps `n` scores; `out` may be `in`. False if one is not in [0, 1]; `out` is then unspecified.
  TWINTRACK_INLINE bool map(const T* in, int n, T* out) const {
    std::uint16_t bad = 0;
    for (int i = 0; i < n; ++i) bad |= wrong(in[i].bits);
    const std::uint16_t* mapped = bits_.data();
    for (int i = 0; i < n; ++i) out[i].bits = mapped[in[i].bits & 0x7fff];
    return bad == 0;
  }

 private:
  TWINTRACK_INLINE static std::uint16_t wrong(std::uint16_t bits) {
    const std::uint16_t above = bits > one ? 1 : 0;
    return bits == minus_zero ? std::uint16_t{0} : above;
  }

  std::vector<std::uint16_t> bits_ = std::vector<std::uint16_t>(minus_zero);
};

}  // namespace detail

class CalibrationMap {
 public:
  /// Throws std::invalid_argument unless 0 <= x_1 < … < x_n <= 1 and 0 <= y_1 <= … <= y_n <= 1 with
  /// n >= 1.
  CalibrationMap(std::vector<double> x, std::vector<double> y)
      : x_((check(x, y), std::move(x))), y_(std::move(y)), slope_(x_.size(), 0.0) {
    for (std::size_t i = 0; i + 1 < x_.size(); ++i)
      slope_[i] = (y_[i + 1] - y_[i]) / (x_[i + 1] - x_[i]);
  }

  CalibrationMap(const CalibrationMap&) = delete;
  CalibrationMap& operator=(const CalibrationMap&) = delete;

  const std::vector<double>& x() const { return x_; }
  const std::vector<double>& y() const { return y_; }

  KnotsView knots() const {
    return {x_.data(), y_.data(), slope_.data(), static_cast<unsigned>(x_.size())};
  }

  /// Nodes are built when first asked for; safe to call from several threads.
  template <class Real>
  MapView<Real> view() const {
    if constexpr (std::is_same_v<Real, double>) {
      std::call_once(double_once_, [&] { double_table_.emplace(knots()); });
      return double_table_->view();
    } else {
      std::call_once(float_once_, [&] { float_table_.emplace(knots()); });
      return float_table_->view();
    }
  }

  /// The table of a 16-bit type; built when first asked for, as nodes are.
  template <class T>
  const detail::MapTable16<T>& table() const {
    if constexpr (std::is_same_v<T, float16>) {
      std::call_once(float16_once_, [&] { float16_table_.emplace(view<float>()); });
      return *float16_table_;
    } else {
      std::call_once(bfloat16_once_, [&] { bfloat16_table_.emplace(view<float>()); });
      return *bfloat16_table_;
    }
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
  std::vector<double> slope_;
  mutable std::once_flag float_once_;
  mutable std::once_flag double_once_;
  mutable std::once_flag float16_once_;
  mutable std::once_flag bfloat16_once_;
  mutable std::optional<detail::MapTable<float>> float_table_;
  mutable std::optional<detail::MapTable<double>> double_table_;
  mutable std::optional<detail::MapTable16<float16>> float16_table_;
  mutable std::optional<detail::MapTable16<bfloat16>> bfloat16_table_;
};

namespace detail {

template <class Real>
struct MapRoom {
  alignas(64) std::array<std::uint32_t, block_voxels> group;
  alignas(64) std::array<Real, block_voxels> u;
  alignas(64) std::array<Real, block_voxels> value;
};

#if (defined(__GNUC__) || defined(__clang__)) && !defined(__CUDACC__)
// Vectors of nodes, four floats each: two on x86-64, where AVX2 has room for them, else one.
// Results are passed by reference, as the ABI of wide return values depends on the instruction set.
struct NodeVectors {
#if defined(__x86_64__)
  static constexpr int voxels = 8;
#else
  static constexpr int voxels = 4;
#endif
  typedef float Node __attribute__((vector_size(16)));
  typedef float Floats __attribute__((vector_size(4 * voxels)));
  typedef int Mask __attribute__((vector_size(4 * voxels)));

  // The nodes of voxels `i` and, where there is room, `i + 4`. A template, as the other functions
  // are, so that the branch for other vectors than this processor's need not compile.
  template <class To>
  TWINTRACK_INLINE static void load(const MapNode<float>* nodes, const std::uint32_t* group, int i,
                                    To& to) {
    if constexpr (voxels == 8) {
      Node low, high;
      std::memcpy(&low, nodes + group[i], sizeof low);
      std::memcpy(&high, nodes + group[i + 4], sizeof high);
      to = __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7);
    } else {
      std::memcpy(&to, nodes + group[i], sizeof to);
    }
  }
  // Of each four: a[k], b[k], a[k + 1], b[k + 1].
  template <int k>
  TWINTRACK_INLINE static void interleave(const Floats& a, const Floats& b, Floats& to) {
    if constexpr (voxels == 8)
      to = __builtin_shufflevector(a, b, k, k + 8, k + 1, k + 9, k + 4, k + 12, k + 5, k + 13);
    else
      to = __builtin_shufflevector(a, b, k, k + 4, k + 1, k + 5);
  }
  // Of each four: a[k], a[k + 1], b[k], b[k + 1].
  template <int k>
  TWINTRACK_INLINE static void join(const Floats& a, const Floats& b, Floats& to) {
    if constexpr (voxels == 8)
      to = __builtin_shufflevector(a, b, k, k + 1, k + 8, k + 9, k + 4, k + 5, k + 12, k + 13);
    else
      to = __builtin_shufflevector(a, b, k, k + 1, k + 4, k + 5);
  }
};
#endif

// value[i] = map_value(nodes[group[i]], u[i]).
template <class Real>
TWINTRACK_INLINE void map_values(const MapNode<Real>* nodes, const std::uint32_t* group,
                                 const Real* u, int n, Real* value) {
  int i = 0;
#if (defined(__GNUC__) || defined(__clang__)) && !defined(__CUDACC__)
  if constexpr (sizeof(Real) == 4) {
    // Nodes are loaded whole and transposed, which costs less than gathering their fields.
    using V = NodeVectors;
    for (; i + V::voxels <= n; i += V::voxels) {
      V::Floats a, b, c, d;
      V::load(nodes, group, i, a);
      V::load(nodes, group, i + 1, b);
      V::load(nodes, group, i + 2, c);
      V::load(nodes, group, i + 3, d);
      V::Floats ab, cd, ab_slopes, cd_slopes;
      V::interleave<0>(a, b, ab);
      V::interleave<0>(c, d, cd);
      V::interleave<2>(a, b, ab_slopes);
      V::interleave<2>(c, d, cd_slopes);
      V::Floats node_u, node_y, before, after, at;
      V::join<0>(ab, cd, node_u);
      V::join<2>(ab, cd, node_y);
      V::join<0>(ab_slopes, cd_slopes, before);
      V::join<2>(ab_slopes, cd_slopes, after);
      std::memcpy(&at, u + i, sizeof at);
      const V::Floats offset = at - node_u;
      const V::Mask below = offset < 0.0f;
      const V::Floats result = node_y + (below ? before : after) * offset;
      std::memcpy(value + i, &result, sizeof result);
    }
  }
#endif
  for (; i < n; ++i) value[i] = map_value(nodes[group[i]], u[i]);
}

// Maps a valid block to `room.value`. A block of one value, as background is, costs no look-ups.
template <class Real>
TWINTRACK_INLINE void map_block(const MapView<Real>& map, const Real* score, int n,
                                MapRoom<Real>& room) {
  Real* value = room.value.data();
  using Bits = std::conditional_t<sizeof(Real) == 4, std::uint32_t, std::uint64_t>;
  Bits differs = 0;
  for (int i = 0; i < n; ++i) differs |= bits_as<Bits>(score[i]) ^ bits_as<Bits>(score[0]);
  if (differs == 0) {
    const Real y = map_score(map, score[0]);
    for (int i = 0; i < n; ++i) value[i] = y;
    return;
  }
  std::uint32_t* group = room.group.data();
  Real* u = room.u.data();
  for (int i = 0; i < n; ++i) {
    const grid::Distance<Real> at = grid::distance(score[i]);
    group[i] = map_grid::group(at.cell, grid::is_high(score[i]), map.shift);
    u[i] = at.u;
  }
  map_values(map.nodes, group, u, n, value);
  unsigned searched = 0;
  for (int i = 0; i < n; ++i) searched |= static_cast<unsigned>(value[i] != value[i]);
  if (searched != 0)
    for (int i = 0; i < n; ++i)
      if (value[i] != value[i])
        value[i] = static_cast<Real>(interpolate(map.knots, static_cast<double>(score[i])));
}

// How a thread maps the blocks of an array of T: by nodes, or by table for 16 bits.
template <class T>
class BlockMapper {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>);

 public:
  BlockMapper(const CalibrationMap& map, const VoxelBlocks<T>& blocks, const Walk&)
      : map_(map.view<T>()), blocks_(blocks), buffers_(blocks) {}

  /// The mapped values of ranks [rank, rank + n), until the next call; null if a score is invalid.
  TWINTRACK_INLINE const T* map(std::int64_t rank, int n) {
    VoxelBlock<T> block;
    if (!blocks_.load(rank, n, buffers_, block)) return nullptr;
    prefetch(block.score + n, sizeof(T) * block_voxels);
    map_block(map_, block.score, n, room_);
    return room_.value.data();
  }

 private:
  const MapView<T> map_;
  const VoxelBlocks<T>& blocks_;
  typename VoxelBlocks<T>::Buffers buffers_;
  MapRoom<T> room_;
};

template <class T>
  requires(sizeof(T) == 2)
class BlockMapper<T> {
 public:
  BlockMapper(const CalibrationMap& map, const VoxelBlocks<float>&, const Walk& walk)
      : table_(map.table<T>()),
        walk_(walk),
        ready_(walk.contiguous(0, sizeof(T)) &&
               reinterpret_cast<std::uintptr_t>(walk.start(0)) % alignof(T) == 0) {}

  TWINTRACK_INLINE const T* map(std::int64_t rank, int n) {
    const T* score = score_.data();
    if (ready_) {
      score = reinterpret_cast<const T*>(walk_.start(0)) + rank;
      prefetch(score + n, sizeof(T) * block_voxels);
    } else {
      gather(rank, n);
    }
    return table_.map(score, n, value_.data()) ? value_.data() : nullptr;
  }

 private:
  TWINTRACK_NOINLINE void gather(std::int64_t rank, int n) {
    walk_.for_each_run(
        0, rank, n,
        [&](const std::byte* p, std::int64_t stride, std::int64_t length, std::int64_t done) {
          for (std::int64_t i = 0; i < length; ++i)
            score_[static_cast<std::size_t>(done + i)] = load<T>(p + i * stride);
        });
  }

  const MapTable16<T>& table_;
  const Walk& walk_;
  const bool ready_;
  alignas(64) std::array<T, block_voxels> score_;
  alignas(64) std::array<T, block_voxels> value_;
};

// Stores `n` mapped values at ranks [first, first + n) of array `k`.
template <class T>
TWINTRACK_NOINLINE void store(const Walk& walk, std::size_t k, std::int64_t first, int n,
                              const T* value) {
  walk.for_each_run(
      k, first, n,
      [&](const std::byte* p, std::int64_t stride, std::int64_t length, std::int64_t done) {
        std::byte* to = const_cast<std::byte*>(p);  // a WritableArrayView's
        for (std::int64_t i = 0; i < length; ++i)
          std::memcpy(to + i * stride, value + done + i, sizeof(T));
      });
}

template <class T>
void apply_map(const CalibrationMap& map, const ArrayView& score, const WritableArrayView& out,
               int threads) {
  using Real = std::conditional_t<std::is_same_v<T, double>, double, float>;
  CaseView view;
  view.score = score;
  const VoxelBlocks<Real> blocks(view);
  // The same first array as in `blocks`, so the same order of voxels.
  const Walk walk(score.shape, {&score, &out});
  const bool direct =
      walk.contiguous(1, sizeof(T)) && reinterpret_cast<std::uintptr_t>(out.data) % alignof(T) == 0;
  const bool in_place = out.data == score.data;
  const bool stream = direct && !in_place &&
                      sizeof(T) * static_cast<std::size_t>(blocks.voxels()) >= streaming_bytes;

  threads = static_cast<int>(std::clamp<std::int64_t>(blocks.tasks(), 1, std::max(threads, 1)));
  std::vector<std::unique_ptr<BlockMapper<T>>> mappers;
  for (int thread = 0; thread < threads; ++thread)
    mappers.push_back(std::make_unique<BlockMapper<T>>(map, blocks, walk));

  std::atomic<bool> valid{true};
  const auto pass = [&](bool write) {
    parallel_tasks(threads, blocks.tasks(), [&](int thread, std::int64_t task) {
      if (!valid.load(std::memory_order_relaxed)) return;
      BlockMapper<T>& mapper = *mappers[static_cast<std::size_t>(thread)];
      const std::int64_t last = std::min((task + 1) * task_voxels, blocks.voxels());
      with_instruction_set(instruction_set(), [&]() TWINTRACK_INLINE_LAMBDA {
        for (std::int64_t rank = task * task_voxels; rank < last; rank += block_voxels) {
          const int n = static_cast<int>(std::min<std::int64_t>(block_voxels, last - rank));
          const T* value = mapper.map(rank, n);
          if (value == nullptr) {
            valid.store(false, std::memory_order_relaxed);
            return;
          }
          if (!write) continue;
          if (!direct) {
            store(walk, 1, rank, n, value);
            continue;
          }
          T* to = reinterpret_cast<T*>(const_cast<std::byte*>(walk.start(1))) + rank;
          const std::size_t bytes = sizeof(T) * static_cast<std::size_t>(n);
          if (stream)
            stream_copy(value, bytes, to);
          else
            std::memcpy(to, value, bytes);
        }
        if (stream) end_streaming();
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
      return detail::apply_map<float16>(*this, score, out, threads);
    case Element::bfloat16:
      return detail::apply_map<bfloat16>(*this, score, out, threads);
    case Element::float32:
      return detail::apply_map<float>(*this, score, out, threads);
    case Element::float64:
      return detail::apply_map<double>(*this, score, out, threads);
    default:
      throw std::invalid_argument("score must be float16, bfloat16, float32 or float64");
  }
}

}  // namespace twintrack
