// The mean score of the voxels in each cell of a tally.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "twintrack/arrays/compensated_sum.hpp"
#include "twintrack/arrays/count_columns.hpp"
#include "twintrack/arrays/input_error.hpp"
#include "twintrack/calibration/score_grid.hpp"

namespace twintrack {

/// Mean score of `count` voxels in one cell, whose residuals add up to `residual`: what
/// `equal_mass_bins` says of a bin of that cell alone. The cell's end nearer to 0 or 1 if count is
/// 0.
inline double cell_score(std::uint32_t cell, std::uint64_t count, std::uint64_t residual) {
  const grid::Scale scale = grid::scale(cell);
  const double voxels = static_cast<double>(count + (count == 0 ? 1 : 0));
  CompensatedSum sum;
  sum.add(voxels * scale.base);
  sum.add(static_cast<double>(residual) * scale.unit);
  const double distance = sum.value() / voxels;
  return cell > grid::half_cell ? 1.0 - distance : distance;
}

/// Writes the mean score of each row; `sums` are its count and its residuals, `cell(row)` is where.
/// Throws InputError for one that is no cell.
template <class CellOf>
void cell_scores(const CountColumns& sums, const CellOf& cell, double* scores) {
  CountBlock block(sums);
  block.for_each([&](std::size_t first, std::size_t n) {
    std::uint64_t last = 0;
    for (std::size_t i = 0; i < n; ++i) last = std::max(last, std::uint64_t{cell(first + i)});
    if (last >= grid::cells) throw InputError("cells", "has one that is not of the score grid");
    const std::uint64_t* const count = block.column(0);
    const std::uint64_t* const residual = block.column(1);
    for (std::size_t i = 0; i < n; ++i)
      scores[first + i] =
          cell_score(static_cast<std::uint32_t>(cell(first + i)), count[i], residual[i]);
  });
}

}  // namespace twintrack
