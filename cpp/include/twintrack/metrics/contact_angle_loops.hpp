// The loops of contact_angle.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "twintrack/arrays/array_view.hpp"
#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/instruction_set.hpp"
#include "twintrack/arrays/parallel.hpp"
#include "twintrack/arrays/voxel_blocks.hpp"
#include "twintrack/metrics/contact_angle.hpp"
#include "twintrack/metrics/contact_rule.hpp"
#include "twintrack/metrics/contact_slab.hpp"
#include "twintrack/metrics/contact_sums.hpp"
#include "twintrack/metrics/mask_rows.hpp"
#include "twintrack/metrics/vessel_labels.hpp"
#include "twintrack/metrics/vessel_rows.hpp"
#include "twintrack/metrics/volume_order.hpp"

namespace twintrack {

namespace detail {

/// One measurement, in slabs of slices along the axis that is outermost in memory.
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
          static_cast<std::size_t>(team_size(threads_, slabs)));
      const bool valid = parallel_valid(threads_, slabs, [&](int thread, std::int64_t task) {
        auto& worker = workers[static_cast<std::size_t>(thread)];
        if (!worker) worker = std::make_unique<Worker>(total);
        const std::int64_t first = box[0].first + task * slab_slices;
        const std::int64_t last = std::min<std::int64_t>(first + slab_slices, box[0].last);
        return count_slab(first, last, *worker);
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
    MaskRows::Room room;
  };

  bool count_slab(std::int64_t first, std::int64_t last, Worker& worker) const {
    if (rows_.box(first, last)[1].empty()) return true;
    worker.slab.place(rows_, first, last);
    worker.room.reserve(worker.slab.stride(1));
    bool valid = true;
    with_instruction_set([&]() TWINTRACK_INLINE_LAMBDA {
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
            rows_.reached(outer, middle, first, last, contact_before, contact_after);
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
  MaskRows masks_of_;
  VesselRows rows_;
  int threads_;
};

}  // namespace detail

TWINTRACK_ENTRY ContactAngles contact_angles(const ContactInput& input, int threads) {
  detail::check_contacts(input);
  const VesselLabels labels(input.labels);
  case_walk(input.view);  // checks the raters' shapes
  ContactAngles angles;
  if (!detail::ContactMeasurement(input, labels, threads).run(angles))
    visit_real(input.view.score.element,
               [&](auto real) { VoxelBlocks<decltype(real)>(input.view).explain(); });
  return angles;
}

}  // namespace twintrack
