// Rounding to float16 without leaving float32 or float64: what storing a value as float16 and
// loading it again gives.
#pragma once

#include <cstdint>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/element.hpp"

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

/// A number whose sum with `x` has float16's spacing at `x` as that of its own last bit, so that
/// the addition rounds.
TWINTRACK_HD float half_shift(float x) {
  return half_scale(x) * 0x1.8p13f;
}
TWINTRACK_HD double half_shift(double x) {
  return half_scale(x) * 0x1.8p42;
}

/// `x` to the nearest float16, ties to even, for |x| < 65520.
template <class Real>
TWINTRACK_HD Real round_to_half(Real x) {
  const Real shift = half_shift(x);
  return (x + shift) - shift;
}

/// The same if all values within `margin` of `x` round to it; else bits of `apart` are set. For
/// margins well below float16's smallest spacing, 2^-24; one of 0 never sets any.
TWINTRACK_HD double round_to_half(double x, double margin, std::uint64_t& apart) {
  const double shift = half_shift(x);
  const double below = (x - margin) + shift;
  const double above = (x + margin) + shift;
  apart |= detail::bits_as<std::uint64_t>(below) ^ detail::bits_as<std::uint64_t>(above);
  return above - shift;
}

}  // namespace twintrack
