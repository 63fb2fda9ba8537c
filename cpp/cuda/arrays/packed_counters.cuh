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
// in some order, so each addition knows from the value it found exactly which fields it made carry.
// For each it adds 2^b to the 64-bit sum of the field of b bits that overflowed, and takes 1 from
// that of the next field of the word, if there is one. The sums and what is left in the fields then
// add up to the true totals, modulo 2^64, in whatever order things happened. A carry is rare: one
// addition in 2^b for counts.
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

  /// The highest bits of the fields of word `word`; bytes that no column has never carry.
  __host__ __device__ static constexpr std::uint32_t carry_bits(int word) {
    if (word > 0) return 0x80808080u;
    return own_residual_word ? 0x80000000u : 0x81020000u;
  }

  /// The column whose field lies above that of `column` in its word, or -1.
  __host__ __device__ static constexpr int above(int column) {
    if (own_residual_word && column == residual_column) return -1;
    if (!own_residual_word && column == residual_column) return count_column;
    if (!own_residual_word && column == count_column) return first_vote_column;
    if (!own_residual_word && column == first_vote_column) return -1;
    // A byte: columns of bytes follow each other, but for the votes after the count.
    if (field(column).shift == 24) return -1;
    const int next = column == count_column ? first_vote_column : column + 1;
    return next < columns ? next : -1;
  }

  /// A column as the 64-bit sums have it, from what is in its field.
  __host__ __device__ static constexpr std::uint64_t units(int column, std::uint64_t of_field) {
    return of_field << (column == residual_column ? residual_unit : 0);
  }

  /// The column of the field of word `word` whose highest bit is `bit` or up to three above it, and
  /// in `below` how many.
  __host__ __device__ static constexpr int column_near(int word, int bit, int& below) {
    if (word > 0) {
      below = 7 - bit % 8;
      return column_of_byte(4 * (word - 1) + bit / 8);
    }
    if constexpr (own_residual_word) {
      below = 31 - bit;
      return residual_column;
    } else {  // highest bits are 17, 24 and 31
      below = (31 - bit) % 7;
      const int place = (31 - bit) / 7;
      return place == 0 ? first_vote_column : place == 1 ? count_column : residual_column;
    }
  }
};

/// Bit i is set if bit i carried in before + amount.
__device__ inline std::uint32_t carries_of(std::uint32_t before, std::uint32_t amount) {
  return (before & amount) | ((before | amount) & ~(before + amount));
}

/// The same at the highest bits of fields to each of which less than half of what it holds is
/// added; unspecified at all others.
__device__ inline std::uint32_t small_carries_of(std::uint32_t before, std::uint32_t amount) {
  return before & ~(before + amount);
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
      const int column = Layout::column_near(word, bit, voxel);
      count(voxel, column);
    }
  }

 private:
  static constexpr int most_voxels = 4;
  static constexpr bool apart() {
    for (int column = 0; column < Layout::columns; ++column) {
      const auto field = Layout::field(column);
      const std::uint32_t top = 1u << (field.shift + field.bits - 1);
      if (field.bits < most_voxels || (Layout::carry_bits(field.word) & top) == 0) return false;
    }
    return true;
  }
  static_assert(apart(), "a carry would go unseen, or together with that of another field");

  std::uint32_t left_ = 0;
};

}  // namespace twintrack::cuda
