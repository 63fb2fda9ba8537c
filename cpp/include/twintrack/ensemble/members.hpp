// The members of an ensemble: what their arrays must be, and how rows of them are read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "twintrack/arrays/array_view.hpp"
#include "twintrack/arrays/element.hpp"
#include "twintrack/arrays/input_error.hpp"
#include "twintrack/ensemble/merge.hpp"

namespace twintrack::detail {

inline std::string member_name(std::size_t member) {
  return "members[" + std::to_string(member) + "]";
}

// Throws unless every member is (channels, spatial axes …) of one of the float types.
inline void check_members(const std::vector<ArrayView>& members, std::size_t spatial_axes) {
  if (members.empty()) throw InputError("members", "is empty");
  for (std::size_t k = 0; k < members.size(); ++k) {
    const ArrayView& member = members[k];
    switch (member.element) {
      case Element::float16:
      case Element::bfloat16:
      case Element::float32:
      case Element::float64:
        break;
      default:
        throw InputError(member_name(k), "must be float16, bfloat16, float32 or float64");
    }
    if (member.shape.size() != 1 + spatial_axes)
      throw InputError(member_name(k), "has shape " + to_text(member.shape) +
                                           "; expected channels and " +
                                           std::to_string(spatial_axes) + " spatial axes");
    element_count(member.shape, member_name(k));
    if (member.shape[0] != members[0].shape[0])
      throw InputError(member_name(k), "has " + std::to_string(member.shape[0]) +
                                           " channels but members[0] has " +
                                           std::to_string(members[0].shape[0]));
    if (member.element != members[0].element)
      throw InputError(member_name(k), "and members[0] have different dtypes");
  }
}

inline ArrayView channel_of(const ArrayView& member, std::int64_t channel) {
  ArrayView view{member.data + channel * member.strides[0], member.element, {}, {}};
  view.shape.assign(member.shape.begin() + 1, member.shape.end());
  view.strides.assign(member.strides.begin() + 1, member.strides.end());
  return view;
}

/// Throws InputError for the first value, in C order, that the rule forbids.
[[noreturn]] void explain_members(const std::vector<ArrayView>& members, const Merge& merge);

/// `n` values to float; `stride` in bytes. False if one is not a logit, or not in [0, 1].
bool read_values(Element element, bool logits, const std::byte* p, std::int64_t stride,
                 std::int64_t n, float* out);

/// The mean of the members' rows of logits, in their own precision: `half` if that is float16.
void mean_logits(const float* const* rows, std::size_t members, std::int64_t n, bool half,
                 float* mean);

}  // namespace twintrack::detail

#if !defined(TWINTRACK_LINKED)
#include "twintrack/ensemble/members_loops.hpp"
#endif
