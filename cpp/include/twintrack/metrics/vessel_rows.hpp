// Where the vessels lie: for each row of voxels of a label map, the range that holds its vessels.
//
// Vessels fill less than a hundredth of a CT, so the map is read once, at the speed of memory, and
// everything that is asked near vessels afterwards goes by these ranges.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "twintrack/arrays/array_view.hpp"
#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/instruction_set.hpp"
#include "twintrack/arrays/parallel.hpp"
#include "twintrack/arrays/voxel_blocks.hpp"
#include "twintrack/metrics/volume_order.hpp"

namespace twintrack {

namespace detail {

/// Whether elements of type Value can be equal to `label`.
template <class Value>
TWINTRACK_HD bool holds_label(std::int64_t label) {
  if constexpr (std::is_floating_point_v<Value>) {
    return label <= std::int64_t{1} << std::numeric_limits<Value>::digits;
  } else {
    return std::cmp_less_equal(label, std::numeric_limits<Value>::max());
  }
}

/// x - trunc(x) is NaN for infinities and NaN.
template <class Value>
TWINTRACK_HD bool is_whole(Value value) {
  if constexpr (std::is_floating_point_v<Value>)
    return value - std::trunc(value) == Value{0};
  else
    return true;
}

}  // namespace detail

/// The labels asked for, as codes 1, 2, … in the order given; any other value is code 0.
class VesselLabels {
 public:
  static constexpr std::size_t max_labels = 255;

  /// Throws std::invalid_argument for more than `max_labels`, labels below 1 and repeated ones.
  explicit VesselLabels(std::vector<std::int64_t> labels) : labels_(std::move(labels)) {
    if (labels_.size() > max_labels)
      throw std::invalid_argument("labels has " + std::to_string(labels_.size()) +
                                  " entries; at most " + std::to_string(max_labels) +
                                  " can be measured at once");
    for (auto label = labels_.begin(); label != labels_.end(); ++label) {
      if (*label < 1)
        throw std::invalid_argument("labels has " + std::to_string(*label) +
                                    "; a vessel's label must be 1 or more, 0 is background");
      if (std::find(labels_.begin(), label, *label) != label)
        throw std::invalid_argument("labels has " + std::to_string(*label) + " twice");
    }
  }

  std::size_t count() const { return labels_.size(); }

  /// Codes of `n` evenly spaced elements. False if one is not a whole number.
  TWINTRACK_NOINLINE bool encode(Element element, const std::byte* p, std::int64_t stride,
                                 std::int64_t n, std::uint8_t* code) const {
    bool whole = true;
    detail::visit_element(element, [&](auto sample) {
      using T = decltype(sample);
      with_instruction_set(instruction_set(), [&]() TWINTRACK_INLINE_LAMBDA {
        // A literal stride of its own so that the loops vectorise.
        whole = stride == std::int64_t{sizeof(T)}
                    ? encode_run<T>(p, std::int64_t{sizeof(T)}, n, code)
                    : encode_run<T>(p, stride, n, code);
      });
    });
    return whole;
  }

 private:
  template <class T>
  TWINTRACK_INLINE static auto load_value(const std::byte* p) {
    if constexpr (std::is_class_v<T>)
      return to_real(detail::load<T>(p));
    else
      return detail::load<T>(p);
  }

  template <class T>
  TWINTRACK_INLINE bool encode_run(const std::byte* p, std::int64_t stride, std::int64_t n,
                                   std::uint8_t* __restrict code) const {
    using Value = decltype(load_value<T>(p));
    for (std::int64_t i = 0; i < n; ++i) code[i] = 0;
    for (std::size_t k = 0; k < labels_.size(); ++k) {
      const auto label = static_cast<Value>(labels_[k]);
      if (!detail::holds_label<Value>(labels_[k])) continue;
      const auto its_code = static_cast<std::uint8_t>(k + 1);
      for (std::int64_t i = 0; i < n; ++i) {
        const bool is_it = load_value<T>(p + i * stride) == label;
        code[i] = static_cast<std::uint8_t>(code[i] | (is_it ? its_code : 0));
      }
    }
    if constexpr (std::is_floating_point_v<Value>) {
      unsigned broken = 0;
      for (std::int64_t i = 0; i < n; ++i) {
        const Value value = load_value<T>(p + i * stride);
        broken |= detail::is_whole(value) ? 0u : 1u;
      }
      return broken == 0;
    }
    return true;
  }

  std::vector<std::int64_t> labels_;
};

/// Half-open range along a row; empty if `first >= last`.
struct RowRange {
  std::int32_t first = 0;
  std::int32_t last = 0;

  bool empty() const { return first >= last; }
  /// The smallest range that holds both.
  TWINTRACK_INLINE void include(RowRange other) {
    if (other.empty()) return;
    if (empty()) {
      *this = other;
    } else {
      first = std::min(first, other.first);
      last = std::max(last, other.last);
    }
  }
};

namespace detail {

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

/// Throws InputError for a voxel, given in walking order, that is not a whole number.
[[noreturn]] inline void refuse_vessel(const VolumeOrder& order,
                                       const std::array<std::int64_t, 3>& walked, double value) {
  throw InputError("vessels", order.index_of(walked), value, "labels must be whole numbers");
}

/// For each row of a label map, the range that holds the voxels of the labels asked for.
class VesselRows {
 public:
  /// Scans the map. Throws InputError if an element is not a whole number, with the voxel in the
  /// caller's axes.
  VesselRows(const ArrayView& vessels, const VolumeOrder& order, const VesselLabels& labels,
             int threads)
      : order_(order), slices_(static_cast<std::size_t>(order.extent(0))) {
    if (element_count(vessels.shape) == 0) return;
    const WalkedVolume volume = order.arrange(vessels);
    rows_.resize(slices_.size() * static_cast<std::size_t>(order.extent(1)));
    std::atomic<bool> valid{true};
    parallel_tasks(threads, order.extent(0), [&](int, std::int64_t outer) {
      if (!scan_slice(volume, labels, outer)) valid.store(false, std::memory_order_relaxed);
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

  /// The box of all vessels, in walking order; ranges are empty if there are none.
  const std::array<RowRange, 3>& box() const { return box_; }

  /// The box of the vessels in outermost slices [first, last).
  std::array<RowRange, 3> box(std::int64_t first, std::int64_t last) const {
    std::array<RowRange, 3> box{
        RowRange{static_cast<std::int32_t>(first), static_cast<std::int32_t>(last)}, {}, {}};
    for (std::int64_t outer = first; outer < last; ++outer) {
      box[1].include(slices_[static_cast<std::size_t>(outer)].middle);
      box[2].include(slices_[static_cast<std::size_t>(outer)].inner);
    }
    return box;
  }

  /// Vessels of a row of the volume.
  RowRange row(std::int64_t outer, std::int64_t middle) const {
    return rows_[static_cast<std::size_t>(outer * order_.extent(1) + middle)];
  }

  /// The part of row (outer, middle), which may lie outside the volume, that vessels in slices
  /// [first, last) reach when each voxel reaches `before` voxels down and `after` voxels up along
  /// all axes. The range may go beyond the ends of the row.
  RowRange reached(std::int64_t outer, std::int64_t middle, std::int64_t first, std::int64_t last,
                   int before, int after) const {
    RowRange range;
    const std::int64_t outer_end = std::min(outer + before + 1, last);
    const std::int64_t middle_end = std::min(middle + before + 1, order_.extent(1));
    for (std::int64_t o = std::max(outer - after, first); o < outer_end; ++o)
      for (std::int64_t m = std::max<std::int64_t>(middle - after, 0); m < middle_end; ++m)
        range.include(row(o, m));
    if (!range.empty()) {
      range.first -= before;
      range.last += after;
    }
    return range;
  }

 private:
  struct Slice {
    RowRange middle;
    RowRange inner;
  };

  // Bytes that are looked at together for being all zero: large for speed, small beside a slice.
  static constexpr std::int64_t stretch_bytes = 4096;

  // False if an element is not a whole number.
  bool scan_slice(const WalkedVolume& volume, const VesselLabels& labels, std::int64_t outer) {
    const std::int64_t middles = order_.extent(1);
    const std::int64_t inners = order_.extent(2);
    const auto size = static_cast<std::int64_t>(size_of(volume.element));
    const std::int64_t row_bytes = inners * size;
    // Rows without gaps, in whatever direction, are read as bytes first.
    const bool dense = std::abs(volume.stride[2]) == size;
    const bool dense_slice = dense && std::abs(volume.stride[1]) == row_bytes;
    const std::int64_t group =
        dense_slice ? std::max<std::int64_t>(stretch_bytes / row_bytes, 1) : 1;
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
    with_instruction_set(instruction_set(), [&]() TWINTRACK_INLINE_LAMBDA {
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

  [[noreturn]] void explain(const WalkedVolume& volume, const VesselLabels& labels) const {
    std::uint8_t code = 0;
    for (std::int64_t o = 0; o < order_.extent(0); ++o)
      for (std::int64_t m = 0; m < order_.extent(1); ++m)
        for (std::int64_t i = 0; i < order_.extent(2); ++i) {
          const std::byte* p = volume.at(o, m, i);
          if (labels.encode(volume.element, p, volume.stride[2], 1, &code)) continue;
          double value = 0;
          detail::visit_element(volume.element, [&](auto sample) {
            value = static_cast<double>(detail::ToReal{}(detail::load<decltype(sample)>(p)));
          });
          refuse_vessel(order_, {o, m, i}, value);
        }
    throw InputError("vessels", "changed while it was being read");
  }

  VolumeOrder order_;
  std::vector<Slice> slices_;
  std::vector<RowRange> rows_;
  std::array<RowRange, 3> box_{};
};

}  // namespace twintrack
