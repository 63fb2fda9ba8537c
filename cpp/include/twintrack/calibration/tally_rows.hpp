// Rows of a tally: the sums of the voxels in one cell of the score grid, or in a part of one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "twintrack/calibration/score_grid.hpp"
#include "twintrack/calibration/tally_columns.hpp"
#include "twintrack/calibration/tally_sums.hpp"

namespace twintrack {

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
  explicit OccurringRows(const TallySums& all) : columns(all.columns()), raters(all.raters()) {
    all.for_each([&](std::uint32_t cell) { add_cell(cell, all.row(cell)); });
    add_sums([&](std::uint32_t cell) { return all.row(cell); });
  }
  /// `all` are the sums of every cell, `grid::cells` × `TallyColumns::all(rater_count)`.
  OccurringRows(const std::vector<std::uint64_t>& all, std::size_t rater_count)
      : columns(TallyColumns::all(rater_count)), raters(rater_count) {
    const auto row = [&](std::uint32_t cell) { return all.data() + cell * columns; };
    for (std::uint32_t cell = 0; cell < grid::cells; ++cell) add_cell(cell, row(cell));
    add_sums(row);
  }

  TallyRows view() const { return {cells.data(), sums.data(), cells.size(), columns, raters}; }

  std::size_t columns;
  std::size_t raters;
  std::vector<std::uint32_t> cells;
  std::vector<std::uint64_t> sums;

 private:
  void add_cell(std::uint32_t cell, const std::uint64_t* row) {
    if (row[TallyColumns::count] != 0) cells.push_back(cell);
  }
  template <class RowOf>
  void add_sums(const RowOf& row_of) {
    sums.reserve(cells.size() * columns);
    for (const std::uint32_t cell : cells)
      sums.insert(sums.end(), row_of(cell), row_of(cell) + columns);
  }
};

}  // namespace twintrack
