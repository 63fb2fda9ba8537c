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

/// Indexed without the sign, so that -0 is 0. Scores are bit patterns from here on, which is all in
/// which the 16-bit types differ.
class MapTable16 {
 public:
  /// The table of float16 or bfloat16.
  template <class T>
  static MapTable16 of(const MapView<float>& map) {
    MapTable16 table(std::is_same_v<T, float16> ? 0x3c00 : 0x3f80);
    for (std::uint16_t bits = 0; bits <= table.one_; ++bits)
      table.bits_[bits] = from_unit<T>(map_score(map, to_real(T{bits}))).bits;
    return table;
  }

  /// Whether `n` scores are all in [0, 1].
  TWINTRACK_INLINE bool valid(const std::uint16_t* in, int n) const {
    const std::uint16_t one = one_;
    std::uint16_t bad = 0;
    for (int i = 0; i < n; ++i) bad |= wrong(in[i], one);
    return bad == 0;
  }

  /// Maps `n` valid scores; `out` may be `in`.
  TWINTRACK_INLINE void map(const std::uint16_t* in, int n, std::uint16_t* out) const {
    const std::uint16_t* mapped = bits_.data();
    for (int i = 0; i < n; ++i) out[i] = mapped[in[i] & 0x7fff];
  }

  /// The same past the cache, to a multiple of 16 bytes (streaming.hpp). Asks for scores `ahead`
  /// further on along the way: all of a block's lines at once would wait for each other.
  TWINTRACK_INLINE void stream(const std::uint16_t* in, int n, int ahead,
                               std::uint16_t* out) const {
    constexpr int line = 32;  // scores of a cache line
    const std::uint16_t* mapped = bits_.data();
    int i = 0;
    for (; i + line <= n; i += line) {
      prefetch(in + i + ahead, 1);
      for (int k = i; k < i + line; k += 8)
        stream_eight(&out[k],
                     [&](int j) TWINTRACK_INLINE_LAMBDA { return mapped[in[k + j] & 0x7fff]; });
    }
    map(in + i, n - i, out + i);
  }

 private:
  static constexpr std::uint16_t minus_zero = 0x8000;

  explicit MapTable16(std::uint16_t one) : one_(one), bits_(minus_zero) {}

  TWINTRACK_INLINE static std::uint16_t wrong(std::uint16_t bits, std::uint16_t one) {
    const std::uint16_t above = bits > one ? 1 : 0;
    return bits == minus_zero ? std::uint16_t{0} : above;
  }

  std::uint16_t one_;  // the pattern of 1
  std::vector<std::uint16_t> bits_;
};

}  // namespace twintrack::detail
