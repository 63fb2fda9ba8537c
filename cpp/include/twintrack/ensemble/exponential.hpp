// exp and the logistic function for softmax, with the same bits on every instruction set and
// device.
//
// float32 additions, multiplications and integer operations only, none of them contracted, so the
// result does not depend on a library's exp. Checked against double over every float32 argument:
//
//     exp_nonpositive   at most 0.99 units in the last place from exp(x) for -87 <= x <= 0
//     logistic          at most 2.41 units in the last place from 1 / (1 + exp(-x))
//
// Below -87 both would leave the normal range of float32 (2^-126): they return exactly 0 there.
#pragma once

#include <cstdint>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/element.hpp"

namespace twintrack {

/// exp(x) for x <= 0; not for NaN. At most 1, never negative, exactly 1 at 0.
TWINTRACK_HD float exp_nonpositive(float x) {
  // n = x / ln 2 to the nearest integer: adding 1.5 · 2^23 leaves it in the low bits.
  const float shifted = x * 0x1.715476p+0f + 0x1.8p+23f;
  const float n = shifted - 0x1.8p+23f;
  // r = x - n ln 2, |r| <= ln 2 / 2; n times the first part of ln 2, which has 9 bits, is exact.
  const float r = (x - n * 0x1.63p-1f) - n * -0x1.bd0106p-13f;
  // exp(r) = 1 + r + r² q(r), relative error 4e-9 before rounding.
  float q = 0x1.6a23d0p-10f;
  q = q * r + 0x1.123a20p-7f;
  q = q * r + 0x1.5558f2p-5f;
  q = q * r + 0x1.555492p-3f;
  q = q * r + 0x1.fffffcp-2f;
  const float scaled = (q * (r * r) + r) + 1.0f;
  // Times 2^n, on the exponent.
  const std::uint32_t bits =
      detail::bits_as<std::uint32_t>(scaled) + (detail::bits_as<std::uint32_t>(shifted) << 23);
  // As unsigned integers negative numbers are ordered by magnitude, above all positive ones.
  const bool vanishes = detail::bits_as<std::uint32_t>(x) > detail::bits_as<std::uint32_t>(-87.0f);
  return detail::bits_as<float>(vanishes ? 0u : bits);
}

/// 1 / (1 + exp(-x)), without cancellation at either end; not for NaN. In [0, 1].
TWINTRACK_HD float logistic(float x) {
  const std::uint32_t bits = detail::bits_as<std::uint32_t>(x);
  const float e = exp_nonpositive(detail::bits_as<float>(bits | 0x80000000u));
  const float one = 1.0f;
  const float numerator = (bits >> 31) != 0 ? e : one;
  return numerator / (one + e);
}

}  // namespace twintrack
