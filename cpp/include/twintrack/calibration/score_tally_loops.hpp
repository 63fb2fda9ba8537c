// The loops of score_tally.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/instruction_set.hpp"
#include "twintrack/arrays/parallel.hpp"
#include "twintrack/arrays/votes.hpp"
#include "twintrack/arrays/voxel_blocks.hpp"
#include "twintrack/calibration/score_counter.hpp"
#include "twintrack/calibration/score_positions.hpp"
#include "twintrack/calibration/score_tally.hpp"

namespace twintrack {

namespace detail {

// What one thread works in: blocks as they are loaded, then grid positions and votes.
template <class Real>
struct ScoreRoom {
  explicit ScoreRoom(const VoxelBlocks<Real>& blocks) : buffers(blocks) {}
  typename VoxelBlocks<Real>::Buffers buffers;
  ScorePositions at;
  alignas(64) std::array<std::uint8_t, block_voxels> pattern;
  alignas(64) std::array<std::uint8_t, block_voxels> votes;
};

template <class Real>
TWINTRACK_INLINE void count_block(const ScoreRoom<Real>& room, int count, ScoreCounter& counter) {
  const std::uint32_t* cell = room.at.cell.data();
  const std::uint32_t* residual = room.at.residual();
  const std::uint8_t* pattern = room.pattern.data();
  const ScoreEntry* voxels = counter.voxels();
  ScoreEntry* entries = counter.entries();
  const std::uint64_t full = counter.full();
  const auto add = [&](int j) TWINTRACK_INLINE_LAMBDA {
    const std::uint64_t votes = add_voxel(entries[cell[j]], voxels[pattern[j]], residual + j);
    if ((~votes & full) == 0) counter.spill(cell[j]);
  };
  constexpr int run_length = 32;
  int i = 0;
  for (; i + run_length <= count; i += run_length) {
    std::uint32_t differs = 0;
    std::uint64_t residuals = 0;
    for (int j = i; j < i + run_length; ++j) {
      differs |= (cell[j] ^ cell[i]) | static_cast<std::uint32_t>(pattern[j] ^ pattern[i]);
      residuals += residual[j];
    }
    if (differs == 0) {
      counter.add_run(cell[i], voxels[pattern[i]], residuals, run_length);
    } else {
      for (int j = i; j < i + run_length; ++j) add(j);
    }
  }
  for (; i < count; ++i) add(i);
}

// Counts those voxels of a block that two raters or more marked, by how many did.
template <class Real>
TWINTRACK_INLINE void count_agreement(const ScoreRoom<Real>& room, int count,
                                      ScoreCounter& counter) {
  const std::uint32_t* cell = room.at.cell.data();
  const std::uint8_t* votes = room.votes.data();
  std::uint8_t most = 0;
  for (int i = 0; i < count; ++i) most = std::max(most, votes[i]);
  if (most < 2) return;
  for (int i = 0; i < count; ++i)
    if (votes[i] >= 2) counter.add_exactly(cell[i], votes[i]);
}

// Counts ranks [first, last). False if a voxel was invalid.
template <class Real>
bool count_range(const VoxelBlocks<Real>& blocks, std::int64_t first, std::int64_t last,
                 std::size_t group, ScoreRoom<Real>& room, ScoreCounter& counter) {
  bool valid = true;
  with_instruction_set([&]() TWINTRACK_INLINE_LAMBDA {
    VoxelBlock<Real> block;
    for (std::int64_t rank = first; rank < last; rank += block_voxels) {
      const int n = static_cast<int>(std::min<std::int64_t>(block_voxels, last - rank));
      if (blocks.blank(rank, n)) {
        counter.add_blank(n);
        continue;
      }
      if (!blocks.load(rank, n, room.buffers, block)) {
        valid = false;
        return;
      }
      if (block.count == 0) continue;
      room.at.locate(block.score, block.count);
      pack_votes(block.raters, blocks.raters(), group, block.count, room.pattern.data());
      count_block(room, block.count, counter);
      if (!counter.asks_for_votes()) continue;
      count_votes(block.raters, blocks.raters(), block.count, room.votes.data());
      count_agreement(room, block.count, counter);
    }
  });
  return valid;
}

// Counts all voxels of a case into `counters`, to which it adds some if there are too few.
template <class Real>
void count_scores(const VoxelBlocks<Real>& blocks, int threads,
                  std::vector<std::unique_ptr<ScoreCounter>>& counters) {
  std::vector<std::unique_ptr<ScoreRoom<Real>>> rooms;
  for (int thread = 0; thread < team_size(threads, blocks.tasks()); ++thread) {
    rooms.push_back(std::make_unique<ScoreRoom<Real>>(blocks));
    if (counters.size() < rooms.size())
      counters.push_back(std::make_unique<ScoreCounter>(blocks.raters()));
  }
  for (std::size_t group = 0; group < vote_groups(blocks.raters()); ++group) {
    for (auto& counter : counters) counter->start_group(group);
    const bool valid = parallel_valid(threads, blocks.tasks(), [&](int thread, std::int64_t task) {
      const std::int64_t last = std::min((task + 1) * task_voxels, blocks.voxels());
      const auto own = static_cast<std::size_t>(thread);
      return count_range(blocks, task * task_voxels, last, group, *rooms[own], *counters[own]);
    });
    if (!valid) blocks.explain();
  }
}

}  // namespace detail

TWINTRACK_ENTRY void ScoreTally::update(const CaseView& view, int threads) {
  require_raters(view, raters_);
  try {
    visit_real(view.score.element, [&](auto real) {
      detail::count_scores(VoxelBlocks<decltype(real)>(view), threads, counters_);
    });
  } catch (...) {
    for (auto& counter : counters_) counter->discard();
    throw;
  }
  for (auto& counter : counters_) counter->give(sums_);
}

}  // namespace twintrack
