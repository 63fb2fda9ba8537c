// Views of plain C-ordered memory, for callers that have no strides of their own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "twintrack/arrays/array_view.hpp"
#include "twintrack/arrays/element.hpp"

namespace twintrack {

namespace detail {

template <class T>
constexpr Element element_for() {
  if constexpr (std::is_same_v<T, bool>)
    return Element::boolean;
  else if constexpr (std::is_same_v<T, float16>)
    return Element::float16;
  else if constexpr (std::is_same_v<T, bfloat16>)
    return Element::bfloat16;
  else if constexpr (std::is_same_v<T, float>)
    return Element::float32;
  else if constexpr (std::is_same_v<T, double>)
    return Element::float64;
  else {
    static_assert(std::is_integral_v<T>, "no array element type");
    constexpr bool is_signed = std::is_signed_v<T>;
    if constexpr (sizeof(T) == 1)
      return is_signed ? Element::int8 : Element::uint8;
    else if constexpr (sizeof(T) == 2)
      return is_signed ? Element::int16 : Element::uint16;
    else if constexpr (sizeof(T) == 4)
      return is_signed ? Element::int32 : Element::uint32;
    else
      return is_signed ? Element::int64 : Element::uint64;
  }
}

}  // namespace detail

/// `data` as an array of `shape`, last axis fastest. Does not own. Throws InputError, as
/// `element_count` does.
template <class T>
ArrayView contiguous(const T* data, Shape shape) {
  element_count(shape, "shape");
  Shape strides(shape.size());
  std::int64_t stride = sizeof(T);
  for (std::size_t axis = shape.size(); axis-- > 0; stride *= shape[axis]) strides[axis] = stride;
  return {reinterpret_cast<const std::byte*>(data), detail::element_for<T>(), std::move(shape),
          std::move(strides)};
}

/// The same, to be written to.
template <class T>
WritableArrayView writable(T* data, Shape shape) {
  static_assert(!std::is_const_v<T>);
  return {contiguous(static_cast<const T*>(data), std::move(shape))};
}

}  // namespace twintrack
