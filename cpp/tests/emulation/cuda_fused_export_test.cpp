// The kernels of the fused export write the scores of the CPU, bit for bit.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "case_sample.hpp"
#include "check.hpp"
#include "cuda/calibration/calibration_map.hpp"
#include "cuda/ensemble/fused_export.hpp"
#include "cuda_runtime.h"
#include "emulated_device.hpp"
#include "twintrack/calibration/calibration_map.hpp"
#include "twintrack/ensemble/ensemble.hpp"
#include "twintrack/ensemble/fused_export.hpp"

using namespace twintrack;
using namespace twintrack::tests;

namespace {

enum class Values {
  random,
  equal,       // all channels the same
  background,  // channel 0 far above the others nearly everywhere
  extreme,     // huge, tiny, -0 and subnormal
  ties,        // a few steps of float16 apart: between them lie halves of a step
};
constexpr Values all_values[] = {Values::random, Values::equal, Values::background, Values::extreme,
                                 Values::ties};

void store_logit(Element element, double value, std::byte* to) {
  const float single = static_cast<float>(value);
  const auto bits = detail::bits_as<std::uint32_t>(single);
  if (element == Element::float64) {
    std::memcpy(to, &value, 8);
  } else if (element == Element::float32) {
    std::memcpy(to, &single, 4);
  } else {
    // By 64: from_unit is for numbers up to 1, and 6 more binary places hold their exponent.
    const auto half = static_cast<std::uint16_t>(
        from_unit<float16>(std::min(std::abs(single), 63.0f) / 64).bits + 0x1800u);
    const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000u);
    const auto raw = static_cast<std::uint16_t>(
        element == Element::bfloat16 ? bits >> 16 : static_cast<std::uint32_t>(half | sign));
    std::memcpy(to, &raw, 2);
  }
}

double make_value(Values kind, bool logits, std::int64_t channel, std::mt19937& random) {
  std::uniform_real_distribution<double> unit(0, 1);
  if (!logits) {
    // At most 0.45, so that two tumour channels stay below 1.
    if (kind == Values::equal) return 0.25;
    if (kind == Values::background && unit(random) < 0.95) return 0;
    if (kind == Values::extreme) return std::exp2(-2 - 40 * unit(random));
    if (kind == Values::ties) return 0.25 + static_cast<double>(random() % 64) * 0x1p-12;
    return 0.45 * unit(random);
  }
  switch (kind) {
    case Values::random:
      return 24 * unit(random) - 12;
    case Values::equal:
      return 1.5;
    case Values::background:
      return channel == 0 ? 20 : (unit(random) < 0.95 ? -20 : 20);
    case Values::ties:
      return 8 + static_cast<double>(random() % 64) * 0x1p-7;
    case Values::extreme:
      break;
  }
  const double extremes[] = {0, -0.0, 62, -62, 1e-6, -1e-6, 0.5, 1e-40};
  return extremes[random() % std::size(extremes)];
}

// A member and how it lies: (channels, *spatial) in any order of axes, with gaps.
struct Member {
  Member(Element element, std::int64_t channels, const Shape& spatial, Values kind, bool logits,
         unsigned seed, bool awkward) {
    std::mt19937 random(seed);
    const auto size = static_cast<std::int64_t>(size_of(element));
    view.element = element;
    view.shape = {channels};
    view.shape.insert(view.shape.end(), spatial.begin(), spatial.end());
    view.strides.assign(view.shape.size(), 0);
    std::vector<std::size_t> order(view.shape.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    if (awkward) std::shuffle(order.begin(), order.end(), random);
    std::int64_t stride = awkward ? 2 * size : size;
    for (std::size_t i = order.size(); i-- > 0;) {
      view.strides[order[i]] = stride;
      stride *= view.shape[order[i]];
    }
    memory.resize(static_cast<std::size_t>(stride + size));
    view.data = memory.data() + (awkward ? size : 0);
    Shape index(view.shape.size(), 0);
    for (std::int64_t i = element_count(view.shape); i-- > 0;) {
      store_logit(element, make_value(kind, logits, index[0], random), at(index));
      for (std::size_t axis = index.size(); axis-- > 0;) {
        if (++index[axis] < view.shape[axis]) break;
        index[axis] = 0;
      }
    }
  }
  std::byte* at(const Shape& index) {
    std::byte* p = const_cast<std::byte*>(view.data);
    for (std::size_t axis = 0; axis < index.size(); ++axis) p += index[axis] * view.strides[axis];
    return p;
  }
  std::vector<std::byte> memory;
  ArrayView view;
};

// An output pasted into a larger array, so that writing beside it shows.
struct Output {
  Output(Element element, const Shape& shape, bool pasted)
      : memory(static_cast<std::size_t>(element_count(shape) + 1) * size_of(element) * 8 + 64,
               std::byte{0x5a}) {
    view.element = element;
    view.shape = shape;
    std::int64_t stride = static_cast<std::int64_t>(size_of(element)) * (pasted ? 2 : 1);
    view.strides.assign(shape.size(), 0);
    for (std::size_t axis = shape.size(); axis-- > 0;) {
      view.strides[axis] = stride;
      stride *= shape[axis] + (pasted && axis > 0 ? 1 : 0);
    }
    view.data = memory.data() + (pasted ? 2 * size_of(element) : 0);
  }
  std::vector<std::byte> memory;
  WritableArrayView view;
};

struct Maps {
  twintrack::CalibrationMap cpu{{0.01, 0.3, 0.31, 0.9}, {0.0, 0.2, 0.6, 0.95}};
  cuda::CalibrationMap device{{0.01, 0.3, 0.31, 0.9}, {0.0, 0.2, 0.6, 0.95}};
};

MergeRule make_rule(int kind, std::int64_t channels) {
  MergeRule rule;
  rule.tumour = channels > 2 ? std::vector<std::int64_t>{channels - 1, 1}
                             : std::vector<std::int64_t>{channels - 1};
  rule.logits = kind != 1 && kind != 3;
  rule.regions = kind == 2 || kind == 3;
  rule.mean_of_logits = kind == 4 || kind == 5;
  rule.regions |= kind == 5;
  return rule;
}
constexpr int rules = 6;

constexpr Element floats[] = {Element::float32, Element::float16, Element::bfloat16,
                              Element::float64};
constexpr Element outs[] = {Element::float32, Element::float16, Element::bfloat16};

void exports() {
  Maps maps;
  const char* const devices[] = {"shared=65536,threads=128", "shared=6000",
                                 "shared=800"};  // the last for a few lanes of a warp
  unsigned seed = 0;
  for (const Values kind : all_values)
    for (int rule_kind = 0; rule_kind < rules; ++rule_kind)
      for (const Element element : floats) {
        if (++seed % thinned != 0) continue;
        emulate(devices[seed % 3]);
        const std::int64_t channels = 2 + seed % 4;
        const MergeRule rule = make_rule(rule_kind, channels);
        const Shape out_shape{seed % 5 == 0 ? 35 : 18, 7, 13};
        std::vector<Member> members;
        std::vector<ExportGrid> grids;
        for (unsigned k = 0; k < 1 + seed % 3; ++k) {
          // Finer, coarser and the same as the output.
          const unsigned turn = rule.mean_of_logits ? seed : seed + k;
          const Shape along[] = {{6, 4, 5}, {18, 7, 13}, {23, 3, 19}, out_shape, {1, 1, 1}};
          const Shape& lies = along[turn % 5];
          ExportGrid grid;
          std::shuffle(grid.axes.begin(), grid.axes.end(), std::minstd_rand(seed + k));
          Shape spatial(3);
          for (std::size_t axis = 0; axis < 3; ++axis) {
            spatial[static_cast<std::size_t>(grid.axes[axis])] = lies[axis];
            grid.interpolation[axis] =
                (turn + axis) % 4 == 0 ? Interpolation::nearest : Interpolation::linear;
          }
          grid.coordinates = turn % 2 == 0 ? Coordinates::float64 : Coordinates::float32;
          grid.round_to_input = turn % 3 != 0;
          grids.push_back(grid);
          members.emplace_back(element, channels, spatial, kind, rule.logits, seed * 10 + k,
                               (seed + k) % 3 == 1);
        }
        std::vector<ArrayView> views;
        for (const Member& member : members) views.push_back(member.view);
        const bool mapped = seed % 4 != 3;
        Output expected(outs[seed % 3], out_shape, seed % 2 == 0);
        Output found(outs[seed % 3], out_shape, seed % 2 == 0);
        export_score(views, grids, rule, mapped ? &maps.cpu : nullptr, expected.view, 1);
        cuda::export_score(views, grids, rule, mapped ? &maps.device : nullptr, found.view, 0,
                           stream);
        check(found.memory == expected.memory,
              "exported scores differ, or were written elsewhere: case " + std::to_string(seed) +
                  ", values " + std::to_string(static_cast<int>(kind)) + ", rule " +
                  std::to_string(rule_kind));
      }
}

// Sixths of steps are often halves of a step: what is summed up again there, and in
// which order of the member's axes, shows.
void ties() {
  emulate("shared=65536,threads=64");
  std::vector<std::array<int, 3>> orders;
  std::array<int, 3> order{0, 1, 2};
  do orders.push_back(order);
  while (std::next_permutation(order.begin(), order.end()));
  for (const auto& axes : orders)
    for (const int rule_kind : {0, 1, 4}) {
      const Shape out_shape{18, 15, 21};
      Shape spatial(3);
      for (std::size_t axis = 0; axis < 3; ++axis)
        spatial[static_cast<std::size_t>(axes[axis])] = out_shape[axis] * 2 / 3;
      ExportGrid grid;
      grid.axes = axes;
      grid.round_to_input = true;
      const MergeRule rule = make_rule(rule_kind, 3);
      std::vector<Member> members;
      for (unsigned k = 0; k < 2; ++k)
        members.emplace_back(Element::float16, 3, spatial, Values::ties, rule.logits, k, false);
      const std::vector<ArrayView> views{members[0].view, members[1].view};
      Output expected(Element::float32, out_shape, false);
      Output found(Element::float32, out_shape, false);
      export_score(views, {grid, grid}, rule, nullptr, expected.view, 1);
      cuda::export_score(views, {grid, grid}, rule, nullptr, found.view, 0, stream);
      check(found.memory == expected.memory,
            "scores of ties differ: rule " + std::to_string(rule_kind));
    }
}

void ensembles() {
  Maps maps;
  emulate("shared=65536,threads=64");
  unsigned seed = 0;
  for (const Values kind : all_values)
    for (int rule_kind = 0; rule_kind < rules; ++rule_kind)
      for (const Element element : floats)
        for (const bool awkward : {false, true}) {
          if (++seed % thinned != 0) continue;
          const std::int64_t channels = 2 + seed / 2 % 4;
          const MergeRule rule = make_rule(rule_kind, channels);
          const Shape shapes[] = {{5, 12, 13}, {33}, {8, 0, 3}, {3}, {257}, {2, 4, 3, 4}};
          const Shape& shape = shapes[seed % std::size(shapes)];
          std::vector<Member> members;
          for (unsigned k = 0; k < 1 + seed % 3; ++k)
            members.emplace_back(element, channels, shape, kind, rule.logits, seed * 10 + k,
                                 awkward);
          std::vector<ArrayView> views;
          for (const Member& member : members) views.push_back(member.view);
          const bool mapped = seed % 4 != 3;
          Output expected(outs[seed % 3], shape, awkward && seed % 5 == 0);
          Output found(outs[seed % 3], shape, awkward && seed % 5 == 0);
          ensemble_score(views, rule, mapped ? &maps.cpu : nullptr, expected.view, 1);
          cuda::ensemble_score(views, rule, mapped ? &maps.device : nullptr, found.view, 0, stream);
          check(found.memory == expected.memory,
                "an ensemble's scores differ, or were written elsewhere: case " +
                    std::to_string(seed) + ", values " + std::to_string(static_cast<int>(kind)) +
                    ", rule " + std::to_string(rule_kind));
        }
}

void bad_input_is_named_as_on_the_cpu() {
  emulate("shared=65536");
  const Shape shape{4, 5, 6};
  const std::vector<ExportGrid> grids(2);
  for (const bool awkward : {false, true})
    for (const bool probabilities : {false, true}) {
      MergeRule rule = make_rule(probabilities ? 1 : 0, 3);
      std::vector<Member> members;
      for (unsigned k = 0; k < 2; ++k)
        members.emplace_back(Element::float32, 3, shape, Values::random, !probabilities, k,
                             awkward);
      const auto same_message = [&](const std::string& begin) {
        const std::vector<ArrayView> views{members[0].view, members[1].view};
        Output out(Element::float32, shape, false);
        Output finer(Element::float32, {9, 5, 11}, false);
        const std::string expected =
            message_of([&] { ensemble_score(views, rule, nullptr, out.view, 1); });
        check(expected.find(begin) == 0, "the CPU says: " + expected);
        const std::string found =
            message_of([&] { cuda::ensemble_score(views, rule, nullptr, out.view, 0, stream); });
        check(found == expected, "the device says: " + found + ", the CPU: " + expected);
        const std::string exported = message_of(
            [&] { cuda::export_score(views, grids, rule, nullptr, finer.view, 0, stream); });
        check(exported == expected, "an export says: " + exported + ", the CPU: " + expected);
      };
      const auto put = [&](std::size_t k, const Shape& index, float value) {
        std::memcpy(members[k].at(index), &value, 4);
      };
      if (probabilities) {
        put(1, {1, 3, 4, 5}, 0.9f);
        put(1, {2, 3, 4, 5}, 0.9f);
        same_message("members[1][3, 4, 5] has tumour channels that add up to 1.79");
        put(1, {2, 0, 0, 1}, -0.5f);
        same_message("members[1][2, 0, 0, 1] is -0.5; probabilities must be in [0, 1]");
        put(0, {1, 2, 2, 2}, 1.5f);
        same_message("members[0][1, 2, 2, 2] is 1.5; probabilities must be in [0, 1]");
      } else {
        put(1, {2, 3, 4, 5}, -0x1p100f);
        same_message("members[1][2, 3, 4, 5] is -1.26765");
        put(1, {0, 3, 4, 5}, INFINITY);
        same_message("members[1][0, 3, 4, 5] is inf; logits must be finite");
        put(0, {2, 0, 0, 0}, std::nanf(""));
        same_message("members[0][2, 0, 0, 0] is nan; logits must be finite");
      }
    }
  // What does not fit together is refused by the same checks.
  Member member(Element::float32, 3, shape, Values::random, true, 1, false);
  Output out(Element::float32, {4, 5}, false);
  check(message_of([&] {
          cuda::ensemble_score({member.view}, make_rule(0, 3), nullptr, out.view, 0, stream);
        }).find("members[0] has shape [3, 4, 5, 6]") == 0,
        "shapes that do not fit are not reported");
}

void devices_and_memory() {
  emulate("devices=2");
  Member member(Element::float16, 3, {4, 5, 6}, Values::random, true, 1, false);
  Output out(Element::float32, {9, 9, 9}, false);
  cuda::export_score({member.view}, {ExportGrid{}}, make_rule(0, 3), nullptr, out.view, 1, stream);
  check(emulation::last_launch().device == 1, "the kernel ran on another device");
  check(emulation::last_launch().stream == stream, "the kernel ran on another stream");
  int current = -1;
  cudaGetDevice(&current);
  check(current == 0, "the current device was changed");
  check(emulation::live_allocations() == 0, "device memory was not given back");
  emulate("memory=300");
  check(message_of([&] {
          cuda::export_score({member.view}, {ExportGrid{}}, make_rule(0, 3), nullptr, out.view, 0,
                             stream);
        }).find("CUDA device 0 has no ") == 0,
        "too little memory is not reported");
}

}  // namespace

int main() {
  return tests::run([] {
    exports();
    ties();
    ensembles();
    bad_input_is_named_as_on_the_cpu();
    devices_and_memory();
  });
}
