// Rows of members whose elements lie side by side, as floats: what is inlined into hot loops.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/element.hpp"
#include "twintrack/arrays/element_runs.hpp"
#include "twintrack/arrays/voxel_blocks.hpp"
#include "twintrack/ensemble/merge.hpp"
#include "twintrack/ensemble/round_to_half.hpp"

namespace twintrack::detail {

/// read_values (members.hpp).
TWINTRACK_INLINE bool read_packed(Element element, bool logits, const std::byte* p, std::int64_t n,
                                  float* __restrict out) {
  if (element == Element::float64)
    convert<double>(p, n, out);
  else
    read_reals(element, p, n, out);
  if (!logits) return scores_valid(out, static_cast<int>(n));
  std::uint32_t highest = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const std::uint32_t magnitude = magnitude_bits(out[i]);
    highest = magnitude > highest ? magnitude : highest;
  }
  return highest < logit_limit_bits;
}

/// mean_logits (members.hpp).
TWINTRACK_INLINE void average_logits(const float* const* rows, std::size_t members, std::int64_t n,
                                     bool half, float* __restrict mean) {
  const auto divisor = static_cast<float>(members);
  for (std::size_t k = 0; k < members; ++k) {
    const float* __restrict row = rows[k];
    if (k == 0) {
      std::copy_n(row, n, mean);
    } else if (half) {
      for (std::int64_t i = 0; i < n; ++i) mean[i] = round_to_half(mean[i] + row[i]);
    } else {
      for (std::int64_t i = 0; i < n; ++i) mean[i] += row[i];
    }
  }
  if (half) {
    for (std::int64_t i = 0; i < n; ++i) mean[i] = round_to_half(mean[i] / divisor);
  } else {
    for (std::int64_t i = 0; i < n; ++i) mean[i] /= divisor;
  }
}

}  // namespace twintrack::detail
