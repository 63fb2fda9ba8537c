// Evaluation gives the same bits for any number of threads, and from several callers at once.
#include <cstdint>
#include <vector>

#include "check.hpp"
#include "twintrack/metrics/case_tally.hpp"
#include "twintrack/metrics/contact_angle.hpp"

using namespace twintrack;
using twintrack::tests::check;
using twintrack::tests::SampleCase;

namespace {

constexpr std::size_t raters = 5;
const Shape shape{40, 61, 77};
constexpr std::size_t voxels = 40 * 61 * 77;

struct Evaluated {
  std::vector<std::uint64_t> sums;
  std::vector<double> degrees;
  std::vector<std::int64_t> marked;

  bool operator==(const Evaluated&) const = default;
};

Evaluated evaluated(const ContactInput& input, int threads) {
  CaseTally tally(raters, 50);
  CaseOverview overview;
  tally.update(input.view, &overview, threads);
  Evaluated result{tally.sums().values(), contact_angles(input, threads).degrees, {}};
  for (const MarkedExtent::Range& range : overview.marked) {
    result.marked.push_back(range.first);
    result.marked.push_back(range.last);
  }
  return result;
}

}  // namespace

int main() {
  return tests::run([] {
    const SampleCase sample(voxels, raters, 1);
    // Three vessels as slabs of three voxels along the last axis.
    std::vector<std::uint8_t> vessels(voxels, 0);
    for (std::size_t i = 0; i < voxels; ++i)
      if (i % 77 % 25 < 3) vessels[i] = static_cast<std::uint8_t>(1 + i % 77 / 26);
    const ContactInput input{
        sample.view(shape), contiguous(vessels.data(), shape), {1, 2, 3}, {0.1, 0.5}};

    const Evaluated serial = evaluated(input, 1);
    check(serial.marked.size() == 6, "the marked extent does not have three axes");
    check(evaluated(input, 4) == serial, "an evaluation depends on the threads");
    tests::from_many_threads(
        [&] { check(evaluated(input, 2) == serial, "concurrent evaluations disagree"); });
  });
}
