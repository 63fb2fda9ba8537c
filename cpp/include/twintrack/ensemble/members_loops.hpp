// The loops of members.hpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "twintrack/arrays/array_view.hpp"
#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/element.hpp"
#include "twintrack/arrays/element_runs.hpp"
#include "twintrack/arrays/input_error.hpp"
#include "twintrack/arrays/instruction_set.hpp"
#include "twintrack/ensemble/member_rows.hpp"
#include "twintrack/ensemble/members.hpp"
#include "twintrack/ensemble/merge.hpp"

namespace twintrack::detail {

TWINTRACK_ENTRY bool read_values(Element element, bool logits, const std::byte* p,
                                 std::int64_t stride, std::int64_t n, float* out) {
  const std::size_t size = size_of(element);
  bool valid = true;
  if (stride == static_cast<std::int64_t>(size)) {
    with_instruction_set(
        [&]() TWINTRACK_INLINE_LAMBDA { valid = read_packed(element, logits, p, n, out); });
  } else {
    for_each_packed(size, p, stride, n,
                    [&](const std::byte* from, std::int64_t length, std::int64_t done) {
                      valid &= read_values(element, logits, from, static_cast<std::int64_t>(size),
                                           length, out + done);
                    });
  }
  return valid;
}

TWINTRACK_ENTRY void mean_logits(const float* const* rows, std::size_t members, std::int64_t n,
                                 bool half, float* mean) {
  with_instruction_set(
      [&]() TWINTRACK_INLINE_LAMBDA { average_logits(rows, members, n, half, mean); });
}

TWINTRACK_ENTRY void explain_members(const std::vector<ArrayView>& members, const Merge& merge) {
  const bool logits = merge.rule().logits;
  const auto value_at = [](const ArrayView& view, const Shape& index) {
    const std::byte* p = view.data;
    for (std::size_t axis = 0; axis < index.size(); ++axis) p += index[axis] * view.strides[axis];
    return static_cast<float>(element_value(view.element, p));
  };
  for (std::size_t k = 0; k < members.size(); ++k) {
    const ArrayView first = channel_of(members[k], 0);
    Shape index(first.shape.size(), 0);
    for (std::int64_t voxel = element_count(first.shape); voxel-- > 0;) {
      float sum = 0;
      for (const std::int64_t channel : merge.channels()) {
        const float value = value_at(channel_of(members[k], channel), index);
        if (logits ? magnitude_bits(value) < logit_limit_bits : value >= 0 && value <= 1) {
          sum += value;
          continue;
        }
        Shape element{channel};
        element.insert(element.end(), index.begin(), index.end());
        throw InputError(member_name(k), element, value,
                         logits ? "logits must be finite, below 2^100 in magnitude"
                                : "probabilities must be in [0, 1]");
      }
      if (!logits && !merge.rule().regions && sum > input_probability_limit)
        throw InputError(member_name(k), index, std::nullopt,
                         "has tumour channels that add up to " + number_text(sum) +
                             "; probabilities of classes cannot exceed 1 (are the channels "
                             "regions, or logits?)");
      for (std::size_t axis = index.size(); axis-- > 0;) {
        if (++index[axis] < first.shape[axis]) break;
        index[axis] = 0;
      }
    }
  }
  throw InputError("", "a member changed while it was being read");
}

}  // namespace twintrack::detail
