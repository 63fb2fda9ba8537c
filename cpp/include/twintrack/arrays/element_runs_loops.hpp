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
TWINTRACK_INLINE void label_bytes(Element element, const std::byte* p, std::int64_t stride,
                                  std::int64_t n, std::uint8_t* __restrict out) {
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
    const Bits bits = load<Bits>(p + i * stride);
    out[i] = static_cast<std::uint8_t>((bits & value) == 0 ? 0 : (bits == one ? 1 : 2));
  }
}

template <class Bits>
TWINTRACK_INLINE void read_labels_as(Element element, const std::byte* p, std::int64_t stride,
                                     std::int64_t n, std::uint8_t* out) {
  // A literal stride of its own so that the loop vectorises.
  constexpr std::int64_t size = sizeof(Bits);
  if (stride == size)
    label_bytes<Bits>(element, p, size, n, out);
  else
    label_bytes<Bits>(element, p, stride, n, out);
}

TWINTRACK_ENTRY void read_labels(Element element, const std::byte* p, std::int64_t stride,
                                 std::int64_t n, std::uint8_t* out) {
  switch (size_of(element)) {
    case 1:
      return read_labels_as<std::uint8_t>(element, p, stride, n, out);
    case 2:
      return read_labels_as<std::uint16_t>(element, p, stride, n, out);
    case 4:
      return read_labels_as<std::uint32_t>(element, p, stride, n, out);
    default:
      return read_labels_as<std::uint64_t>(element, p, stride, n, out);
  }
}

}  // namespace twintrack::detail
