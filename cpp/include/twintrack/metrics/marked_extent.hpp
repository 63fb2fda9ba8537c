// Bounding box of the marked voxels among those that a walk passes.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "twintrack/arrays/array_view.hpp"

namespace twintrack {

class MarkedExtent {
 public:
  /// Indices along one axis: first <= index < last.
  struct Range {
    std::int64_t first;
    std::int64_t last;
  };

  /// `walk` goes over arrays of this shape.
  MarkedExtent(const Walk& walk, const Shape& shape) : dimensions_(shape.size()) {
    // The ranks at which the index along one axis becomes 1 and all others are 0 tell, from the
    // innermost outwards, in which order the walk takes the axes.
    for (std::int64_t rank = 1; rank < walk.count(); rank *= axes_.back().extent) {
      const Shape index = walk.index_of(rank);
      const auto axis = std::find(index.begin(), index.end(), 1) - index.begin();
      axes_.push_back({axis, shape[static_cast<std::size_t>(axis)], {}});
    }
    for (Axis& axis : axes_) axis.range = {axis.extent, 0};
  }

  /// Takes note of ranks [first, first + n), where marks[i] != 0 if rank first + i is marked.
  void add(std::int64_t first, const std::uint8_t* marks, int n) {
    if (axes_.empty()) {  // one voxel at most
      for (int i = 0; i < n; ++i) any_ |= marks[i] != 0;
      return;
    }
    std::array<std::int64_t, max_dimensions> index{};
    std::int64_t rest = first;
    for (std::size_t k = 0; k < axes_.size(); ++k) {
      index[k] = rest % axes_[k].extent;
      rest /= axes_[k].extent;
    }
    for (std::int64_t done = 0; done < n;) {
      const std::int64_t length = std::min(n - done, axes_[0].extent - index[0]);
      add_row(index, marks + done, length);
      done += length;
      index[0] = 0;
      for (std::size_t k = 1; k < axes_.size() && ++index[k] == axes_[k].extent; ++k) index[k] = 0;
    }
  }

  void merge(const MarkedExtent& other) {
    any_ |= other.any_;
    for (std::size_t k = 0; k < axes_.size(); ++k) {
      axes_[k].range.first = std::min(axes_[k].range.first, other.axes_[k].range.first);
      axes_[k].range.last = std::max(axes_[k].range.last, other.axes_[k].range.last);
    }
  }

  /// Lengths of the axes, innermost first, by which ranks are counted: an index along the first is
  /// the rank modulo its length, and so on with the quotient.
  std::vector<std::int64_t> lengths() const {
    std::vector<std::int64_t> lengths;
    for (const Axis& axis : axes_) lengths.push_back(axis.extent);
    return lengths;
  }

  /// Takes note of what was found elsewhere: the range along each of `lengths()`.
  void add_ranges(const std::vector<Range>& found) {
    any_ = true;
    for (std::size_t k = 0; k < axes_.size(); ++k) {
      axes_[k].range.first = std::min(axes_[k].range.first, found[k].first);
      axes_[k].range.last = std::max(axes_[k].range.last, found[k].last);
    }
  }

  /// Whether anything was marked.
  bool any() const { return any_; }

  /// Along each of the caller's axes; meaningful if `any()`.
  std::vector<Range> ranges() const {
    std::vector<Range> ranges(dimensions_, Range{0, 1});
    for (const Axis& axis : axes_) ranges[static_cast<std::size_t>(axis.caller)] = axis.range;
    return ranges;
  }

 private:
  struct Axis {
    std::ptrdiff_t caller;  // the caller's number of this axis
    std::int64_t extent;
    Range range;
  };

  // Voxels along the innermost axis from `index` on. Looks for the ends only outside the range
  // that is known already, so that large marked regions cost little.
  void add_row(const std::array<std::int64_t, max_dimensions>& index, const std::uint8_t* marks,
               std::int64_t length) {
    std::uint8_t seen = 0;
    for (std::int64_t i = 0; i < length; ++i) seen |= marks[i];
    if (seen == 0) return;
    any_ = true;
    for (std::size_t k = 1; k < axes_.size(); ++k) {
      axes_[k].range.first = std::min(axes_[k].range.first, index[k]);
      axes_[k].range.last = std::max(axes_[k].range.last, index[k] + 1);
    }
    Range& inner = axes_[0].range;
    const std::int64_t start = index[0];
    for (std::int64_t i = 0; i < length && start + i < inner.first; ++i)
      if (marks[i] != 0) inner.first = start + i;
    for (std::int64_t i = length; i > 0 && start + i > inner.last; --i)
      if (marks[i - 1] != 0) inner.last = start + i;
  }

  std::size_t dimensions_;
  std::vector<Axis> axes_;  // innermost first, those of extent 1 left out
  bool any_ = false;
};

}  // namespace twintrack
