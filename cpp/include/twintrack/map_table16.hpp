// The map of every 16-bit score by its bits: 16-bit types have so few values in [0, 1] that looking
// them up costs less than computing them.
#pragma once

#include <cstdint>
#include <type_traits>
#include <vector>

#include "twintrack/config.hpp"
#include "twintrack/element.hpp"
#include "twintrack/map_rule.hpp"

namespace twintrack::detail {

/// Indexed without the sign, so that -0 is 0.
template <class T>
class MapTable16 {
 public:
  static constexpr std::uint16_t minus_zero = 0x8000;
  static constexpr std::uint16_t one = std::is_same_v<T, float16> ? 0x3c00 : 0x3f80;

  explicit MapTable16(const MapView<float>& map) {
    for (std::uint16_t bits = 0; bits <= one; ++bits)
      bits_[bits] = from_unit<T>(map_score(map, to_real(T{bits}))).bits;
  }

  /// Maps `n` scores; `out` may be `in`. False if one is not in [0, 1]; `out` is then unspecified.
  TWINTRACK_INLINE bool map(const T* in, int n, T* out) const {
    std::uint16_t bad = 0;
    for (int i = 0; i < n; ++i) bad |= wrong(in[i].bits);
    const std::uint16_t* mapped = bits_.data();
    for (int i = 0; i < n; ++i) out[i].bits = mapped[in[i].bits & 0x7fff];
    return bad == 0;
  }

 private:
  TWINTRACK_INLINE static std::uint16_t wrong(std::uint16_t bits) {
    const std::uint16_t above = bits > one ? 1 : 0;
    return bits == minus_zero ? std::uint16_t{0} : above;
  }

  std::vector<std::uint16_t> bits_ = std::vector<std::uint16_t>(minus_zero);
};

}  // namespace twintrack::detail
