// The loops of element_runs.hpp.
#pragma once

#include <cstddef>
#include <cstdint>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/element.hpp"
#include "twintrack/arrays/element_runs.hpp"

namespace twintrack::detail {

TWINTRACK_ENTRY double element_value(Element element, const std::byte* p) {
  switch (element) {
    case Element::boolean:
    case Element::uint8:
      return load<std::uint8_t>(p);
    case Element::int8:
      return load<std::int8_t>(p);
    case Element::int16:
      return load<std::int16_t>(p);
    case Element::uint16:
      return load<std::uint16_t>(p);
    case Element::int32:
      return load<std::int32_t>(p);
    case Element::uint32:
      return load<std::uint32_t>(p);
    case Element::int64:
      return static_cast<double>(load<std::int64_t>(p));
    case Element::uint64:
      return static_cast<double>(load<std::uint64_t>(p));
    case Element::float16:
      return static_cast<double>(to_real(load<float16>(p)));
    case Element::bfloat16:
      return static_cast<double>(to_real(load<bfloat16>(p)));
    case Element::float32:
      return static_cast<double>(load<float>(p));
    case Element::float64:
      break;
  }
  return load<double>(p);
}

template <class Bits>
TWINTRACK_INLINE void pack_bits(const std::byte* p, std::int64_t stride, std::int64_t n,
                                std::byte* __restrict out) {
  for (std::int64_t i = 0; i < n; ++i)
    std::memcpy(out + i * std::int64_t{sizeof(Bits)}, p + i * stride, sizeof(Bits));
}

TWINTRACK_ENTRY void pack_run(std::size_t size, const std::byte* p, std::int64_t stride,
                              std::int64_t n, std::byte* out) {
  switch (size) {
    case 1:
      return pack_bits<std::uint8_t>(p, stride, n, out);
    case 2:
      return pack_bits<std::uint16_t>(p, stride, n, out);
    case 4:
      return pack_bits<std::uint32_t>(p, stride, n, out);
    default:
      return pack_bits<std::uint64_t>(p, stride, n, out);
  }
}

// A label is told by its bits, the same way for all types of one size: 0 but for the sign of a
// floating-point zero, or those of 1.
template <class Bits>
TWINTRACK_INLINE void label_bytes(Element element, const std::byte* p, std::int64_t n,
                                  std::uint8_t* __restrict out) {
  Bits one = 1;
  bool real = true;
  if (element == Element::float16)
    one = static_cast<Bits>(0x3c00);
  else if (element == Element::bfloat16)
    one = static_cast<Bits>(0x3f80);
  else if (element == Element::float32)
    one = static_cast<Bits>(0x3f800000);
  else if (element == Element::float64)
    one = static_cast<Bits>(0x3ff0000000000000);
  else
    real = false;
  const auto value = static_cast<Bits>(real ? static_cast<Bits>(~Bits{0}) >> 1 : ~Bits{0});
  for (std::int64_t i = 0; i < n; ++i) {
    const Bits bits = load<Bits>(p + i * std::int64_t{sizeof(Bits)});
    out[i] = static_cast<std::uint8_t>((bits & value) == 0 ? 0 : (bits == one ? 1 : 2));
  }
}

TWINTRACK_ENTRY void read_labels(Element element, const std::byte* p, std::int64_t stride,
                                 std::int64_t n, std::uint8_t* out) {
  const std::size_t size = size_of(element);
  for_each_packed(size, p, stride, n,
                  [&](const std::byte* from, std::int64_t length, std::int64_t done) {
                    switch (size) {
                      case 1:
                        return label_bytes<std::uint8_t>(element, from, length, out + done);
                      case 2:
                        return label_bytes<std::uint16_t>(element, from, length, out + done);
                      case 4:
                        return label_bytes<std::uint32_t>(element, from, length, out + done);
                      default:
                        return label_bytes<std::uint64_t>(element, from, length, out + done);
                    }
                  });
}

}  // namespace twintrack::detail
