// Contact angles: how much of a vessel's circumference a tumour touches, in slices along each axis.
//
// In a slice, for one vessel and one tumour mask T: lesion is T dilated by the 2-D cross; edge is
// the vessel without its erosion by the cross (beyond the image is background). An edge pixel that
// the lesion covers is one contact. One that it does not cover gets, from the lesion outside the
// edge (`open`), one contact each for: open at (0,1); open at (1,0); open at (1,1); open at (0,1)
// or (1,0). These are the two-pixel kernels [1 1], its transpose and the two diagonals as
// scipy.ndimage.convolve lays an even kernel, from the pixel towards higher indices. Hence
//     degrees = 360 contacts / edge pixels,
// which may exceed 360, and the angle of a vessel is the largest over the slices of an axis. The
// rule is symmetric in the slice's two axes, so volumes can be walked with axes in any order.
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
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "twintrack/arrays/array_view.hpp"
#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/instruction_set.hpp"
#include "twintrack/arrays/parallel.hpp"
#include "twintrack/arrays/voxel_blocks.hpp"
#include "twintrack/metrics/mask_rows.hpp"
#include "twintrack/metrics/vessel_rows.hpp"
#include "twintrack/metrics/volume_order.hpp"

namespace twintrack {

/// A count for each mask, in binary digits: bit k of each word belongs to mask k.
struct MaskCounts {
  MaskWord ones;
  MaskWord twos;
  MaskWord fours;
};

/// Contacts (0 to 4) of an edge pixel: `here` is the lesion on it; the others are the open lesion
/// one step along the first axis, along the second, and along both.
TWINTRACK_HD MaskCounts contacts(MaskWord here, MaskWord first, MaskWord second, MaskWord both) {
  // first + second + (first | second) is 2 (first | second) + (first & second).
  const MaskWord either = first | second;
  const MaskWord pair = first & second;
  const MaskWord carry = pair & both;
  return {here | (~here & (pair ^ both)), ~here & (either ^ carry), ~here & either & carry};
}

/// The masks dilated by the cross, at one pixel of a slice whose axes have strides `a` and `b`.
TWINTRACK_HD MaskWord lesion(const MaskWord* mask, std::int64_t a, std::int64_t b) {
  return mask[0] | mask[-a] | mask[a] | mask[-b] | mask[b];
}

/// For the slice normal to each axis a bit, axis 0 lowest: whether a vessel voxel is on the edge
/// there. The arguments say whether a neighbour along an axis is not of the same vessel.
TWINTRACK_HD std::uint8_t edge_planes(std::uint8_t along0, std::uint8_t along1,
                                      std::uint8_t along2) {
  return static_cast<std::uint8_t>((along1 | along2) | (along0 | along2) << 1 |
                                   (along0 | along1) << 2);
}

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

/// Some outermost slices around vessels: of each voxel its masks, its vessel and on which slices'
/// edges it is. Loaded are only the parts of rows that vessels in the middle slices reach; nothing
/// else is ever read.
class ContactSlab {
 public:
  /// A contact is settled by voxels from one below to two above an edge voxel along each axis: the
  /// cross of a neighbour towards higher indices.
  static constexpr int before = 1;
  static constexpr int after = 2;

  /// Makes room for what vessels in slices [first, last) reach.
  void place(const VesselRows& rows, std::int64_t first, std::int64_t last) {
    const std::array<RowRange, 3> box = rows.box(first, last);
    for (std::size_t axis = 0; axis < 3; ++axis) {
      begin_[axis] = box[axis].first - before;
      end_[axis] = box[axis].last + after;
    }
    stride_[2] = 1;
    stride_[1] = end_[2] - begin_[2];
    stride_[0] = stride_[1] * (end_[1] - begin_[1]);
    const auto voxels = static_cast<std::size_t>(stride_[0] * (end_[0] - begin_[0]));
    if (code.size() < voxels) {
      mask.resize(voxels);
      code.resize(voxels);
      edge.resize(voxels);
    }
    row_union.assign(voxels / static_cast<std::size_t>(stride_[1]), 0);
  }

  std::int64_t begin(std::size_t axis) const { return begin_[axis]; }
  std::int64_t end(std::size_t axis) const { return end_[axis]; }
  std::int64_t stride(std::size_t axis) const { return stride_[axis]; }

  std::int64_t index(std::int64_t outer, std::int64_t middle, std::int64_t inner) const {
    return (outer - begin_[0]) * stride_[0] + (middle - begin_[1]) * stride_[1] + inner - begin_[2];
  }
  MaskWord& union_of_row(std::int64_t outer, std::int64_t middle) {
    return row_union[static_cast<std::size_t>(index(outer, middle, begin_[2]) / stride_[1])];
  }

  std::vector<MaskWord> mask;
  std::vector<std::uint8_t> code;   // VesselLabels' code
  std::vector<std::uint8_t> edge;   // edge_planes of vessel voxels, 0 elsewhere
  std::vector<MaskWord> row_union;  // masks that occur in a row

 private:
  std::array<std::int64_t, 3> begin_{};
  std::array<std::int64_t, 3> end_{};
  std::array<std::int64_t, 3> stride_{};
};

/// One measurement, in slabs of slices along the axis that is outermost in memory.
template <class Real>
class ContactMeasurement {
 public:
  ContactMeasurement(const ContactInput& input, const VesselLabels& labels, int threads)
      : labels_(labels),
        masks_(input.view.raters.size() + input.thresholds.size()),
        order_(input.vessels),
        vessels_(order_.arrange(input.vessels)),
        masks_of_(input.view, input.thresholds, order_),
        rows_(input.vessels, order_, labels, threads),
        threads_(threads) {}

  /// False if a score or a rater's label is not valid.
  bool run(ContactAngles& angles) const {
    const std::array<RowRange, 3>& box = rows_.box();
    ContactSums total(box, labels_.count(), masks_);
    if (!box[0].empty()) {
      const std::int64_t slices = box[0].last - box[0].first;
      const std::int64_t slabs = (slices + slab_slices - 1) / slab_slices;
      std::vector<std::unique_ptr<Worker>> workers(
          static_cast<std::size_t>(std::clamp<std::int64_t>(slabs, 1, std::max(threads_, 1))));
      std::atomic<bool> valid{true};
      parallel_tasks(static_cast<int>(workers.size()), slabs, [&](int thread, std::int64_t task) {
        auto& worker = workers[static_cast<std::size_t>(thread)];
        if (!worker) worker = std::make_unique<Worker>(total);
        const std::int64_t first = box[0].first + task * slab_slices;
        const std::int64_t last = std::min<std::int64_t>(first + slab_slices, box[0].last);
        if (!count_slab(first, last, *worker)) valid.store(false, std::memory_order_relaxed);
      });
      if (!valid) return false;
      for (const auto& worker : workers)
        if (worker) total += worker->sums;
    }
    summarise(total, order_, labels_.count(), masks_, angles);
    return true;
  }

 private:
  // Many, for the three slices that a slab shares with its neighbours are loaded twice; few, for a
  // slab is shared out as one task and takes up to 190 bytes per pixel of the vessels' box.
  static constexpr std::int64_t slab_slices = 16;

  struct Worker {
    explicit Worker(const ContactSums& empty) : sums(empty) {}
    ContactSums sums;
    ContactSlab slab;
    typename MaskRows<Real>::Room room;
  };

  bool count_slab(std::int64_t first, std::int64_t last, Worker& worker) const {
    if (rows_.box(first, last)[1].empty()) return true;
    worker.slab.place(rows_, first, last);
    worker.room.reserve(worker.slab.stride(1));
    bool valid = true;
    with_instruction_set(instruction_set(), [&]() TWINTRACK_INLINE_LAMBDA {
      valid = load(first, last, worker);
      if (!valid) return;
      mark_edges(first, last, worker.slab);
      count(first, last, worker);
    });
    return valid;
  }

  TWINTRACK_INLINE bool load(std::int64_t first, std::int64_t last, Worker& worker) const {
    ContactSlab& slab = worker.slab;
    bool valid = true;
    for (std::int64_t outer = slab.begin(0); outer < slab.end(0); ++outer) {
      for (std::int64_t middle = slab.begin(1); middle < slab.end(1); ++middle) {
        const RowRange range =
            rows_.reached(outer, middle, first, last, ContactSlab::before, ContactSlab::after);
        if (range.empty()) continue;
        // What lies beyond the volume stays zero.
        const auto at = static_cast<std::size_t>(slab.index(outer, middle, range.first));
        std::fill_n(&slab.code[at], range.last - range.first, std::uint8_t{0});
        std::fill_n(&slab.mask[at], range.last - range.first, MaskWord{0});
        if (outer < 0 || outer >= order_.extent(0) || middle < 0 || middle >= order_.extent(1))
          continue;

        const std::int64_t first_inner = std::max<std::int64_t>(range.first, 0);
        const std::int64_t n = std::min<std::int64_t>(range.last, order_.extent(2)) - first_inner;
        MaskWord* mask = slab.mask.data() + slab.index(outer, middle, first_inner);
        valid &= masks_of_.load(outer, middle, first_inner, n, worker.room, mask);
        MaskWord in_row = 0;
        for (std::int64_t i = 0; i < n; ++i) in_row |= mask[i];
        slab.union_of_row(outer, middle) = in_row;

        // The row's own vessels may lie outside the slab's reach, or in part.
        const RowRange own = rows_.row(outer, middle);
        const std::int64_t start = std::max(own.first, range.first);
        const std::int64_t end = std::min(own.last, range.last);
        if (start < end)
          labels_.encode(vessels_.element, vessels_.at(outer, middle, start), vessels_.stride[2],
                         end - start, slab.code.data() + slab.index(outer, middle, start));
      }
    }
    return valid;
  }

  TWINTRACK_INLINE void mark_edges(std::int64_t first, std::int64_t last, ContactSlab& slab) const {
    const std::int64_t outer_stride = slab.stride(0);
    const std::int64_t middle_stride = slab.stride(1);
    for (std::int64_t outer = first; outer < last + 1; ++outer) {
      for (std::int64_t middle = slab.begin(1) + 1; middle < slab.end(1) - 1; ++middle) {
        const RowRange range = rows_.reached(outer, middle, first, last, 0, 1);
        if (range.empty()) continue;
        const std::int64_t start = slab.index(outer, middle, range.first);
        const std::uint8_t* code = slab.code.data() + start;
        std::uint8_t* __restrict edge = slab.edge.data() + start;
        const std::int64_t n = range.last - range.first;
        for (std::int64_t i = 0; i < n; ++i) {
          const std::uint8_t own = code[i];
          const auto leaves = [&](std::int64_t step) TWINTRACK_INLINE_LAMBDA {
            return static_cast<std::uint8_t>((code[i - step] != own) | (code[i + step] != own));
          };
          const std::uint8_t planes =
              edge_planes(leaves(outer_stride), leaves(middle_stride), leaves(1));
          edge[i] = own == 0 ? std::uint8_t{0} : planes;
        }
      }
    }
  }

  TWINTRACK_INLINE void count(std::int64_t first, std::int64_t last, Worker& worker) const {
    ContactSlab& slab = worker.slab;
    for (std::int64_t outer = first; outer < last; ++outer) {
      for (std::int64_t middle = slab.begin(1) + 1; middle < slab.end(1) - 2; ++middle) {
        const RowRange range = rows_.row(outer, middle);
        if (range.empty()) continue;
        MaskWord near = 0;
        for (std::int64_t o = outer - 1; o < outer + 3; ++o)
          for (std::int64_t m = middle - 1; m < middle + 3; ++m) near |= slab.union_of_row(o, m);
        const std::uint8_t* edge = slab.edge.data() + slab.index(outer, middle, range.first);
        for (std::int64_t inner = range.first; inner < range.last; ++inner, ++edge)
          if (*edge != 0) count_voxel(outer, middle, inner, near != 0, worker);
      }
    }
  }

  TWINTRACK_INLINE void count_voxel(std::int64_t outer, std::int64_t middle, std::int64_t inner,
                                    bool near, Worker& worker) const {
    ContactSlab& slab = worker.slab;
    const std::int64_t at = slab.index(outer, middle, inner);
    const MaskWord* mask = slab.mask.data() + at;
    const std::uint8_t* code = slab.code.data() + at;
    const std::uint8_t* edge = slab.edge.data() + at;
    const std::array<std::int64_t, 3> slice{outer, middle, inner};
    const std::array<std::int64_t, 3> a{slab.stride(1), slab.stride(0), slab.stride(0)};
    const std::array<std::int64_t, 3> b{1, 1, slab.stride(1)};
    for (std::size_t axis = 0; axis < 3; ++axis) {
      if ((edge[0] >> axis & 1) == 0) continue;
      const std::size_t entry = worker.sums.entry(axis, slice[axis], code[0] - std::size_t{1});
      worker.sums.add_edge(entry);
      if (!near) continue;
      const auto open = [&](std::int64_t step) TWINTRACK_INLINE_LAMBDA {
        const bool closed = code[step] == code[0] && (edge[step] >> axis & 1) != 0;
        return closed ? MaskWord{0} : lesion(mask + step, a[axis], b[axis]);
      };
      const MaskWord here = lesion(mask, a[axis], b[axis]);
      const MaskWord up_a = open(a[axis]);
      const MaskWord up_b = open(b[axis]);
      const MaskWord up_both = open(a[axis] + b[axis]);
      if ((here | up_a | up_b | up_both) != 0)
        worker.sums.add(entry, contacts(here, up_a, up_b, up_both));
    }
  }

  const VesselLabels& labels_;
  std::size_t masks_;
  VolumeOrder order_;
  WalkedVolume vessels_;
  MaskRows<Real> masks_of_;
  VesselRows rows_;
  int threads_;
};

/// Throws std::invalid_argument unless the arrays fit together and do not exceed capacity; whether
/// raters fit the score is not looked at.
inline void check_contacts(const ContactInput& input) {
  const Shape& shape = input.vessels.shape;
  if (shape.size() != 3)
    throw std::invalid_argument("vessels has shape " + to_text(shape) +
                                "; contact angles need three dimensions");
  if (input.view.score.shape != shape)
    throw std::invalid_argument("vessels has shape " + to_text(shape) + " but score has shape " +
                                to_text(input.view.score.shape));
  for (std::size_t axis = 0; axis < 3; ++axis)
    if (shape[axis] * shape[(axis + 1) % 3] >= std::int64_t{1} << 30)
      throw std::invalid_argument("vessels has shape " + to_text(shape) +
                                  "; a slice must have less than 2^30 pixels");
  const std::size_t masks = input.view.raters.size() + input.thresholds.size();
  if (input.view.raters.empty()) throw std::invalid_argument("raters is empty");
  if (masks > max_masks)
    throw std::invalid_argument(
        "raters has " + std::to_string(input.view.raters.size()) + " masks; at most " +
        std::to_string(max_masks - input.thresholds.size()) + " can be measured at once");
}

}  // namespace detail

/// Contact angles of all labels, axes and masks. Scores and raters are read, and checked, near
/// vessels only. The result does not depend on the number of threads or on how arrays lie in
/// memory.
///
/// Throws InputError for values that break the rules of the input and std::invalid_argument for
/// arrays that do not fit together or exceed capacity: 64 masks, 255 labels, slices of less than
/// 2^30 pixels (a slice's contacts are counted in 32 bits and are at most four per pixel).
inline ContactAngles contact_angles(const ContactInput& input, int threads = max_threads()) {
  detail::check_contacts(input);
  const VesselLabels labels(input.labels);
  ContactAngles angles;
  visit_real(input.view.score.element, [&](auto real) {
    using Real = decltype(real);
    const VoxelBlocks<Real> blocks(input.view);  // checks the raters' shapes
    const detail::ContactMeasurement<Real> measurement(input, labels, threads);
    if (!measurement.run(angles)) blocks.explain();
  });
  return angles;
}

}  // namespace twintrack
