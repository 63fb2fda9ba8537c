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
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "twintrack/arrays/array_view.hpp"
#include "twintrack/arrays/element.hpp"
#include "twintrack/arrays/voxel_blocks.hpp"
#include "twintrack/calibration/calibration_map.hpp"
#include "twintrack/calibration/map_block.hpp"
#include "twintrack/calibration/map_rule.hpp"
#include "twintrack/ensemble/exponential.hpp"
#include "twintrack/ensemble/round_to_half.hpp"

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
inline constexpr int merge_voxels = 256;
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
    const auto fail = [](const std::string& what) { throw std::invalid_argument(what); };
    if (rule.tumour.empty()) fail("tumour names no channel");
    for (const std::int64_t channel : rule.tumour)
      if (channel < 0 || channel >= channels)
        fail("tumour has channel " + std::to_string(channel) + " but members have " +
             std::to_string(channels) + " channels, 0 to " + std::to_string(channels - 1));
    if (rule.mean_of_logits && !rule.logits)
      fail("the mean of logits cannot be had from probabilities");
    for (std::int64_t channel = 0; channel < channels; ++channel) {
      const bool tumour =
          std::find(rule.tumour.begin(), rule.tumour.end(), channel) != rule.tumour.end();
      if (!tumour && !softmax()) continue;
      channels_.push_back(channel);
      tumour_.push_back(tumour ? 1 : 0);
    }
    if (softmax() && channels == 1)
      fail("members have one channel; a softmax needs two, or the channel is a region");
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
  TWINTRACK_INLINE bool add(const float* const* rows, int n, Room& room,
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

 private:
  TWINTRACK_INLINE void add_softmax(const float* const* rows, int n, Room& room,
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

  MergeRule rule_;
  std::vector<std::int64_t> channels_;
  std::vector<std::uint8_t> tumour_;  // by index into channels_
};

struct ToFloat {
  template <class T>
  TWINTRACK_INLINE float operator()(T value) const {
    return static_cast<float>(to_real(value));
  }
};

// `n` values to float; `stride` in bytes. False if one is not a logit, or not in [0, 1].
TWINTRACK_INLINE bool read_values(Element element, bool logits, const std::byte* p,
                                  std::int64_t stride, std::int64_t n, float* __restrict out) {
  if (element == Element::float16)
    convert_run<float16>(p, stride, n, ToFloat{}, out);
  else if (element == Element::bfloat16)
    convert_run<bfloat16>(p, stride, n, ToFloat{}, out);
  else if (element == Element::float32)
    convert_run<float>(p, stride, n, ToFloat{}, out);
  else
    convert_run<double>(p, stride, n, ToFloat{}, out);
  if (!logits) return scores_valid(out, static_cast<int>(n));
  std::uint32_t highest = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const std::uint32_t magnitude = magnitude_bits(out[i]);
    highest = magnitude > highest ? magnitude : highest;
  }
  return highest < logit_limit_bits;
}

// Running mean of members' logits, in the members' own precision.
TWINTRACK_INLINE void add_logits(const float* __restrict row, std::int64_t n, bool half,
                                 float* __restrict sum) {
  if (half) {
    for (std::int64_t i = 0; i < n; ++i) sum[i] = round_to_half(sum[i] + row[i]);
  } else {
    for (std::int64_t i = 0; i < n; ++i) sum[i] += row[i];
  }
}
TWINTRACK_INLINE void divide_logits(std::int64_t n, float members, bool half,
                                    float* __restrict sum) {
  if (half) {
    for (std::int64_t i = 0; i < n; ++i) sum[i] = round_to_half(sum[i] / members);
  } else {
    for (std::int64_t i = 0; i < n; ++i) sum[i] /= members;
  }
}

inline std::string member_name(std::size_t member) {
  return "members[" + std::to_string(member) + "]";
}

// Throws unless every member is (channels, spatial axes …) of one of the float types.
inline void check_members(const std::vector<ArrayView>& members, std::size_t spatial_axes) {
  if (members.empty()) throw std::invalid_argument("members is empty");
  for (std::size_t k = 0; k < members.size(); ++k) {
    const ArrayView& member = members[k];
    switch (member.element) {
      case Element::float16:
      case Element::bfloat16:
      case Element::float32:
      case Element::float64:
        break;
      default:
        throw std::invalid_argument(member_name(k) +
                                    " must be float16, bfloat16, float32 or float64");
    }
    if (member.shape.size() != 1 + spatial_axes)
      throw std::invalid_argument(member_name(k) + " has shape " + to_text(member.shape) +
                                  "; expected channels and " + std::to_string(spatial_axes) +
                                  " spatial axes");
    if (member.shape[0] != members[0].shape[0])
      throw std::invalid_argument(member_name(k) + " has " + std::to_string(member.shape[0]) +
                                  " channels but members[0] has " +
                                  std::to_string(members[0].shape[0]));
    if (member.element != members[0].element)
      throw std::invalid_argument(member_name(k) + " and members[0] have different dtypes");
  }
}

inline ArrayView channel_of(const ArrayView& member, std::int64_t channel) {
  ArrayView view{member.data + channel * member.strides[0], member.element, {}, {}};
  view.shape.assign(member.shape.begin() + 1, member.shape.end());
  view.strides.assign(member.strides.begin() + 1, member.strides.end());
  return view;
}

// Throws InputError for the first value, in C order, that the rule forbids.
[[noreturn]] inline void explain_members(const std::vector<ArrayView>& members,
                                         const Merge& merge) {
  const bool logits = merge.rule().logits;
  const auto value_at = [](const ArrayView& view, const Shape& index) {
    const std::byte* p = view.data;
    for (std::size_t axis = 0; axis < index.size(); ++axis) p += index[axis] * view.strides[axis];
    float value = 0;
    read_values(view.element, true, p, 0, 1, &value);
    return value;
  };
  for (std::size_t k = 0; k < members.size(); ++k) {
    const ArrayView first = channel_of(members[k], 0);
    Shape index(first.shape.size(), 0);
    for (std::int64_t voxel = element_count(first.shape); voxel-- > 0;) {
      float sum = 0;
      for (const std::int64_t channel : merge.channels()) {
        const float value = value_at(channel_of(members[k], channel), index);
        if (logits ? magnitude_bits(value) < logit_limit_bits : value >= 0 && value <= 1) {
          sum += value;
          continue;
        }
        Shape element{channel};
        element.insert(element.end(), index.begin(), index.end());
        throw InputError(member_name(k), element, value,
                         logits ? "logits must be finite, below 2^100 in magnitude"
                                : "probabilities must be in [0, 1]");
      }
      if (!logits && !merge.rule().regions && sum > input_probability_limit)
        throw InputError(member_name(k), index, std::nullopt,
                         "has tumour channels that add up to " + number_text(sum) +
                             "; probabilities of classes cannot exceed 1 (are the channels "
                             "regions, or logits?)");
      for (std::size_t axis = index.size(); axis-- > 0;) {
        if (++index[axis] < first.shape[axis]) break;
        index[axis] = 0;
      }
    }
  }
  throw InputError("", "a member changed while it was being read");
}

// The map to apply to scores, or none. Made once, before any loop: a map makes its table then.
inline std::optional<MapView<float>> map_view(const CalibrationMap* map) {
  if (map == nullptr) return std::nullopt;
  return map->view<float>();
}

// Finishes n <= block_voxels scores: the mean over the members and the map, if there is one.
// Returns where the result is: in `score` or in `room`.
TWINTRACK_INLINE const float* finish_scores(float members, const std::optional<MapView<float>>& map,
                                            int n, MapRoom<float>& room, float* score) {
  for (int i = 0; i < n; ++i) score[i] /= members;
  if (!map) return score;
  map_block(*map, score, n, score, room);  // nothing lies ahead
  return room.value.data();
}

template <class T>
TWINTRACK_INLINE void write_as(const float* score, std::int64_t stride, std::int64_t n,
                               std::byte* p) {
  for (std::int64_t i = 0; i < n; ++i) {
    const T value = from_unit<T>(score[i]);
    std::memcpy(p + i * stride, &value, sizeof value);
  }
}
TWINTRACK_INLINE void write_scores(Element element, const float* score, std::int64_t stride,
                                   std::int64_t n, std::byte* p) {
  if (element == Element::float32 && stride == std::int64_t{sizeof(float)})
    std::memcpy(p, score, static_cast<std::size_t>(n) * sizeof(float));
  else if (element == Element::float32)
    write_as<float>(score, stride, n, p);
  else if (element == Element::float16)
    write_as<float16>(score, stride, n, p);
  else
    write_as<bfloat16>(score, stride, n, p);
}

inline void check_out(const WritableArrayView& out) {
  if (out.element != Element::float32 && out.element != Element::float16 &&
      out.element != Element::bfloat16)
    throw std::invalid_argument("out must be float32, float16 or bfloat16");
}

}  // namespace detail
}  // namespace twintrack
