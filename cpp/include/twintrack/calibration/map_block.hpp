// Maps a block of scores by the nodes of a map.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/element.hpp"
#include "twintrack/arrays/streaming.hpp"
#include "twintrack/arrays/voxel_blocks.hpp"
#include "twintrack/calibration/map_rule.hpp"
#include "twintrack/calibration/map_vectors.hpp"

namespace twintrack::detail {

template <class Real>
struct MapRoom {
  alignas(64) std::array<std::uint32_t, block_voxels> place;  // of groups, then of nodes
  alignas(64) std::array<Real, block_voxels> offset;          // from 0 or 1, then from a centre
  alignas(64) std::array<Real, block_voxels> value;
};

// From groups and distances to nodes and offsets.
template <class Real>
TWINTRACK_INLINE void place_nodes(const MapView<Real>& map, int n, std::uint32_t* place,
                                  Real* offset) {
  const MapGroup<Real>* groups = map.groups;
  const unsigned key_shift = map.key_shift;
  int i = 0;
#if TWINTRACK_NODE_VECTORS
  using V = BestNodeVectors<Real>;
  if constexpr (V::voxels > 0) {
    using Group = MapGroup<Real>;
    using Words = typename V::Words;
    for (; i + V::voxels <= n; i += V::voxels) {
      typename V::Reals at, centre;
      Words places, key;
      V::load(groups, place + i, centre, places);
      std::memcpy(&at, offset + i, sizeof at);
      at = at - centre;
      std::memcpy(offset + i, &at, sizeof at);
      V::words(at, key);
      key >>= key_shift;
      const Words nearest = places & Group::last_key;
      const Words beyond = (key - nearest) & (Words)(key > nearest);
      const Words below = (Words)(at < Real{0});
      V::store((places >> Group::key_bits) + (beyond ^ below), place + i);
    }
  }
#endif
  for (; i < n; ++i) {
    const MapGroup<Real> group = groups[place[i]];
    offset[i] -= group.centre;
    place[i] = map_grid::node(group.place, offset[i], key_shift);
  }
}

/// How results are stored: through the cache, or past it to a multiple of 16 bytes (streaming.hpp).
enum class MapStore { cached, streamed };

// value[i] = map_value(nodes[place[i]], offset[i]). Asks for `n` scores from `ahead` on meanwhile,
// a line at a time: for all of them at once, the look-ups would wait behind the memory. So would
// what is computed after a burst of streamed results, which go out one by one as well.
template <MapStore store, class Real>
TWINTRACK_INLINE void map_values(const MapNode<Real>* nodes, const std::uint32_t* place,
                                 const Real* offset, int n, const Real* ahead, Real* value) {
  int i = 0;
#if TWINTRACK_NODE_VECTORS
  using V = BestNodeVectors<Real>;
  if constexpr (V::voxels > 0) {
    for (; i + V::voxels <= n; i += V::voxels) {
      prefetch(ahead + i, sizeof(typename V::Reals));
      typename V::Fields node;
      V::load(nodes, place + i, node);
      typename V::Reals at;
      std::memcpy(&at, offset + i, sizeof at);
      const typename V::Reals beyond = at - node.offset;
      const typename V::Reals result =
          node.y + (beyond < Real{0} ? node.before : node.after) * beyond;
      if constexpr (store == MapStore::streamed)
        stream_vector(result, value + i);
      else
        std::memcpy(value + i, &result, sizeof result);
    }
  }
#endif
  constexpr int line = 64 / static_cast<int>(sizeof(Real));
  while (i < n) {
    prefetch(ahead + i, 1);
    for (const int end = std::min(i + line, n); i < end; ++i)
      value[i] = map_value(nodes[place[i]], offset[i]);
  }
}

// Whether all of a block has the bits of its first score. Most blocks show it by a few.
template <class Real>
TWINTRACK_INLINE bool one_value(const Real* score, int n) {
  using Bits = std::conditional_t<sizeof(Real) == 4, std::uint32_t, std::uint64_t>;
  Bits differs = bits_as<Bits>(score[0]) ^ bits_as<Bits>(score[n - 1]);
  differs |= bits_as<Bits>(score[0]) ^ bits_as<Bits>(score[n / 2]);
  if (differs != 0) return false;
  for (int i = 0; i < n; ++i) differs |= bits_as<Bits>(score[i]) ^ bits_as<Bits>(score[0]);
  return differs == 0;
}

// Maps a valid block to `value`, which may be the score; `ahead` as above. A block of one value, as
// background is, costs no look-ups.
template <MapStore store, class Real>
TWINTRACK_INLINE void map_block(const MapView<Real>& map, const Real* score, int n,
                                const Real* ahead, MapRoom<Real>& room, Real* value) {
  if (one_value(score, n)) {
    const Real y = map_score(map, score[0]);
    prefetch(ahead, static_cast<std::size_t>(n) * sizeof(Real));
    Real* to = store == MapStore::streamed ? room.value.data() : value;
    for (int i = 0; i < n; ++i) to[i] = y;
    if (to != value) stream_copy(to, static_cast<std::size_t>(n) * sizeof(Real), value);
    return;
  }
  std::uint32_t* place = room.place.data();
  Real* offset = room.offset.data();
  for (int i = 0; i < n; ++i) {
    const Real u = map_grid::distance(score[i]);
    offset[i] = u;
    place[i] = map_grid::group(map, u, score[i] > Real(0.5));
  }
  if (!map.direct) place_nodes(map, n, place, offset);
  if (!map.searches) return map_values<store>(map.nodes, place, offset, n, ahead, value);
  // The score is still needed where nodes leave it to a search.
  Real* found = room.value.data();
  map_values<MapStore::cached>(map.nodes, place, offset, n, ahead, found);
  for (int i = 0; i < n; ++i)
    if (!is_value(found[i]))
      found[i] = static_cast<Real>(interpolate(map.knots, static_cast<double>(score[i])));
  const std::size_t bytes = static_cast<std::size_t>(n) * sizeof(Real);
  if constexpr (store == MapStore::streamed)
    stream_copy(found, bytes, value);
  else
    std::memcpy(value, found, bytes);
}

}  // namespace twintrack::detail
