// The loops of mask_rows.hpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/element.hpp"
#include "twintrack/arrays/element_runs.hpp"
#include "twintrack/arrays/instruction_set.hpp"
#include "twintrack/arrays/streaming.hpp"
#include "twintrack/arrays/voxel_blocks.hpp"
#include "twintrack/metrics/mask_rows.hpp"

namespace twintrack {

// Asks for a row that is loaded soon.
TWINTRACK_INLINE void MaskRows::prefetch(std::int64_t outer, std::int64_t middle,
                                         std::int64_t inner, std::int64_t n) const {
  const auto ask = [&](const WalkedVolume& volume) TWINTRACK_INLINE_LAMBDA {
    if (!volume.rows_contiguous()) return;
    const std::byte* first = volume.at(outer, middle, inner);
    const auto bytes = static_cast<std::size_t>(n * volume.stride[2]);
    twintrack::prefetch(first, bytes);
    twintrack::prefetch(first + bytes - 1, 1);  // the line in which the row ends
  };
  ask(score_);
  for (const WalkedVolume& rater : raters_) ask(rater);
}

template <class Real>
TWINTRACK_INLINE bool MaskRows::load_as(const std::vector<Real>& thresholds, std::int64_t outer,
                                        std::int64_t middle, std::int64_t inner, std::int64_t n,
                                        Room& room, MaskWord* __restrict words) const {
  // Where the scores lie if they are ready in memory, else converted into the room.
  const std::byte* at = score_.at(outer, middle, inner);
  const auto* score = reinterpret_cast<const Real*>(at);
  if (size_of(score_.element) != sizeof(Real) || !score_.rows_contiguous() ||
      reinterpret_cast<std::uintptr_t>(at) % alignof(Real) != 0) {
    auto* converted = reinterpret_cast<Real*>(room.score.data());
    detail::for_each_packed(
        size_of(score_.element), at, score_.stride[2], n,
        [&](const std::byte* from, std::int64_t length, std::int64_t done) TWINTRACK_INLINE_LAMBDA {
          detail::read_reals(score_.element, from, length, converted + done);
        });
    score = converted;
  }
  bool valid = scores_valid(score, static_cast<int>(n));
  for (std::int64_t i = 0; i < n; ++i) words[i] = 0;
  unsigned bit = 0;
  for (const WalkedVolume& rater : raters_) {
    const std::byte* p = rater.at(outer, middle, inner);
    const auto* label = reinterpret_cast<const std::uint8_t*>(p);
    if (size_of(rater.element) != 1 || !rater.rows_contiguous()) {
      detail::read_labels(rater.element, p, rater.stride[2], n, room.label.data());
      label = room.label.data();
    }
    valid &= labels_valid(label, static_cast<int>(n));
    for (std::int64_t i = 0; i < n; ++i) words[i] |= MaskWord{label[i]} << bit;
    ++bit;
  }
  for (const Real threshold : thresholds) {
    const MaskWord mark = MaskWord{1} << bit;
    for (std::int64_t i = 0; i < n; ++i) words[i] |= score[i] > threshold ? mark : MaskWord{0};
    ++bit;
  }
  return valid;
}

TWINTRACK_ENTRY bool MaskRows::load(std::int64_t outer, std::int64_t middle, std::int64_t inner,
                                    std::int64_t n, Room& room, MaskWord* words) const {
  // Rows near vessels are short and far apart in memory, so that the processor does not foresee
  // them by itself; this many rows on is about the latency of memory.
  constexpr std::int64_t rows_ahead = 2;
  if (middle + rows_ahead < middles_) prefetch(outer, middle + rows_ahead, inner, n);
  bool valid = true;
  with_instruction_set([&]() TWINTRACK_INLINE_LAMBDA {
    valid = score_.element == Element::float64
                ? load_as(thresholds_, outer, middle, inner, n, room, words)
                : load_as(float_thresholds_, outer, middle, inner, n, room, words);
  });
  return valid;
}

}  // namespace twintrack
