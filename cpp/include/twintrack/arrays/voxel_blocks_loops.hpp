// The loops of voxel_blocks.hpp: how blocks are read and checked.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "twintrack/arrays/array_view.hpp"
#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/element.hpp"
#include "twintrack/arrays/element_runs.hpp"
#include "twintrack/arrays/input_error.hpp"
#include "twintrack/arrays/instruction_set.hpp"
#include "twintrack/arrays/voxel_blocks.hpp"

namespace twintrack {

namespace detail {

// out[0..kept) = in[i] where keep[i]; branch-free.
template <class T>
TWINTRACK_INLINE int compact(const T* in, const std::uint8_t* keep, int n, T* out) {
  int kept = 0;
  for (int i = 0; i < n; ++i) {
    out[kept] = in[i];
    kept += keep[i];
  }
  return kept;
}

// The bits that are set anywhere in some bytes, in no order.
TWINTRACK_INLINE std::uint64_t any_bit(const std::byte* p, std::int64_t bytes) {
  std::uint64_t seen = 0;
  std::int64_t i = 0;
  for (; i + 8 <= bytes; i += 8) seen |= load<std::uint64_t>(p + i);
  for (; i < bytes; ++i) seen |= static_cast<std::uint64_t>(p[i]);
  return seen;
}

}  // namespace detail

template <class Real>
TWINTRACK_NOINLINE bool VoxelBlocks<Real>::load(std::int64_t first, int n, Buffers& buffers,
                                                VoxelBlock<Real>& block) const {
  bool valid = true;
  with_instruction_set(
      [&]() TWINTRACK_INLINE_LAMBDA { valid = load_valid(first, n, buffers, block); });
  return valid;
}

template <class Real>
TWINTRACK_INLINE bool VoxelBlocks<Real>::load_valid(std::int64_t first, int n, Buffers& buffers,
                                                    VoxelBlock<Real>& block) const {
  const std::uint8_t* keep = nullptr;
  int kept = n;
  if (view_.region != nullptr) {
    const std::uint8_t* inside = labels(1 + raters_, first, n, buffers.region.data());
    // A boolean array may hold any non-zero byte for true.
    kept = 0;
    for (int i = 0; i < n; ++i) {
      buffers.region[static_cast<std::size_t>(i)] = inside[i] != 0 ? 1 : 0;
      kept += inside[i] != 0 ? 1 : 0;
    }
    if (kept < n) keep = buffers.region.data();
  }
  block.count = kept;
  if (kept == 0) return true;

  const Real* score = scores(first, n, buffers.score.data());
  if (keep != nullptr) {
    detail::compact(score, keep, n, buffers.score.data());
    score = buffers.score.data();
  }
  block.score = score;
  bool valid = scores_valid(score, kept);
  for (std::size_t k = 0; k < raters_; ++k) {
    std::uint8_t* room = buffers.rater.data() + k * block_voxels;
    const std::uint8_t* label = labels(1 + k, first, n, room);
    if (keep != nullptr) {
      detail::compact(label, keep, n, room);
      label = room;
    }
    valid &= labels_valid(label, kept);
    buffers.pointers[k] = label;
  }
  block.raters = buffers.pointers.data();
  return valid;
}

template <class Real>
TWINTRACK_NOINLINE bool VoxelBlocks<Real>::blank(std::int64_t first, int n) const {
  if (!all_contiguous_ || view_.region != nullptr) return false;
  std::uint64_t seen = 0;
  with_instruction_set([&]() TWINTRACK_INLINE_LAMBDA {
    for (std::size_t k = 0; k < arrays_.size() && seen == 0; ++k) {
      const auto size = static_cast<std::int64_t>(size_of(arrays_[k]->element));
      seen = detail::any_bit(walk_.start(k) + first * size, n * size);
    }
  });
  return seen == 0;
}

template <class Real>
void VoxelBlocks<Real>::explain() const {
  Buffers buffers(*this);
  VoxelBlock<Real> block;
  for (std::int64_t first = 0; first < voxels(); first += block_voxels) {
    const int n = static_cast<int>(std::min<std::int64_t>(block_voxels, voxels() - first));
    if (load(first, n, buffers, block)) continue;
    for (std::int64_t rank = first; rank < first + n; ++rank) explain_voxel(rank);
  }
  throw InputError("", "an array changed while it was being read");
}

// Scores of ranks [first, first + n): where they lie if they are ready there, else in `room`.
template <class Real>
TWINTRACK_INLINE const Real* VoxelBlocks<Real>::scores(std::int64_t first, int n,
                                                       Real* room) const {
  if (score_ready_) return reinterpret_cast<const Real*>(walk_.start(0)) + first;
  if (contiguous_[0]) {
    const auto size = static_cast<std::int64_t>(size_of(view_.score.element));
    detail::read_reals(view_.score.element, walk_.start(0) + first * size, n, room);
  } else {
    gather_scores(first, n, room);
  }
  return room;
}

// One copy for all instruction sets, bound by the strided reads.
template <class Real>
TWINTRACK_NOINLINE void VoxelBlocks<Real>::gather_scores(std::int64_t first, int n,
                                                         Real* room) const {
  walk_.for_each_run(
      0, first, n,
      [&](const std::byte* p, std::int64_t stride, std::int64_t length, std::int64_t done) {
        detail::gather_reals(view_.score.element, p, stride, length, room + done);
      });
}

// Labels of ranks [first, first + n) of array `k`: where they lie if they are bytes in order, else
// in `room`.
template <class Real>
TWINTRACK_INLINE const std::uint8_t* VoxelBlocks<Real>::labels(std::size_t k, std::int64_t first,
                                                               int n, std::uint8_t* room) const {
  if (contiguous_[k] && size_of(arrays_[k]->element) == 1)
    return reinterpret_cast<const std::uint8_t*>(walk_.start(k)) + first;
  gather_labels(k, first, n, room);
  return room;
}

template <class Real>
TWINTRACK_NOINLINE void VoxelBlocks<Real>::gather_labels(std::size_t k, std::int64_t first, int n,
                                                         std::uint8_t* room) const {
  walk_.for_each_run(
      k, first, n,
      [&](const std::byte* p, std::int64_t stride, std::int64_t length, std::int64_t done) {
        detail::read_labels(arrays_[k]->element, p, stride, length, room + done);
      });
}

// Value of one element, for messages. float holds every 16-bit float; doubles print 9 digits.
template <class Real>
double VoxelBlocks<Real>::value(std::size_t k, std::int64_t rank) const {
  double found = 0;
  walk_.for_each_run(k, rank, 1, [&](const std::byte* p, std::int64_t, std::int64_t, std::int64_t) {
    found = detail::element_value(arrays_[k]->element, p);
  });
  return found;
}

template <class Real>
void VoxelBlocks<Real>::explain_voxel(std::int64_t rank) const {
  const Shape voxel = walk_.index_of(rank);
  if (view_.region != nullptr && value(1 + raters_, rank) == 0) return;
  require_score(value(0, rank), voxel);
  for (std::size_t k = 0; k < raters_; ++k) require_label(value(1 + k, rank), k, voxel);
}

#if defined(TWINTRACK_LINKED)
template class VoxelBlocks<float>;
template class VoxelBlocks<double>;
#endif

}  // namespace twintrack
