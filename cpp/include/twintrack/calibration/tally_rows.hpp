// Rows of a tally: the sums of the voxels in one cell of the score grid, or in a part of one.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "twintrack/calibration/score_grid.hpp"

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

/// Rows of sums in ascending order of score: row i counts voxels of grid cell `cell[i]`. Several
/// rows may lie in one cell. Does not own.
struct TallyRows {
  const std::uint32_t* cell;
  const std::uint64_t* sums;  // rows × columns, row-major
  std::size_t rows;
  std::size_t columns;
  std::size_t raters;

  const std::uint64_t* row(std::size_t row) const { return sums + row * columns; }
  std::uint64_t count(std::size_t row) const { return sums[row * columns + TallyColumns::count]; }
};

/// Rows of a tally that hold voxels, owned.
struct OccurringRows {
  /// `all` are the sums of every cell, `grid::cells` × `TallyColumns::all(rater_count)`.
  OccurringRows(const std::vector<std::uint64_t>& all, std::size_t rater_count)
      : columns(TallyColumns::all(rater_count)), raters(rater_count) {
    for (std::uint32_t at = 0; at < grid::cells; ++at) {
      const std::uint64_t* row = all.data() + at * columns;
      if (row[TallyColumns::count] == 0) continue;
      cells.push_back(at);
      sums.insert(sums.end(), row, row + columns);
    }
  }

  TallyRows view() const { return {cells.data(), sums.data(), cells.size(), columns, raters}; }

  std::size_t columns;
  std::size_t raters;
  std::vector<std::uint32_t> cells;
  std::vector<std::uint64_t> sums;
};

}  // namespace twintrack
