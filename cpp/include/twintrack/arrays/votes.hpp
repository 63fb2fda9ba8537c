// The labels that several raters give a voxel, packed into one byte: a vote pattern.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/voxel_blocks.hpp"

namespace twintrack {

/// Raters that one pattern holds; more raters are dealt with in groups of this many.
inline constexpr std::size_t votes_per_group = 7;
inline constexpr std::size_t vote_patterns = std::size_t{1} << votes_per_group;

inline std::size_t vote_groups(std::size_t raters) {
  return (raters + votes_per_group - 1) / votes_per_group;
}

namespace detail {

// One loop over all labels of a group: a loop per rater would store and reload patterns, and GCC
// jams such loops together into scalar ones. Doubling does for a shift, since bytes cannot be
// shifted as vectors.
template <std::size_t Count>
TWINTRACK_INLINE void pack_labels(const std::uint8_t* const* labels, int n,
                                  std::uint8_t* __restrict pattern) {
  const std::uint8_t* label[Count];
  for (std::size_t k = 0; k < Count; ++k) label[k] = labels[k];
  for (int i = 0; i < n; ++i) {
    std::uint8_t packed = label[Count - 1][i];
    for (std::size_t k = Count - 1; k-- > 0;)
      packed = static_cast<std::uint8_t>((packed + packed) | label[k][i]);
    pattern[i] = packed;
  }
}

}  // namespace detail

/// pattern[i] has bit k set if rater `group` × 7 + k marks voxel i of the block.
template <class Real>
TWINTRACK_INLINE void pack_votes(const VoxelBlock<Real>& block, std::size_t raters,
                                 std::size_t group, std::uint8_t* pattern) {
  const std::size_t first = group * votes_per_group;
  const std::uint8_t* const* labels = block.raters + first;
  switch (std::min(votes_per_group, raters - first)) {
    case 1:
      return detail::pack_labels<1>(labels, block.count, pattern);
    case 2:
      return detail::pack_labels<2>(labels, block.count, pattern);
    case 3:
      return detail::pack_labels<3>(labels, block.count, pattern);
    case 4:
      return detail::pack_labels<4>(labels, block.count, pattern);
    case 5:
      return detail::pack_labels<5>(labels, block.count, pattern);
    case 6:
      return detail::pack_labels<6>(labels, block.count, pattern);
    default:
      return detail::pack_labels<7>(labels, block.count, pattern);
  }
}

}  // namespace twintrack
