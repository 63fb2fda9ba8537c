// Contact angles: how much of a vessel's circumference a tumour touches, in slices along each axis.
// What a contact is stands in contact_rule.hpp.
//
// All masks (raters and thresholded scores) are bits of one word per voxel and all labels are
// measured at once, so one visit of each vessel surface voxel settles everything. The evaluator's
// crop of each slice to the tumour and the vessel with a margin of 20 pixels changes nothing and is
// left out: what is cut off is empty, at a distance at which no step above sees it, and where the
// crop ends at the image's border it is the border. Nor does it matter that lesion and open may be
// computed beyond the border, where they do not exist: there, T reaches at most (0,1), (1,0) or
// (1,1) of an edge pixel from a voxel whose cross covers the edge pixel itself, which settles it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "twintrack/arrays/array_view.hpp"
#include "twintrack/arrays/input_error.hpp"
#include "twintrack/arrays/parallel.hpp"
#include "twintrack/arrays/voxel_blocks.hpp"
#include "twintrack/metrics/contact_rule.hpp"
#include "twintrack/metrics/contact_sums.hpp"
#include "twintrack/metrics/volume_order.hpp"

namespace twintrack {

/// What is measured. Scores above a threshold are one mask per threshold, after the raters.
struct ContactInput {
  CaseView view;  // without a region
  ArrayView vessels;
  std::vector<std::int64_t> labels;
  std::vector<double> thresholds;
};

struct ContactAngles {
  std::vector<double> degrees;  // labels × 3 axes × masks, row-major
  std::vector<bool> label_occurs;
};

namespace detail {

/// The largest angle of each label, axis and mask.
inline void summarise(const ContactSums& sums, const VolumeOrder& order, std::size_t labels,
                      std::size_t masks, ContactAngles& angles) {
  angles.degrees.assign(labels * 3 * masks, 0.0);
  angles.label_occurs.assign(labels, false);
  for (std::size_t walked = 0; walked < 3; ++walked)
    for (std::size_t nth = 0; nth < sums.slices(walked); ++nth)
      for (std::size_t label = 0; label < labels; ++label) {
        const std::size_t entry = sums.entry_of_nth(walked, nth, label);
        const std::uint32_t edges = sums.edges(entry);
        if (edges == 0) continue;
        angles.label_occurs[label] = true;
        double* degrees = angles.degrees.data() + (label * 3 + order.axis(walked)) * masks;
        for (std::size_t k = 0; k < masks; ++k)
          // In this order: 360 * contacts / edges rounds otherwise.
          degrees[k] = std::max(degrees[k], static_cast<double>(sums.contacts(entry)[k]) /
                                                static_cast<double>(edges) * 360.0);
      }
}

/// Throws InputError unless the arrays fit together and do not exceed capacity; whether
/// raters fit the score is not looked at.
inline void check_contacts(const ContactInput& input) {
  const Shape& shape = input.vessels.shape;
  if (shape.size() != 3)
    throw InputError("vessels",
                     "has shape " + to_text(shape) + "; contact angles need three dimensions");
  if (input.view.score.shape != shape)
    throw InputError("vessels", "has shape " + to_text(shape) + " but score has shape " +
                                    to_text(input.view.score.shape));
  element_count(shape, "vessels");
  for (std::size_t axis = 0; axis < 3; ++axis)
    if (shape[axis] * shape[(axis + 1) % 3] >= std::int64_t{1} << 30)
      throw InputError("vessels",
                       "has shape " + to_text(shape) + "; a slice must have less than 2^30 pixels");
  const std::size_t masks = input.view.raters.size() + input.thresholds.size();
  if (input.view.raters.empty()) throw InputError("raters", "is empty");
  if (masks > max_masks)
    throw InputError("raters", "has " + std::to_string(input.view.raters.size()) +
                                   " masks; at most " +
                                   std::to_string(max_masks - input.thresholds.size()) +
                                   " can be measured at once");
}

}  // namespace detail

/// Contact angles of all labels, axes and masks. Scores and raters are read, and checked, near
/// vessels only. The result does not depend on the number of threads or on how arrays lie in
/// memory.
///
/// Throws InputError for values that break the rules of the input and for arrays that do not fit
/// together or exceed capacity: 64 masks, 255 labels, slices of less than 2^30 pixels (a slice's
/// contacts are counted in 32 bits and are at most four per pixel).
ContactAngles contact_angles(const ContactInput& input, int threads = max_threads());

}  // namespace twintrack

#if !defined(TWINTRACK_LINKED)
#include "twintrack/metrics/contact_angle_loops.hpp"
#endif
