// Rounding to float16 without leaving float32 or float64: what storing a value as float16 and
// loading it again gives.
#pragma once

#include <cstdint>

#include "twintrack/config.hpp"
#include "twintrack/element.hpp"

namespace twintrack {

/// The power of two at or below |x|, at least 2^-14: float16 has a spacing of 2^-10 of it there.
TWINTRACK_HD float half_scale(float x) {
  const float scale = detail::bits_as<float>(detail::bits_as<std::uint32_t>(x) & 0x7f800000u);
  return scale > 0x1p-14f ? scale : 0x1p-14f;
}
TWINTRACK_HD double half_scale(double x) {
  const double scale =
      detail::bits_as<double>(detail::bits_as<std::uint64_t>(x) & (0x7ffull << 52));
  return scale > 0x1p-14 ? scale : 0x1p-14;
}

/// `x` to the nearest float16, ties to even, for |x| < 65520. The sum with 3 · 2^k has float16's
/// spacing at `x` as that of its own last bit.
TWINTRACK_HD float round_to_half(float x) {
  const float shift = half_scale(x) * 0x1.8p13f;
  return (x + shift) - shift;
}
TWINTRACK_HD double round_to_half(double x) {
  const double shift = half_scale(x) * 0x1.8p42;
  return (x + shift) - shift;
}

/// Whether a value within `margin` of `x` may round to another float16 than `half`, which is that
/// of `x`. For margins well below float16's spacing, 2^-24 at least; never for a margin of 0.
TWINTRACK_HD bool near_half_tie(double x, double half, double margin) {
  const double distance = x > half ? x - half : half - x;
  return distance > half_scale(x) * 0x1p-11 - margin;
}

}  // namespace twintrack
