// The labels that several raters give a voxel, packed into one byte: a vote pattern.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "twintrack/config.hpp"
#include "twintrack/voxel_blocks.hpp"

namespace twintrack {

/// Raters that one pattern holds; more raters are dealt with in groups of this many.
inline constexpr std::size_t votes_per_group = 7;
inline constexpr std::size_t vote_patterns = std::size_t{1} << votes_per_group;

inline std::size_t vote_groups(std::size_t raters) {
  return (raters + votes_per_group - 1) / votes_per_group;
}

/// pattern[i] has bit k set if rater `group` × 7 + k marks voxel i of the block.
template <class Real>
TWINTRACK_INLINE void pack_votes(const VoxelBlock<Real>& block, std::size_t raters,
                                 std::size_t group, std::uint8_t* __restrict pattern) {
  const std::size_t first = group * votes_per_group;
  const std::size_t last = std::min(first + votes_per_group, raters);
  const std::uint8_t* label = block.raters[first];
  for (int i = 0; i < block.count; ++i) pattern[i] = label[i];
  for (std::size_t k = first + 1; k < last; ++k) {
    label = block.raters[k];
    const unsigned shift = static_cast<unsigned>(k - first);
    for (int i = 0; i < block.count; ++i)
      pattern[i] = static_cast<std::uint8_t>(pattern[i] | (label[i] << shift));
  }
}

}  // namespace twintrack
