// ContactSums: edge pixels and contacts of contact angles (contact_angle.hpp), by slice.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "twintrack/arrays/config.hpp"
#include "twintrack/metrics/contact_rule.hpp"
#include "twintrack/metrics/vessel_rows.hpp"

namespace twintrack::detail {

/// Edge pixels and contacts, summed by the axis that a slice is normal to, slice and label. Counts
/// are integers, so that sums of parts in any order are the sums of the whole.
class ContactSums {
 public:
  ContactSums(const std::array<RowRange, 3>& box, std::size_t labels, std::size_t masks)
      : labels_(labels), lanes_((masks + lane_group - 1) / lane_group * lane_group) {
    for (std::size_t axis = 0; axis < 3; ++axis) {
      first_[axis] = box[axis].first;
      slices_[axis] = static_cast<std::size_t>(box[axis].last - box[axis].first);
      start_[axis] = edges_.size();
      edges_.resize(edges_.size() + slices_[axis] * labels);
    }
    contacts_.resize(edges_.size() * lanes_);
  }

  std::size_t slices(std::size_t axis) const { return slices_[axis]; }

  /// Entry of voxel coordinate `slice` along `axis`.
  TWINTRACK_INLINE std::size_t entry(std::size_t axis, std::int64_t slice,
                                     std::size_t label) const {
    return start_[axis] + static_cast<std::size_t>(slice - first_[axis]) * labels_ + label;
  }
  std::size_t entry_of_nth(std::size_t axis, std::size_t nth, std::size_t label) const {
    return start_[axis] + nth * labels_ + label;
  }

  std::uint32_t edges(std::size_t entry) const { return edges_[entry]; }
  const std::uint32_t* contacts(std::size_t entry) const {
    return contacts_.data() + entry * lanes_;
  }

  TWINTRACK_INLINE void add_edge(std::size_t entry) { ++edges_[entry]; }

  TWINTRACK_INLINE void add(std::size_t entry, const MaskCounts& counts) {
    std::uint32_t* sum = contacts_.data() + entry * lanes_;
    for (std::size_t start = 0; start < lanes_; start += lane_group)
      for (std::size_t k = start; k < start + lane_group; ++k)
        sum[k] += static_cast<std::uint32_t>((counts.ones >> k & 1) + (counts.twos >> k & 1) * 2 +
                                             (counts.fours >> k & 1) * 4);
  }

  /// Sums that were made elsewhere: by entry, and by entry and lane.
  std::size_t lanes() const { return lanes_; }
  std::vector<std::uint32_t>& all_edges() { return edges_; }
  std::vector<std::uint32_t>& all_contacts() { return contacts_; }

  ContactSums& operator+=(const ContactSums& other) {
    for (std::size_t i = 0; i < edges_.size(); ++i) edges_[i] += other.edges_[i];
    for (std::size_t i = 0; i < contacts_.size(); ++i) contacts_[i] += other.contacts_[i];
    return *this;
  }

 private:
  static constexpr std::size_t lane_group = 8;

  std::size_t labels_;
  std::size_t lanes_;  // masks, rounded up
  std::array<std::int64_t, 3> first_{};
  std::array<std::size_t, 3> slices_{};
  std::array<std::size_t, 3> start_{};
  std::vector<std::uint32_t> edges_;
  std::vector<std::uint32_t> contacts_;
};

}  // namespace twintrack::detail
