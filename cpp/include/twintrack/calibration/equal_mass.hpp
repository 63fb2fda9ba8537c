// Equal-mass bins of a tally.
//
// With V scores sorted ascending, cut k = 1 … M - 1 falls before sorted position ⌊kV/M⌋ (0-based).
// Equal scores are never split: inside a block of ties a cut moves to the start of the block. Cuts
// that coincide merge, so there may be fewer than M bins and some may be large. Here a block of
// ties is a row of a tally: a grid cell, or a part of one after refinement (cut_refinement.hpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "twintrack/arrays/compensated_sum.hpp"
#include "twintrack/arrays/input_error.hpp"
#include "twintrack/calibration/score_grid.hpp"
#include "twintrack/calibration/tally_rows.hpp"

namespace twintrack {

struct EqualMassBins {
  std::vector<std::uint64_t> count;
  std::vector<double> mean_score;      // of the voxels in a bin
  std::vector<std::uint64_t> votes;    // bins × raters, row-major
  std::vector<std::size_t> first_row;  // row at which a bin starts
};

/// Position before which cut k of `bins` falls: ⌊k V / bins⌋ without overflow.
inline std::uint64_t cut_position(std::uint64_t k, std::uint64_t voxels, std::uint64_t bins) {
  const std::uint64_t quotient = voxels / bins;
  const std::uint64_t remainder = voxels % bins;
  return k * quotient + k * remainder / bins;
}

namespace detail {

// Mean score of rows [first, last). Each half of the grid is summed as distances from its own end,
// so that means close to 1 keep their digits too.
inline double mean_score(const TallyRows& tally, std::size_t first, std::size_t last) {
  CompensatedSum low;
  CompensatedSum high;
  std::uint64_t voxels = 0;
  std::uint64_t above = 0;  // voxels in the upper half
  for (std::size_t row = first; row < last; ++row) {
    const std::uint64_t* sums = tally.row(row);
    const grid::Scale scale = grid::scale(tally.cell[row]);
    CompensatedSum& side = tally.cell[row] > grid::half_cell ? high : low;
    side.add(static_cast<double>(sums[TallyColumns::count]) * scale.base);
    side.add(static_cast<double>(sums[TallyColumns::residual]) * scale.unit);
    voxels += sums[TallyColumns::count];
    if (tally.cell[row] > grid::half_cell) above += sums[TallyColumns::count];
  }
  const double all = static_cast<double>(voxels);
  if (above == voxels) return 1.0 - high.value() / all;
  return (low.value() + (static_cast<double>(above) - high.value())) / all;
}

}  // namespace detail

/// At most `bins` bins of equal mass. Rows without voxels are passed over. Throws
/// InputError if there are no voxels or `bins` is 0.
inline EqualMassBins equal_mass_bins(const TallyRows& tally, std::uint64_t bins) {
  if (bins == 0) throw InputError("bins", "is 0; at least one bin is needed");
  std::uint64_t voxels = 0;
  for (std::size_t row = 0; row < tally.rows; ++row) voxels += tally.count(row);
  if (voxels == 0) throw InputError("", "there are no voxels to bin: the region is empty");

  std::vector<std::size_t> starts;
  std::uint64_t before = 0;
  std::uint64_t k = 0;  // the next cut; cut 0 opens the first bin
  // With as many bins as voxels, or more, there is a cut before every row: none need be counted.
  const bool every_row = bins >= voxels;
  for (std::size_t row = 0; row < tally.rows; ++row) {
    const std::uint64_t after = before + tally.count(row);
    bool cut = every_row && tally.count(row) > 0;
    if (!every_row)
      for (; k < bins && cut_position(k, voxels, bins) < after; ++k) cut = true;
    if (cut) starts.push_back(row);
    before = after;
  }

  EqualMassBins result;
  const std::size_t raters = tally.raters;
  for (std::size_t bin = 0; bin < starts.size(); ++bin) {
    const std::size_t last = bin + 1 < starts.size() ? starts[bin + 1] : tally.rows;
    std::uint64_t count = 0;
    std::vector<std::uint64_t> votes(raters, 0);
    for (std::size_t row = starts[bin]; row < last; ++row) {
      const std::uint64_t* sums = tally.row(row);
      count += sums[TallyColumns::count];
      for (std::size_t r = 0; r < raters; ++r) votes[r] += sums[TallyColumns::first_vote + r];
    }
    result.count.push_back(count);
    result.mean_score.push_back(detail::mean_score(tally, starts[bin], last));
    result.votes.insert(result.votes.end(), votes.begin(), votes.end());
    result.first_row.push_back(starts[bin]);
  }
  return result;
}

}  // namespace twintrack
