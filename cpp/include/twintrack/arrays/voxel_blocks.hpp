// The one way in which every tally reads a case: checked blocks of voxels.
//
// A case is a score array, N rater masks and an optional region mask, all of one shape but of any
// element type, memory order and strides. `VoxelBlocks` walks them together and hands out blocks of
// at most `block_voxels` voxels as plain contiguous arrays: scores as float or double, each rater
// as bytes of 0 and 1, voxels outside the region left out. Data that lies ready in memory is not
// copied. A block is checked before it is handed out: scores in [0, 1], labels 0 or 1.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "twintrack/arrays/array_view.hpp"
#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/element.hpp"
#include "twintrack/arrays/input_error.hpp"
#include "twintrack/arrays/voxel_rules.hpp"

namespace twintrack {

/// Voxels of a block: its scores, labels and scratch stay in the first-level cache.
inline constexpr int block_voxels = 1024;
/// Voxels of a task, the unit in which a case is shared out over threads.
inline constexpr std::int64_t task_voxels = std::int64_t{1} << 16;

/// The arrays of a case. `region` is null if every voxel counts.
struct CaseView {
  ArrayView score;
  std::vector<ArrayView> raters;
  const ArrayView* region = nullptr;
};

/// A block as a tally sees it. Pointers are valid until the next block is loaded.
template <class Real>
struct VoxelBlock {
  const Real* score = nullptr;
  const std::uint8_t* const* raters = nullptr;
  int count = 0;
};

/// float for scores of at most 32 bits, double for float64.
template <class Visitor>
auto visit_real(Element score, Visitor&& visit) {
  return score == Element::float64 ? visit(double{}) : visit(float{});
}

/// Scores all in [0, 1] (NaN is not).
template <class Real>
TWINTRACK_INLINE bool scores_valid(const Real* score, int n) {
  decltype(score_fault(Real{})) bad = 0;
  for (int i = 0; i < n; ++i) bad |= score_fault(score[i]);
  return bad == 0;
}

TWINTRACK_INLINE bool labels_valid(const std::uint8_t* label, int n) {
  std::uint8_t seen = 0;
  for (int i = 0; i < n; ++i) seen |= label[i];
  return seen <= 1;
}

/// The arrays of a case in the order in which they are walked: score, raters, region. Throws
/// InputError if their shapes differ or are too large.
inline std::vector<const ArrayView*> case_arrays(const CaseView& view) {
  element_count(view.score.shape, "score");
  std::vector<const ArrayView*> all{&view.score};
  const auto add = [&](const ArrayView& array, const std::string& name) {
    if (array.shape != view.score.shape)
      throw InputError(name, "has shape " + detail::to_text(array.shape) + " but score has shape " +
                                 detail::to_text(view.score.shape));
    all.push_back(&array);
  };
  for (std::size_t k = 0; k < view.raters.size(); ++k)
    add(view.raters[k], "raters[" + std::to_string(k) + "]");
  if (view.region != nullptr) add(*view.region, "region");
  return all;
}

/// The walk over the arrays of a case; throws as `case_arrays`.
inline Walk case_walk(const CaseView& view) {
  return Walk(view.score.shape, case_arrays(view));
}

/// Throws InputError unless the case has as many raters as a tally was made for.
inline void require_raters(const CaseView& view, std::size_t raters) {
  if (view.raters.size() != raters)
    throw InputError("raters", "has " + std::to_string(view.raters.size()) +
                                   " masks but the tally was made for " + std::to_string(raters));
}

/// Throws InputError unless the score at this index is in [0, 1].
inline void require_score(double score, const Shape& voxel) {
  if (!(score >= 0 && score <= 1))
    throw InputError("score", voxel, score, "scores must be probabilities in [0, 1]");
}

/// Throws InputError unless the label of rater `k` at this index is 0 or 1.
inline void require_label(double label, std::size_t k, const Shape& voxel) {
  if (label != 0 && label != 1)
    throw InputError("raters[" + std::to_string(k) + "]", voxel, label, "labels must be 0 or 1");
}

template <class Real>
class VoxelBlocks {
 public:
  /// Throws InputError if shapes or types do not fit together.
  explicit VoxelBlocks(const CaseView& view)
      : view_(view),
        raters_(view.raters.size()),
        arrays_(case_arrays(view)),
        walk_(view.score.shape, arrays_) {
    for (std::size_t k = 0; k < arrays_.size(); ++k) {
      const std::size_t size = size_of(arrays_[k]->element);
      contiguous_.push_back(walk_.contiguous(k, size));
      if (contiguous_[k]) lanes_.push_back({walk_.start(k), static_cast<std::int64_t>(size)});
    }
    all_contiguous_ = std::find(contiguous_.begin(), contiguous_.end(), false) == contiguous_.end();
    score_ready_ = contiguous_[0] && view.score.element == ready_element &&
                   reinterpret_cast<std::uintptr_t>(view.score.data) % alignof(Real) == 0;
  }

  std::int64_t voxels() const { return walk_.count(); }
  std::size_t raters() const { return raters_; }
  /// Whether ranks are the order of the score's memory, without gaps.
  bool score_contiguous() const { return contiguous_[0]; }
  std::int64_t tasks() const { return (voxels() + task_voxels - 1) / task_voxels; }

  /// Room for the blocks of one thread.
  class Buffers {
   public:
    explicit Buffers(const VoxelBlocks& blocks)
        : score(block_voxels),
          region(block_voxels),
          rater(blocks.raters_ * block_voxels),
          pointers(blocks.raters_) {}

   private:
    friend class VoxelBlocks;
    std::vector<Real> score;
    std::vector<std::uint8_t> region;
    std::vector<std::uint8_t> rater;
    std::vector<const std::uint8_t*> pointers;
  };

  /// Loads ranks [first, first + n), n <= block_voxels. False if a voxel in the region is not
  /// valid; `explain` then says which.
  bool load(std::int64_t first, int n, Buffers& buffers, VoxelBlock<Real>& block) const;

  /// Whether, in a case without a region, every array is 0 at all of ranks [first, first + n), as
  /// far as that shows in memory without a walk: such background need not be loaded.
  bool blank(std::int64_t first, int n) const;

  /// Has ranks [first, first + 64) of arrays that lie in order brought into the second-level cache:
  /// a loop that computes for long asks for what comes next, as the processor itself looks too
  /// short a way ahead. The first-level cache is left to the loop's own tables.
  TWINTRACK_INLINE void prefetch([[maybe_unused]] std::int64_t first) const {
#if (defined(__GNUC__) || defined(__clang__)) && !defined(__CUDACC__)
    if (first + 64 > voxels()) return;
    for (const Lane& lane : lanes_)
      for (std::int64_t line = 0; line < lane.size; ++line)
        __builtin_prefetch(lane.start + first * lane.size + line * 64, 0, 2);
#endif
  }

  /// Throws InputError for the first voxel, in walking order, that breaks the rules; call it when
  /// `load` has returned false somewhere.
  [[noreturn]] void explain() const;

 private:
  static constexpr Element ready_element =
      std::is_same_v<Real, double> ? Element::float64 : Element::float32;

  bool load_valid(std::int64_t first, int n, Buffers& buffers, VoxelBlock<Real>& block) const;
  const Real* scores(std::int64_t first, int n, Real* room) const;
  void gather_scores(std::int64_t first, int n, Real* room) const;
  const std::uint8_t* labels(std::size_t k, std::int64_t first, int n, std::uint8_t* room) const;
  void gather_labels(std::size_t k, std::int64_t first, int n, std::uint8_t* room) const;
  double value(std::size_t k, std::int64_t rank) const;
  void explain_voxel(std::int64_t rank) const;

  // An array that lies in order: its first element, and bytes of each.
  struct Lane {
    const std::byte* start;
    std::int64_t size;
  };

  const CaseView& view_;
  std::size_t raters_;
  std::vector<Lane> lanes_;
  std::vector<const ArrayView*> arrays_;  // score, raters, region
  Walk walk_;
  std::vector<bool> contiguous_;
  bool all_contiguous_;
  bool score_ready_;
};

}  // namespace twintrack

#if !defined(TWINTRACK_LINKED)
#include "twintrack/arrays/voxel_blocks_loops.hpp"
#endif
