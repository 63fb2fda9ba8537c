// The labels that several raters give a voxel, packed into one byte: a vote pattern.
#pragma once

#include <cstddef>
#include <cstdint>

namespace twintrack {

/// Raters that one pattern holds; more raters are dealt with in groups of this many.
inline constexpr std::size_t votes_per_group = 7;
inline constexpr std::size_t vote_patterns = std::size_t{1} << votes_per_group;

constexpr std::size_t vote_groups(std::size_t raters) {
  return (raters + votes_per_group - 1) / votes_per_group;
}

/// pattern[i] has bit k set if rater `group` × 7 + k marks voxel i of n; `labels` are those of all
/// raters.
void pack_votes(const std::uint8_t* const* labels, std::size_t raters, std::size_t group, int n,
                std::uint8_t* pattern);

/// The same of up to eight raters, all of them.
void pack_votes(const std::uint8_t* const* labels, std::size_t raters, int n,
                std::uint8_t* pattern);

/// votes[i] is the number of raters, at most 255, who mark voxel i of n.
void count_votes(const std::uint8_t* const* labels, std::size_t raters, int n, std::uint8_t* votes);

}  // namespace twintrack

#if !defined(TWINTRACK_LINKED)
#include "twintrack/arrays/votes_loops.hpp"
#endif
