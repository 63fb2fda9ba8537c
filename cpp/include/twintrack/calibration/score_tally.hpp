// ScoreTally: everything a calibration map can be fitted from, gathered in one pass.
//
// For every cell of the score grid (score_grid.hpp) it holds the number of voxels, the sum of their
// residuals and, for each rater, the number of them that the rater marked. All of it is integer
// sums, so a tally does not depend on the order, chunking or number of threads in which voxels
// came, and tallies of parts add up to the tally of the whole, bit for bit.
//
// Capacity: 2^40 voxels in one cell (a residual is at most 2^24, its sum is 64 bits wide); counts
// and votes alone would go on to 2^64.
//
// Speed. Per voxel the loop does two 64-bit read-modify-writes on one 16-byte entry: `marks` counts
// the voxel and up to seven raters in eight bytes of one word, so it is spilled into the 64-bit
// sums when its count reaches 255. Runs of one cell and one vote pattern, which is what background
// is, are added 32 at a time. What is left is bounded by second-level cache misses on random scores
// and by reading the inputs otherwise.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/instruction_set.hpp"
#include "twintrack/arrays/parallel.hpp"
#include "twintrack/arrays/votes.hpp"
#include "twintrack/arrays/voxel_blocks.hpp"
#include "twintrack/calibration/score_grid.hpp"

namespace twintrack {

class ScoreTally {
 public:
  /// Columns of `sums` before the votes.
  static constexpr std::size_t count_column = 0;
  static constexpr std::size_t residual_column = 1;
  static constexpr std::size_t first_vote_column = 2;

  explicit ScoreTally(std::size_t raters)
      : raters_(raters), sums_(grid::cells * (raters + first_vote_column)) {
    if (raters == 0) throw std::invalid_argument("raters is 0; a tally needs at least one rater");
  }

  ScoreTally(ScoreTally&&) = default;
  ScoreTally& operator=(ScoreTally&&) = default;

  std::size_t raters() const { return raters_; }
  std::size_t columns() const { return raters_ + first_vote_column; }

  /// Sums by cell and column, `cells` × `columns()`, row-major.
  const std::vector<std::uint64_t>& sums() const { return sums_; }
  std::vector<std::uint64_t>& sums() { return sums_; }

  /// Adds the voxels of a case. Either all of them are added or, when InputError or
  /// std::invalid_argument is thrown, none.
  void update(const CaseView& view, int threads = max_threads()) {
    if (view.raters.size() != raters_)
      throw std::invalid_argument("raters has " + std::to_string(view.raters.size()) +
                                  " masks but the tally was made for " + std::to_string(raters_));
    visit_real(view.score.element,
               [&](auto real) { add(VoxelBlocks<decltype(real)>(view), threads); });
  }

  ScoreTally& operator+=(const ScoreTally& other) {
    if (other.raters_ != raters_)
      throw std::invalid_argument("cannot add a tally of " + std::to_string(other.raters_) +
                                  " raters to one of " + std::to_string(raters_));
    for (std::size_t i = 0; i < sums_.size(); ++i) sums_[i] += other.sums_[i];
    return *this;
  }

 private:
  // Counters of one cell that a thread works on. `marks` counts voxels in its lowest byte and the
  // votes of rater k of the group in byte 1 + k.
  struct Entry {
    std::uint64_t marks;
    std::uint64_t residual;
  };
  static constexpr int run_length = 32;

  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };

  // marks_of[pattern]: one voxel with that vote pattern.
  static constexpr std::array<std::uint64_t, vote_patterns> marks_of = [] {
    std::array<std::uint64_t, vote_patterns> marks{};
    for (std::size_t pattern = 0; pattern < vote_patterns; ++pattern) {
      marks[pattern] = 1;
      for (std::size_t k = 0; k < votes_per_group; ++k)
        marks[pattern] |= std::uint64_t{(pattern >> k) & 1} << (8 * (k + 1));
    }
    return marks;
  }();

  // What one thread has counted and not yet given to the tally.
  class Counter {
   public:
    explicit Counter(std::size_t columns)
        : columns_(columns),
          entries_(grid::cells),
          wide_(static_cast<std::uint64_t*>(
              std::calloc(grid::cells * columns, sizeof(std::uint64_t)))),
          seen_(grid::cells) {
      if (!wide_) throw std::bad_alloc();
      touched_.reserve(grid::cells);  // so that counting never allocates
    }

    TWINTRACK_INLINE void add_one(std::uint32_t cell, std::uint64_t marks, std::uint32_t residual) {
      Entry& entry = entries_[cell];
      entry.residual += residual;
      const std::uint64_t sum = entry.marks + marks;
      entry.marks = sum;
      if ((sum & 0xff) == 0xff) spill(cell);
    }

    // `count` < 255 voxels with the same marks in one cell.
    TWINTRACK_INLINE void add_run(std::uint32_t cell, std::uint64_t marks, std::uint64_t residual,
                                  unsigned count) {
      Entry& entry = entries_[cell];
      if ((entry.marks & 0xff) + count > 0xff) spill(cell);
      entry.residual += residual;
      entry.marks += marks * count;
      if ((entry.marks & 0xff) == 0xff) spill(cell);
    }

    // `count` voxels with score 0 and no votes.
    TWINTRACK_INLINE void add_blank(int count) {
      const std::uint32_t cell = grid::position(0.0f).cell;
      touch(cell);
      if (group_ == 0)
        wide_.get()[cell * columns_ + count_column] += static_cast<std::uint64_t>(count);
    }

    // The raters that `marks` speaks of from now on. Voxels are counted with the first group only.
    void start_group(std::size_t group) {
      flush();
      group_ = group;
    }

    // Adds everything counted to `sums` and starts afresh.
    void give(std::vector<std::uint64_t>& sums) {
      flush();
      for (const std::uint32_t cell : touched_) {
        const std::uint64_t* from = wide_.get() + cell * columns_;
        std::uint64_t* to = sums.data() + cell * columns_;
        for (std::size_t k = 0; k < columns_; ++k) to[k] += from[k];
      }
      discard();
    }

    // Forgets everything counted.
    void discard() {
      std::fill(entries_.begin(), entries_.end(), Entry{});
      for (const std::uint32_t cell : touched_) {
        std::fill_n(wide_.get() + cell * columns_, columns_, 0);
        seen_[cell] = 0;
      }
      touched_.clear();
      group_ = 0;
    }

   private:
    void flush() {
      for (std::uint32_t cell = 0; cell < grid::cells; ++cell)
        if (entries_[cell].marks != 0) spill(cell);
    }

    TWINTRACK_INLINE void touch(std::uint32_t cell) {
      if (seen_[cell] != 0) return;
      seen_[cell] = 1;
      touched_.push_back(cell);
    }

    TWINTRACK_NOINLINE void spill(std::uint32_t cell) {
      Entry& entry = entries_[cell];
      std::uint64_t* to = wide_.get() + cell * columns_;
      touch(cell);
      if (group_ == 0) {
        to[count_column] += entry.marks & 0xff;
        to[residual_column] += entry.residual;
      }
      to += first_vote_column + group_ * votes_per_group;
      for (std::uint64_t votes = entry.marks >> 8; votes != 0; votes >>= 8) *to++ += votes & 0xff;
      entry = Entry{};
    }

    std::size_t columns_;
    std::size_t group_ = 0;
    std::vector<Entry> entries_;
    // Zeroed on demand by the system: only pages of cells that occur take up memory.
    std::unique_ptr<std::uint64_t[], Free> wide_;
    std::vector<std::uint8_t> seen_;
    std::vector<std::uint32_t> touched_;  // cells with something in `wide_`
  };

  // What one thread works in: blocks as they are loaded, then grid positions and votes.
  template <class Real>
  struct Room {
    explicit Room(const VoxelBlocks<Real>& blocks) : buffers(blocks) {}
    typename VoxelBlocks<Real>::Buffers buffers;
    alignas(64) std::array<std::uint32_t, block_voxels> cell;
    alignas(64) std::array<std::uint32_t, block_voxels> residual;
    alignas(64) std::array<std::uint8_t, block_voxels> pattern;
  };

  template <class Real>
  TWINTRACK_INLINE static void locate(const VoxelBlock<Real>& block, Room<Real>& room) {
    for (int i = 0; i < block.count; ++i) {
      const grid::Position position = grid::position(block.score[i]);
      room.cell[static_cast<std::size_t>(i)] = position.cell;
      room.residual[static_cast<std::size_t>(i)] = position.residual;
    }
  }

  template <class Real>
  TWINTRACK_INLINE static void count_block(const Room<Real>& room, int count, Counter& counter) {
    const std::uint32_t* cell = room.cell.data();
    const std::uint32_t* residual = room.residual.data();
    const std::uint8_t* pattern = room.pattern.data();
    int i = 0;
    for (; i + run_length <= count; i += run_length) {
      std::uint32_t differs = 0;
      std::uint64_t residuals = 0;
      for (int j = i; j < i + run_length; ++j) {
        differs |= (cell[j] ^ cell[i]) | static_cast<std::uint32_t>(pattern[j] ^ pattern[i]);
        residuals += residual[j];
      }
      if (differs == 0) {
        counter.add_run(cell[i], marks_of[pattern[i]], residuals, run_length);
      } else {
        for (int j = i; j < i + run_length; ++j)
          counter.add_one(cell[j], marks_of[pattern[j]], residual[j]);
      }
    }
    for (; i < count; ++i) counter.add_one(cell[i], marks_of[pattern[i]], residual[i]);
  }

  // Counts ranks [first, last). False if a voxel was invalid.
  template <class Real>
  static bool count_range(const VoxelBlocks<Real>& blocks, std::int64_t first, std::int64_t last,
                          std::size_t group, Room<Real>& room, Counter& counter) {
    bool valid = true;
    with_instruction_set(instruction_set(), [&]() TWINTRACK_INLINE_LAMBDA {
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
        locate(block, room);
        pack_votes(block, blocks.raters(), group, room.pattern.data());
        count_block(room, block.count, counter);
      }
    });
    return valid;
  }

  template <class Real>
  void add(const VoxelBlocks<Real>& blocks, int threads) {
    threads = static_cast<int>(std::clamp<std::int64_t>(blocks.tasks(), 1, std::max(threads, 1)));
    std::vector<std::unique_ptr<Room<Real>>> rooms;
    for (int thread = 0; thread < threads; ++thread) {
      rooms.push_back(std::make_unique<Room<Real>>(blocks));
      if (counters_.size() < rooms.size())
        counters_.push_back(std::make_unique<Counter>(columns()));
    }
    std::atomic<bool> valid{true};
    try {
      for (std::size_t group = 0; group < vote_groups(raters_); ++group) {
        for (auto& counter : counters_) counter->start_group(group);
        parallel_tasks(threads, blocks.tasks(), [&](int thread, std::int64_t task) {
          if (!valid.load(std::memory_order_relaxed)) return;
          const std::int64_t last = std::min((task + 1) * task_voxels, blocks.voxels());
          const auto own = static_cast<std::size_t>(thread);
          if (!count_range(blocks, task * task_voxels, last, group, *rooms[own], *counters_[own]))
            valid.store(false, std::memory_order_relaxed);
        });
      }
      if (!valid) blocks.explain();
    } catch (...) {
      for (auto& counter : counters_) counter->discard();
      throw;
    }
    for (auto& counter : counters_) counter->give(sums_);
  }

  std::size_t raters_;
  std::vector<std::uint64_t> sums_;
  std::vector<std::unique_ptr<Counter>> counters_;
};

}  // namespace twintrack
