// The little that the tests of the core need: a check that throws, and cases to run on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <iostream>
#include <mutex>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "twintrack/arrays/contiguous.hpp"
#include "twintrack/arrays/voxel_blocks.hpp"

namespace twintrack::tests {

/// Throws unless `holds`; `what` says what then does not.
inline void check(bool holds, const std::string& what) {
  if (!holds) throw std::logic_error(what);
}

/// What `call()` throws.
inline std::string message_of(const auto& call) {
  try {
    call();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "nothing was thrown";
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

/// Calls `work()` from several threads at once and rethrows the first failure.
template <class Work>
void from_many_threads(Work&& work) {
  std::exception_ptr failure;
  std::mutex guard;
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller)
    callers.emplace_back([&] {
      try {
        work();
      } catch (...) {
        const std::lock_guard<std::mutex> lock(guard);
        if (!failure) failure = std::current_exception();
      }
    });
  for (std::thread& caller : callers) caller.join();
  if (failure) std::rethrow_exception(failure);
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

  /// The arrays in C order, in one dimension unless a shape of as many voxels is given.
  CaseView view(Shape shape = {}) const {
    if (shape.empty()) shape = {static_cast<std::int64_t>(score.size())};
    CaseView made;
    made.score = contiguous(score.data(), shape);
    for (const auto& label : labels) made.raters.push_back(contiguous(label.data(), shape));
    return made;
  }

  std::vector<float> score;
  std::vector<std::vector<std::uint8_t>> labels;
};

}  // namespace twintrack::tests
