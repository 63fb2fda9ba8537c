// What one thread adds up in one cell of the score grid before it is added to 64-bit sums.
//
// A record is a few 64-bit words: a sum of residuals in the lowest 32 bits, then fields of 8 bits
// for the number of voxels, of votes of each rater, and of voxels that exactly 2, 3, … of them
// marked. That one alone did is what these leave of the votes. No field is greater than the number
// of voxels, so a record holds 255 of them, and its residuals, below 2^24 each, are below 2^32
// then.
//
// Up to eight raters: a voxel is one addition of all words, of 8 bytes for one and two raters, else
// of 16. The fields of seven and eight raters would need 18 and 20 bytes; they have 6 bits, and a
// record holds 63 voxels. To empty it more often costs less than a table of 32 bytes a cell,
// of which a core's caches hold less: scores of ensembles took 1.3 times as long with that. The
// fields of eight raters are all bits that there are, one of them half in each word, so the
// addition is one of 128 bits there.
//
// Three to six raters: voxels are added 16 at a time before anyone looks whether a record has
// become too full for 16 more. The greatest of 16 sums is found in one instruction a voxel, because
// fields are bytes; to test each sum takes three. Where one word is a record that gained nothing.
//
// Their records are not made smaller. In 8 bytes there is room for four bits a
// field with five raters, which are full after 15 voxels, and to empty a record takes about as long
// as to add ten voxels; 12 bytes lie in two tables, with two misses a voxel, or across lines.
//
// More raters: each group of seven (votes.hpp) has a word of its own with a byte to spare; the
// fields for exactly 2, 3, … fill word 0, then the spare bytes, then further words. A voxel is one
// addition a word.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/votes.hpp"
#include "twintrack/calibration/tally_columns.hpp"

namespace twintrack::detail {

/// Where the fields of a record lie, in bits from the lowest of word 0.
struct RecordLayout {
  std::size_t raters;

  static constexpr std::size_t count_at = 32;
  static constexpr std::uint64_t one_voxel = std::uint64_t{1} << count_at;

  static constexpr std::size_t most_ungrouped = 8;

  constexpr bool grouped() const { return raters > most_ungrouped; }
  constexpr std::size_t bits() const { return raters == 7 || raters == 8 ? 6 : 8; }
  /// Whether an addition to one word may carry into the next.
  constexpr bool carries() const { return raters == 8; }
  /// Voxels that a record holds.
  constexpr std::uint64_t most() const { return (std::uint64_t{1} << bits()) - 1; }
  /// Voxels that are added before it is seen whether records are full.
  constexpr std::uint64_t at_once() const {
    return !grouped() && bits() == 8 && words() == 2 ? 16 : 1;
  }
  /// Whether a record, given its word 0, has no room for as many.
  constexpr bool full(std::uint64_t word) const {
    if (at_once() == 1) return (~word & most() << count_at) == 0;
    return (word >> count_at & most()) > most() - at_once();
  }
  constexpr std::size_t words() const {
    const std::size_t last = raters < 2 ? vote_at(0) : exactly_at(raters);  // where it begins
    return (grouped() ? std::max(last / 64, vote_groups(raters)) : last / 64) + 1;
  }
  /// Up to eight raters: the record of a cell begins at word cell × 2^this of a table. Else 0.
  constexpr unsigned place_shift() const { return !grouped() && words() == 2 ? 1 : 0; }
  constexpr std::size_t vote_at(std::size_t rater) const {
    if (!grouped()) return side_by_side(1 + rater);
    return 64 * (1 + rater / votes_per_group) + 8 * (rater % votes_per_group);
  }
  /// For k = 2, 3, …
  constexpr std::size_t exactly_at(std::size_t k) const {
    if (!grouped()) return side_by_side(raters + k - 1);
    const std::size_t groups = vote_groups(raters);
    if (k < 5) return count_at + 8 * (k - 1);
    if (k < 5 + groups) return 64 * (k - 4) + 8 * votes_per_group;
    return 64 * (1 + groups) + 8 * (k - 5 - groups);
  }

 private:
  constexpr std::size_t side_by_side(std::size_t field) const {
    if (carries()) return count_at + bits() * field;
    // No field lies in two words.
    const std::size_t in_first = (64 - count_at) / bits();
    if (field < in_first) return count_at + bits() * field;
    const std::size_t in_word = 64 / bits();
    return 64 * (1 + (field - in_first) / in_word) + bits() * ((field - in_first) % in_word);
  }
};

inline void add_one(std::uint64_t* words, std::size_t at) {
  words[at / 64] += std::uint64_t{1} << at % 64;
}

__extension__ typedef unsigned __int128 WideWord;

/// A record of two words as one number.
TWINTRACK_INLINE WideWord wide_word(const std::uint64_t* words) {
  return words[0] | WideWord{words[1]} << 64;
}

/// A voxel of up to eight raters as it is added to a record, but for its residual.
inline void set_voxel(std::uint64_t* words, RecordLayout layout, std::size_t pattern) {
  add_one(words, RecordLayout::count_at);
  std::size_t votes = 0;
  for (std::size_t rater = 0; rater < layout.raters; ++rater) {
    if ((pattern >> rater & 1) == 0) continue;
    ++votes;
    add_one(words, layout.vote_at(rater));
  }
  if (votes >= 2) add_one(words, layout.exactly_at(votes));
}

/// Adds a record to the row of its cell. `raters_` is the number of raters if that is known when
/// this is compiled, or 0.
template <std::size_t raters_>
inline void add_record(const std::uint64_t* words, RecordLayout given, std::uint64_t* row) {
  const RecordLayout layout{raters_ != 0 ? raters_ : given.raters};
  const auto field = [&](std::size_t at) {
    std::uint64_t bits = words[at / 64] >> at % 64;
    if (layout.carries() && at % 64 + layout.bits() > 64) bits |= words[1] << (64 - at % 64);
    return bits & layout.most();
  };
  row[TallyColumns::count] += field(RecordLayout::count_at);
  row[TallyColumns::residual] += words[0] & 0xffffffff;
  std::uint64_t* const marked = row + TallyColumns::first_vote;
  for (std::size_t k = 0; k < layout.raters; ++k) marked[k] += field(layout.vote_at(k));
  std::uint64_t* const exactly = row + TallyColumns::first_exactly(layout.raters) - 1;
  for (std::size_t k = 2; k <= layout.raters; ++k) exactly[k] += field(layout.exactly_at(k));
}

/// Calls `visit(n)`: n is the number of raters as a constant up to eight, and 0 for more.
template <class Visit>
TWINTRACK_INLINE void with_raters(std::size_t raters, const Visit& visit) {
  switch (raters) {
    case 1:
      return visit(std::integral_constant<std::size_t, 1>{});
    case 2:
      return visit(std::integral_constant<std::size_t, 2>{});
    case 3:
      return visit(std::integral_constant<std::size_t, 3>{});
    case 4:
      return visit(std::integral_constant<std::size_t, 4>{});
    case 5:
      return visit(std::integral_constant<std::size_t, 5>{});
    case 6:
      return visit(std::integral_constant<std::size_t, 6>{});
    case 7:
      return visit(std::integral_constant<std::size_t, 7>{});
    case 8:
      return visit(std::integral_constant<std::size_t, 8>{});
    default:
      return visit(std::integral_constant<std::size_t, 0>{});
  }
}

}  // namespace twintrack::detail
