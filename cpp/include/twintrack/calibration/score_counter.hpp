// What one thread has counted of a ScoreTally (score_tally.hpp).
//
// One 16-byte read-modify-write a voxel. One word of an entry has fields that count the voxel, its
// raters and that exactly 6 (and 7) raters marked it; the other adds up residuals in 32 bits and
// counts in four bytes that exactly 2, 3, 4 and 5 did. That exactly 1 did is what the others leave
// of the votes. Fields have 8 bits for cases of up to six raters, 6 for seven. An entry is spilled
// into 64-bit sums when its count is full.
//
// More raters than seven are counted in groups, which do not know the votes of the others: their
// voxels with two votes or more are added to the 64-bit sums at once.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/votes.hpp"
#include "twintrack/calibration/score_grid.hpp"
#include "twintrack/calibration/tally_rows.hpp"

namespace twintrack::detail {

// Sums over voxels. A voxel without its residual is one too.
struct alignas(16) ScoreEntry {
  std::uint64_t votes;  // fields: voxels, those that each rater of the group marked, exactly 6, 7
  std::uint64_t rest;   // low half: residuals; byte 2 + k: that exactly k marked, k = 2 … 5
};

// What the fields of `votes` are: so many raters, each of so many bits.
struct EntryLayout {
  int bits;
  int raters;
  bool exactly;  // whether exactly-k counts are kept

  constexpr std::uint64_t full() const { return (std::uint64_t{1} << bits) - 1; }
};
inline constexpr EntryLayout up_to_six_raters{8, 6, true};
inline constexpr EntryLayout seven_raters{6, 7, true};
inline constexpr EntryLayout groups_of_raters{8, 7, false};
static_assert(votes_per_group == 7);

// one_voxel<layout>[pattern]: a voxel with that vote pattern.
template <const EntryLayout& layout>
inline constexpr std::array<ScoreEntry, vote_patterns> one_voxel = [] {
  std::array<ScoreEntry, vote_patterns> voxels{};
  for (std::size_t pattern = 0; pattern < vote_patterns; ++pattern) {
    ScoreEntry& voxel = voxels[pattern];
    voxel.votes = 1;
    for (int k = 0; k < layout.raters; ++k)
      voxel.votes |= std::uint64_t{(pattern >> k) & 1} << (layout.bits * (1 + k));
    const int votes = std::popcount(pattern);
    if (!layout.exactly || votes < 2 || votes > layout.raters) continue;
    if (votes <= 5)
      voxel.rest = std::uint64_t{1} << (8 * (2 + votes));
    else
      voxel.votes |= std::uint64_t{1} << (layout.bits * (1 + layout.raters + votes - 6));
  }
  return voxels;
}();

// Adds a voxel and its residual to an entry, and returns its `votes`.
#if (defined(__GNUC__) || defined(__clang__)) && !defined(__CUDACC__) && \
    __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
// Both words at once. The two numbers before the residual and the one after it are loaded too.
TWINTRACK_INLINE std::uint64_t add_voxel(ScoreEntry& entry, const ScoreEntry& voxel,
                                         const std::uint32_t* residual) {
  typedef std::uint64_t Words __attribute__((vector_size(16)));
  typedef std::uint32_t Halves __attribute__((vector_size(16)));
  Words sum, more;
  Halves rest;
  std::memcpy(&sum, &entry, sizeof sum);
  std::memcpy(&more, &voxel, sizeof more);
  std::memcpy(&rest, residual - 2, sizeof rest);
  rest &= Halves{0, 0, ~0u, 0};
  sum += more + reinterpret_cast<Words>(rest);
  std::memcpy(&entry, &sum, sizeof sum);
  return sum[0];
}
#else
TWINTRACK_INLINE std::uint64_t add_voxel(ScoreEntry& entry, const ScoreEntry& voxel,
                                         const std::uint32_t* residual) {
  entry.rest += voxel.rest + *residual;
  return entry.votes += voxel.votes;
}
#endif

// What one thread has counted and not yet given to the tally.
class ScoreCounter {
 public:
  explicit ScoreCounter(std::size_t raters)
      : raters_(raters),
        columns_(TallyColumns::all(raters)),
        entries_(grid::cells),
        wide_(static_cast<std::uint64_t*>(
            std::calloc(grid::cells * columns_, sizeof(std::uint64_t)))),
        seen_(grid::cells) {
    if (!wide_) throw std::bad_alloc();
    touched_.reserve(grid::cells);  // so that counting never allocates
    const auto use = [&]<const EntryLayout & layout>() {
      layout_ = layout;
      one_voxel_ = one_voxel<layout>.data();
    };
    if (raters < votes_per_group)
      use.template operator()<up_to_six_raters>();
    else if (raters == votes_per_group)
      use.template operator()<seven_raters>();
    else
      use.template operator()<groups_of_raters>();
  }

  // Whether voxels that two raters or more marked are to be given to `add_exactly` too.
  bool asks_for_votes() const { return !layout_.exactly && group_ == 0; }

  // What a loop over voxels adds to: `add_voxel(entries()[cell], voxels()[pattern], …)`, and then
  // `spill(cell)` if the lowest bits, those of `full()`, are all 1.
  ScoreEntry* entries() { return entries_.data(); }
  const ScoreEntry* voxels() const { return one_voxel_; }
  std::uint64_t full() const { return layout_.full(); }

  // `count` voxels, half as many as a field holds at most, of one pattern in one cell.
  TWINTRACK_INLINE void add_run(std::uint32_t cell, const ScoreEntry& voxel, std::uint64_t residual,
                                unsigned count) {
    ScoreEntry& entry = entries_[cell];
    if ((entry.votes & full()) + count > full()) spill(cell);
    entry.rest += voxel.rest * count + residual;
    entry.votes += voxel.votes * count;
    if ((entry.votes & full()) == full()) spill(cell);
  }

  // Empties an entry into the 64-bit sums.
  TWINTRACK_NOINLINE void spill(std::uint32_t cell) {
    ScoreEntry& entry = entries_[cell];
    std::uint64_t* to = wide_.get() + cell * columns_;
    touch(cell);
    if (group_ == 0) {
      to[TallyColumns::count] += entry.votes & full();
      to[TallyColumns::residual] += entry.rest & 0xffffffffu;
    }
    std::uint64_t* exactly = to + TallyColumns::first_exactly(raters_) - 1;
    add_fields(entry.rest >> 32, 8, exactly + 2);
    const int bits_of_raters = layout_.bits * layout_.raters;
    const std::uint64_t votes = entry.votes >> layout_.bits;
    if (layout_.exactly) add_fields(votes >> bits_of_raters, layout_.bits, exactly + 6);
    add_fields(votes & ((std::uint64_t{1} << bits_of_raters) - 1), layout_.bits,
               to + TallyColumns::first_vote + group_ * votes_per_group);
    entry = ScoreEntry{};
  }

  // `count` voxels with score 0 and no votes.
  TWINTRACK_INLINE void add_blank(int count) {
    const std::uint32_t cell = grid::position(0.0f).cell;
    touch(cell);
    if (group_ == 0)
      wide_.get()[cell * columns_ + TallyColumns::count] += static_cast<std::uint64_t>(count);
  }

  // A voxel, already added to the entry of its cell, that exactly `votes` raters marked.
  TWINTRACK_INLINE void add_exactly(std::uint32_t cell, std::size_t votes) {
    ++wide_.get()[cell * columns_ + TallyColumns::first_exactly(raters_) + votes - 1];
  }

  // The raters that patterns speak of from now on. Voxels are counted with the first group only.
  void start_group(std::size_t group) {
    flush();
    group_ = group;
  }

  // Adds everything counted to `sums` and starts afresh.
  void give(std::vector<std::uint64_t>& sums) {
    flush();
    for (const std::uint32_t cell : touched_) {
      std::uint64_t* from = wide_.get() + cell * columns_;
      std::uint64_t* to = sums.data() + cell * columns_;
      derive_single_votes(from, raters_);
      for (std::size_t k = 0; k < columns_; ++k) to[k] += from[k];
    }
    forget();
  }

  // Forgets everything counted.
  void discard() {
    flush();
    forget();
  }

 private:
  // Empties all entries. Every cell with something in `wide_` is known from then on.
  void flush() {
    for (std::uint32_t cell = 0; cell < grid::cells; ++cell)
      if (entries_[cell].votes != 0) spill(cell);
  }

  void forget() {
    for (const std::uint32_t cell : touched_) {
      std::fill_n(wide_.get() + cell * columns_, columns_, 0);
      seen_[cell] = 0;
    }
    touched_.clear();
    group_ = 0;
  }

  TWINTRACK_INLINE void touch(std::uint32_t cell) {
    if (seen_[cell] != 0) return;
    seen_[cell] = 1;
    touched_.push_back(cell);
  }

  // Adds fields, the lowest first, up to the last that is not 0.
  TWINTRACK_INLINE static void add_fields(std::uint64_t fields, int bits, std::uint64_t* to) {
    const std::uint64_t mask = (std::uint64_t{1} << bits) - 1;
    for (; fields != 0; fields >>= bits) *to++ += fields & mask;
  }

  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };

  std::size_t raters_;
  std::size_t columns_;
  EntryLayout layout_{};
  const ScoreEntry* one_voxel_ = nullptr;
  std::size_t group_ = 0;
  std::vector<ScoreEntry> entries_;
  // Zeroed on demand by the system: only pages of cells that occur take up memory.
  std::unique_ptr<std::uint64_t[], Free> wide_;
  std::vector<std::uint8_t> seen_;
  std::vector<std::uint32_t> touched_;  // cells with something in `wide_`, but for `add_exactly`
};

}  // namespace twintrack::detail
