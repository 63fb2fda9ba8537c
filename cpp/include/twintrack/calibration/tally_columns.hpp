// What the sums of a tally's row are.
#pragma once

#include <cstddef>
#include <cstdint>

namespace twintrack {

/// What a row's sums are: voxels, their residuals, the votes of each of N raters, then the voxels
/// that exactly k raters marked, k = 1 … N. Rows of refined cuts and of tallies of earlier versions
/// end with the votes.
struct TallyColumns {
  static constexpr std::size_t count = 0;
  static constexpr std::size_t residual = 1;
  static constexpr std::size_t first_vote = 2;
  /// Of the voxels that one rater alone marked.
  static constexpr std::size_t first_exactly(std::size_t raters) { return first_vote + raters; }
  static constexpr std::size_t all(std::size_t raters) { return first_vote + 2 * raters; }
};

namespace detail {

/// Sets the voxels that one rater alone marked, which the other columns of a row imply: every voxel
/// that k raters marked has k of the votes.
inline void derive_single_votes(std::uint64_t* row, std::size_t raters) {
  std::uint64_t* exactly = row + TallyColumns::first_exactly(raters);
  std::uint64_t votes = 0;
  for (std::size_t k = 0; k < raters; ++k) votes += row[TallyColumns::first_vote + k];
  for (std::size_t k = 2; k <= raters; ++k) votes -= k * exactly[k - 1];
  *exactly = votes;
}

}  // namespace detail

}  // namespace twintrack
