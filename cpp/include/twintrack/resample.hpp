// Linear and nearest resampling along one axis, in the coordinate convention of nnU-Net's exports.
//
// Voxels are cells: output voxel i of `out` lies at c = (i + 1/2) · in / out - 1/2 on an input axis
// of `in` voxels, and outside the first and last centre the edge value holds. This is the rule of
// skimage's `resize(mode="edge", anti_aliasing=False)` and of torch's `interpolate` without aligned
// corners. A volume is resampled axis by axis, so one table a axis is all there is.
//
// Order of operations, the same wherever this is done: along the last axis first, then the middle
// one, then the first, each as `lerp`.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "twintrack/config.hpp"
#include "twintrack/element.hpp"

namespace twintrack {

enum class Interpolation { linear, nearest };

/// Which implementation's rounding of coordinates to follow. They differ where a coordinate falls
/// on a half (nearest) and otherwise by float32's rounding.
enum class Coordinates {
  float64,  // SciPy's: nearest is floor(c + 1/2)
  float32,  // torch's: nearest is "nearest-exact", floor((i + 1/2) · in / out)
};

template <class Real>
TWINTRACK_HD Real lerp(Real a, Real b, Real weight) {
  return a + weight * (b - a);
}

/// `x` to float16's 11 significant bits, ties to even: what storing it as float16 and loading it
/// again gives for 2^-14 <= |x| < 65520. Smaller values keep all 11 bits, at most 2^-25 away.
TWINTRACK_HD float round_to_half(float x) {
  const std::uint32_t bits = detail::bits_as<std::uint32_t>(x);
  return detail::bits_as<float>((bits + 0x0fffu + ((bits >> 13) & 1u)) & ~0x1fffu);
}
TWINTRACK_HD float round_to_half(double x) {
  const std::uint64_t bits = detail::bits_as<std::uint64_t>(x);
  constexpr std::uint64_t below = (std::uint64_t{1} << 42) - 1;
  const std::uint64_t rounded = (bits + (below >> 1) + ((bits >> 42) & 1u)) & ~below;
  return static_cast<float>(detail::bits_as<double>(rounded));
}

/// One axis: output i is lerp(input[low[i]], input[high[i]], weight[i]). Where the weight is 0,
/// high equals low; otherwise it is low + 1. `low` never decreases.
struct AxisTaps {
  std::int64_t input = 0;  // voxels of the input axis
  bool identity = false;   // output i is input i
  std::vector<std::int32_t> low;
  std::vector<std::int32_t> high;
  std::vector<double> weight;

  std::int64_t output() const { return static_cast<std::int64_t>(low.size()); }
};

namespace detail {

template <class Real>
AxisTaps axis_taps(Interpolation interpolation, std::int64_t input, std::int64_t output) {
  AxisTaps taps;
  taps.input = input;
  taps.identity = input == output;
  const Real scale = static_cast<Real>(input) / static_cast<Real>(output);
  const Real last = static_cast<Real>(input - 1);
  const Real half = static_cast<Real>(0.5);
  for (std::int64_t i = 0; i < output; ++i) {
    const Real centre = scale * (static_cast<Real>(i) + half);
    Real low;
    Real weight = 0;
    if (interpolation == Interpolation::linear) {
      const Real at = std::clamp(centre - half, Real{0}, last);
      low = std::floor(at);
      weight = at - low;
    } else if (std::is_same_v<Real, float>) {
      low = std::min(std::floor(centre), last);
    } else {
      low = std::floor(std::clamp(centre - half, Real{0}, last) + half);
    }
    const auto first = static_cast<std::int32_t>(low);
    taps.low.push_back(first);
    taps.weight.push_back(static_cast<double>(weight));
    taps.high.push_back(taps.weight.back() == 0 ? first : first + 1);
  }
  return taps;
}

}  // namespace detail

/// Throws std::invalid_argument if an axis is empty or has 2^24 voxels or more.
inline AxisTaps axis_taps(Interpolation interpolation, Coordinates coordinates, std::int64_t input,
                          std::int64_t output) {
  constexpr std::int64_t limit = std::int64_t{1} << 24;
  if (input <= 0 || output <= 0 || input >= limit || output >= limit)
    throw std::invalid_argument("cannot resample an axis of " + std::to_string(input) +
                                " voxels to " + std::to_string(output));
  return coordinates == Coordinates::float64
             ? detail::axis_taps<double>(interpolation, input, output)
             : detail::axis_taps<float>(interpolation, input, output);
}

}  // namespace twintrack
