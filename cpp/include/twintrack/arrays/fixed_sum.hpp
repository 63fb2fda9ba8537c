// Sums of probabilities that do not depend on the order of their terms.
//
// A term in [0, 1] is rounded to the nearest multiple of 2^-46, ties to even, and summed as an
// integer. Every float16, and every float32 of at least 2^-23, is such a multiple; otherwise a term
// is off by at most 2^-47: a sum of 10^9 of them by 7e-6. A sum is kept as its whole part and its
// fraction, 64 bits each, so there are no overflows to think of: its capacity is 2^64.
#pragma once

#include <cstdint>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/element.hpp"

namespace twintrack::fixed {

inline constexpr int fraction_bits = 46;
inline constexpr std::uint64_t one = std::uint64_t{1} << fraction_bits;

/// `term`, 0 <= term <= 1, in units of 2^-46. The spacing of doubles from 64 to 128 is that unit,
/// so the addition rounds and the bits of the sum count units; it vectorises on every processor.
TWINTRACK_HD std::uint64_t units(double term) {
  return twintrack::detail::bits_as<std::uint64_t>(term + 64.0) -
         twintrack::detail::bits_as<std::uint64_t>(64.0);
}

/// whole + fraction 2^-46 with fraction < 2^46.
struct Sum {
  std::uint64_t whole = 0;
  std::uint64_t fraction = 0;

  TWINTRACK_HD void add(std::uint64_t whole_part, std::uint64_t more_units) {
    fraction += more_units & (one - 1);
    whole += whole_part + (more_units >> fraction_bits) + (fraction >> fraction_bits);
    fraction &= one - 1;
  }
};

}  // namespace twintrack::fixed
