// What an evaluation sums of a score, as words that kernels add up: ScoreTerms, and its square.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "cuda/arrays/device.cuh"
#include "cuda/metrics/case_tally.hpp"
#include "twintrack/arrays/element.hpp"
#include "twintrack/arrays/fixed_sum.hpp"
#include "twintrack/metrics/evaluation_cells.hpp"

namespace twintrack::cuda {

/// What is summed of one score of type T (ScoreTerms).
struct Terms {
  std::uint32_t doubt;
  std::uint32_t whole;
  std::uint32_t rest;
};

template <class T>
__device__ inline Terms terms_of(double p) {
  using twintrack::detail::bits_as;
  const double q = 1.0 - p;
  const std::uint32_t doubt =
      bits_as<std::uint32_t>(1.0f) - bits_as<std::uint32_t>(static_cast<float>(p < q ? q : p));
  const std::uint32_t whole = p > q ? confidence_one - doubt : doubt;
  // Modulo 2^32 is enough: rest is below that.
  const auto units = static_cast<std::uint32_t>(fixed::units(p));
  return {doubt, whole, units - (whole << ScoreTerms::whole_shift) + ScoreTerms::rest_bias};
}

/// Floats in [1/2, 1] have a spacing of 2^-24, which their bits count.
template <class T>
__device__ inline Terms terms_of(float p) {
  using twintrack::detail::bits_as;
  constexpr bool half = sizeof(T) == 2;
  const float q = 1.0f - p;
  const float confidence = p < q ? q : p;
  const std::uint32_t missing = bits_as<std::uint32_t>(1.0f) - bits_as<std::uint32_t>(confidence);
  Terms terms{missing, p > q ? confidence_one - missing : missing, 0};
  if constexpr (half) {
    // As EvaluationCells rounds.
    constexpr float rounder = std::is_same_v<T, float16> ? 0x1p12f : 0x1p15f;
    const float rounded = (q + rounder) - rounder;
    terms.doubt = bits_as<std::uint32_t>(1.0f) - bits_as<std::uint32_t>(p < rounded ? rounded : p);
  }
  if constexpr (!std::is_same_v<T, float16>) {
    // 1 - q is `whole`, and what p is off from it is exact. Floats about 1.5 2^23 are whole
    // numbers.
    const float off = p - (1.0f - q);
    terms.rest = bits_as<std::uint32_t>(off * 0x1p46f + 0x1.8p23f) -
                 (bits_as<std::uint32_t>(0x1.8p23f) - ScoreTerms::rest_bias);
  }
  return terms;
}

/// p^2 in units of 2^-46. That of a float is exact before it is rounded.
__device__ inline std::uint64_t squared_units(double p) {
  return fixed::units(p * p);
}
__device__ inline std::uint64_t squared_units(float p) {
  const double wide = static_cast<double>(p);
  return twintrack::detail::bits_as<std::uint64_t>(std::fma(wide, wide, 64.0)) -
         twintrack::detail::bits_as<std::uint64_t>(64.0);
}

}  // namespace twintrack::cuda
