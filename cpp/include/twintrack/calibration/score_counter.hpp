// What one thread has counted of a ScoreTally (score_tally.hpp).
//
// Two 64-bit read-modify-writes on one 16-byte entry a voxel: `marks` counts the voxel and up to
// seven raters in eight bytes of one word, so it is spilled into 64-bit sums when its count reaches
// 255.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/votes.hpp"
#include "twintrack/calibration/score_grid.hpp"
#include "twintrack/calibration/tally_rows.hpp"

namespace twintrack::detail {

// marks_of[pattern]: one voxel with that vote pattern.
inline constexpr std::array<std::uint64_t, vote_patterns> marks_of = [] {
  std::array<std::uint64_t, vote_patterns> marks{};
  for (std::size_t pattern = 0; pattern < vote_patterns; ++pattern) {
    marks[pattern] = 1;
    for (std::size_t k = 0; k < votes_per_group; ++k)
      marks[pattern] |= std::uint64_t{(pattern >> k) & 1} << (8 * (k + 1));
  }
  return marks;
}();

// What one thread has counted and not yet given to the tally.
class ScoreCounter {
 public:
  explicit ScoreCounter(std::size_t columns)
      : columns_(columns),
        entries_(grid::cells),
        wide_(
            static_cast<std::uint64_t*>(std::calloc(grid::cells * columns, sizeof(std::uint64_t)))),
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
      wide_.get()[cell * columns_ + TallyColumns::count] += static_cast<std::uint64_t>(count);
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
      to[TallyColumns::count] += entry.marks & 0xff;
      to[TallyColumns::residual] += entry.residual;
    }
    to += TallyColumns::first_vote + group_ * votes_per_group;
    for (std::uint64_t votes = entry.marks >> 8; votes != 0; votes >>= 8) *to++ += votes & 0xff;
    entry = Entry{};
  }

  // `marks` counts voxels in its lowest byte and the votes of rater k of the group in byte 1 + k.
  struct Entry {
    std::uint64_t marks;
    std::uint64_t residual;
  };
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };

  std::size_t columns_;
  std::size_t group_ = 0;
  std::vector<Entry> entries_;
  // Zeroed on demand by the system: only pages of cells that occur take up memory.
  std::unique_ptr<std::uint64_t[], Free> wide_;
  std::vector<std::uint8_t> seen_;
  std::vector<std::uint32_t> touched_;  // cells with something in `wide_`
};

}  // namespace twintrack::detail
