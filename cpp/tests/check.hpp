// The little that the tests of the core need: a check that throws, and cases to run on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iostream>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "twintrack/voxel_blocks.hpp"

namespace twintrack::tests {

/// Throws unless `holds`; `what` says what then does not.
inline void check(bool holds, const std::string& what) {
  if (!holds) throw std::logic_error(what);
}

/// Runs a program's checks and says which one failed; the result is main's.
template <class Checks>
int run(Checks&& checks) {
  try {
    checks();
    return 0;
  } catch (const std::exception& failure) {
    std::cerr << failure.what() << '\n';
    return 1;
  }
}

/// A seeded case that owns its arrays: float32 scores, half of them 0, and `raters` masks.
struct SampleCase {
  SampleCase(std::size_t voxels, std::size_t raters, unsigned seed)
      : score(voxels), labels(raters, std::vector<std::uint8_t>(voxels)) {
    std::mt19937 random(seed);
    const auto unit = [&] { return static_cast<float>(random() >> 8) * 0x1p-24f; };
    for (std::size_t i = 0; i < voxels; ++i) {
      score[i] = (random() & 1u) != 0 ? unit() : 0.0f;
      for (auto& label : labels) label[i] = unit() < score[i] ? 1 : 0;
    }
  }

  CaseView view() const {
    const Shape shape{static_cast<std::int64_t>(score.size())};
    CaseView made;
    made.score = {reinterpret_cast<const std::byte*>(score.data()), Element::float32, shape, {4}};
    for (const auto& label : labels)
      made.raters.push_back(
          {reinterpret_cast<const std::byte*>(label.data()), Element::uint8, shape, {1}});
    return made;
  }

  std::vector<float> score;
  std::vector<std::vector<std::uint8_t>> labels;
};

}  // namespace twintrack::tests
