// Columns of counts of any width, as stored tallies have them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "twintrack/arrays/array_view.hpp"
#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/input_error.hpp"
#include "twintrack/arrays/instruction_set.hpp"

namespace twintrack {

/// Unsigned integers of 8 to 64 bits in columns of equal length. Does not own.
class CountColumns {
 public:
  /// Throws InputError, which names the argument, unless all are unsigned, of one axis and as long.
  CountColumns(std::vector<ArrayView> columns, const std::string& name)
      : columns_(std::move(columns)) {
    for (const ArrayView& column : columns_) {
      if (width(column.element) == 0)
        throw InputError(name, "has a column that is not of unsigned integers");
      if (column.shape.size() != 1 || column.shape[0] != columns_[0].shape[0])
        throw InputError(name, "has columns that do not have as many rows");
    }
  }

  std::size_t count() const { return columns_.size(); }
  std::size_t rows() const {
    return columns_.empty() ? 0 : static_cast<std::size_t>(columns_[0].shape[0]);
  }

  /// Rows [first, first + n) of a column, in 64 bits.
  TWINTRACK_INLINE void widen(std::size_t column, std::size_t first, std::size_t n,
                              std::uint64_t* to) const {
    const ArrayView& from = columns_[column];
    switch (width(from.element)) {
      case 1:
        return copy<std::uint8_t>(from, first, n, to);
      case 2:
        return copy<std::uint16_t>(from, first, n, to);
      case 4:
        return copy<std::uint32_t>(from, first, n, to);
      default:
        return copy<std::uint64_t>(from, first, n, to);
    }
  }

 private:
  // In bytes; 0 for other types.
  static std::size_t width(Element element) {
    switch (element) {
      case Element::uint8:
        return 1;
      case Element::uint16:
        return 2;
      case Element::uint32:
        return 4;
      case Element::uint64:
        return 8;
      default:
        return 0;
    }
  }

  template <class Count>
  TWINTRACK_INLINE static void copy(const ArrayView& from, std::size_t first, std::size_t n,
                                    std::uint64_t* to) {
    const std::int64_t stride = from.strides[0];
    const std::byte* at = from.data + static_cast<std::int64_t>(first) * stride;
    const auto value = [](const std::byte* place) {
      Count count;
      std::memcpy(&count, place, sizeof count);
      return static_cast<std::uint64_t>(count);
    };
    if (stride == static_cast<std::int64_t>(sizeof(Count))) {  // vectorises
      for (std::size_t i = 0; i < n; ++i) to[i] = value(at + i * sizeof(Count));
    } else {
      for (std::size_t i = 0; i < n; ++i, at += stride) to[i] = value(at);
    }
  }

  std::vector<ArrayView> columns_;
};

/// Columns as a table of some rows at a time, so that what is done with a row finds it near.
class CountBlock {
 public:
  static constexpr std::size_t most_rows = 128;

  explicit CountBlock(const CountColumns& columns)
      : columns_(columns), values_(columns.count() * most_rows) {}

  /// Calls `visit(first, n)` for one block of rows after the other; `column(k)` has its rows then.
  template <class Visit>
  void for_each(const Visit& visit) {
    for (std::size_t first = 0; first < columns_.rows(); first += most_rows) {
      const std::size_t n = std::min(most_rows, columns_.rows() - first);
      with_instruction_set([&]() TWINTRACK_INLINE_LAMBDA {
        for (std::size_t k = 0; k < columns_.count(); ++k)
          columns_.widen(k, first, n, values_.data() + k * most_rows);
      });
      visit(first, n);
    }
  }

  const std::uint64_t* column(std::size_t k) const { return values_.data() + k * most_rows; }

 private:
  const CountColumns& columns_;
  std::vector<std::uint64_t> values_;
};

}  // namespace twintrack
