// Strided arrays as they come from the caller, and one order in which to walk several of them.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "twintrack/arrays/element.hpp"
#include "twintrack/arrays/input_error.hpp"

namespace twintrack {

inline constexpr int max_dimensions = 16;

using Shape = std::vector<std::int64_t>;

/// A strided array that somebody else owns. Strides are in bytes and may be zero or negative.
struct ArrayView {
  const std::byte* data = nullptr;
  Element element = Element::float32;
  Shape shape;
  Shape strides;
};

/// One that may be written to, although `data` does not say so.
struct WritableArrayView : ArrayView {};

/// Elements of an array of this shape. Throws InputError, which names `argument`, for a negative
/// extent and for 2^60 elements or more, whose bytes could not be counted; extents of 0 change
/// nothing about that.
inline std::int64_t element_count(const Shape& shape, const std::string& argument = "") {
  constexpr std::int64_t limit = std::int64_t{1} << 60;
  std::int64_t count = 1;
  bool empty = false;
  for (const std::int64_t extent : shape) {
    if (extent < 0)
      throw InputError(argument,
                       "has shape " + detail::to_text(shape) + "; extents are not negative");
    empty = empty || extent == 0;
    if (extent > (limit - 1) / count)
      throw InputError(argument, "has shape " + detail::to_text(shape) +
                                     "; at most 2^60 - 1 elements are supported");
    count *= std::max<std::int64_t>(extent, 1);
  }
  return empty ? 0 : count;
}

/// A common order for walking arrays of one shape: the axes sorted so that the first array is
/// walked as it lies in memory, axes that are contiguous with each other in every array merged.
/// Position in that order ("rank") runs from 0 to `count`.
class Walk {
 public:
  /// An axis of the walk: its extent, and its stride in bytes in each array.
  struct Axis {
    std::int64_t extent;
    Shape strides;
  };

  /// `arrays` all have `shape`; the first one decides the order.
  Walk(const Shape& shape, const std::vector<const ArrayView*>& arrays) : shape_(shape) {
    if (shape.size() > static_cast<std::size_t>(max_dimensions))
      throw InputError("", "arrays of " + std::to_string(shape.size()) + " dimensions; at most " +
                               std::to_string(max_dimensions) + " are supported");
    count_ = element_count(shape);
    std::vector<Axis> axes;
    for (std::size_t axis = 0; axis < shape.size(); ++axis) {
      if (shape[axis] == 1) continue;
      Axis walked{shape[axis], {}};
      for (const ArrayView* array : arrays) walked.strides.push_back(array->strides[axis]);
      axes.push_back(walked);
      original_axis_.push_back(axis);
    }
    sort_by_first(axes);
    merge(axes);
    starts_.assign(arrays.size(), nullptr);
    for (std::size_t k = 0; k < arrays.size(); ++k) starts_[k] = arrays[k]->data;
    axes_ = axes;
  }

  std::int64_t count() const { return count_; }

  /// Whether array `k`, of elements of `size` bytes, lies in memory in walking order, gap-free.
  bool contiguous(std::size_t k, std::size_t size) const {
    std::int64_t expected = static_cast<std::int64_t>(size);
    for (std::size_t axis = axes_.size(); axis-- > 0;) {
      if (axes_[axis].strides[k] != expected) return false;
      expected *= axes_[axis].extent;
    }
    return true;
  }

  const std::byte* start(std::size_t k) const { return starts_[k]; }

  /// Outermost first; merged, and those of extent 1 left out.
  const std::vector<Axis>& axes() const { return axes_; }

  /// Calls `run(pointer, stride, length, done)` for the evenly spaced runs of array `k` that make
  /// up ranks [first, first + n); `done` counts the elements of earlier runs.
  template <class Run>
  void for_each_run(std::size_t k, std::int64_t first, std::int64_t n, Run&& run) const {
    if (n <= 0) return;
    if (axes_.empty()) return run(starts_[k], std::int64_t{0}, n, std::int64_t{0});
    const std::size_t last = axes_.size() - 1;
    std::array<std::int64_t, max_dimensions> index{};
    const std::byte* pointer = starts_[k];
    std::int64_t rest = first;
    for (std::size_t axis = axes_.size(); axis-- > 0;) {
      index[axis] = rest % axes_[axis].extent;
      rest /= axes_[axis].extent;
      pointer += index[axis] * axes_[axis].strides[k];
    }
    const std::int64_t stride = axes_[last].strides[k];
    for (std::int64_t done = 0; done < n;) {
      const std::int64_t length = std::min(n - done, axes_[last].extent - index[last]);
      run(pointer, stride, length, done);
      done += length;
      if (done >= n) break;
      pointer -= index[last] * stride;
      index[last] = 0;
      for (std::size_t axis = last; axis-- > 0;) {
        pointer += axes_[axis].strides[k];
        if (++index[axis] < axes_[axis].extent) break;
        pointer -= axes_[axis].extent * axes_[axis].strides[k];
        index[axis] = 0;
      }
    }
  }

  /// Index, along the caller's axes, of the element at `rank`.
  Shape index_of(std::int64_t rank) const {
    Shape sorted(order_.size());
    for (std::size_t axis = order_.size(); axis-- > 0;) {
      sorted[axis] = rank % shape_[order_[axis]];
      rank /= shape_[order_[axis]];
    }
    Shape index(shape_.size(), 0);
    for (std::size_t axis = 0; axis < order_.size(); ++axis) index[order_[axis]] = sorted[axis];
    return index;
  }

 private:
  // Stable, largest |stride| of the first array outermost: a C-ordered array keeps its order.
  void sort_by_first(std::vector<Axis>& axes) {
    std::vector<std::size_t> by(axes.size());
    for (std::size_t i = 0; i < by.size(); ++i) by[i] = i;
    std::stable_sort(by.begin(), by.end(), [&](std::size_t a, std::size_t b) {
      return std::abs(axes[a].strides[0]) > std::abs(axes[b].strides[0]);
    });
    std::vector<Axis> sorted;
    for (const std::size_t i : by) {
      sorted.push_back(axes[i]);
      order_.push_back(original_axis_[i]);
    }
    axes = sorted;
  }

  static void merge(std::vector<Axis>& axes) {
    std::vector<Axis> merged;
    for (const Axis& inner : axes) {
      const bool joins = !merged.empty() && [&] {
        for (std::size_t k = 0; k < inner.strides.size(); ++k)
          if (merged.back().strides[k] != inner.strides[k] * inner.extent) return false;
        return true;
      }();
      if (joins) {
        merged.back().extent *= inner.extent;
        merged.back().strides = inner.strides;
      } else {
        merged.push_back(inner);
      }
    }
    axes = merged;
  }

  Shape shape_;
  std::int64_t count_ = 0;
  std::vector<std::size_t> original_axis_;
  std::vector<std::size_t> order_;  // caller's axes, outermost first, those of extent 1 left out
  std::vector<Axis> axes_;
  std::vector<const std::byte*> starts_;
};

}  // namespace twintrack
