// Linear and nearest resampling along one axis, in the coordinate convention of nnU-Net's exports.
//
// Voxels are cells: output voxel i of `out` lies at c = (i + 1/2) · in / out - 1/2 on an input axis
// of `in` voxels, and outside the first and last centre the edge value holds. This is the rule of
// skimage's `resize(mode="edge", anti_aliasing=False)` and of torch's `interpolate` without aligned
// corners. A volume is resampled axis by axis, so one table a axis is all there is.
//
// Order of operations, the same wherever this is done: along the output's last axis first, then the
// middle one, then the first, each as `lerp`. SciPy's own order is that of `sum_of_corners`.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/input_error.hpp"

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

/// One axis at one output voxel: lerp(input[low], input[high], weight).
template <class Real>
struct Tap {
  std::int32_t low;
  std::int32_t high;
  Real weight;
};

/// A voxel's value as SciPy's order-1 `zoom` and `map_coordinates` sum it up: over the corners, the
/// input's last axis fastest, each times the weights of axis 0, 1 and 2, all in float64. It differs
/// from `lerp` along one axis after another by rounding: by less than 2^-32 for values of a
/// float16's size.
/// `taps[a]` is of the axis `a` of the output, and `order[i]` the output's axis along which axis i
/// of the input runs; `value(at)` reads the input at `at[a]` along the axes of the output.
template <class Value>
TWINTRACK_HD double sum_of_corners(const Tap<double> (&taps)[3], const int* order,
                                   const Value& value) {
  double sum = 0;
  for (int corner = 0; corner < 8; ++corner) {
    std::int32_t at[3];
    double weight[3];
    bool beyond = false;
    for (int i = 0; i < 3; ++i) {
      const Tap<double>& tap = taps[order[i]];
      const bool high = (corner >> (2 - i) & 1) != 0;
      at[order[i]] = high ? tap.high : tap.low;
      weight[i] = high ? 1.0 - (1.0 - tap.weight) : 1.0 - tap.weight;  // SciPy's: they add up to 1
      beyond |= high && tap.weight == 0;
    }
    if (!beyond) sum += static_cast<double>(value(at)) * weight[0] * weight[1] * weight[2];
  }
  return sum;
}

/// One axis: output i is lerp(input[low[i]], input[high[i]], weight[i]). `high` is low + 1, but
/// equals low where the weight is 0 or the edge value holds: its weight is that of the coordinate
/// outside, as in SciPy, whose sum rounds there too. `low` never decreases.
struct AxisTaps {
  std::int64_t input = 0;  // voxels of the input axis
  bool identity = false;   // output i is input i
  std::vector<std::int32_t> low;
  std::vector<std::int32_t> high;
  std::vector<double> weight;

  std::int64_t output() const { return static_cast<std::int64_t>(low.size()); }
  Tap<double> operator[](std::int64_t i) const {
    const auto at = static_cast<std::size_t>(i);
    return {low[at], high[at], weight[at]};
  }
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
      low = std::floor(centre - half);
      weight = (centre - half) - low;
    } else if (std::is_same_v<Real, float>) {
      low = std::min(std::floor(centre), last);
    } else {
      low = std::floor(std::clamp(centre - half, Real{0}, last) + half);
    }
    const Real high = weight == 0 ? low : low + 1;
    // The last of millions of coordinates can be rounded to beyond the edge, in float32.
    taps.low.push_back(static_cast<std::int32_t>(std::clamp(low, Real{0}, last)));
    taps.high.push_back(static_cast<std::int32_t>(std::min(high, last)));
    taps.weight.push_back(static_cast<double>(weight));
  }
  return taps;
}

}  // namespace detail

/// Binary places of the weights of an axis: 2^places times each is whole. 53 if they need more.
inline int weight_places(const AxisTaps& taps) {
  int places = 0;
  for (const double weight : taps.weight)
    while (places < 53 && std::ldexp(weight, places) != std::floor(std::ldexp(weight, places)))
      ++places;
  return places;
}

/// Throws InputError if an axis is empty or has 2^24 voxels or more.
inline AxisTaps axis_taps(Interpolation interpolation, Coordinates coordinates, std::int64_t input,
                          std::int64_t output) {
  constexpr std::int64_t limit = std::int64_t{1} << 24;
  if (input <= 0 || output <= 0 || input >= limit || output >= limit)
    throw InputError("", "cannot resample an axis of " + std::to_string(input) + " voxels to " +
                             std::to_string(output));
  return coordinates == Coordinates::float64
             ? detail::axis_taps<double>(interpolation, input, output)
             : detail::axis_taps<float>(interpolation, input, output);
}

}  // namespace twintrack
