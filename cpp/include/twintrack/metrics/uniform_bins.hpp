// Uniform bins of [0, 1] with float32 edges, as the benchmark's evaluator makes them.
//
// The B + 1 edges are those of `torch.linspace(0, 1, B + 1)`: with step = fl(1/B), edge k is
// fl(k step) in the lower half and fl(1 - (B - k) step), rounded once, from k = (B + 1) / 2 on. A
// value lies in the bin numbered (edges <= value) - 1: bins are closed below and open above, and 1
// has a bin B of its own after the last. Here edges are computed where they are needed, with the
// same bits as a table of them would hold, so that a loop over voxels has nothing to look up.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/element.hpp"
#include "twintrack/arrays/input_error.hpp"

namespace twintrack {

class UniformBins {
 public:
  static constexpr int most = 1000;

  explicit UniformBins(int bins) : count_(bins) {
    if (bins < 1 || bins > most)
      throw InputError("bins",
                       "is " + std::to_string(bins) + "; it must be 1 to " + std::to_string(most));
    real_count_ = static_cast<float>(bins);
    half_ = (bins + 1) / 2;
    step_ = 1.0f / real_count_;
    // step = coarse + fine, where the products of both with integers up to `most` are exact.
    coarse_ = detail::bits_as<float>(detail::bits_as<std::uint32_t>(step_) & ~0x3ffu);
    fine_ = step_ - coarse_;
  }

  TWINTRACK_HD int count() const { return count_; }

  /// Bin of `value`, 0 <= value <= 1; -0 counts as 0.
  TWINTRACK_HD int bin(float value) const {
    const int nearest = nearest_edge(value);
    // Chosen by a mask: a conditional expression would become a branch and keep loops scalar.
    const std::uint32_t lower = nearest < half_ ? ~std::uint32_t{0} : 0;
    const std::uint32_t edge = (detail::bits_as<std::uint32_t>(lower_edge(nearest)) & lower) |
                               (detail::bits_as<std::uint32_t>(upper_edge(nearest)) & ~lower);
    return nearest - (value < detail::bits_as<float>(edge) ? 1 : 0);
  }

  /// The same for 1/2 <= value <= 1, a little quicker.
  TWINTRACK_HD int upper_bin(float value) const {
    const int nearest = nearest_edge(value);
    return nearest - (value < upper_edge(nearest) ? 1 : 0);
  }

  /// Lowest bin that upper_bin can return.
  TWINTRACK_HD int lowest_upper_bin() const { return half_ - 1; }

  std::vector<float> edges() const {
    std::vector<float> edges;
    for (int k = 0; k <= count_; ++k) edges.push_back(k < half_ ? lower_edge(k) : upper_edge(k));
    return edges;
  }

 private:
  // Off by rounding at most, which is far less than the half bin that would matter.
  TWINTRACK_HD int nearest_edge(float value) const {
    return static_cast<int>(value * real_count_ + 0.5f);
  }

  TWINTRACK_HD float lower_edge(int k) const { return step_ * static_cast<float>(k); }

  // The only rounding is the last subtraction: 1 - (B - k) step rounded once.
  TWINTRACK_HD float upper_edge(int k) const {
    const float steps = static_cast<float>(count_ - k);
    return (1.0f - steps * coarse_) - steps * fine_;
  }

  int count_;
  int half_;
  float real_count_;
  float step_;
  float coarse_;
  float fine_;
};

}  // namespace twintrack
