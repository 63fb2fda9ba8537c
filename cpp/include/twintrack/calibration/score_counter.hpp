// What one thread has counted of a ScoreTally (score_tally.hpp).
//
// One record a cell (score_record.hpp) that is added to voxel by voxel. A full record is not added
// to the 64-bit sums at once, which would wait for memory: it is put into a log, and logs are
// emptied a hundred records at a time, whose sums are fetched ahead. So one table of sums does for
// all threads: a log holds records of one stripe of cells, and a stripe has a lock.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <vector>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/votes.hpp"
#include "twintrack/arrays/zeroed.hpp"
#include "twintrack/calibration/score_grid.hpp"
#include "twintrack/calibration/score_record.hpp"
#include "twintrack/calibration/tally_columns.hpp"
#include "twintrack/calibration/tally_sums.hpp"

namespace twintrack::detail {

inline constexpr std::size_t stripes = 8;

// Sums that several threads add to. Threads that hold a stripe's lock may add to its cells.
struct SharedSums {
  explicit SharedSums(TallySums& all) : sums(all) {}

  static std::size_t stripe(std::uint32_t cell) { return cell / 16 % stripes; }

  struct alignas(64) Lock {
    std::mutex mutex;
  };
  TallySums& sums;
  std::array<Lock, stripes> locks;
};

// What one thread has counted and not yet given to the tally.
class ScoreCounter {
 public:
  // Records go to `to` when they are full.
  ScoreCounter(std::size_t raters, SharedSums& to)
      : layout_{raters},
        words_(layout_.words()),
        to_(to),
        records_(grid::cells * words_),
        logged_cells_(stripes * log_records),
        logged_(stripes * log_records * words_) {
    if (!layout_.grouped()) {
      for (std::size_t pattern = 0; pattern < patterns; ++pattern)
        set_voxel(&voxels_[pattern * words_], layout_, pattern);
      return;
    }
    for (std::size_t pattern = 0; pattern < vote_patterns; ++pattern)
      for (std::size_t k = 0; k < votes_per_group; ++k)
        voxels_[pattern] += std::uint64_t{pattern >> k & 1} << 8 * k;
    exactly_.resize((raters + 1) * words_);
    for (std::size_t k = 0; k <= raters; ++k) {
      add_one(&exactly_[k * words_], RecordLayout::count_at);
      if (k >= 2) add_one(&exactly_[k * words_], layout_.exactly_at(k));
    }
  }

  ScoreCounter(const ScoreCounter&) = delete;
  ScoreCounter& operator=(const ScoreCounter&) = delete;
  // All must have been added to the sums, or forgotten.
  ~ScoreCounter() {
    if (records_.keepable()) records_.keep();
  }

  // Of records.
  static std::size_t bytes(std::size_t raters) {
    return grid::cells * RecordLayout{raters}.words() * sizeof(std::uint64_t);
  }

  RecordLayout layout() const { return layout_; }
  std::size_t words() const { return words_; }
  std::uint64_t* records() { return records_.data(); }
  // With more than eight raters: the words of a voxel but for its votes and its residual, by the
  // number of raters who marked it.
  const std::uint64_t* exactly() const { return exactly_.data(); }
  // By vote pattern: the words of a voxel; with more than eight raters, the votes of one group.
  const std::uint64_t* voxels() const { return voxels_.data(); }

  // `count` voxels that add the same to the first one or two words, and nothing to others, in one
  // cell.
  TWINTRACK_INLINE void add_run(std::uint32_t cell, const std::uint64_t* voxel, std::size_t words,
                                std::uint64_t residual, unsigned count) {
    // So many are blank that threads would wait for each other to add up this cell.
    if (cell == 0 && voxel[0] == RecordLayout::one_voxel && (words == 1 || voxel[1] == 0))
      return add_blank(count);
    std::uint64_t* const record = records_.data() + cell * words_;
    if ((record[0] >> RecordLayout::count_at & layout_.most()) + count > layout_.most())
      spill(cell);
    if (words == 1) {
      record[0] += voxel[0] * count + residual;
    } else {
      const WideWord sum = wide_word(record) + wide_word(voxel) * count + residual;
      record[0] = static_cast<std::uint64_t>(sum);
      record[1] = static_cast<std::uint64_t>(sum >> 64);
    }
    if (layout_.full(record[0])) spill(cell);
  }

  // `count` voxels with score 0 and no votes.
  TWINTRACK_INLINE void add_blank(unsigned count) { blank_ += count; }

  // Empties a record.
  TWINTRACK_NOINLINE void spill(std::uint32_t cell) {
    const std::size_t stripe = SharedSums::stripe(cell);
    const std::size_t at = stripe * log_records + in_log_[stripe];
    std::uint64_t* const record = records_.data() + cell * words_;
    logged_cells_[at] = cell;
    for (std::size_t word = 0; word < words_; ++word) {
      logged_[at * words_ + word] = record[word];
      record[word] = 0;
    }
    if (++in_log_[stripe] == log_records) empty_log(stripe);
  }

  // Adds a log to the sums.
  TWINTRACK_NOINLINE void empty_log(std::size_t stripe) {
    const std::lock_guard<std::mutex> lock(to_.locks[stripe].mutex);
    const std::uint32_t* const cells = logged_cells_.data() + stripe * log_records;
    const std::uint64_t* const records = logged_.data() + stripe * log_records * words_;
    with_raters(layout_.raters, [&](auto raters) {
      constexpr std::size_t ahead = 8;
      for (std::size_t i = 0; i < in_log_[stripe]; ++i) {
        if (i + ahead < in_log_[stripe]) to_.sums.prefetch(cells[i + ahead]);
        add_record<raters()>(records + i * words_, layout_, to_.sums.add_to(cells[i]));
      }
    });
    in_log_[stripe] = 0;
  }

  // Adds records of cells [first, last) to the sums; no other thread may.
  void empty_records(std::uint32_t first, std::uint32_t last) {
    with_raters(layout_.raters, [&](auto raters) {
      for (std::uint32_t cell = first; cell < last; ++cell) {
        std::uint64_t* const record = records_.data() + cell * words_;
        if (record[0] == 0) continue;
        add_record<raters()>(record, layout_, to_.sums.add_to(cell));
        for (std::size_t word = 0; word < words_; ++word) record[word] = 0;
      }
    });
  }

  // Makes all records zero without adding them.
  void forget() { std::memset(records_.data(), 0, records_.size() * sizeof(std::uint64_t)); }

  void empty_blank() {
    if (blank_ != 0) to_.sums.add_to(0)[TallyColumns::count] += blank_;
    blank_ = 0;
  }

 private:
  static constexpr std::size_t log_records = 128;
  static constexpr std::size_t patterns = std::size_t{1} << RecordLayout::most_ungrouped;

  RecordLayout layout_;
  std::size_t words_;
  SharedSums& to_;
  std::uint64_t blank_ = 0;
  Zeroed<std::uint64_t> records_;
  std::array<std::size_t, stripes> in_log_{};
  std::vector<std::uint32_t> logged_cells_;
  std::vector<std::uint64_t> logged_;
  std::vector<std::uint64_t> exactly_;
  alignas(64) std::array<std::uint64_t, 2 * patterns> voxels_{};
};

}  // namespace twintrack::detail
