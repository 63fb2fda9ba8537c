// Element types of the arrays we are given, and exact conversions between them.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "twintrack/arrays/config.hpp"

namespace twintrack {

/// IEEE 754 binary16 and bfloat16 as their bit patterns.
struct float16 {
  std::uint16_t bits;
};
struct bfloat16 {
  std::uint16_t bits;
};

/// Element types accepted for scores (the floats) and labels (all).
enum class Element : std::uint8_t {
  boolean,
  int8,
  uint8,
  int16,
  uint16,
  int32,
  uint32,
  int64,
  uint64,
  float16,
  bfloat16,
  float32,
  float64,
};

constexpr std::size_t size_of(Element element) {
  switch (element) {
    case Element::boolean:
    case Element::int8:
    case Element::uint8:
      return 1;
    case Element::int16:
    case Element::uint16:
    case Element::float16:
    case Element::bfloat16:
      return 2;
    case Element::int32:
    case Element::uint32:
    case Element::float32:
      return 4;
    case Element::int64:
    case Element::uint64:
    case Element::float64:
      break;
  }
  return 8;
}

namespace detail {
template <class To, class From>
TWINTRACK_HD To bits_as(From from) {
#if defined(__CUDACC__)
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
#else
  return std::bit_cast<To>(from);
#endif
}
}  // namespace detail

/// Exact. Integer arithmetic only, so that flush-to-zero modes have no effect.
TWINTRACK_HD float to_real(float16 h) {
  const std::uint32_t magnitude = h.bits & 0x7fffu;
  const std::uint32_t sign = static_cast<std::uint32_t>(h.bits & 0x8000u) << 16;
  const std::uint32_t normal = (magnitude << 13) + (112u << 23);
  const std::uint32_t special = (magnitude << 13) + (224u << 23);  // infinity and NaN
  // Subnormal: magnitude × 2^-24, built by the exact int-to-float conversion and an exact product.
  const std::uint32_t subnormal = detail::bits_as<std::uint32_t>(
      static_cast<float>(static_cast<std::int32_t>(magnitude)) * 0x1p-24f);
  std::uint32_t bits = magnitude < 0x0400u ? subnormal : normal;
  bits = magnitude >= 0x7c00u ? special : bits;
  return detail::bits_as<float>(bits | sign);
}
TWINTRACK_HD float to_real(bfloat16 b) {
  return detail::bits_as<float>(static_cast<std::uint32_t>(b.bits) << 16);
}
TWINTRACK_HD float to_real(float x) {
  return x;
}
TWINTRACK_HD double to_real(double x) {
  return x;
}

/// Rounds to nearest, ties to even. Defined for 0 <= x <= 1 only, which is all that a map returns.
template <class To, class Real>
TWINTRACK_HD To from_unit(Real x) {
  static_assert(sizeof(To) == sizeof(Real), "only a type's own table maps into it");
  return x;
}
template <>
TWINTRACK_HD float16 from_unit<float16, float>(float x) {
  const std::uint32_t bits = detail::bits_as<std::uint32_t>(x);
  const std::uint32_t normal = (bits - (112u << 23) + 0x0fffu + ((bits >> 13) & 1u)) >> 13;
  // Below 2^-14 a half is a multiple of 2^-24, which is the spacing of floats from 0.5 to 1.
  const std::uint32_t subnormal =
      detail::bits_as<std::uint32_t>(x + 0.5f) - detail::bits_as<std::uint32_t>(0.5f);
  return float16{static_cast<std::uint16_t>(bits < (113u << 23) ? subnormal : normal)};
}
template <>
TWINTRACK_HD bfloat16 from_unit<bfloat16, float>(float x) {
  const std::uint32_t bits = detail::bits_as<std::uint32_t>(x);
  return bfloat16{static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

}  // namespace twintrack
