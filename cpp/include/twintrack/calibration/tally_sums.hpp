// The 64-bit sums of a ScoreTally (score_tally.hpp), by cell of the score grid.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "twintrack/arrays/zeroed.hpp"
#include "twintrack/calibration/score_grid.hpp"
#include "twintrack/calibration/tally_columns.hpp"

namespace twintrack {

/// A row of columns (TallyColumns) for every cell, 0 until something is added. Cells that nothing
/// was added to take up no memory, by pages, and no time.
class TallySums {
 public:
  explicit TallySums(std::size_t raters)
      : raters_(raters), sums_(grid::cells * TallyColumns::all(raters)), added_(grid::cells) {}

  TallySums(TallySums&&) = default;
  TallySums& operator=(TallySums&&) = default;
  ~TallySums() {
    if (!sums_.keepable() || !added_.keepable()) return;
    clear();
    sums_.keep();
    added_.keep();
  }

  std::size_t raters() const { return raters_; }
  std::size_t columns() const { return TallyColumns::all(raters_); }

  /// Whether nothing was added to any cell.
  bool empty() const { return std::memchr(added_.data(), 1, grid::cells) == nullptr; }
  /// Calls `visit(cell)` for those of the cells [first, last) that something was added to.
  template <class Visit>
  void for_each(std::uint32_t first, std::uint32_t last, const Visit& visit) const {
    const std::uint8_t* const added = added_.data();
    for (std::uint32_t cell = first; cell < last; ++cell) {
      std::uint64_t eight;
      while (cell + 8 <= last && (std::memcpy(&eight, added + cell, 8), eight == 0)) cell += 8;
      if (cell < last && added[cell] != 0) visit(cell);
    }
  }
  template <class Visit>
  void for_each(const Visit& visit) const {
    for_each(0, grid::cells, visit);
  }

  const std::uint64_t* row(std::uint32_t cell) const { return sums_.data() + cell * columns(); }
  /// The row of a cell, to be added to. Threads may add to different cells at the same time.
  std::uint64_t* add_to(std::uint32_t cell) {
    added_.data()[cell] = 1;
    return sums_.data() + cell * columns();
  }
  /// Has the row of a cell brought near, as it will be added to.
  void prefetch([[maybe_unused]] std::uint32_t cell) const {
#if (defined(__GNUC__) || defined(__clang__)) && !defined(__CUDACC__)
    const std::uint64_t* const first = row(cell);
    __builtin_prefetch(first, 1);
    __builtin_prefetch(first + columns() - 1, 1);
#endif
  }
  /// Adds the first sums of a row.
  void add(std::uint32_t cell, const std::uint64_t* row, std::size_t columns) {
    std::uint64_t* const to = add_to(cell);
    for (std::size_t k = 0; k < columns; ++k) to[k] += row[k];
  }
  void clear(std::uint32_t cell) {
    std::memset(sums_.data() + cell * columns(), 0, columns() * sizeof(std::uint64_t));
    added_.data()[cell] = 0;
  }

  void clear() {
    for_each([&](std::uint32_t cell) { clear(cell); });
  }

  /// All rows, those that are 0 too, one after the other.
  std::vector<std::uint64_t> dense() const { return {sums_.data(), sums_.data() + sums_.size()}; }
  bool operator==(const TallySums& other) const { return dense() == other.dense(); }

 private:
  std::size_t raters_;
  Zeroed<std::uint64_t> sums_;
  Zeroed<std::uint8_t> added_;
};

}  // namespace twintrack
