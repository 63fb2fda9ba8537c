// Elements of arrays in device memory of any strides and types, one at a time.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/arrays/device.cuh"
#include "cuda/arrays/device_case.hpp"
#include "twintrack/arrays/element.hpp"

namespace twintrack::cuda {

/// `visit(value)` with the element at `p`; the branch is the same for all threads.
template <class Visitor>
__device__ inline auto visit_value(const std::byte* p, Element element, Visitor visit) {
  switch (element) {
    case Element::boolean:
    case Element::uint8:
      return visit(*reinterpret_cast<const std::uint8_t*>(p));
    case Element::int8:
      return visit(*reinterpret_cast<const std::int8_t*>(p));
    case Element::int16:
      return visit(*reinterpret_cast<const std::int16_t*>(p));
    case Element::uint16:
      return visit(*reinterpret_cast<const std::uint16_t*>(p));
    case Element::int32:
      return visit(*reinterpret_cast<const std::int32_t*>(p));
    case Element::uint32:
      return visit(*reinterpret_cast<const std::uint32_t*>(p));
    case Element::int64:
      return visit(*reinterpret_cast<const std::int64_t*>(p));
    case Element::uint64:
      return visit(*reinterpret_cast<const std::uint64_t*>(p));
    case Element::float16:
      return visit(*reinterpret_cast<const float16*>(p));
    case Element::bfloat16:
      return visit(*reinterpret_cast<const bfloat16*>(p));
    case Element::float32:
      return visit(*reinterpret_cast<const float*>(p));
    case Element::float64:
      break;
  }
  return visit(*reinterpret_cast<const double*>(p));
}

/// Adds to `offset[k]` where in array k, in bytes, the element at `rank` lies.
template <int arrays>
__device__ inline void add_offsets(int axes, const std::int64_t* extents,
                                   const DeviceArray* const (&array)[arrays], std::int64_t rank,
                                   std::int64_t (&offset)[arrays]) {
  std::uint64_t rest = static_cast<std::uint64_t>(rank);
  for (int axis = axes; axis-- > 0;) {
    const auto extent = static_cast<std::uint64_t>(extents[axis]);
    std::uint64_t index = rest;
    if (axis > 0) {
      // 32-bit division is several times faster.
      if ((rest | extent) >> 32 == 0) {
        index = static_cast<std::uint32_t>(rest) % static_cast<std::uint32_t>(extent);
        rest = static_cast<std::uint32_t>(rest) / static_cast<std::uint32_t>(extent);
      } else {
        index = rest % extent;
        rest /= extent;
      }
    }
    for (int k = 0; k < arrays; ++k)
      offset[k] += static_cast<std::int64_t>(index) * array[k]->axis_stride[axis];
  }
}

}  // namespace twintrack::cuda
