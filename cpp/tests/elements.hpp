// A type for each of the elements that arrays may have.
#pragma once

#include <cstdint>

#include "twintrack/arrays/element.hpp"

namespace twintrack::tests {

/// Calls `visit` with a value of the element's type.
template <class Visitor>
void visit_element(Element element, Visitor&& visit) {
  switch (element) {
    case Element::boolean:
    case Element::uint8:
      return visit(std::uint8_t{});
    case Element::int8:
      return visit(std::int8_t{});
    case Element::int16:
      return visit(std::int16_t{});
    case Element::uint16:
      return visit(std::uint16_t{});
    case Element::int32:
      return visit(std::int32_t{});
    case Element::uint32:
      return visit(std::uint32_t{});
    case Element::int64:
      return visit(std::int64_t{});
    case Element::uint64:
      return visit(std::uint64_t{});
    case Element::float16:
      return visit(float16{});
    case Element::bfloat16:
      return visit(bfloat16{});
    case Element::float32:
      return visit(float{});
    case Element::float64:
      return visit(double{});
  }
}

}  // namespace twintrack::tests
