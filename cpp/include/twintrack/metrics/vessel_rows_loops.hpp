// The loops of vessel_rows.hpp: the scan of a label map.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/element.hpp"
#include "twintrack/arrays/element_runs.hpp"
#include "twintrack/arrays/input_error.hpp"
#include "twintrack/arrays/instruction_set.hpp"
#include "twintrack/arrays/parallel.hpp"
#include "twintrack/metrics/vessel_rows.hpp"

namespace twintrack {

namespace detail {

// Bytes that are looked at together for being all zero: large for speed, small beside a slice.
inline constexpr std::int64_t stretch_bytes = 4096;

TWINTRACK_INLINE bool all_zero(const std::byte* p, std::int64_t n) {
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(p);
  std::uint8_t seen = 0;
  for (std::int64_t i = 0; i < n; ++i) seen |= bytes[i];
  return seen == 0;
}

// The range that holds all non-zero bytes.
inline RowRange nonzero_range(const std::uint8_t* byte, std::int64_t n) {
  constexpr std::int64_t stretch = 8;
  const auto any = [&](std::int64_t i) {
    return load<std::uint64_t>(reinterpret_cast<const std::byte*>(byte + i)) != 0;
  };
  std::int64_t first = 0;
  while (first + stretch <= n && !any(first)) first += stretch;
  while (first < n && byte[first] == 0) ++first;
  std::int64_t last = n;
  while (last - stretch >= first && !any(last - stretch)) last -= stretch;
  while (last > first && byte[last - 1] == 0) --last;
  return {static_cast<std::int32_t>(first), static_cast<std::int32_t>(last)};
}

}  // namespace detail

TWINTRACK_ENTRY VesselRows::VesselRows(const ArrayView& vessels, const VolumeOrder& order,
                                       const VesselLabels& labels, int threads)
    : order_(order), slices_(static_cast<std::size_t>(order.extent(0))) {
  if (element_count(vessels.shape) == 0) return;
  const WalkedVolume volume = order.arrange(vessels);
  rows_.resize(slices_.size() * static_cast<std::size_t>(order.extent(1)));
  const bool valid = parallel_valid(threads, order.extent(0), [&](int, std::int64_t outer) {
    return scan_slice(volume, labels, outer);
  });
  if (!valid) explain(volume, labels);
  for (std::int64_t outer = 0; outer < order.extent(0); ++outer) {
    const Slice& slice = slices_[static_cast<std::size_t>(outer)];
    if (slice.inner.empty()) continue;
    box_[0].include({static_cast<std::int32_t>(outer), static_cast<std::int32_t>(outer + 1)});
    box_[1].include(slice.middle);
    box_[2].include(slice.inner);
  }
}

// False if an element is not a whole number.
TWINTRACK_ENTRY bool VesselRows::scan_slice(const WalkedVolume& volume, const VesselLabels& labels,
                                            std::int64_t outer) {
  const std::int64_t middles = order_.extent(1);
  const std::int64_t inners = order_.extent(2);
  const auto size = static_cast<std::int64_t>(size_of(volume.element));
  const std::int64_t row_bytes = inners * size;
  // Rows without gaps, in whatever direction, are read as bytes first.
  const bool dense = std::abs(volume.stride[2]) == size;
  const bool dense_slice = dense && std::abs(volume.stride[1]) == row_bytes;
  const std::int64_t group =
      dense_slice ? std::max<std::int64_t>(detail::stretch_bytes / row_bytes, 1) : 1;
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(inners));
  Slice& slice = slices_[static_cast<std::size_t>(outer)];
  bool valid = true;

  // Whether `count` rows from `middle` on are all zero bytes.
  const auto empty = [&](std::int64_t middle, std::int64_t count) TWINTRACK_INLINE_LAMBDA {
    const std::byte* start = volume.at(outer, middle, 0);
    start += std::min<std::int64_t>((count - 1) * volume.stride[1], 0) +
             std::min<std::int64_t>((inners - 1) * volume.stride[2], 0);
    return detail::all_zero(start, count * row_bytes);
  };
  with_instruction_set([&]() TWINTRACK_INLINE_LAMBDA {
    for (std::int64_t start = 0; start < middles; start += group) {
      const std::int64_t end = std::min(start + group, middles);
      if (dense && empty(start, end - start)) continue;
      for (std::int64_t middle = start; middle < end; ++middle) {
        if (dense && group > 1 && empty(middle, 1)) continue;
        valid &= labels.encode(volume.element, volume.at(outer, middle, 0), volume.stride[2],
                               inners, codes.data());
        const RowRange range = detail::nonzero_range(codes.data(), inners);
        if (range.empty()) continue;
        rows_[static_cast<std::size_t>(outer * middles + middle)] = range;
        slice.inner.include(range);
        slice.middle.include(
            {static_cast<std::int32_t>(middle), static_cast<std::int32_t>(middle + 1)});
      }
    }
  });
  return valid;
}

TWINTRACK_ENTRY void VesselRows::explain(const WalkedVolume& volume,
                                         const VesselLabels& labels) const {
  std::uint8_t code = 0;
  for (std::int64_t o = 0; o < order_.extent(0); ++o)
    for (std::int64_t m = 0; m < order_.extent(1); ++m)
      for (std::int64_t i = 0; i < order_.extent(2); ++i) {
        const std::byte* p = volume.at(o, m, i);
        if (labels.encode(volume.element, p, volume.stride[2], 1, &code)) continue;
        refuse_vessel(order_, {o, m, i}, detail::element_value(volume.element, p));
      }
  throw InputError("vessels", "changed while it was being read");
}

}  // namespace twintrack
