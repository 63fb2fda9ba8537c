// What a voxel must hold, shared by the CPU loops and the CUDA kernels.
#pragma once

#include <cstdint>
#include <type_traits>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/element.hpp"

namespace twintrack {

/// 1 for a score outside [0, 1] or NaN, else 0. On bit patterns, where [0, 1] is one range of
/// integers and -0 a value of its own: integer comparisons vectorise whatever the floating-point
/// options.
template <class Real>
TWINTRACK_HD auto score_fault(Real score) {
  using Bits = std::conditional_t<sizeof(Real) == 4, std::uint32_t, std::uint64_t>;
  const Bits bits = detail::bits_as<Bits>(score);
  const Bits wrong = bits > detail::bits_as<Bits>(Real{1}) ? 1 : 0;
  return bits == detail::bits_as<Bits>(-Real{0}) ? Bits{0} : wrong;
}

/// 0 and 1 as themselves, anything else as 2: no label, but true in a region.
struct LabelByte {
  template <class T>
  TWINTRACK_HD std::uint8_t operator()(T value) const {
    if constexpr (std::is_class_v<T>) {
      return (*this)(to_real(value));
    } else {
      return static_cast<std::uint8_t>(value == T{0} ? 0 : (value == T{1} ? 1 : 2));
    }
  }
};

}  // namespace twintrack
