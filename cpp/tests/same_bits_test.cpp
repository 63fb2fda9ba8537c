// Every processor computes the same bits: digests of what the hot loops give for seeded inputs, as
// they are on x86-64 with any instruction set and on AArch64. A digest that changes on one of them
// is an error; one that changes on all of them says that results differ from those of before.
#include <bit>
#include <cstddef>
#include <cstdint>
#include <random>
#include <sstream>
#include <string>
#include <type_traits>
#include <vector>

#include "check.hpp"
#include "twintrack/arrays/contiguous.hpp"
#include "twintrack/calibration/calibration_map.hpp"
#include "twintrack/calibration/map_fit.hpp"
#include "twintrack/ensemble/ensemble.hpp"
#include "twintrack/ensemble/fused_export.hpp"
#include "twintrack/metrics/case_tally.hpp"
#include "twintrack/metrics/contact_angle.hpp"

using namespace twintrack;
using twintrack::tests::check;
using twintrack::tests::SampleCase;

namespace {

const Shape shape{40, 61, 77};
constexpr std::size_t voxels = 40 * 61 * 77;
constexpr std::size_t raters = 5;

// FNV-1a over the values' bytes, lowest first.
template <class T>
std::string digest(const std::vector<T>& values) {
  using Bits = std::conditional_t<
      sizeof(T) == 8, std::uint64_t,
      std::conditional_t<sizeof(T) == 4, std::uint32_t,
                         std::conditional_t<sizeof(T) == 2, std::uint16_t, std::uint8_t>>>;
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const T& value : values) {
    const std::uint64_t bits = std::bit_cast<Bits>(value);
    for (std::size_t byte = 0; byte < sizeof(T); ++byte)
      hash = (hash ^ (bits >> (8 * byte) & 0xff)) * 0x100000001b3u;
  }
  std::ostringstream text;
  text << std::hex << hash;
  return text.str();
}

void expect(const std::string& name, const std::string& found, const std::string& expected) {
  check(found == expected, name + " has the digest " + found + ", not " + expected);
}

template <class T>
std::vector<T> converted(const std::vector<float>& values) {
  std::vector<T> result;
  for (const float value : values) {
    if constexpr (sizeof(T) == 2)
      result.push_back(from_unit<T>(value));
    else
      result.push_back(static_cast<T>(value));
  }
  return result;
}

template <class T>
std::vector<T> mapped(const CalibrationMap& map, const std::vector<T>& score) {
  std::vector<T> out(score.size());
  map.apply(contiguous(score.data(), shape), writable(out.data(), shape));
  return out;
}

void fitting_and_mapping() {
  const SampleCase sample(voxels, raters, 1);
  ScoreTally tally(raters);
  tally.update(sample.view());
  expect("tally", digest(tally.sums().dense()), "ed07814592643182");
  const CalibrationMap map = fit_map(tally, 100);
  expect("knots", digest(map.x()) + " " + digest(map.y()), "8fcd006e70996ca5 905ddfee454c5de6");
  expect("hard", digest(fit_map(tally, 100, Target::hard).y()), "795ca7a2bbbc2251");
  expect("float16", digest(mapped(map, converted<float16>(sample.score))), "d858590108bb2d40");
  expect("bfloat16", digest(mapped(map, converted<bfloat16>(sample.score))), "8d89935aac10588d");
  expect("float32", digest(mapped(map, sample.score)), "b55378cbef529923");
  expect("float64", digest(mapped(map, converted<double>(sample.score))), "6671bb7a29669a4a");
}

void evaluating() {
  const SampleCase sample(voxels, raters, 2);
  CaseTally tally(raters, 50);
  tally.update(sample.view(shape), nullptr);
  expect("case tally", digest(tally.sums().values()), "cd4836fd3eb785eb");
  // Vessels as slabs of three voxels along the last axis.
  std::vector<std::uint8_t> vessels(voxels, 0);
  for (std::size_t i = 0; i < voxels; ++i)
    if (i % 77 % 25 < 3) vessels[i] = static_cast<std::uint8_t>(1 + i % 77 / 26);
  const ContactInput input{
      sample.view(shape), contiguous(vessels.data(), shape), {1, 2, 3}, {0.1, 0.5}};
  expect("contact", digest(contact_angles(input).degrees), "a3b76b518dadb1f9");
}

template <class T>
std::string exported(const MergeRule& rule) {
  const Shape coarse{3, 17, 21, 33};
  const Shape grid(coarse.begin() + 1, coarse.end());
  const Shape fine{34, 50, 70};
  std::mt19937 random(3);
  std::vector<std::vector<T>> logits(3);
  std::vector<ArrayView> members;
  for (auto& member : logits) {
    for (std::int64_t i = 0; i < element_count(coarse); ++i) {
      const auto bits = static_cast<std::uint32_t>(random());
      if constexpr (std::is_same_v<T, float16>)  // either sign, from 1 to 16
        member.push_back({static_cast<std::uint16_t>(0x3c00 + (bits & 0x8fff))});
      else
        member.push_back(static_cast<float>(bits >> 8) * 0x1p-20f - 8.0f);
    }
    members.push_back(contiguous(member.data(), coarse));
  }
  const CalibrationMap map({0.0, 0.3, 1.0}, {0.1, 0.2, 0.9});
  std::vector<float> merged(static_cast<std::size_t>(element_count(grid)));
  std::vector<float> resampled(static_cast<std::size_t>(element_count(fine)));
  ensemble_score(members, rule, &map, writable(merged.data(), grid));
  export_score(members, std::vector<ExportGrid>(members.size()), rule, &map,
               writable(resampled.data(), fine));
  return digest(merged) + " " + digest(resampled);
}

void exporting() {
  expect("softmax", exported<float>({.tumour = {1, 2}}), "76055aa79b0bc38e e2deb4b1fa1b3e8f");
  expect("softmax of float16", exported<float16>({.tumour = {1, 2}}),
         "c4517f06150ebfac 285c98b11a020d94");
  expect("mean of logits", exported<float>({.tumour = {1}, .mean_of_logits = true}),
         "ee01348139ac0ad3 8dedb27f6d7e0baf");
  expect("regions", exported<float16>({.tumour = {0, 2}, .regions = true}),
         "a61c52d1ee72e551 fb72f88866a5a638");
}

}  // namespace

int main() {
  return tests::run([] {
    fitting_and_mapping();
    evaluating();
    exporting();
  });
}
