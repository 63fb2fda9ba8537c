// Voxels that are known by score alone, added to a CaseTally as if each had been looked at.
//
// A row says how many voxels have one score, how many of them each rater marked, and how many
// exactly k raters marked: what a row of a ScoreTally (score_tally.hpp) says once a map has given
// the voxels of its cell one value. All sums are those of CaseTally::update, bit for bit, since the
// terms of voxels with one score are equal and their sum is a product of integers.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "twintrack/arrays/compensated_sum.hpp"
#include "twintrack/arrays/count_columns.hpp"
#include "twintrack/arrays/element.hpp"
#include "twintrack/arrays/fixed_sum.hpp"
#include "twintrack/arrays/input_error.hpp"
#include "twintrack/arrays/instruction_set.hpp"
#include "twintrack/arrays/voxel_rules.hpp"
#include "twintrack/metrics/case_sums.hpp"
#include "twintrack/metrics/evaluation_cells.hpp"

namespace twintrack {

namespace detail {

/// A sum of terms in units of 2^-bits before it is divided into whole and fraction.
class WideSum {
 public:
  void add(std::uint64_t units, std::uint64_t count) { total_ += static_cast<Wide>(units) * count; }
  fixed::Sum sum(int bits) const {
    const Wide fraction = total_ & ((Wide{1} << bits) - 1);
    return {static_cast<std::uint64_t>(total_ >> bits), static_cast<std::uint64_t>(fraction)
                                                            << (fixed::fraction_bits - bits)};
  }

 private:
  __extension__ typedef unsigned __int128 Wide;
  Wide total_ = 0;
};

/// What the columns say of each row of a block, a column after the other, so that loops vectorise.
class RowVotes {
 public:
  using Column = std::array<std::uint64_t, CountBlock::most_rows>;

  RowVotes(const CountBlock& block, std::size_t raters, std::size_t n) {
    with_instruction_set([&]() TWINTRACK_INLINE_LAMBDA { gather(block, raters, n); });
  }

  Column votes{};   // of all raters
  Column marked{};  // by at least one
  Column misfit{};  // whether the columns contradict each other

 private:
  TWINTRACK_INLINE void gather(const CountBlock& block, std::size_t raters, std::size_t n) {
    const std::uint64_t* const count = block.column(0);
    Column by_number{};
    for (std::size_t k = 0; k < raters; ++k) {
      const std::uint64_t* const own = block.column(1 + k);
      const std::uint64_t* const exactly = block.column(1 + raters + k);
      for (std::size_t i = 0; i < n; ++i) {
        votes[i] += own[i];
        marked[i] += exactly[i];
        by_number[i] += (k + 1) * exactly[i];
        misfit[i] |= static_cast<std::uint64_t>(own[i] > count[i]) |
                     static_cast<std::uint64_t>(exactly[i] > count[i]);
      }
    }
    for (std::size_t i = 0; i < n; ++i)
      misfit[i] |= static_cast<std::uint64_t>(marked[i] > count[i]) |
                   static_cast<std::uint64_t>(by_number[i] != votes[i]);
  }
};

}  // namespace detail

/// What rows of counted scores add up to.
struct Counted {
  CaseSums sums;
  /// Sum over voxels of -(MHR ln p + (1 - MHR) ln(1 - p)), 0 ln 0 being 0. Infinite where p is 0 at
  /// voxels with votes, or 1 at voxels without.
  double log_loss;
};

/// The sums of a CaseTally over the voxels of rows, of which row i has the score `score[i]`, of
/// type `element` before it became a Real: float for types of at most 32 bits, else double.
/// `counts` has 1 + 2N columns: voxels, those that each of N raters marked, those that exactly
/// 1 … N raters marked. Rows without voxels are passed over. Throws InputError for a score outside
/// [0, 1], numbers of votes that do not fit each other, or other columns.
template <class Real>
Counted count_scores(std::size_t raters, int bins, const Real* score, Element element,
                     const CountColumns& counts) {
  if (counts.count() != 1 + 2 * raters)
    throw InputError("counts", "has " + std::to_string(counts.count()) + " columns; " +
                                   std::to_string(raters) + " raters need " +
                                   std::to_string(1 + 2 * raters));
  CaseSums found(raters, static_cast<std::size_t>(UniformBins(bins).count()));
  const EvaluationCells<Real> cells(bins, element);
  std::vector<detail::WideSum> of_bin(found.bin_rows());
  std::vector<detail::WideSum> of_confidence(2 * found.bin_rows());
  std::vector<detail::WideSum> of_rater(raters);
  detail::WideSum squares;
  CompensatedSum log_loss;
  bool certain_and_wrong = false;
  CountBlock block(counts);
  block.for_each([&](std::size_t first, std::size_t n) {
    const detail::RowVotes votes(block, raters, n);
    for (std::size_t i = 0; i < n; ++i) {
      const std::uint64_t count = block.column(0)[i];
      const std::uint64_t marked = votes.marked[i];
      const Real p = score[first + i];
      if (score_fault(p) != 0)
        throw InputError("score", "has a value outside [0, 1] in row " + std::to_string(first + i));
      if (votes.misfit[i] != 0)
        throw InputError(
            "counts", "has votes that do not fit each other in row " + std::to_string(first + i));
      if (count == 0) continue;

      const ScoreParts parts = cells.parts(p);
      const double wide = static_cast<double>(p);
      const std::uint64_t units = fixed::units(wide);
      const std::size_t score_row = found.score_row(parts);
      const std::size_t confidence_row = found.confidence_row(parts);
      const std::size_t by_votes =
          found.votes() + static_cast<std::size_t>(parts.exceeded) * (raters + 1);
      found.at(by_votes) += count - marked;
      found.at(score_row) += count;
      found.at(confidence_row) += count;
      of_bin[static_cast<std::size_t>(parts.bin)].add(units, count);
      of_confidence[static_cast<std::size_t>(parts.tumour) * found.bin_rows() +
                    static_cast<std::size_t>(parts.confidence_bin)]
          .add(confidence_units(parts.confidence), count);
      squares.add(fixed::units(wide * wide), count);
      const double response = static_cast<double>(votes.votes[i]) / static_cast<double>(raters);
      const double rest = static_cast<double>(count) - response;
      certain_and_wrong |= (response > 0 && wide <= 0) || (rest > 0 && wide >= 1);
      if (rest > 0 && wide > 0 && wide < 1) log_loss.add(-rest * std::log1p(-wide));
      if (marked == 0) continue;
      if (wide > 0) log_loss.add(-response * std::log(wide));
      for (std::size_t k = 0; k < raters; ++k) {
        const std::uint64_t own = block.column(1 + k)[i];
        found.at(by_votes + 1 + k) += block.column(1 + raters + k)[i];
        found.at(score_row + CaseSums::first_vote_column + k) += own;
        found.at(confidence_row + CaseSums::first_vote_column + k) += own;
        of_rater[k].add(units, own);
      }
    }
  });
  for (std::size_t bin = 0; bin < of_bin.size(); ++bin)
    found.add(found.score_bins() + bin * found.bin_columns() + 1,
              of_bin[bin].sum(fixed::fraction_bits));
  for (std::size_t row = 0; row < of_confidence.size(); ++row)
    found.add(found.confidence_bins() + row * found.bin_columns() + 1,
              of_confidence[row].sum(confidence_bits));
  for (std::size_t k = 0; k < raters; ++k)
    found.add(found.rater_scores() + 2 * k, of_rater[k].sum(fixed::fraction_bits));
  found.add(found.squares(), squares.sum(fixed::fraction_bits));
  return {std::move(found), certain_and_wrong ? HUGE_VAL : log_loss.value()};
}

}  // namespace twintrack
