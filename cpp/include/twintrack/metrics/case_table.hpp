// What one thread has counted of a CaseTally (case_tally.hpp), by cell and votes.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/fixed_sum.hpp"

namespace twintrack::detail {

// Sums of one thread, by cell and key: a vote pattern or a number of votes.
class CaseTable {
 public:
  // An entry holds this many voxels before it must be emptied: the sum of their confidences takes
  // 42 bits, of their scores 64, and their count the other 22 bits of the first word.
  static constexpr std::int64_t capacity = std::int64_t{1} << 17;
  static constexpr int count_shift = 42;
  static constexpr std::uint64_t one_voxel = std::uint64_t{1} << count_shift;

  struct Entry {
    std::uint64_t count;
    std::uint64_t confidence;  // in units of 2^-24: enough for 2^40 voxels in one update
    fixed::Sum score;
  };

  CaseTable(int cells, std::size_t keys)
      : shift_(static_cast<int>(std::bit_width(keys - 1))),
        entries_(static_cast<std::size_t>(cells) << shift_),
        wide_(entries_.size()) {}

  TWINTRACK_INLINE int shift() const { return shift_; }

  TWINTRACK_INLINE void add(std::uint32_t index, std::uint64_t count_and_confidence,
                            std::uint64_t score) {
    Narrow& entry = entries_[index];
    entry.count_and_confidence += count_and_confidence;
    entry.score += score;
  }

  void flush() {
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      const Narrow entry = std::exchange(entries_[i], Narrow{});
      wide_[i].count += entry.count_and_confidence >> count_shift;
      wide_[i].confidence += entry.count_and_confidence & ((std::uint64_t{1} << count_shift) - 1);
      wide_[i].score.add(0, entry.score);
    }
  }

  const Entry& at(std::size_t cell, std::size_t key) const { return wide_[(cell << shift_) + key]; }

 private:
  struct Narrow {
    std::uint64_t count_and_confidence;
    std::uint64_t score;
  };

  int shift_;
  std::vector<Narrow> entries_;
  std::vector<Entry> wide_;
};

}  // namespace twintrack::detail
