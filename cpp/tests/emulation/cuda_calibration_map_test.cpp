// The kernels of CalibrationMap give the results of the CPU, bit for bit.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "case_sample.hpp"
#include "check.hpp"
#include "cuda/calibration/calibration_map.hpp"
#include "cuda_runtime.h"
#include "emulated_device.hpp"
#include "twintrack/calibration/calibration_map.hpp"

using namespace twintrack;
using namespace twintrack::tests;

namespace {

struct Knots {
  std::vector<double> x;
  std::vector<double> y;
};

Knots random_knots(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> unit(0, 1);
  Knots knots;
  for (std::size_t i = 0; i < count; ++i) {
    const double d = std::exp2(-30 * unit(random));
    const double where = unit(random);  // a third crowds at 0 and 1, a third around 1/3
    if (where < 1.0 / 3)
      knots.x.push_back(unit(random));
    else if (where < 2.0 / 3)
      knots.x.push_back(unit(random) < 0.5 ? d : 1 - d);
    else
      knots.x.push_back(1.0 / 3 + (unit(random) < 0.5 ? d : -d) / 3);
    knots.y.push_back(unit(random));
  }
  std::sort(knots.x.begin(), knots.x.end());
  std::sort(knots.y.begin(), knots.y.end());
  knots.x.erase(std::unique(knots.x.begin(), knots.x.end()), knots.x.end());
  knots.y.resize(knots.x.size());
  return knots;
}

// Memory laid out as the score's, filled with a pattern.
std::vector<std::byte> room_like(const CaseSample& sample) {
  return std::vector<std::byte>(sample.arrays[0].memory.size(), std::byte{0x5a});
}

WritableArrayView view_in(std::vector<std::byte>& memory, const CaseSample& sample) {
  WritableArrayView view{sample.arrays[0].view};
  view.data = memory.data() + (view.data - sample.arrays[0].memory.data());
  return view;
}

void compare(const Knots& knots, const CaseSample& sample, const std::string& what) {
  const twintrack::CalibrationMap map(knots.x, knots.y);
  std::vector<std::byte> expected = room_like(sample);
  map.apply(sample.view().score, view_in(expected, sample), 1);
  cuda::CalibrationMap device_map(knots.x, knots.y);
  std::vector<std::byte> found = room_like(sample);
  device_map.apply(sample.view().score, view_in(found, sample), 0, stream);
  check(found == expected, "mapped scores differ, or were written elsewhere: " + what);
  // In place.
  std::vector<std::byte> same = sample.arrays[0].memory;
  const WritableArrayView own = view_in(same, sample);
  device_map.apply(own, own, 0, stream);
  const twintrack::CalibrationMap again(knots.x, knots.y);
  std::vector<std::byte> same_expected = sample.arrays[0].memory;
  const WritableArrayView own_expected = view_in(same_expected, sample);
  again.apply(own_expected, own_expected, 1);
  check(same == same_expected, "mapped in place, scores differ: " + what);
}

void every_type_and_map() {
  // 180 KB of shared memory hold the tables of most of these maps, 33 KB those of 16 bits and of
  // few knots.
  for (const char* device : {"shared=184320", "shared=33000"}) {
    emulate(device);
    unsigned seed = 0;
    for (const std::size_t knots : {1, 2, 17, 250, 3000}) {
      for (const Element element :
           {Element::float32, Element::float64, Element::float16, Element::bfloat16}) {
        const Scores kind = all_scores[seed % std::size(all_scores)];
        ++seed;
        const CaseSample sample(3, 1001, 0, false, kind, seed, {.score = element});
        compare(random_knots(knots, seed), sample,
                std::to_string(knots) + " knots, element " +
                    std::to_string(static_cast<int>(element)) + ", " + device);
      }
    }
  }
}

void every_lie_and_size() {
  emulate("shared=184320");
  unsigned seed = 0;
  for (const Element element :
       {Element::float32, Element::float64, Element::float16, Element::bfloat16}) {
    for (const std::int64_t voxels : {1, 2, 7, 8, 9, 255, 256, 257, 1025}) {
      const CaseSample sample(1, voxels, 0, false, Scores::uniform, ++seed, {.score = element});
      compare(random_knots(20, seed), sample, std::to_string(voxels) + " voxels");
    }
    for (const Lie lie : {Lie{.score = element, .offset = 1}, Lie{.score = element, .spread = 3}}) {
      const CaseSample sample(11, 29, 0, false, Scores::uniform, ++seed, lie);
      compare(random_knots(20, seed), sample,
              "offset " + std::to_string(lie.offset) + ", spread " + std::to_string(lie.spread));
    }
  }
  // From one memory order to another.
  const CaseSample sample(11, 29, 0, false, Scores::uniform, ++seed);
  const Knots knots = random_knots(20, seed);
  const auto transposed = [&](const auto& apply) {
    std::vector<std::byte> memory(11 * 29 * 4);
    WritableArrayView out{sample.view().score};
    out.data = memory.data();
    out.strides = {4, 44};
    apply(out);
    return memory;
  };
  const twintrack::CalibrationMap map(knots.x, knots.y);
  cuda::CalibrationMap device_map(knots.x, knots.y);
  check(transposed([&](const auto& out) { map.apply(sample.view().score, out, 1); }) ==
            transposed(
                [&](const auto& out) { device_map.apply(sample.view().score, out, 0, stream); }),
        "a transposed result differs");
  const CaseSample empty(0, 5, 0, false, Scores::uniform, 1);
  std::vector<std::byte> nothing;
  device_map.apply(empty.view().score, view_in(nothing, empty), 0, stream);
}

void knots_however_close() {
  emulate("shared=184320");
  Knots knots;
  std::vector<double> scores;
  for (const double place : {0.0, 1e-310, 0x1p-1022, 1e-300, 1e-40, 0.25, 1 - 0x1p-50, 1.0}) {
    double x = place;
    for (int i = 0; i < 8 && x <= 1; ++i, x = std::nextafter(x, 2)) {
      if (i < 4) knots.x.push_back(x);
      scores.push_back(x);
    }
  }
  for (std::size_t i = 0; i < knots.x.size(); ++i)
    knots.y.push_back(static_cast<double>(i) / static_cast<double>(knots.x.size()));
  for (const Element element :
       {Element::float32, Element::float64, Element::float16, Element::bfloat16}) {
    const auto voxels = static_cast<std::int64_t>(scores.size());
    CaseSample sample(1, voxels, 0, false, Scores::uniform, 1, {.score = element});
    for (std::int64_t i = 0; i < voxels; ++i)
      store_score(element, scores[static_cast<std::size_t>(i)], sample.at(0, 0, i));
    compare(knots, sample, "close knots, element " + std::to_string(static_cast<int>(element)));
  }
}

void invalid_scores_are_named() {
  emulate("shared=184320");
  for (const Element element :
       {Element::float32, Element::float64, Element::float16, Element::bfloat16}) {
    for (const std::size_t offset : {0, 1}) {
      CaseSample sample(9, 333, 0, false, Scores::uniform, 6, {.score = element, .offset = offset});
      cuda::CalibrationMap map({0.25, 0.5}, {0, 1});
      for (const auto& [row, column] : {std::pair{7, 1}, {4, 332}, {4, 5}}) {
        std::byte* bad = sample.at(0, row, column);
        std::memset(bad, 0xff, size_of(element));  // NaN in each type
        std::vector<std::byte> before = sample.arrays[0].memory;
        std::string said = "nothing was thrown";
        try {
          map.apply(sample.view().score, WritableArrayView{sample.view().score}, 0, stream);
        } catch (const InputError& error) {
          said = error.what();
        }
        const std::string where = "[" + std::to_string(row) + ", " + std::to_string(column) + "]";
        check(said.find("score" + where + " is ") == 0, where + " is reported as: " + said);
        check(sample.arrays[0].memory == before, "refused scores were overwritten");
      }
    }
  }
}

void devices_and_memory() {
  emulate("devices=2,shared=184320");
  const CaseSample sample(1, 500, 0, false, Scores::uniform, 1);
  {
    cuda::CalibrationMap map({0.25, 0.5}, {0, 1});
    std::vector<std::byte> out = room_like(sample);
    for (const int device : {0, 1, 0}) {
      map.apply(sample.view().score, view_in(out, sample), device, stream);
      check(emulation::last_launch().device == device, "the kernel ran on another device");
      check(emulation::last_launch().stream == stream, "the kernel ran on another stream");
      int current = -1;
      cudaGetDevice(&current);
      check(current == 0, "the current device was changed");
    }
    check(emulation::live_allocations() == 4, "tables are not kept, once for each device");
  }
  check(emulation::live_allocations() == 0, "device memory was not given back");
}

}  // namespace

int main() {
  return tests::run([] {
    every_type_and_map();
    every_lie_and_size();
    knots_however_close();
    invalid_scores_are_named();
    devices_and_memory();
  });
}
