// The sum of float32 values as NumPy has it, to the bit, on all threads.
//
// NumPy adds a contiguous array pairwise: up to 128 values in eight interleaved sums, more as the
// sums of two halves, the first of them a multiple of eight long. Which additions are made follows
// from the length alone, so threads can share them out, and a part that is 0 everywhere need not be
// read: x + 0 is x.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "twintrack/arrays/parallel.hpp"

namespace twintrack {

/// Which blocks of an array hold anything but 0.
class NonzeroBlocks {
 public:
  static constexpr std::int64_t block_values = 1024;

  /// `flags` has one byte for each `block_values` values; with none, every block may be nonzero.
  explicit NonzeroBlocks(const std::vector<std::uint8_t>& flags) {
    if (!flags.empty()) before_.push_back(0);
    for (const std::uint8_t flag : flags) before_.push_back(before_.back() + (flag != 0 ? 1 : 0));
  }

  /// Whether values [first, first + count), count > 0, may hold anything but 0.
  bool any(std::int64_t first, std::int64_t count) const {
    if (before_.empty()) return true;
    const auto block = static_cast<std::size_t>(first / block_values);
    const auto last = static_cast<std::size_t>((first + count - 1) / block_values);
    return before_[block] != before_[last + 1];
  }

 private:
  std::vector<std::int64_t> before_;  // nonzero blocks before each
};

namespace detail {

inline constexpr std::int64_t pairwise_unsplit = 128;                 // NumPy's PW_BLOCKSIZE
inline constexpr std::int64_t pairwise_task = std::int64_t{1} << 16;  // values a thread takes

inline std::int64_t pairwise_half(std::int64_t count) {
  return count / 2 - (count / 2) % 8;
}

inline float pairwise_sum(const float* values, std::int64_t first, std::int64_t count,
                          const NonzeroBlocks& nonzero) {
  if (count == 0 || !nonzero.any(first, count)) return 0;
  if (count > pairwise_unsplit) {
    const std::int64_t half = pairwise_half(count);
    const float left = pairwise_sum(values, first, half, nonzero);
    return left + pairwise_sum(values, first + half, count - half, nonzero);
  }
  const float* v = values + first;
  float total = 0;
  std::int64_t i = 0;
  if (count >= 8) {
    std::array<float, 8> s;
    for (std::size_t j = 0; j < 8; ++j) s[j] = v[j];
    for (i = 8; i + 8 <= count; i += 8)
      for (std::size_t j = 0; j < 8; ++j) s[j] += v[i + static_cast<std::int64_t>(j)];
    total = ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
  }
  for (; i < count; ++i) total += v[i];
  return total;
}

// Calls `leaf(first, count)` for the parts of the tree that are not larger than a task, in order,
// and adds up what it returns.
template <class Leaf>
float pairwise_tree(std::int64_t first, std::int64_t count, Leaf& leaf) {
  if (count <= pairwise_task) return leaf(first, count);
  const std::int64_t half = pairwise_half(count);
  const float left = pairwise_tree(first, half, leaf);
  return left + pairwise_tree(first + half, count - half, leaf);
}

}  // namespace detail

/// `numpy.sum` of `count` contiguous values, none of them -0. O(count), or less where `nonzero`
/// tells of zeros.
inline float numpy_sum(const float* values, std::int64_t count, const NonzeroBlocks& nonzero,
                       int threads = max_threads()) {
  struct Part {
    std::int64_t first, count;
    float sum;
  };
  std::vector<Part> parts;
  const auto list = [&](std::int64_t first, std::int64_t part) {
    parts.push_back({first, part, 0});
    return 0.0f;
  };
  detail::pairwise_tree(0, count, list);
  parallel_tasks(threads, static_cast<std::int64_t>(parts.size()), [&](int, std::int64_t task) {
    Part& part = parts[static_cast<std::size_t>(task)];
    part.sum = detail::pairwise_sum(values, part.first, part.count, nonzero);
  });
  auto next = parts.begin();
  const auto found = [&](std::int64_t, std::int64_t) { return (next++)->sum; };
  return detail::pairwise_tree(0, count, found);
}

}  // namespace twintrack
