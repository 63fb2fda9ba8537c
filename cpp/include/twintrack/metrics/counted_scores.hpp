// Voxels that are known by score alone, added to a CaseTally as if each had been looked at.
//
// A row says how many voxels have one score, how many of them each rater marked, and how many
// exactly k raters marked: what a row of a ScoreTally (score_tally.hpp) says once a map has given
// the voxels of its cell one value. All sums are those of CaseTally::update, bit for bit, since the
// terms of voxels with one score are equal and their sum is a product of integers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "twintrack/arrays/element.hpp"
#include "twintrack/arrays/fixed_sum.hpp"
#include "twintrack/arrays/input_error.hpp"
#include "twintrack/arrays/voxel_rules.hpp"
#include "twintrack/metrics/case_tally.hpp"
#include "twintrack/metrics/evaluation_cells.hpp"

namespace twintrack {

namespace detail {

__extension__ typedef unsigned __int128 Wide;

// `count` terms of `units` in units of 2^-bits.
inline fixed::Sum product(std::uint64_t units, std::uint64_t count, int bits) {
  const Wide all = static_cast<Wide>(units) * count;
  const Wide fraction = all & ((Wide{1} << bits) - 1);
  return {static_cast<std::uint64_t>(all >> bits),
          static_cast<std::uint64_t>(fraction) << (fixed::fraction_bits - bits)};
}

}  // namespace detail

/// Rows of `columns` = 2 + 2N sums: voxels, one that is not read, voxels that each of N raters
/// marked, voxels that exactly 1 … N raters marked. Does not own.
struct CountedScores {
  const std::uint64_t* sums;
  std::size_t rows;
  std::size_t columns;
};

/// Adds the voxels of rows, of which row i has the score `score[i]`, of type `element` before it
/// became a Real: float for types of at most 32 bits, else double. Throws InputError, and adds
/// nothing, for a score outside [0, 1], numbers of votes that do not fit each other, or rows that do
/// not fit the tally's raters.
template <class Real>
void add_counted(CaseTally& tally, const Real* score, Element element, const CountedScores& rows) {
  const std::size_t raters = tally.raters();
  if (rows.columns != 2 + 2 * raters)
    throw InputError("sums", "has " + std::to_string(rows.columns) + " columns; " +
                                 std::to_string(raters) + " raters need " +
                                 std::to_string(2 + 2 * raters));
  CaseSums found(raters, tally.sums().bins());
  const EvaluationCells<Real> cells(tally.bins(), element);
  for (std::size_t i = 0; i < rows.rows; ++i) {
    const std::uint64_t* row = rows.sums + i * rows.columns;
    const std::uint64_t* votes = row + 2;
    const std::uint64_t* exactly = votes + raters;
    const std::uint64_t count = row[0];
    if (score_fault(score[i]) != 0)
      throw InputError("score", "has a value outside [0, 1] in row " + std::to_string(i));
    std::uint64_t marked = 0;
    std::uint64_t by_number = 0;
    std::uint64_t by_rater = 0;
    bool fits = true;
    for (std::size_t k = 0; k < raters; ++k) {
      fits = fits && votes[k] <= count && exactly[k] <= count;
      marked += exactly[k];
      by_number += (k + 1) * exactly[k];
      by_rater += votes[k];
    }
    if (!fits || marked > count || by_number != by_rater)
      throw InputError("sums", "has votes that do not fit each other in row " + std::to_string(i));
    if (count == 0) continue;

    const ScoreParts parts = cells.parts(score[i]);
    const double p = static_cast<double>(score[i]);
    const std::uint64_t units = fixed::units(p);
    const std::size_t score_row = found.score_row(parts);
    const std::size_t confidence_row = found.confidence_row(parts);
    const std::size_t by_votes =
        found.votes() + static_cast<std::size_t>(parts.exceeded) * (raters + 1);
    found.at(by_votes) += count - marked;
    for (std::size_t k = 0; k < raters; ++k) found.at(by_votes + 1 + k) += exactly[k];
    found.at(score_row) += count;
    found.add(score_row + 1, detail::product(units, count, fixed::fraction_bits));
    found.at(confidence_row) += count;
    found.add(confidence_row + 1,
              detail::product(confidence_units(parts.confidence), count, confidence_bits));
    found.add(found.squares(), detail::product(fixed::units(p * p), count, fixed::fraction_bits));
    for (std::size_t rater = 0; rater < raters; ++rater) {
      found.at(score_row + CaseSums::first_vote_column + rater) += votes[rater];
      found.at(confidence_row + CaseSums::first_vote_column + rater) += votes[rater];
      found.add(found.rater_scores() + 2 * rater,
                detail::product(units, votes[rater], fixed::fraction_bits));
    }
  }
  tally.sums() += found;
}

}  // namespace twintrack
