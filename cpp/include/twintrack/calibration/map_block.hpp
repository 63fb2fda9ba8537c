// Maps a block of scores by the nodes of a map.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/streaming.hpp"
#include "twintrack/arrays/voxel_blocks.hpp"
#include "twintrack/calibration/map_rule.hpp"
#include "twintrack/calibration/score_grid.hpp"

namespace twintrack::detail {

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

  // Templates over the vectors, so that a branch for other ones than this processor's need not
  // compile.

  // The nodes of voxels `i` and, where there is room, `i + 4`.
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
  template <int k, class V>
  TWINTRACK_INLINE static void interleave(const V& a, const V& b, V& to) {
    if constexpr (voxels == 8)
      to = __builtin_shufflevector(a, b, k, k + 8, k + 1, k + 9, k + 4, k + 12, k + 5, k + 13);
    else
      to = __builtin_shufflevector(a, b, k, k + 4, k + 1, k + 5);
  }
  // Of each four: a[k], a[k + 1], b[k], b[k + 1].
  template <int k, class V>
  TWINTRACK_INLINE static void join(const V& a, const V& b, V& to) {
    if constexpr (voxels == 8)
      to = __builtin_shufflevector(a, b, k, k + 1, k + 8, k + 9, k + 4, k + 5, k + 12, k + 13);
    else
      to = __builtin_shufflevector(a, b, k, k + 1, k + 4, k + 5);
  }
};
#endif

// value[i] = map_value(nodes[group[i]], u[i]). Asks for `n` scores from `ahead` on meanwhile, a
// line at a time: for all of them at once, the look-ups would wait behind the memory.
template <class Real>
TWINTRACK_INLINE void map_values(const MapNode<Real>* nodes, const std::uint32_t* group,
                                 const Real* u, int n, const Real* ahead, Real* value) {
  int i = 0;
#if (defined(__GNUC__) || defined(__clang__)) && !defined(__CUDACC__)
  if constexpr (sizeof(Real) == 4) {
    // Nodes are loaded whole and transposed, which costs less than gathering their fields.
    using V = NodeVectors;
    for (; i + V::voxels <= n; i += V::voxels) {
      prefetch(ahead + i, sizeof(V::Floats));
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
  constexpr int line = 64 / static_cast<int>(sizeof(Real));
  while (i < n) {
    prefetch(ahead + i, 1);
    for (const int end = std::min(i + line, n); i < end; ++i)
      value[i] = map_value(nodes[group[i]], u[i]);
  }
}

// Maps a valid block to `room.value`; `ahead` as above. A block of one value, as background is,
// costs no look-ups.
template <class Real>
TWINTRACK_INLINE void map_block(const MapView<Real>& map, const Real* score, int n,
                                const Real* ahead, MapRoom<Real>& room) {
  Real* value = room.value.data();
  using Bits = std::conditional_t<sizeof(Real) == 4, std::uint32_t, std::uint64_t>;
  Bits differs = 0;
  for (int i = 0; i < n; ++i) differs |= bits_as<Bits>(score[i]) ^ bits_as<Bits>(score[0]);
  if (differs == 0) {
    const Real y = map_score(map, score[0]);
    prefetch(ahead, static_cast<std::size_t>(n) * sizeof(Real));
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
  map_values(map.nodes, group, u, n, ahead, value);
  unsigned searched = 0;
  for (int i = 0; i < n; ++i) searched |= static_cast<unsigned>(value[i] != value[i]);
  if (searched != 0)
    for (int i = 0; i < n; ++i)
      if (value[i] != value[i])
        value[i] = static_cast<Real>(interpolate(map.knots, static_cast<double>(score[i])));
}

}  // namespace twintrack::detail
