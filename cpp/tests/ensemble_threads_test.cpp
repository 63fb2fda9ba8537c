// The score of an ensemble has the same bits for any number of threads and from several callers.
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "check.hpp"
#include "twintrack/calibration/calibration_map.hpp"
#include "twintrack/ensemble/ensemble.hpp"
#include "twintrack/ensemble/fused_export.hpp"

using namespace twintrack;
using twintrack::tests::check;

namespace {

constexpr std::int64_t channels = 3;
const Shape coarse{channels, 17, 21, 33};
const Shape fine{34, 50, 70};

struct Scores {
  std::vector<float> merged;
  std::vector<float> exported;

  bool operator==(const Scores& other) const {
    const auto same = [](const std::vector<float>& a, const std::vector<float>& b) {
      return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
    };
    return same(merged, other.merged) && same(exported, other.exported);
  }
};

Scores scores(const std::vector<ArrayView>& members, int threads) {
  const MergeRule rule{.tumour = {1, 2}};
  const CalibrationMap map({0.0, 0.3, 1.0}, {0.1, 0.2, 0.9});
  const Shape shape(coarse.begin() + 1, coarse.end());
  Scores result{std::vector<float>(static_cast<std::size_t>(element_count(shape))),
                std::vector<float>(static_cast<std::size_t>(element_count(fine)))};
  ensemble_score(members, rule, &map, writable(result.merged.data(), shape), threads);
  export_score(members, std::vector<ExportGrid>(members.size()), rule, &map,
               writable(result.exported.data(), fine), threads);
  return result;
}

}  // namespace

int main() {
  return tests::run([] {
    std::mt19937 random(1);
    std::vector<std::vector<float>> logits(3);
    std::vector<ArrayView> members;
    for (auto& member : logits) {
      for (std::int64_t i = 0; i < element_count(coarse); ++i)
        member.push_back(static_cast<float>(random() >> 8) * 0x1p-20f - 8.0f);
      members.push_back(contiguous(member.data(), coarse));
    }
    const Scores serial = scores(members, 1);
    check(scores(members, 4) == serial, "an ensemble's score depends on the threads");
    tests::from_many_threads(
        [&] { check(scores(members, 2) == serial, "concurrent ensembles disagree"); });
  });
}
