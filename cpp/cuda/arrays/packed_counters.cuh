// Several counters in one 32-bit word, added to by one atomic and exact however often.
//
// A cell of the score grid needs a count, a sum of residuals, a count of votes per rater, and one
// of the voxels that exactly k raters marked for every k >= 2 (those of k = 1 follow from the
// others). As 32-bit words of shared memory these would be too many to hold and to add to; so they
// share words, as fields of 7 to 18 bits:
//
//     float    word 0    residual / 256: 18 bits, count: 7, votes of rater 0: 7
//              words 1…  votes of raters 1, 2, …, exactly 2, 3, …: 8 bits every one
//     double   word 0    residual: 32 bits
//              words 1…  count, votes of raters 0, 1, …, exactly 2, 3, …: 8 bits every one
//
// A field that overflows carries into the next. Nothing is lost by that: atomics on one word happen
// in some order, so each addition knows from the value it found exactly which fields it made carry,
// and counts these carries, one by one, in 64 bits. With c carries out of a field of b bits, and d
// into it from the field below, the true total is what is left in the field, plus c 2^b, minus d:
// always, modulo 2^64, in whatever order things happened. A carry is rare: one addition in 2^b for
// counts.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/arrays/device.cuh"
#include "twintrack/calibration/tally_rows.hpp"

namespace twintrack::cuda {

/// Columns of a cell's 64-bit sums, as in twintrack::ScoreTally.
inline constexpr int count_column = static_cast<int>(TallyColumns::count);
inline constexpr int residual_column = static_cast<int>(TallyColumns::residual);
inline constexpr int first_vote_column = static_cast<int>(TallyColumns::first_vote);

/// Where the fields lie for a group of `raters_` raters and scores of type Real. Columns are those
/// of a tally up to the votes of the group, then the voxels that exactly 2, 3, … of it marked.
template <class Real, int raters_>
struct CounterLayout {
  static constexpr bool own_residual_word = std::is_same_v<Real, double>;
  static constexpr int raters = raters_;
  static constexpr int first_exactly_column = first_vote_column + raters;  // of two raters
  static constexpr int columns = first_exactly_column + raters - 1;
  /// Bytes of the words after word 0: all columns but those in word 0.
  static constexpr int byte_fields = columns - (own_residual_word ? 1 : 3);
  static constexpr int words = 1 + (byte_fields + 3) / 4;
  /// A residual counts in units of 2^residual_unit: those of floats are multiples of 256.
  static constexpr int residual_unit = own_residual_word ? 0 : 8;

  struct Field {
    int word;
    int shift;
    int bits;
  };

  __host__ __device__ static constexpr Field byte_field(int index) {
    return {1 + index / 4, 8 * (index % 4), 8};
  }

  /// The column of a byte field, if there are so many.
  __host__ __device__ static constexpr int column_of_byte(int index) {
    if constexpr (own_residual_word) {
      return index == 0 ? count_column : first_vote_column + index - 1;
    } else {
      return first_vote_column + 1 + index;
    }
  }

  __host__ __device__ static constexpr Field field(int column) {
    if constexpr (own_residual_word) {
      if (column == residual_column) return {0, 0, 32};
      return byte_field(column == count_column ? 0 : 1 + column - first_vote_column);
    } else {
      if (column == residual_column) return {0, 0, 18};
      if (column == count_column) return {0, 18, 7};
      if (column == first_vote_column) return {0, 25, 7};
      return byte_field(column - first_vote_column - 1);
    }
  }

  /// Field `column` of a word that holds it.
  __host__ __device__ static constexpr std::uint32_t value(int column, std::uint32_t word) {
    const Field f = field(column);
    return (word >> f.shift) & (0xffffffffu >> (32 - f.bits));
  }

  /// The highest bits of the fields of word `word`.
  __host__ __device__ static constexpr std::uint32_t carry_bits(int word) {
    std::uint32_t bits = 0;
    for (int column = 0; column < columns; ++column) {
      const Field f = field(column);
      if (f.word == word) bits |= 1u << (f.shift + f.bits - 1);
    }
    return bits;
  }

  /// The column whose field carries into that of `column`, or -1.
  __host__ __device__ static constexpr int below(int column) {
    const Field f = field(column);
    for (int other = 0; other < columns; ++other) {
      const Field g = field(other);
      if (g.word == f.word && g.shift + g.bits == f.shift) return other;
    }
    return -1;
  }

  /// The total of a column from its `left`, what is in its fields, and the carries of all columns.
  template <class Carried>
  __host__ __device__ static std::uint64_t total(int column, std::uint64_t left,
                                                 const Carried& carried) {
    left += carried[column] << field(column).bits;
    if (below(column) >= 0) left -= carried[below(column)];
    return left << (column == residual_column ? residual_unit : 0);
  }
};

/// Bit i is set if bit i carried in before + amount.
__device__ inline std::uint32_t carries_of(std::uint32_t before, std::uint32_t amount) {
  return (before & amount) | ((before | amount) & ~(before + amount));
}

/// What became of adding to one word for up to four voxels: a bit for every field that carried.
/// Voxel j's lie j below the highest bits of the fields.
template <class Layout, int word>
class Carries {
 public:
  __device__ void note(int voxel, std::uint32_t before, std::uint32_t amount) {
    left_ |= (carries_of(before, amount) & Layout::carry_bits(word)) >> voxel;
  }

  /// Calls `count(j, column)` for each. Mostly there is one in a warp, so they are gone through
  /// rather than each possible one asked for.
  template <class Count>
  __device__ void for_each(const Count& count) const {
    for (std::uint32_t left = left_; left != 0;) {
      const int bit = 31 - __clz(static_cast<int>(left));
      left &= ~(1u << bit);
      int voxel = 0;
      int carried = 0;
#pragma unroll
      for (int column = 0; column < Layout::columns; ++column) {
        const auto field = Layout::field(column);
        const int top = field.shift + field.bits - 1;
        if (field.word != word || bit > top || bit <= top - most_voxels) continue;
        voxel = top - bit;
        carried = column;
      }
      count(voxel, carried);
    }
  }

 private:
  static constexpr int most_voxels = 4;
  static constexpr bool apart() {
    for (int column = 0; column < Layout::columns; ++column)
      if (Layout::field(column).bits < most_voxels) return false;
    return true;
  }
  static_assert(apart(), "carries of neighbouring fields would fall together");

  std::uint32_t left_ = 0;
};

}  // namespace twintrack::cuda
