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
#include <cstring>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "twintrack/arrays/array_view.hpp"
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

namespace detail {

template <class T>
T load(const std::byte* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

// `out[i] = to(value i)` for a strided run. Unit stride is a loop of its own so that it vectorises.
template <class T, class To, class Out>
TWINTRACK_INLINE void convert_run(const std::byte* p, std::int64_t stride, std::int64_t n, To to,
                                  Out* out) {
  if (stride == static_cast<std::int64_t>(sizeof(T))) {
    for (std::int64_t i = 0; i < n; ++i) out[i] = to(load<T>(p + i * std::int64_t{sizeof(T)}));
  } else {
    for (std::int64_t i = 0; i < n; ++i) out[i] = to(load<T>(p + i * stride));
  }
}

struct ToReal {
  template <class T>
  TWINTRACK_INLINE auto operator()(T value) const {
    if constexpr (std::is_integral_v<T>)
      return static_cast<double>(value);
    else
      return to_real(value);
  }
};

template <class Visitor>
void visit_element(Element element, Visitor&& visit) {
  switch (element) {
    case Element::boolean:
    case Element::uint8:
      return visit(std::uint8_t{});
    case Element::int8:
      return visit(std::int8_t{});
    case Element::int16:
      return visit(std::int16_t{});
    case Element::uint16:
      return visit(std::uint16_t{});
    case Element::int32:
      return visit(std::int32_t{});
    case Element::uint32:
      return visit(std::uint32_t{});
    case Element::int64:
      return visit(std::int64_t{});
    case Element::uint64:
      return visit(std::uint64_t{});
    case Element::float16:
      return visit(float16{});
    case Element::bfloat16:
      return visit(bfloat16{});
    case Element::float32:
      return visit(float{});
    case Element::float64:
      return visit(double{});
  }
}

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
/// std::invalid_argument if their shapes differ.
inline std::vector<const ArrayView*> case_arrays(const CaseView& view) {
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
  /// Throws std::invalid_argument if shapes or types do not fit together.
  explicit VoxelBlocks(const CaseView& view)
      : view_(view),
        raters_(view.raters.size()),
        arrays_(case_arrays(view)),
        walk_(view.score.shape, arrays_) {
    for (std::size_t k = 0; k < arrays_.size(); ++k)
      contiguous_.push_back(walk_.contiguous(k, size_of(arrays_[k]->element)));
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
  TWINTRACK_INLINE bool load(std::int64_t first, int n, Buffers& buffers,
                             VoxelBlock<Real>& block) const {
    const std::uint8_t* keep = nullptr;
    int kept = n;
    if (view_.region != nullptr) {
      const std::uint8_t* inside = bytes(1 + raters_, first, n, Nonzero{}, buffers.region.data());
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
      const std::uint8_t* label = bytes(1 + k, first, n, LabelByte{}, room);
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

  /// Whether, in a case without a region, every array is 0 at all of ranks [first, first + n), as
  /// far as that shows in memory without a walk: such background need not be loaded.
  TWINTRACK_INLINE bool blank(std::int64_t first, int n) const {
    if (!all_contiguous_ || view_.region != nullptr) return false;
    std::uint64_t seen = 0;
    for (std::size_t k = 0; k < arrays_.size() && seen == 0; ++k) {
      const auto size = static_cast<std::int64_t>(size_of(arrays_[k]->element));
      seen = detail::any_bit(walk_.start(k) + first * size, n * size);
    }
    return seen == 0;
  }

  /// Throws InputError for the first voxel, in walking order, that breaks the rules; call it when
  /// `load` has returned false somewhere.
  [[noreturn]] void explain() const {
    Buffers buffers(*this);
    VoxelBlock<Real> block;
    for (std::int64_t first = 0; first < voxels(); first += block_voxels) {
      const int n = static_cast<int>(std::min<std::int64_t>(block_voxels, voxels() - first));
      if (load(first, n, buffers, block)) continue;
      for (std::int64_t rank = first; rank < first + n; ++rank) explain_voxel(rank);
    }
    throw InputError("", "an array changed while it was being read");
  }

 private:
  static constexpr Element ready_element =
      std::is_same_v<Real, double> ? Element::float64 : Element::float32;

  static bool byte_sized(Element element) { return size_of(element) == 1; }

  // `room[i] = to(element i)` for ranks [first, first + n) of array `k`, whatever its strides. Not
  // inlined: one copy for all instruction sets, bound by the strided reads.
  template <class T, class To, class Out>
  TWINTRACK_NOINLINE void gather(std::size_t k, std::int64_t first, int n, To to, Out* room) const {
    walk_.for_each_run(
        k, first, n,
        [&](const std::byte* p, std::int64_t stride, std::int64_t length, std::int64_t done) {
          detail::convert_run<T>(p, stride, length, to, room + done);
        });
  }

  template <class T>
  TWINTRACK_INLINE void convert_scores(std::int64_t first, int n, Real* room) const {
    const detail::ToReal to;
    if (!contiguous_[0]) return gather<T>(0, first, n, to, room);
    const std::byte* p = walk_.start(0) + first * std::int64_t{sizeof(T)};
    for (int i = 0; i < n; ++i) room[i] = to(detail::load<T>(p + i * std::int64_t{sizeof(T)}));
  }

  template <class To>
  TWINTRACK_NOINLINE void convert_bytes(std::size_t k, std::int64_t first, int n, To to,
                                        std::uint8_t* room) const {
    detail::visit_element(arrays_[k]->element,
                          [&](auto sample) { gather<decltype(sample)>(k, first, n, to, room); });
  }

  TWINTRACK_INLINE const Real* scores(std::int64_t first, int n, Real* room) const {
    if (score_ready_) return reinterpret_cast<const Real*>(walk_.start(0)) + first;
    if constexpr (std::is_same_v<Real, double>) {
      convert_scores<double>(first, n, room);
    } else if (view_.score.element == Element::float16) {
      convert_scores<float16>(first, n, room);
    } else if (view_.score.element == Element::bfloat16) {
      convert_scores<bfloat16>(first, n, room);
    } else {
      convert_scores<float>(first, n, room);
    }
    return room;
  }

  // Bytes of ranks [first, first + n) of array `k`: where they lie if they are bytes in order, else
  // converted by `to`.
  template <class To>
  TWINTRACK_INLINE const std::uint8_t* bytes(std::size_t k, std::int64_t first, int n, To to,
                                             std::uint8_t* room) const {
    if (contiguous_[k] && byte_sized(arrays_[k]->element))
      return reinterpret_cast<const std::uint8_t*>(walk_.start(k)) + first;
    convert_bytes(k, first, n, to, room);
    return room;
  }

  // Value of one element, for messages. float holds every 16-bit float; doubles print 9 digits.
  double value(std::size_t k, std::int64_t rank) const {
    double found = 0;
    walk_.for_each_run(k, rank, 1,
                       [&](const std::byte* p, std::int64_t, std::int64_t, std::int64_t) {
                         detail::visit_element(arrays_[k]->element, [&](auto sample) {
                           const auto raw = detail::load<decltype(sample)>(p);
                           found = static_cast<double>(detail::ToReal{}(raw));
                         });
                       });
    return found;
  }

  void explain_voxel(std::int64_t rank) const {
    const Shape voxel = walk_.index_of(rank);
    if (view_.region != nullptr && value(1 + raters_, rank) == 0) return;
    require_score(value(0, rank), voxel);
    for (std::size_t k = 0; k < raters_; ++k) require_label(value(1 + k, rank), k, voxel);
  }

  const CaseView& view_;
  std::size_t raters_;
  std::vector<const ArrayView*> arrays_;  // score, raters, region
  Walk walk_;
  std::vector<bool> contiguous_;
  bool all_contiguous_;
  bool score_ready_;
};

}  // namespace twintrack
