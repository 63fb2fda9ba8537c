// The score of an ensemble whose members lie on one grid: K arrays of channels to one volume of
// tumour probabilities, in one pass and without any array between them.
//
// What is computed is in merge.hpp. A thread merges 256 voxels at a time: rows of channels are
// brought to float in the first-level cache, the loop over channels is outside, that over voxels
// inside, where it vectorises. Bound by arithmetic: about 25 operations a logit.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <vector>

#include "twintrack/arrays/array_view.hpp"
#include "twintrack/arrays/instruction_set.hpp"
#include "twintrack/arrays/parallel.hpp"
#include "twintrack/calibration/calibration_map.hpp"
#include "twintrack/calibration/map_block.hpp"
#include "twintrack/ensemble/merge.hpp"

namespace twintrack {

namespace detail {

/// The rule, checked against the arrays of an ensemble on one grid. Throws std::invalid_argument.
inline Merge ensemble_merge(const std::vector<ArrayView>& members, const MergeRule& rule,
                            const WritableArrayView& out) {
  check_members(members, out.shape.size());
  check_out(out);
  for (std::size_t k = 0; k < members.size(); ++k)
    if (channel_of(members[k], 0).shape != out.shape)
      throw std::invalid_argument(member_name(k) + " has shape " + to_text(members[k].shape) +
                                  " but out has shape " + to_text(out.shape));
  return Merge(rule, members[0].shape[0]);
}

class EnsembleScore {
 public:
  EnsembleScore(const std::vector<ArrayView>& members, const MergeRule& rule,
                const CalibrationMap* map, const WritableArrayView& out)
      : members_(members),
        merge_(ensemble_merge(members, rule, out)),
        map_(map_view(map)),
        out_(out) {
    for (const ArrayView& member : members)
      for (const std::int64_t channel : merge_.channels())
        channels_.push_back(channel_of(member, channel));
  }

  void run(int threads) const {
    std::vector<const ArrayView*> arrays{&out_};
    for (const ArrayView& channel : channels_) arrays.push_back(&channel);
    const Walk walk(out_.shape, arrays);
    std::vector<std::uint8_t> contiguous;
    for (std::size_t k = 0; k < arrays.size(); ++k)
      contiguous.push_back(walk.contiguous(k, size_of(arrays[k]->element)) ? 1 : 0);

    const std::int64_t tasks = (walk.count() + task_voxels - 1) / task_voxels;
    threads = static_cast<int>(std::clamp<std::int64_t>(tasks, 1, std::max(threads, 1)));
    std::vector<std::unique_ptr<Room>> rooms;
    for (int thread = 0; thread < threads; ++thread)
      rooms.push_back(std::make_unique<Room>(merge_.channels().size()));

    std::atomic<bool> valid{true};
    parallel_tasks(threads, tasks, [&](int thread, std::int64_t task) {
      if (!valid.load(std::memory_order_relaxed)) return;
      Room& room = *rooms[static_cast<std::size_t>(thread)];
      const std::int64_t last = std::min((task + 1) * task_voxels, walk.count());
      bool good = true;
      with_instruction_set(instruction_set(), [&]() TWINTRACK_INLINE_LAMBDA {
        for (std::int64_t rank = task * task_voxels; rank < last && good; rank += merge_voxels) {
          const int n = static_cast<int>(std::min<std::int64_t>(merge_voxels, last - rank));
          good = block(walk, contiguous.data(), rank, n, room);
        }
      });
      if (!good) valid.store(false, std::memory_order_relaxed);
    });
    if (!valid) explain_members(members_, merge_);
  }

 private:
  struct Room {
    explicit Room(std::size_t channels)
        : row(channels * merge_voxels), member_row(merge_voxels), score(merge_voxels) {
      for (std::size_t i = 0; i < channels; ++i) rows.push_back(row.data() + i * merge_voxels);
    }
    std::vector<float> row;
    std::vector<const float*> rows;
    std::vector<float> member_row;
    std::vector<float> score;
    Merge::Room merge;
    MapRoom<float> map;
  };

  TWINTRACK_NOINLINE static bool gather(const Walk& walk, std::size_t k, Element element,
                                        bool logits, std::int64_t first, int n, float* row) {
    bool good = true;
    walk.for_each_run(
        k, first, n,
        [&](const std::byte* p, std::int64_t stride, std::int64_t length, std::int64_t done) {
          good &= read_values(element, logits, p, stride, length, row + done);
        });
    return good;
  }

  TWINTRACK_INLINE bool read(const Walk& walk, const std::uint8_t* contiguous, std::size_t member,
                             std::size_t channel, std::int64_t first, int n, float* row) const {
    const std::size_t k = 1 + member * merge_.channels().size() + channel;
    const Element element = members_[0].element;
    const bool logits = merge_.rule().logits;
    if (contiguous[k] == 0) return gather(walk, k, element, logits, first, n, row);
    const auto size = static_cast<std::int64_t>(size_of(element));
    return read_values(element, logits, walk.start(k) + first * size, size, n, row);
  }

  TWINTRACK_INLINE bool block(const Walk& walk, const std::uint8_t* contiguous, std::int64_t first,
                              int n, Room& room) const {
    const std::size_t channels = merge_.channels().size();
    const std::size_t members = members_.size();
    float* score = room.score.data();
    std::fill_n(score, n, 0.0f);
    bool good = true;
    if (merge_.rule().mean_of_logits) {
      const bool half = members_[0].element == Element::float16;
      for (std::size_t c = 0; c < channels; ++c) {
        float* sum = room.row.data() + c * merge_voxels;
        good &= read(walk, contiguous, 0, c, first, n, sum);
        for (std::size_t k = 1; k < members; ++k) {
          good &= read(walk, contiguous, k, c, first, n, room.member_row.data());
          add_logits(room.member_row.data(), n, half, sum);
        }
        divide_logits(n, static_cast<float>(members), half, sum);
      }
      good = good && merge_.add(room.rows.data(), n, room.merge, score);
    } else {
      for (std::size_t k = 0; k < members; ++k) {
        for (std::size_t c = 0; c < channels; ++c)
          good &= read(walk, contiguous, k, c, first, n, room.row.data() + c * merge_voxels);
        good = good && merge_.add(room.rows.data(), n, room.merge, score);
      }
    }
    if (!good) return false;
    const float divisor = merge_.rule().mean_of_logits ? 1.0f : static_cast<float>(members);
    const float* finished = finish_scores(divisor, map_, n, room.map, score);
    write(walk, contiguous[0] != 0, first, n, finished);
    return true;
  }

  TWINTRACK_INLINE void write(const Walk& walk, bool contiguous, std::int64_t first, int n,
                              const float* score) const {
    const auto size = static_cast<std::int64_t>(size_of(out_.element));
    if (contiguous) {
      // A WritableArrayView's.
      std::byte* to = const_cast<std::byte*>(walk.start(0)) + first * size;
      return write_scores(out_.element, score, size, n, to);
    }
    scatter(walk, first, n, score);
  }

  TWINTRACK_NOINLINE void scatter(const Walk& walk, std::int64_t first, int n,
                                  const float* score) const {
    walk.for_each_run(
        0, first, n,
        [&](const std::byte* p, std::int64_t stride, std::int64_t length, std::int64_t done) {
          write_scores(out_.element, score + done, stride, length, const_cast<std::byte*>(p));
        });
  }

  const std::vector<ArrayView>& members_;
  Merge merge_;
  std::optional<MapView<float>> map_;
  WritableArrayView out_;
  std::vector<ArrayView> channels_;  // member after member, the channels that are read
};

}  // namespace detail

/// Scores of `members`, each (channels, *shape of out) and of one float type, to `out` (float32,
/// float16 or bfloat16; must not overlap the members), calibrated if there is a `map`. Throws
/// std::invalid_argument if shapes, types and rule do not fit together and InputError for a logit
/// that is not finite or a probability outside [0, 1]; `out` is then unspecified.
inline void ensemble_score(const std::vector<ArrayView>& members, const MergeRule& rule,
                           const CalibrationMap* map, const WritableArrayView& out,
                           int threads = max_threads()) {
  detail::EnsembleScore(members, rule, map, out).run(threads);
}

}  // namespace twintrack
