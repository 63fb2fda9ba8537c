// The loops of ensemble.hpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "twintrack/arrays/array_view.hpp"
#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/element.hpp"
#include "twintrack/arrays/parallel.hpp"
#include "twintrack/arrays/streaming.hpp"
#include "twintrack/arrays/voxel_blocks.hpp"
#include "twintrack/calibration/calibration_map.hpp"
#include "twintrack/calibration/map_block.hpp"
#include "twintrack/ensemble/ensemble.hpp"
#include "twintrack/ensemble/members.hpp"
#include "twintrack/ensemble/merge.hpp"
#include "twintrack/ensemble/merged_scores.hpp"

namespace twintrack {

namespace detail {

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
    std::vector<std::unique_ptr<Room>> rooms;
    for (int thread = 0; thread < team_size(threads, tasks); ++thread)
      rooms.push_back(std::make_unique<Room>(merge_.channels().size(),
                                             merge_.rule().mean_of_logits ? members_.size() : 0));
    const bool valid = parallel_valid(threads, tasks, [&](int thread, std::int64_t task) {
      Room& room = *rooms[static_cast<std::size_t>(thread)];
      const std::int64_t last = std::min((task + 1) * task_voxels, walk.count());
      bool good = true;
      for (std::int64_t rank = task * task_voxels; rank < last && good; rank += merge_voxels) {
        const int n = static_cast<int>(std::min<std::int64_t>(merge_voxels, last - rank));
        good = block(walk, contiguous.data(), rank, n, room);
      }
      return good;
    });
    if (!valid) explain_members(members_, merge_);
  }

 private:
  struct Room {
    Room(std::size_t channels, std::size_t averaged)
        : row(channels * merge_voxels), member_row(averaged * merge_voxels), score(merge_voxels) {
      for (std::size_t i = 0; i < channels; ++i) rows.push_back(row.data() + i * merge_voxels);
      for (std::size_t i = 0; i < averaged; ++i)
        member_rows.push_back(member_row.data() + i * merge_voxels);
    }
    std::vector<float> row;
    std::vector<const float*> rows;
    std::vector<float> member_row;  // by member, of one channel
    std::vector<const float*> member_rows;
    std::vector<float> score;
    Merge::Room merge;
    MapRoom<float> map;
  };

  // Channel `channel` of a member, by index into those that are read.
  bool read(const Walk& walk, const std::uint8_t* contiguous, std::size_t member,
            std::size_t channel, std::int64_t first, int n, float* row) const {
    const std::size_t k = 1 + member * merge_.channels().size() + channel;
    const Element element = members_[0].element;
    const bool logits = merge_.rule().logits;
    const auto size = static_cast<std::int64_t>(size_of(element));
    if (contiguous[k] != 0) {
      const std::byte* from = walk.start(k) + first * size;
      prefetch(from + n * size, static_cast<std::size_t>(n * size));  // the next block's
      return read_values(element, logits, from, size, n, row);
    }
    bool good = true;
    walk.for_each_run(
        k, first, n,
        [&](const std::byte* p, std::int64_t stride, std::int64_t length, std::int64_t done) {
          good &= read_values(element, logits, p, stride, length, row + done);
        });
    return good;
  }

  bool block(const Walk& walk, const std::uint8_t* contiguous, std::int64_t first, int n,
             Room& room) const {
    const std::size_t channels = merge_.channels().size();
    const std::size_t members = members_.size();
    const bool mean_of_logits = merge_.rule().mean_of_logits;
    const bool half = members_[0].element == Element::float16;
    float* score = room.score.data();
    std::fill_n(score, n, 0.0f);
    const std::size_t merged = mean_of_logits ? 1 : members;
    for (std::size_t k = 0; k < merged; ++k) {
      bool good = true;
      for (std::size_t c = 0; c < channels; ++c) {
        float* row = room.row.data() + c * merge_voxels;
        if (!mean_of_logits) {
          good &= read(walk, contiguous, k, c, first, n, row);
          continue;
        }
        for (std::size_t member = 0; member < members; ++member)
          good &= read(walk, contiguous, member, c, first, n,
                       room.member_row.data() + member * merge_voxels);
        mean_logits(room.member_rows.data(), members, n, half, row);
      }
      if (!good || !merge_.add(room.rows.data(), n, room.merge, score)) return false;
    }
    const float* finished = finish_scores(static_cast<float>(merged), map_, n, room.map, score);
    write(walk, contiguous[0] != 0, first, n, finished);
    return true;
  }

  void write(const Walk& walk, bool contiguous, std::int64_t first, int n,
             const float* score) const {
    const auto size = static_cast<std::int64_t>(size_of(out_.element));
    if (contiguous) {
      // A WritableArrayView's.
      std::byte* to = const_cast<std::byte*>(walk.start(0)) + first * size;
      return write_scores(out_.element, score, size, n, to);
    }
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

TWINTRACK_ENTRY void ensemble_score(const std::vector<ArrayView>& members, const MergeRule& rule,
                                    const CalibrationMap* map, const WritableArrayView& out,
                                    int threads) {
  detail::EnsembleScore(members, rule, map, out).run(threads);
}

}  // namespace twintrack
