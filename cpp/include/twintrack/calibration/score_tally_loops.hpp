// The loops of score_tally.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/instruction_set.hpp"
#include "twintrack/arrays/parallel.hpp"
#include "twintrack/arrays/votes.hpp"
#include "twintrack/arrays/voxel_blocks.hpp"
#include "twintrack/calibration/score_counter.hpp"
#include "twintrack/calibration/score_positions.hpp"
#include "twintrack/calibration/score_record.hpp"
#include "twintrack/calibration/score_tally.hpp"
#include "twintrack/calibration/tally_columns.hpp"
#include "twintrack/calibration/tally_sums.hpp"

namespace twintrack {

namespace detail {

// What one thread works in: blocks as they are loaded, then grid positions and votes.
template <class Real>
struct ScoreRoom {
  explicit ScoreRoom(const VoxelBlocks<Real>& blocks)
      : buffers(blocks), patterns(vote_groups(blocks.raters()) * block_voxels) {}

  typename VoxelBlocks<Real>::Buffers buffers;
  ScorePositions at;
  std::vector<std::uint8_t> patterns;  // a block after the other for each group
  alignas(64) std::array<std::uint8_t, block_voxels> votes;
};

#if (defined(__GNUC__) || defined(__clang__)) && !defined(__CUDACC__) && \
    __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
// Two words at once, or their halves or bytes.
typedef std::uint64_t WordPair __attribute__((vector_size(16)));
typedef std::uint32_t WordHalves __attribute__((vector_size(16)));
typedef std::uint8_t WordBytes __attribute__((vector_size(16)));

TWINTRACK_INLINE WordPair load_pair(const std::uint64_t* words) {
  WordPair loaded;
  std::memcpy(&loaded, words, sizeof loaded);
  return loaded;
}

// Adds at most layout.at_once() voxels and their residuals to records of two words, and returns
// some word 0 with the greatest number of voxels in one of these. `place` says where a record
// begins.
template <RecordLayout layout>
TWINTRACK_INLINE std::uint64_t add_voxels(std::uint64_t* records, const std::uint64_t* voxels,
                                          const std::uint32_t* place, const std::uint32_t* residual,
                                          const std::uint8_t* pattern, int count) {
  WordBytes greatest{};
  for (int j = 0; j < count; ++j) {
    std::uint64_t* const record = records + place[j];
    const WordPair sum = load_pair(record) + load_pair(voxels + pattern[j] * layout.words()) +
                         reinterpret_cast<WordPair>(WordHalves{residual[j], 0, 0, 0});
    std::memcpy(record, &sum, sizeof sum);
    const WordBytes bytes = reinterpret_cast<WordBytes>(sum);
    greatest = greatest > bytes ? greatest : bytes;
  }
  return reinterpret_cast<WordPair>(greatest)[0];
}
#else
template <RecordLayout layout>
TWINTRACK_INLINE std::uint64_t add_voxels(std::uint64_t* records, const std::uint64_t* voxels,
                                          const std::uint32_t* place, const std::uint32_t* residual,
                                          const std::uint8_t* pattern, int count) {
  std::uint64_t greatest = 0;
  for (int j = 0; j < count; ++j) {
    std::uint64_t* const record = records + place[j];
    const std::uint64_t* const voxel = voxels + pattern[j] * layout.words();
    record[0] += voxel[0] + residual[j];
    record[1] += voxel[1];
    greatest = std::max(greatest, record[0] & layout.most() << RecordLayout::count_at);
  }
  return greatest;
}
#endif

// Adds a voxel and its residual to a record of one or two words, and returns the one with the
// count.
template <RecordLayout layout>
TWINTRACK_INLINE std::uint64_t add_voxel(std::uint64_t* record, const std::uint64_t* voxel,
                                         std::uint32_t residual) {
  if constexpr (layout.carries()) {
    const WideWord sum = wide_word(record) + wide_word(voxel) + residual;
    record[1] = static_cast<std::uint64_t>(sum >> 64);
    return record[0] = static_cast<std::uint64_t>(sum);
  } else {
    if constexpr (layout.words() == 2) record[1] += voxel[1];
    return record[0] += voxel[0] + residual;
  }
}

constexpr int run_voxels = 32;

// Counts a block: runs of voxels that are alike by `add_run(first, residuals)`, and the others by
// `add(first, n)`. `unlike(i, j)` is 0 if voxels i and j of one cell have the same votes. `next` is
// the rank of voxels to be brought near meanwhile.
template <class Real, class Unlike, class AddRun, class Add>
TWINTRACK_INLINE void count_block(const ScoreRoom<Real>& room, int count,
                                  const VoxelBlocks<Real>& blocks, std::int64_t next,
                                  const Unlike& unlike, const AddRun& add_run, const Add& add) {
  const std::uint32_t* const cell = room.at.cell.data();
  const std::uint32_t* const residual = room.at.residual.data();
  const auto is_run = [&](int i) TWINTRACK_INLINE_LAMBDA {
    const int last = i + run_voxels - 1;  // the quickest to differ
    std::uint32_t differs = (cell[last] ^ cell[i]) | unlike(i, last);
    if (differs != 0) return false;
    for (int j = i; j < last; ++j) differs |= (cell[j] ^ cell[i]) | unlike(i, j);
    return differs == 0;
  };
  int i = 0;
  for (; i + run_voxels <= count; i += run_voxels) {
    if (i % 64 == 0) blocks.prefetch(next + i);
    if (!is_run(i)) {
      add(i, run_voxels);
      continue;
    }
    std::uint64_t residuals = 0;
    for (int j = i; j < i + run_voxels; ++j) residuals += residual[j];
    add_run(i, residuals);
  }
  add(i, count - i);
}

// Counts a block of up to eight raters, whose cells are places.
template <RecordLayout layout, class Real>
TWINTRACK_INLINE void count_ungrouped(const ScoreRoom<Real>& room, int count, ScoreCounter& counter,
                                      const VoxelBlocks<Real>& blocks, std::int64_t next) {
  const std::uint32_t* const place = room.at.cell.data();
  const std::uint32_t* const residual = room.at.residual.data();
  const std::uint8_t* const pattern = room.patterns.data();
  const std::uint64_t* const voxels = counter.voxels();
  std::uint64_t* const records = counter.records();
  constexpr std::size_t words = layout.words();
  const auto add_one_by_one = [&](int first, int n) TWINTRACK_INLINE_LAMBDA {
    for (int j = first; j < first + n; ++j) {
      const std::uint64_t sum =
          add_voxel<layout>(records + place[j], voxels + pattern[j] * words, residual[j]);
      if (layout.full(sum)) counter.spill(place[j] / words);
    }
  };
  const auto add_at_once = [&](int first, int n) TWINTRACK_INLINE_LAMBDA {
    const std::uint64_t greatest =
        add_voxels<layout>(records, voxels, place + first, residual + first, pattern + first, n);
    if (!layout.full(greatest)) return;
    for (int j = first; j < first + n; ++j)
      if (layout.full(records[place[j]])) counter.spill(place[j] / words);
  };
  count_block(
      room, count, blocks, next,
      [&](int i, int j)
          TWINTRACK_INLINE_LAMBDA { return static_cast<std::uint32_t>(pattern[j] ^ pattern[i]); },
      [&](int i, std::uint64_t residuals) TWINTRACK_INLINE_LAMBDA {
        counter.add_run(place[i] / words, voxels + pattern[i] * words, words, residuals,
                        run_voxels);
      },
      [&](int i, int n) TWINTRACK_INLINE_LAMBDA {
        constexpr int at_once = layout.at_once();
        if constexpr (at_once == 1) {
          add_one_by_one(i, n);
        } else {
          const int end = i + n;
          for (; i + at_once <= end; i += at_once) add_at_once(i, at_once);
          if (i < end) add_at_once(i, end - i);
        }
      });
}

// Counts a block of more raters. Runs are those of voxels that nobody marked. `layout_` is that of
// as many words, or of 0 raters.
template <RecordLayout layout_, class Real>
TWINTRACK_INLINE void count_grouped(const ScoreRoom<Real>& room, int count, ScoreCounter& counter,
                                    const VoxelBlocks<Real>& blocks, std::int64_t next) {
  const std::uint32_t* const cell = room.at.cell.data();
  const std::uint32_t* const residual = room.at.residual.data();
  const std::uint8_t* const pattern = room.patterns.data();
  const std::uint8_t* const votes = room.votes.data();
  const std::uint64_t* const voxels = counter.voxels();
  const std::uint64_t* const exactly = counter.exactly();
  std::uint64_t* const records = counter.records();
  const std::size_t words = layout_.raters != 0 ? layout_.words() : counter.words();
  const std::size_t groups = vote_groups(layout_.raters != 0 ? layout_.raters : blocks.raters());
  const RecordLayout layout = counter.layout();
  count_block(
      room, count, blocks, next,
      [&](int i, int j)
          TWINTRACK_INLINE_LAMBDA { return static_cast<std::uint32_t>(votes[i] | votes[j]); },
      [&](int i, std::uint64_t residuals)
          TWINTRACK_INLINE_LAMBDA { counter.add_run(cell[i], exactly, 1, residuals, run_voxels); },
      [&](int first, int n) TWINTRACK_INLINE_LAMBDA {
        for (int j = first; j < first + n; ++j) {
          std::uint64_t* const record = records + cell[j] * words;
          const std::uint64_t* const more = exactly + votes[j] * words;
          const std::uint64_t sum = record[0] += more[0] + residual[j];
          for (std::size_t word = 1; word <= groups; ++word) {
            const std::size_t at = (word - 1) * block_voxels + static_cast<std::size_t>(j);
            record[word] += more[word] + voxels[pattern[at]];
          }
          for (std::size_t word = 1 + groups; word < words; ++word) record[word] += more[word];
          if (layout.full(sum)) counter.spill(cell[j]);
        }
      });
}

// Counts ranks [first, last). False if a voxel was invalid.
template <class Real>
bool count_range(const VoxelBlocks<Real>& blocks, std::int64_t first, std::int64_t last,
                 ScoreRoom<Real>& room, ScoreCounter& counter) {
  bool valid = true;
  with_instruction_set([&]() TWINTRACK_INLINE_LAMBDA {
    VoxelBlock<Real> block;
    const RecordLayout layout = counter.layout();
    const std::size_t groups = vote_groups(layout.raters);
    constexpr std::int64_t ahead = 2 * block_voxels;
    for (std::int64_t rank = first; rank < last; rank += block_voxels) {
      const int n = static_cast<int>(std::min<std::int64_t>(block_voxels, last - rank));
      if (blocks.blank(rank, n)) {
        counter.add_blank(static_cast<unsigned>(n));
        continue;
      }
      if (!blocks.load(rank, n, room.buffers, block)) {
        valid = false;
        return;
      }
      if (block.count == 0) continue;
      room.at.locate(block.score, block.count, layout.place_shift());
      const std::int64_t next = rank + ahead;
      if (!layout.grouped()) {
        pack_votes(block.raters, layout.raters, block.count, room.patterns.data());
        if (layout.words() == 1)
          count_ungrouped<RecordLayout{2}>(room, block.count, counter, blocks, next);
        else if (layout.carries())
          count_ungrouped<RecordLayout{8}>(room, block.count, counter, blocks, next);
        else if (layout.bits() == 8)
          count_ungrouped<RecordLayout{6}>(room, block.count, counter, blocks, next);
        else
          count_ungrouped<RecordLayout{7}>(room, block.count, counter, blocks, next);
        continue;
      }
      for (std::size_t group = 0; group < groups; ++group)
        pack_votes(block.raters, layout.raters, group, block.count,
                   room.patterns.data() + group * block_voxels);
      count_votes(block.raters, layout.raters, block.count, room.votes.data());
      if (groups == 2)
        count_grouped<RecordLayout{9}>(room, block.count, counter, blocks, next);
      else
        count_grouped<RecordLayout{0}>(room, block.count, counter, blocks, next);
    }
  });
  return valid;
}

using Counters = std::vector<std::unique_ptr<ScoreCounter>>;

// One for each thread that counts: as many as the case has work for, as there is room for, and as
// there are processors, for each has to be added up in the end.
inline Counters make_counters(std::size_t raters, SharedSums& to, int threads, std::int64_t tasks) {
  constexpr std::size_t most_bytes = 24 << 20;
  constexpr std::int64_t tasks_a_counter = 4;
  const std::size_t room = std::max<std::size_t>(most_bytes / ScoreCounter::bytes(raters), 1);
  const int most = std::min(static_cast<int>(room), processors().load());
  const int team =
      team_size(std::min(threads, most), (tasks + tasks_a_counter - 1) / tasks_a_counter);
  Counters counters;
  while (counters.size() < static_cast<std::size_t>(team))
    counters.push_back(std::make_unique<ScoreCounter>(raters, to));
  return counters;
}

// Counts all voxels of a case.
template <class Real>
void count_scores(const VoxelBlocks<Real>& blocks, const Counters& counters) {
  std::vector<std::unique_ptr<ScoreRoom<Real>>> rooms;
  for (std::size_t i = 0; i < counters.size(); ++i)
    rooms.push_back(std::make_unique<ScoreRoom<Real>>(blocks));
  const auto team = static_cast<int>(counters.size());
  const bool valid = parallel_valid(team, blocks.tasks(), [&](int thread, std::int64_t task) {
    const std::int64_t last = std::min((task + 1) * task_voxels, blocks.voxels());
    const auto own = static_cast<std::size_t>(thread);
    return count_range(blocks, task * task_voxels, last, *rooms[own], *counters[own]);
  });
  if (!valid) blocks.explain();
}

// Completes `fresh`, the sums of what was counted, and adds them to `sums` if these are others.
inline void add_counted(const Counters& counters, TallySums& fresh, TallySums& sums) {
  const auto team = static_cast<int>(counters.size());
  // Little is left in the logs: to wait for threads would take longer than to add it.
  for (auto& counter : counters) {
    for (std::size_t stripe = 0; stripe < stripes; ++stripe) counter->empty_log(stripe);
    counter->empty_blank();
  }
  constexpr std::uint32_t range = 1024;
  parallel_tasks(team, (grid::cells + range - 1) / range, [&](int, std::int64_t task) {
    const auto first = static_cast<std::uint32_t>(task) * range;
    const std::uint32_t last = std::min(first + range, grid::cells);
    for (auto& counter : counters) counter->empty_records(first, last);
    fresh.for_each(first, last, [&](std::uint32_t cell) {
      derive_single_votes(fresh.add_to(cell), fresh.raters());
      if (&fresh != &sums) sums.add(cell, fresh.row(cell), fresh.columns());
    });
  });
}

}  // namespace detail

TWINTRACK_ENTRY void ScoreTally::update(const CaseView& view, int threads) {
  require_raters(view, raters());
  // The first case is counted into the sums themselves.
  std::optional<TallySums> others;
  if (!sums_.empty()) others.emplace(raters());
  TallySums& fresh = others ? *others : sums_;
  detail::SharedSums shared(fresh);
  detail::Counters counters;
  try {
    visit_real(view.score.element, [&](auto real) {
      const VoxelBlocks<decltype(real)> blocks(view);
      counters = detail::make_counters(raters(), shared, threads, blocks.tasks());
      detail::count_scores(blocks, counters);
      detail::add_counted(counters, fresh, sums_);
    });
  } catch (...) {
    for (auto& counter : counters) counter->forget();
    fresh.clear();
    throw;
  }
}

}  // namespace twintrack
