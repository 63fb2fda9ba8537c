// From a tally, or its equal-mass bins, to a calibration map.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "twintrack/arrays/input_error.hpp"
#include "twintrack/calibration/calibration_map.hpp"
#include "twintrack/calibration/equal_mass.hpp"
#include "twintrack/calibration/isotonic.hpp"
#include "twintrack/calibration/score_tally.hpp"
#include "twintrack/calibration/tally_rows.hpp"

namespace twintrack {

/// What a calibrated score estimates: the fraction of raters who mark the voxel; the answer of one
/// rater; the average of one map per rater.
enum class Target { mhr, single, hard };

/// Throws InputError if there is no target of that name.
inline Target target_named(const std::string& name) {
  if (name == "mhr") return Target::mhr;
  if (name == "single") return Target::single;
  if (name == "hard") return Target::hard;
  throw InputError("target", "is '" + name + "'; it must be mhr, single or hard");
}

/// The isotonic fit of each bin; `raters` votes a bin. Of Target::mhr to the mean over raters
/// (paper, equation 4), of Target::single to one rater's answers (equation 1), of Target::hard to
/// each rater's by itself, averaged: the fits lie on the same knots.
inline std::vector<double> fitted_values(const EqualMassBins& bins, std::size_t raters,
                                         Target target, std::size_t rater = 0) {
  const std::size_t count = bins.count.size();
  std::vector<double> weights(count);
  for (std::size_t bin = 0; bin < count; ++bin) weights[bin] = static_cast<double>(bins.count[bin]);
  const auto fit_rater = [&](std::size_t of) {
    std::vector<double> fit(count);
    for (std::size_t bin = 0; bin < count; ++bin)
      fit[bin] = static_cast<double>(bins.votes[bin * raters + of]) / weights[bin];
    isotonic(fit.data(), weights.data(), count, fit.data());
    return fit;
  };
  if (target == Target::single) return fit_rater(rater);
  std::vector<double> fit(count, 0.0);
  if (target == Target::hard) {
    for (std::size_t of = 0; of < raters; ++of) {
      const std::vector<double> one = fit_rater(of);
      for (std::size_t bin = 0; bin < count; ++bin) fit[bin] += one[bin];
    }
    for (double& value : fit) value /= static_cast<double>(raters);
    return fit;
  }
  for (std::size_t bin = 0; bin < count; ++bin) {
    std::uint64_t votes = 0;
    for (std::size_t of = 0; of < raters; ++of) votes += bins.votes[bin * raters + of];
    fit[bin] = static_cast<double>(votes) / (weights[bin] * static_cast<double>(raters));
  }
  isotonic(fit.data(), weights.data(), count, fit.data());
  return fit;
}

namespace detail {

// The bins, those joined whose mean score is not above that of the bin before: means that round to
// one double, or that rounding has swapped. A joined bin has all of their answers, and the mean
// score of the first. Rows are left out.
inline EqualMassBins with_rising_means(const EqualMassBins& bins, std::size_t raters) {
  EqualMassBins rising;
  for (std::size_t bin = 0; bin < bins.count.size(); ++bin) {
    const std::uint64_t* votes = bins.votes.data() + bin * raters;
    if (!rising.count.empty() && bins.mean_score[bin] <= rising.mean_score.back()) {
      rising.count.back() += bins.count[bin];
      std::uint64_t* joined = rising.votes.data() + rising.votes.size() - raters;
      for (std::size_t rater = 0; rater < raters; ++rater) joined[rater] += votes[rater];
    } else {
      rising.count.push_back(bins.count[bin]);
      rising.mean_score.push_back(bins.mean_score[bin]);
      rising.votes.insert(rising.votes.end(), votes, votes + raters);
    }
  }
  return rising;
}

}  // namespace detail

/// Knots of a map.
struct Knots {
  std::vector<double> x;
  std::vector<double> y;
};

/// The knots through (mean score, fitted value) of each bin; bins whose mean scores do not rise are
/// one bin. `rater` is the one that Target::single follows, 0-based. Throws InputError
/// if there is no such rater.
inline Knots fitted_knots(const EqualMassBins& bins, std::size_t raters, Target target,
                          std::size_t rater = 0) {
  if (rater >= raters)
    throw InputError("rater", "is " + std::to_string(rater) + " but there are " +
                                  std::to_string(raters) + " raters, counted from 0");
  EqualMassBins rising = detail::with_rising_means(bins, raters);
  const std::vector<double> fit = fitted_values(rising, raters, target, rater);
  Knots all{std::move(rising.mean_score), {}};
  for (const double fitted : fit) {
    const double value = std::clamp(fitted, 0.0, 1.0);
    all.y.push_back(all.y.empty() ? value : std::max(all.y.back(), value));
  }
  // Interior knots of a plateau change nothing.
  Knots needed;
  for (std::size_t i = 0; i < all.x.size(); ++i) {
    if (i > 0 && i + 1 < all.x.size() && all.y[i] == all.y[i - 1] && all.y[i] == all.y[i + 1])
      continue;
    needed.x.push_back(all.x[i]);
    needed.y.push_back(all.y[i]);
  }
  return needed;
}

/// The map fitted to a tally with at most `bins` equal-mass bins. Throws InputError if
/// the tally holds no voxels, `bins` is 0, or there is no such rater.
inline CalibrationMap fit_map(const ScoreTally& tally, std::uint64_t bins = 250,
                              Target target = Target::mhr, std::size_t rater = 0) {
  const OccurringRows rows(tally.sums());
  Knots knots = fitted_knots(equal_mass_bins(rows.view(), bins), tally.raters(), target, rater);
  return CalibrationMap(std::move(knots.x), std::move(knots.y));
}

}  // namespace twintrack
