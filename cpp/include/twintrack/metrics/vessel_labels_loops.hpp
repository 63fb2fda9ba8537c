// The loops of vessel_labels.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/element.hpp"
#include "twintrack/arrays/element_runs.hpp"
#include "twintrack/arrays/instruction_set.hpp"
#include "twintrack/metrics/vessel_labels.hpp"

namespace twintrack {

namespace detail {

inline bool holds_label(Element element, std::int64_t label) {
  switch (element) {
    case Element::boolean:
    case Element::uint8:
      return holds_label<std::uint8_t>(label);
    case Element::int8:
      return holds_label<std::int8_t>(label);
    case Element::int16:
      return holds_label<std::int16_t>(label);
    case Element::uint16:
      return holds_label<std::uint16_t>(label);
    case Element::int32:
      return holds_label<std::int32_t>(label);
    case Element::uint32:
      return holds_label<std::uint32_t>(label);
    case Element::int64:
    case Element::uint64:
      return true;
    case Element::float64:
      return holds_label<double>(label);
    default:  // 16 bits are widened first
      return holds_label<float>(label);
  }
}

// Elements that equal a label have its bits, since no label is 0: of whatever type they are.
template <class Bits>
TWINTRACK_INLINE Bits label_bits(Element element, std::int64_t label) {
  if constexpr (sizeof(Bits) == 4)
    if (element == Element::float32) return bits_as<Bits>(static_cast<float>(label));
  if constexpr (sizeof(Bits) == 8)
    if (element == Element::float64) return bits_as<Bits>(static_cast<double>(label));
  return static_cast<Bits>(label);
}

template <class Bits>
TWINTRACK_INLINE void mark_labels(const std::vector<std::int64_t>& labels, Element element,
                                  const std::byte* p, std::int64_t n,
                                  std::uint8_t* __restrict code) {
  for (std::int64_t i = 0; i < n; ++i) code[i] = 0;
  for (std::size_t k = 0; k < labels.size(); ++k) {
    if (!holds_label(element, labels[k])) continue;
    const Bits label = label_bits<Bits>(element, labels[k]);
    const auto its_code = static_cast<std::uint8_t>(k + 1);
    for (std::int64_t i = 0; i < n; ++i) {
      const bool is_it = load<Bits>(p + i * std::int64_t{sizeof(Bits)}) == label;
      code[i] = static_cast<std::uint8_t>(code[i] | (is_it ? its_code : 0));
    }
  }
}

template <class Value>
TWINTRACK_INLINE bool all_whole(const std::byte* p, std::int64_t n) {
  unsigned broken = 0;
  for (std::int64_t i = 0; i < n; ++i)
    broken |= is_whole(load<Value>(p + i * std::int64_t{sizeof(Value)})) ? 0u : 1u;
  return broken == 0;
}

}  // namespace detail

TWINTRACK_INLINE bool VesselLabels::encode_packed(Element element, const std::byte* p,
                                                  std::int64_t n, std::uint8_t* code) const {
  switch (size_of(element)) {
    case 1:
      detail::mark_labels<std::uint8_t>(labels_, element, p, n, code);
      return true;
    case 2:
      detail::mark_labels<std::uint16_t>(labels_, element, p, n, code);
      return true;
    case 4:
      detail::mark_labels<std::uint32_t>(labels_, element, p, n, code);
      return element != Element::float32 || detail::all_whole<float>(p, n);
    default:
      detail::mark_labels<std::uint64_t>(labels_, element, p, n, code);
      return element != Element::float64 || detail::all_whole<double>(p, n);
  }
}

TWINTRACK_ENTRY bool VesselLabels::encode(Element element, const std::byte* p, std::int64_t stride,
                                          std::int64_t n, std::uint8_t* code) const {
  bool whole = true;
  if (element == Element::float16 || element == Element::bfloat16) {
    // Rare: widened a piece at a time.
    constexpr std::int64_t piece = 256;
    std::array<float, piece> wide;
    for (std::int64_t done = 0; done < n; done += piece) {
      const std::int64_t length = std::min(piece, n - done);
      for (std::int64_t i = 0; i < length; ++i)
        wide[static_cast<std::size_t>(i)] =
            static_cast<float>(detail::element_value(element, p + (done + i) * stride));
      whole &= encode(Element::float32, reinterpret_cast<const std::byte*>(wide.data()),
                      sizeof(float), length, code + done);
    }
    return whole;
  }
  const std::size_t size = size_of(element);
  if (stride == static_cast<std::int64_t>(size)) {
    with_instruction_set(
        [&]() TWINTRACK_INLINE_LAMBDA { whole = encode_packed(element, p, n, code); });
  } else {
    detail::for_each_packed(
        size, p, stride, n, [&](const std::byte* from, std::int64_t length, std::int64_t done) {
          whole &= encode(element, from, static_cast<std::int64_t>(size), length, code + done);
        });
  }
  return whole;
}

}  // namespace twintrack
