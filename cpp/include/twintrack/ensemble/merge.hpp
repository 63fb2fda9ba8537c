// The merge of an ensemble: K members' channels of a voxel to one score, the tumour probability.
//
// Per voxel, in this order of operations (all float32, nothing contracted):
//
//     probabilities    the sum over the tumour channels, at most 1; of regions the highest one
//     logits           h = highest logit; e_c = exp(l_c - h), c ascending;
//                      sum over the tumour channels of e_c / sum over all channels of e_c
//     region logits    logistic(highest logit of the tumour channels)
//
// then the sum over the members in their order, divided by K. With the mean of logits the members'
// logits are summed in their order and divided by K first, every step rounded to float16 if that is
// what they are, as nnU-Net does inside one folder; the rest is as for one member.
//
// Regions are channels that may overlap, each with its own probability (nnU-Net's region-based
// training): of several tumour regions the highest counts, which is their union's if one holds the
// others.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/element.hpp"
#include "twintrack/arrays/input_error.hpp"

namespace twintrack {

/// What the channels mean and how members become one score.
struct MergeRule {
  std::vector<std::int64_t> tumour;  // channels that are tumour
  bool logits = true;                // else probabilities
  bool regions = false;              // channels are regions of their own, not classes
  bool mean_of_logits = false;       // else the mean of the members' probabilities
};

namespace detail {

/// Voxels that are merged at a time: their rows stay in the first-level cache.
inline constexpr int merge_voxels = 512;
/// Tumour probabilities may add up to this, for they may have been rounded to bfloat16 …
inline constexpr float probability_limit = 1.0f + 0x1p-7f;
/// … and this is a sum that is certainly too large for a voxel of the input.
inline constexpr float input_probability_limit = 1.0f + 0x1p-8f;

/// What is left of a probability's or logit's bits to compare magnitudes by.
TWINTRACK_HD std::uint32_t magnitude_bits(float x) {
  return bits_as<std::uint32_t>(x) & 0x7fffffffu;
}
/// The bits of 2^100, below which logits must lie: so far from float32's range that neither sums
/// over members nor interpolation can leave it. NaN and infinities have higher ones.
inline constexpr std::uint32_t logit_limit_bits = 0x71800000u;

TWINTRACK_HD float higher(float x, float than) {
  return x > than ? x : than;
}
TWINTRACK_HD float at_most_one(float p) {
  return p < 1.0f ? p : 1.0f;
}

/// A rule that has been checked against the number of channels.
class Merge {
 public:
  Merge(const MergeRule& rule, std::int64_t channels) : rule_(rule) {
    if (rule.tumour.empty()) throw InputError("tumour", "names no channel");
    for (const std::int64_t channel : rule.tumour)
      if (channel < 0 || channel >= channels)
        throw InputError("tumour", "has channel " + std::to_string(channel) + " but members have " +
                                       std::to_string(channels) + " channels, 0 to " +
                                       std::to_string(channels - 1));
    if (rule.mean_of_logits && !rule.logits)
      throw InputError("", "the mean of logits cannot be had from probabilities");
    for (std::int64_t channel = 0; channel < channels; ++channel) {
      const bool tumour =
          std::find(rule.tumour.begin(), rule.tumour.end(), channel) != rule.tumour.end();
      if (!tumour && !softmax()) continue;
      channels_.push_back(channel);
      tumour_.push_back(tumour ? 1 : 0);
    }
    if (softmax() && channels == 1)
      throw InputError("members",
                       "have one channel; a softmax needs two, or the channel is a region");
  }

  const MergeRule& rule() const { return rule_; }
  bool softmax() const { return rule_.logits && !rule_.regions; }
  /// The channels that the score depends on, ascending.
  const std::vector<std::int64_t>& channels() const { return channels_; }
  /// For each of them 1 if it is tumour.
  const std::vector<std::uint8_t>& tumour() const { return tumour_; }

  /// Room for merging, for one thread.
  struct Room {
    alignas(64) std::array<float, merge_voxels> highest;
    alignas(64) std::array<float, merge_voxels> total;
    alignas(64) std::array<float, merge_voxels> tumour;
  };

  /// Adds one member's tumour probabilities to `score`; `rows[i]` holds channels()[i] of n <=
  /// merge_voxels voxels. False if probabilities add up to more than 1.
  bool add(const float* const* rows, int n, Room& room, float* score) const;

 private:
  void add_softmax(const float* const* rows, int n, Room& room, float* score) const;
  bool add_valid(const float* const* rows, int n, Room& room, float* score) const;

  MergeRule rule_;
  std::vector<std::int64_t> channels_;
  std::vector<std::uint8_t> tumour_;  // by index into channels_
};

}  // namespace detail
}  // namespace twintrack

#if !defined(TWINTRACK_LINKED)
#include "twintrack/ensemble/merge_loops.hpp"
#endif
