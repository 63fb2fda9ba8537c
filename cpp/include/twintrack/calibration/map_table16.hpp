// The map of every 16-bit score by its bits: 16-bit types have so few values in [0, 1] that looking
// them up costs less than computing them.
#pragma once

#include <cstdint>
#include <type_traits>
#include <vector>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/element.hpp"
#include "twintrack/arrays/streaming.hpp"
#include "twintrack/calibration/map_rule.hpp"

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

  /// Whether `n` scores are all in [0, 1].
  TWINTRACK_INLINE static bool valid(const T* in, int n) {
    std::uint16_t bad = 0;
    for (int i = 0; i < n; ++i) bad |= wrong(in[i].bits);
    return bad == 0;
  }

  /// Maps `n` valid scores; `out` may be `in`.
  TWINTRACK_INLINE void map(const T* in, int n, T* out) const {
    const std::uint16_t* mapped = bits_.data();
    for (int i = 0; i < n; ++i) out[i].bits = mapped[in[i].bits & 0x7fff];
  }

  /// The same past the cache, to a multiple of 16 bytes (streaming.hpp). Asks for scores `ahead`
  /// further on along the way: all of a block's lines at once would wait for each other.
  TWINTRACK_INLINE void stream(const T* in, int n, int ahead, T* out) const {
    constexpr int line = 32;  // scores of a cache line
    const std::uint16_t* mapped = bits_.data();
    int i = 0;
    for (; i + line <= n; i += line) {
      prefetch(in + i + ahead, 1);
      for (int k = i; k < i + line; k += 8)
        stream_eight(&out[k].bits, [&](int j) TWINTRACK_INLINE_LAMBDA {
          return mapped[in[k + j].bits & 0x7fff];
        });
    }
    map(in + i, n - i, out + i);
  }

 private:
  TWINTRACK_INLINE static std::uint16_t wrong(std::uint16_t bits) {
    const std::uint16_t above = bits > one ? 1 : 0;
    return bits == minus_zero ? std::uint16_t{0} : above;
  }

  std::vector<std::uint16_t> bits_ = std::vector<std::uint16_t>(minus_zero);
};

}  // namespace twintrack::detail
