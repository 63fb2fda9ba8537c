// The labels of the vessels that are measured, and how a label map's elements are told by them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/element.hpp"
#include "twintrack/arrays/input_error.hpp"

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

  /// Throws InputError for more than `max_labels`, labels below 1 and repeated ones.
  explicit VesselLabels(std::vector<std::int64_t> labels) : labels_(std::move(labels)) {
    if (labels_.size() > max_labels)
      throw InputError("labels", "has " + std::to_string(labels_.size()) + " entries; at most " +
                                     std::to_string(max_labels) + " can be measured at once");
    for (auto label = labels_.begin(); label != labels_.end(); ++label) {
      if (*label < 1)
        throw InputError("labels", "has " + std::to_string(*label) +
                                       "; a vessel's label must be 1 or more, 0 is background");
      if (std::find(labels_.begin(), label, *label) != label)
        throw InputError("labels", "has " + std::to_string(*label) + " twice");
    }
  }

  std::size_t count() const { return labels_.size(); }

  /// Codes of `n` evenly spaced elements. False if one is not a whole number.
  bool encode(Element element, const std::byte* p, std::int64_t stride, std::int64_t n,
              std::uint8_t* code) const;

 private:
  bool encode_packed(Element element, const std::byte* p, std::int64_t n, std::uint8_t* code) const;

  std::vector<std::int64_t> labels_;
};

}  // namespace twintrack

#if !defined(TWINTRACK_LINKED)
#include "twintrack/metrics/vessel_labels_loops.hpp"
#endif
