// Rows of a tally: the sums of the voxels in one cell of the score grid, or in a part of one.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "twintrack/calibration/score_grid.hpp"

namespace twintrack {

/// What a row's sums are: voxels, their residuals, then the votes of each rater.
struct TallyColumns {
  static constexpr std::size_t count = 0;
  static constexpr std::size_t residual = 1;
  static constexpr std::size_t first_vote = 2;
};

/// Rows of sums in ascending order of score: row i counts voxels of grid cell `cell[i]`. Several
/// rows may lie in one cell. Does not own.
struct TallyRows {
  const std::uint32_t* cell;
  const std::uint64_t* sums;  // rows × columns, row-major
  std::size_t rows;
  std::size_t columns;

  std::size_t raters() const { return columns - TallyColumns::first_vote; }
  const std::uint64_t* row(std::size_t row) const { return sums + row * columns; }
  std::uint64_t count(std::size_t row) const { return sums[row * columns + TallyColumns::count]; }
};

/// Rows of a tally that hold voxels, owned.
struct OccurringRows {
  /// `all` are the sums of every cell, `grid::cells` × `column_count`.
  OccurringRows(const std::vector<std::uint64_t>& all, std::size_t column_count)
      : columns(column_count) {
    for (std::uint32_t at = 0; at < grid::cells; ++at) {
      const std::uint64_t* row = all.data() + at * columns;
      if (row[TallyColumns::count] == 0) continue;
      cells.push_back(at);
      sums.insert(sums.end(), row, row + columns);
    }
  }

  TallyRows view() const { return {cells.data(), sums.data(), cells.size(), columns}; }

  std::size_t columns;
  std::vector<std::uint32_t> cells;
  std::vector<std::uint64_t> sums;
};

}  // namespace twintrack
