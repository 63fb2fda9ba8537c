// The loops of votes.hpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/instruction_set.hpp"
#include "twintrack/arrays/votes.hpp"

namespace twintrack {

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

// votes[i] += the labels of voxel i, by one loop as above.
template <std::size_t Count>
TWINTRACK_INLINE void add_labels(const std::uint8_t* const* labels, int n,
                                 std::uint8_t* __restrict votes) {
  const std::uint8_t* label[Count];
  for (std::size_t k = 0; k < Count; ++k) label[k] = labels[k];
  for (int i = 0; i < n; ++i) {
    std::uint8_t sum = votes[i];
    for (std::size_t k = 0; k < Count; ++k) sum = static_cast<std::uint8_t>(sum + label[k][i]);
    votes[i] = sum;
  }
}

}  // namespace detail

TWINTRACK_ENTRY void pack_votes(const std::uint8_t* const* labels, std::size_t raters, int n,
                                std::uint8_t* pattern) {
  with_instruction_set([&]() TWINTRACK_INLINE_LAMBDA {
    switch (raters) {
      case 1:
        return detail::pack_labels<1>(labels, n, pattern);
      case 2:
        return detail::pack_labels<2>(labels, n, pattern);
      case 3:
        return detail::pack_labels<3>(labels, n, pattern);
      case 4:
        return detail::pack_labels<4>(labels, n, pattern);
      case 5:
        return detail::pack_labels<5>(labels, n, pattern);
      case 6:
        return detail::pack_labels<6>(labels, n, pattern);
      case 7:
        return detail::pack_labels<7>(labels, n, pattern);
      default:
        return detail::pack_labels<8>(labels, n, pattern);
    }
  });
}

TWINTRACK_ENTRY void pack_votes(const std::uint8_t* const* labels, std::size_t raters,
                                std::size_t group, int n, std::uint8_t* pattern) {
  const std::size_t first = group * votes_per_group;
  pack_votes(labels + first, std::min(votes_per_group, raters - first), n, pattern);
}

TWINTRACK_ENTRY void count_votes(const std::uint8_t* const* labels, std::size_t raters, int n,
                                 std::uint8_t* __restrict votes) {
  with_instruction_set([&]() TWINTRACK_INLINE_LAMBDA {
    for (int i = 0; i < n; ++i) votes[i] = 0;
    std::size_t k = 0;
    for (; k + 4 <= raters; k += 4) detail::add_labels<4>(labels + k, n, votes);
    for (; k < raters; ++k) detail::add_labels<1>(labels + k, n, votes);
  });
}

}  // namespace twintrack
