// Runs of evenly spaced elements of any type, as what the core computes with.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/element.hpp"

namespace twintrack::detail {

template <class T>
T load(const std::byte* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

// `out[i] = to(value i)` for elements that lie side by side.
template <class T, class Out>
TWINTRACK_INLINE void convert(const std::byte* p, std::int64_t n, Out* __restrict out) {
  for (std::int64_t i = 0; i < n; ++i)
    out[i] = static_cast<Out>(to_real(load<T>(p + i * std::int64_t{sizeof(T)})));
}

// `n` scores that lie side by side.
TWINTRACK_INLINE void read_reals(Element element, const std::byte* p, std::int64_t n, float* room) {
  if (element == Element::float16)
    convert<float16>(p, n, room);
  else if (element == Element::bfloat16)
    convert<bfloat16>(p, n, room);
  else
    convert<float>(p, n, room);
}
TWINTRACK_INLINE void read_reals(Element, const std::byte* p, std::int64_t n, double* room) {
  convert<double>(p, n, room);
}

/// Value of the element at `p`, for messages: integers beyond 2^53 are rounded.
double element_value(Element element, const std::byte* p);

/// Copies `n` elements of `size` bytes, `stride` bytes apart, to lie side by side.
void pack_run(std::size_t size, const std::byte* p, std::int64_t stride, std::int64_t n,
              std::byte* out);

/// Calls `take(side_by_side, length, done)` for a run, a piece at a time: where it lies if its
/// elements lie side by side, else with copies. `done` counts the elements of earlier pieces.
template <class Take>
TWINTRACK_INLINE void for_each_packed(std::size_t size, const std::byte* p, std::int64_t stride,
                                      std::int64_t n, Take&& take) {
  constexpr std::int64_t piece = 256;
  alignas(16) std::byte copied[piece * 8];
  const bool packed = stride == static_cast<std::int64_t>(size);
  const std::int64_t most = packed ? n : piece;
  for (std::int64_t done = 0; done < n; done += most) {
    const std::int64_t length = std::min(most, n - done);
    const std::byte* from = p + done * stride;
    if (!packed) {
      pack_run(size, from, stride, length, copied);
      from = copied;
    }
    take(from, length, done);
  }
}

/// Scores of a run, whatever its stride.
template <class Real>
void gather_reals(Element element, const std::byte* p, std::int64_t stride, std::int64_t n,
                  Real* out) {
  const std::size_t size = size_of(element);
  if (size == sizeof(Real)) return pack_run(size, p, stride, n, reinterpret_cast<std::byte*>(out));
  for_each_packed(size, p, stride, n,
                  [&](const std::byte* from, std::int64_t length, std::int64_t done) {
                    read_reals(element, from, length, out + done);
                  });
}

/// Labels of a run of any type: 0 and 1 as themselves, anything else as 2 (LabelByte).
void read_labels(Element element, const std::byte* p, std::int64_t stride, std::int64_t n,
                 std::uint8_t* out);

}  // namespace twintrack::detail

#if !defined(TWINTRACK_LINKED)
#include "twintrack/arrays/element_runs_loops.hpp"
#endif
