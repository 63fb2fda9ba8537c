// The grid of score values on which a ScoreTally counts.
//
// A grid cell is a short range of scores. Cells are laid out symmetrically about 1/2: a score
// p <= 1/2 is placed by p itself, a score p > 1/2 by its distance q = 1 - p to the other end (exact
// in the score's own type), so that the grid is equally fine near 0 and near 1. With d = min(p, q):
//
//     d = 0                 one cell for the value alone
//     0 < d < 2^-24         128 cells per octave, down to the smallest float32 (and bfloat16)
//     2^-24 <= d < 1/2      2048 cells per octave: a cell is at most 1/2048 of d wide
//     d = 1/2               one cell for the value alone
//
// Every float16 and every bfloat16 in [0, 1] has a cell for itself, so 16-bit scores are tallied
// without any loss. A cell of float32 scores holds at most 4096 different values (65536 below
// 2^-24).
//
// Inside a cell a score is kept as a residual: its distance, in d, from the end of the cell that is
// nearer to d = 0, in units of 1/256 of float32's spacing there. Residuals are below 2^24 and exact
// for 16-bit and float32 scores; float64 scores are rounded to that unit, at most 2^-32 of d, so
// 1 - 1e-12 and 1 - 1e-13 stay apart. Sums of residuals are integers: they do not depend on order.
#pragma once

#include <cstdint>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/element.hpp"

namespace twintrack::grid {

inline constexpr std::uint32_t tail_shift = 16;  // float32 bits below a cell of the tail
inline constexpr std::uint32_t main_shift = 12;
inline constexpr std::uint32_t main_bits = 0x33800000u;  // float32 bits of 2^-24
inline constexpr std::uint32_t half_bits = 0x3f000000u;  // float32 bits of 1/2
inline constexpr std::uint32_t main_start = (main_bits >> tail_shift) + 1;
/// Cell of the score 1/2, the grid's centre.
inline constexpr std::uint32_t half_cell = main_start + ((half_bits - main_bits) >> main_shift);
/// Number of cells; a score of 0 is in cell 0 and a score of 1 in the last.
inline constexpr std::uint32_t cells = 2 * half_cell + 1;
/// Largest residual is below this.
inline constexpr std::uint32_t residual_limit = 1u << 24;

struct Position {
  std::uint32_t cell;
  std::uint32_t residual;
};

namespace detail {

// Cell and bits below it for the distance d <= 1/2 whose float32 bits, rounded towards 0, are
// `bits`; `nonzero` is 1 if d > 0.
TWINTRACK_HD std::uint32_t cell_of(std::uint32_t bits, std::uint32_t nonzero) {
  const std::uint32_t tail = (bits >> tail_shift) + nonzero;
  const std::uint32_t main = main_start + ((bits - main_bits) >> main_shift);
  return bits < main_bits ? tail : main;
}

TWINTRACK_HD std::uint32_t mask_of(std::uint32_t bits) {
  // No second choice by the same condition: compilers make branches of two, and loops scalar.
  static_assert(tail_shift > main_shift);
  const std::uint32_t in_tail = 0u - static_cast<std::uint32_t>(bits < main_bits);
  return ((1u << main_shift) - 1) | (((1u << tail_shift) - 1) & in_tail);
}

}  // namespace detail

/// Distance of a score from the nearer of 0 and 1, and the cell that this distance has in the lower
/// half of the grid.
template <class Real>
struct Distance {
  Real u;
  std::uint32_t cell;
};

/// Whether a score lies in the upper half of the grid.
template <class Real>
TWINTRACK_HD bool is_high(Real p) {
  return p > Real(0.5);
}

/// `p` must be in [0, 1] (-0.0 counts as 0). Exact: `1 - p` rounds only where p < 1/2.
TWINTRACK_HD Distance<float> distance(float p) {
  const float q = 1.0f - p;
  const float u = p < q ? p : q;
  const std::uint32_t bits = twintrack::detail::bits_as<std::uint32_t>(u) & 0x7fffffffu;
  return {u, detail::cell_of(bits, bits != 0 ? 1u : 0u)};
}

namespace detail {

// float32 bits of the distance u >= 0, rounded towards 0: the exponent is rebiased and 29 bits are
// dropped; below 2^-126 float32 is linear with spacing 2^-149.
TWINTRACK_HD std::uint32_t float_bits(double u) {
  const std::uint64_t wide = twintrack::detail::bits_as<std::uint64_t>(u) & ~(1ull << 63);
  const std::uint32_t normal =
      static_cast<std::uint32_t>((wide >> 29) - (static_cast<std::uint64_t>(1023 - 127) << 23));
  const bool tiny = u < 0x1p-126;
  const std::uint32_t linear =
      static_cast<std::uint32_t>(static_cast<std::int32_t>((tiny ? u : 0x1p-126) * 0x1p149));
  return tiny ? linear : normal;
}

}  // namespace detail

TWINTRACK_HD Distance<double> distance(double p) {
  const double q = 1.0 - p;
  const double u = p < q ? p : q;
  return {u, detail::cell_of(detail::float_bits(u), u != 0 ? 1u : 0u)};
}

/// Where a score lies; `p` must be in [0, 1].
TWINTRACK_HD Position position(float p) {
  const Distance<float> at = distance(p);
  const std::uint32_t bits = twintrack::detail::bits_as<std::uint32_t>(at.u) & 0x7fffffffu;
  return {is_high(p) ? 2 * half_cell - at.cell : at.cell, (bits & detail::mask_of(bits)) << 8};
}

TWINTRACK_HD Position position(double p) {
  const Distance<double> at = distance(p);
  const std::uint32_t bits = detail::float_bits(at.u);
  const std::uint32_t base_bits = bits & ~detail::mask_of(bits);
  // (u - base) / unit, both exact, then rounded to nearest. The unit is 2^(e - 158) for the
  // float32 exponent field e (1 for subnormals).
  const std::uint32_t exponent = bits < 0x00800000u ? 1u : bits >> 23;
  const double base_normal =
      twintrack::detail::bits_as<double>((static_cast<std::uint64_t>(base_bits) << 29) +
                                         (static_cast<std::uint64_t>(1023 - 127) << 52));
  const double base = bits < 0x00800000u
                          ? static_cast<double>(static_cast<std::int32_t>(base_bits)) * 0x1p-149
                          : base_normal;
  const double per_unit =
      twintrack::detail::bits_as<double>(static_cast<std::uint64_t>(1023 + 158 - exponent) << 52);
  const std::uint32_t residual =
      static_cast<std::uint32_t>(static_cast<std::int32_t>((at.u - base) * per_unit + 0.5));
  return {is_high(p) ? 2 * half_cell - at.cell : at.cell, residual};
}

/// The end of a cell that residuals are measured from, as a distance from the nearer of 0 and 1,
/// and the unit of its residuals. Both are exact.
struct Scale {
  double base;
  double unit;
};
inline Scale scale(std::uint32_t cell) {
  const std::uint32_t index = cell > half_cell ? 2 * half_cell - cell : cell;
  std::uint32_t bits = 0;
  if (index >= main_start)
    bits = main_bits + ((index - main_start) << main_shift);
  else if (index > 0)
    bits = (index - 1) << tail_shift;
  const std::uint32_t exponent = bits < 0x00800000u ? 1u : bits >> 23;
  const double unit =
      twintrack::detail::bits_as<double>(static_cast<std::uint64_t>(1023 + exponent - 158) << 52);
  const double mantissa = bits < 0x00800000u ? static_cast<double>(bits)
                                             : static_cast<double>((bits & 0x7fffffu) | 0x800000u);
  return {mantissa * 256.0 * unit, unit};
}

}  // namespace twintrack::grid
