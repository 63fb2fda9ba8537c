// The loops of merge.hpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/element.hpp"
#include "twintrack/arrays/instruction_set.hpp"
#include "twintrack/ensemble/exponential.hpp"
#include "twintrack/ensemble/merge.hpp"

namespace twintrack::detail {

TWINTRACK_INLINE void Merge::add_softmax(const float* const* rows, int n, Room& room,
                                         float* __restrict score) const {
  float* __restrict highest = room.highest.data();
  float* __restrict total = room.total.data();
  float* __restrict tumour = room.tumour.data();
  std::copy_n(rows[0], n, highest);
  for (std::size_t c = 1; c < channels_.size(); ++c) {
    const float* __restrict row = rows[c];
    for (int x = 0; x < n; ++x) highest[x] = higher(row[x], highest[x]);
  }
  std::fill_n(total, n, 0.0f);
  std::fill_n(tumour, n, 0.0f);
  for (std::size_t c = 0; c < channels_.size(); ++c) {
    const float* __restrict row = rows[c];
    if (tumour_[c] != 0) {
      for (int x = 0; x < n; ++x) {
        const float e = exp_nonpositive(row[x] - highest[x]);
        total[x] += e;
        tumour[x] += e;
      }
    } else {
      for (int x = 0; x < n; ++x) total[x] += exp_nonpositive(row[x] - highest[x]);
    }
  }
  // At most 1: every partial sum of the tumour is at most that of all channels.
  for (int x = 0; x < n; ++x) score[x] += tumour[x] / total[x];
}

TWINTRACK_INLINE bool Merge::add_valid(const float* const* rows, int n, Room& room,
                                       float* __restrict score) const {
  if (softmax()) {
    add_softmax(rows, n, room, score);
    return true;
  }
  float* __restrict p = room.tumour.data();
  std::copy_n(rows[0], n, p);
  if (rule_.regions) {
    for (std::size_t i = 1; i < channels_.size(); ++i) {
      const float* __restrict row = rows[i];
      for (int x = 0; x < n; ++x) p[x] = higher(row[x], p[x]);
    }
    if (rule_.logits)
      for (int x = 0; x < n; ++x) p[x] = logistic(p[x]);
    for (int x = 0; x < n; ++x) score[x] += p[x];
    return true;
  }
  for (std::size_t i = 1; i < channels_.size(); ++i) {
    const float* __restrict row = rows[i];
    for (int x = 0; x < n; ++x) p[x] += row[x];
  }
  std::uint32_t highest = 0;
  for (int x = 0; x < n; ++x) {
    const std::uint32_t magnitude = magnitude_bits(p[x]);
    highest = magnitude > highest ? magnitude : highest;
    score[x] += at_most_one(p[x]);
  }
  return bits_as<float>(highest) <= probability_limit;
}

TWINTRACK_ENTRY bool Merge::add(const float* const* rows, int n, Room& room, float* score) const {
  bool valid = true;
  with_instruction_set([&]() TWINTRACK_INLINE_LAMBDA { valid = add_valid(rows, n, room, score); });
  return valid;
}

}  // namespace twintrack::detail
