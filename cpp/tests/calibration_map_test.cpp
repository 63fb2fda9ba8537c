// The table of a calibration map: small, and without a search, wherever fits put knots.
#include "twintrack/calibration/calibration_map.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <random>
#include <string>
#include <vector>

#include "check.hpp"

using namespace twintrack;
using namespace twintrack::tests;

namespace {

constexpr std::size_t bins = 250;

// Means of networks that are sure: the larger `sure`, the closer to multiples of 1 / networks.
std::vector<float> ensemble_scores(int networks, double sure) {
  std::mt19937 random(1);
  std::normal_distribution<double> normal;
  std::vector<float> scores(50'000);
  for (float& score : scores) {
    const double seen = 2 * normal(random) - 1;
    double sum = 0;
    for (int k = 0; k < networks; ++k) sum += 1 / (1 + std::exp(-sure * (seen + normal(random))));
    score = static_cast<float>(sum / networks);
  }
  std::sort(scores.begin(), scores.end());
  return scores;
}

// A map as steep as may be: values of equal distance at the means of equal-mass bins, without
// subnormal scores. Bins never share a score.
std::vector<double> bin_means(const std::vector<float>& sorted) {
  std::vector<double> means;
  for (std::size_t first = 0; first < sorted.size();) {
    std::size_t last = std::min(first + sorted.size() / bins, sorted.size());
    while (last < sorted.size() && sorted[last] == sorted[last - 1]) ++last;
    double sum = 0;
    for (std::size_t i = first; i < last; ++i) sum += static_cast<double>(sorted[i]);
    const double mean = sum / static_cast<double>(last - first);
    if (mean > 0x1p-126 || mean == 0) means.push_back(std::min(mean, 1.0));
    first = last;
  }
  return means;
}

std::vector<double> ramp(std::size_t count) {
  std::vector<double> y;
  for (std::size_t i = 0; i < count; ++i)
    y.push_back(static_cast<double>(i) / static_cast<double>(count));
  return y;
}

template <class Real>
void fits_without_search(const CalibrationMap& map, std::size_t bytes, const std::string& what) {
  const MapView<Real> view = map.view<Real>();
  const std::size_t taken = view.group_bytes() + view.node_bytes();
  check(!view.searches, what + ": voxels are left to a search");
  check(taken <= bytes, what + ": the table takes " + std::to_string(taken) + " bytes");
}

void maps_of_ensembles() {
  for (const int networks : {1, 2, 3, 5, 7, 40})
    for (const double sure : {1.0, 8.0, 24.0}) {
      const std::vector<double> x = bin_means(ensemble_scores(networks, sure));
      const CalibrationMap map(x, ramp(x.size()));
      const std::string what =
          "mean of " + std::to_string(networks) + ", " + std::to_string(x.size()) + " knots";
      fits_without_search<float>(map, 32 << 10, what);
      fits_without_search<double>(map, 128 << 10, what);
    }
}

void uniform_knots() {
  std::vector<double> x;
  for (std::size_t i = 0; i < bins; ++i)
    x.push_back((static_cast<double>(i) + 0.5) / static_cast<double>(bins));
  const CalibrationMap map(x, ramp(bins));
  fits_without_search<float>(map, 36 << 10, "uniform");
  fits_without_search<double>(map, 36 << 10, "uniform");
  check(map.view<float>().direct, "uniform knots need a look-up of groups");
}

// Knots at every float around 1/3, and one between each two.
void knots_at_neighbours() {
  std::vector<double> x;
  float score = 1.0f / 3;
  for (int i = 0; i < 7; ++i) score = std::nextafter(score, 0.0f);
  for (int i = 0; i < 14; ++i, score = std::nextafter(score, 1.0f)) {
    x.push_back(static_cast<double>(score));
    x.push_back(static_cast<double>(score) + 0x1p-27);
  }
  const CalibrationMap map(x, ramp(x.size()));
  check(!map.view<float>().searches, "knots at neighbours are left to a search");
}

// However many knots crowd wherever, the table stays bounded, and what it leaves is searched.
void many_knots() {
  std::mt19937 random(2);
  std::vector<double> x;
  for (int i = 0; i < 6000; ++i)
    x.push_back(1.0 / 3 + std::exp2(-2 - 20 * std::generate_canonical<double, 53>(random)) *
                              (i % 2 == 0 ? 0.9 : -0.9));
  for (int i = 0; i < 4000; ++i) x.push_back(std::generate_canonical<double, 53>(random));
  std::sort(x.begin(), x.end());
  x.erase(std::unique(x.begin(), x.end()), x.end());
  const CalibrationMap map(x, ramp(x.size()));
  const MapView<float> view = map.view<float>();
  check(view.node_count <= MapGroup<float>::most_nodes, "more nodes than a group can name");
  const double p = 0.333;
  check(std::abs(static_cast<double>(map_score(view, static_cast<float>(p))) -
                 interpolate(map.knots(), static_cast<double>(static_cast<float>(p)))) <= 0x1p-23,
        "a crowded map is not the interpolation");
}

}  // namespace

int main() {
  return tests::run([] {
    maps_of_ensembles();
    uniform_knots();
    knots_at_neighbours();
    many_knots();
  });
}
