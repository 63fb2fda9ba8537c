// What one thread of a tally (score_tally.cuh) counts: background and runs in registers, the rest
// in packed counters.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/arrays/device.cuh"
#include "cuda/arrays/packed_counters.cuh"
#include "cuda/arrays/voxel_vectors.cuh"
#include "cuda/calibration/tally_pages.cuh"
#include "twintrack/calibration/score_grid.hpp"

namespace twintrack::cuda {

/// Turns four rows of four bytes into columns.
__device__ inline void transpose(const std::uint32_t (&row)[4], std::uint32_t (&column)[4]) {
  const std::uint32_t a = __byte_perm(row[0], row[1], 0x5140);
  const std::uint32_t b = __byte_perm(row[2], row[3], 0x5140);
  const std::uint32_t c = __byte_perm(row[0], row[1], 0x7362);
  const std::uint32_t d = __byte_perm(row[2], row[3], 0x7362);
  column[0] = __byte_perm(a, b, 0x5410);
  column[1] = __byte_perm(a, b, 0x7632);
  column[2] = __byte_perm(c, d, 0x5410);
  column[3] = __byte_perm(c, d, 0x7632);
}

/// What a thread has counted and not yet given away.
template <class Real, int raters>
class ThreadTally {
 public:
  using Layout = CounterLayout<Real, raters>;
  using Shared = TallyShared<Layout>;
  using Vector = VoxelVector<Real, raters>;

  __device__ explicit ThreadTally(const TallyTables& tables) : tables_(tables) { start_run(0); }

  /// Counts vector number `vector` of the packed case. The threads of a warp call this together.
  __device__ void take(Vector v, std::uint32_t vector) {
    v.remove_faults(vector, fault_);
    if (grouped()) count_with_groups_before(v, vector);
    take_background(v);
    if (v.inside != 0) take_voxels(v);
    const bool full = length_ > longest_run - vector_voxels;
    const unsigned lanes = __ballot_sync(whole_warp, full);
    if (full) give_long_run(lanes);
  }

  /// Gives away everything; `first` is the rank of the packed case's first voxel. The threads of a
  /// warp call this together.
  __device__ void finish(std::int64_t first) {
    give_run();
    // At most 2^33 voxels on all the warps of a device.
    const std::uint32_t background = __reduce_add_sync(whole_warp, background_);
    if (threadIdx.x % warp_size == 0 && background > 0 && counts_voxels()) {
      tables_.touch(0);
      add(tables_.cell_sums(0).count, background);
    }
    if (fault_ != no_voxel) lower(tables_.first_fault, static_cast<std::uint64_t>(first) + fault_);
  }

 private:
  // A run's fields must not carry: counts and votes have 7 bits or more.
  static constexpr std::uint32_t longest_run = 127;

  // Groups are as large as they can be, but the last.
  __device__ bool grouped() const { return raters == group_raters && tables_.votes != nullptr; }
  __device__ bool counts_voxels() const { return raters != group_raters || tables_.counts_voxels; }

  // What a voxel adds: words of fields, without its residual, which a run adds up by itself.
  struct Voxel {
    std::uint32_t cell;
    std::uint32_t residual;
    std::uint32_t words[Layout::words];
  };

  // Adds the group's votes to those of the groups before; in the last one, counts the voxels that
  // exactly 2, 3, … raters of all marked.
  __device__ void count_with_groups_before(const Vector& v, std::uint32_t vector) const {
    if (v.inside == 0) return;
    auto* const so_far = reinterpret_cast<std::uint32_t*>(tables_.votes) + vector;
    const std::uint32_t votes = *so_far + v.votes();
    if (!tables_.last) {
      *so_far = votes;
      return;
    }
#pragma unroll
    for (int j = 0; j < vector_voxels; ++j) {
      const int own = static_cast<int>((votes >> (8 * j)) & 0xffu);
      if (own < 2) continue;
      const std::uint32_t cell = grid::position(v.score[j]).cell;
      tables_.touch(cell / page_cells);
      add(tables_.cell_sums(cell).exactly + (own - 1), 1);
    }
  }

  // Counts the voxels of score 0 that nobody marks and takes them out.
  __device__ void take_background(Vector& v) {
    const std::uint32_t zero = v.zeros() & ~v.any_label();
    background_ += static_cast<std::uint32_t>(__popc(static_cast<int>(zero)));
    v.inside &= ~zero;
  }

  __device__ void take_voxels(const Vector& v) {
    Voxel voxel[vector_voxels];
    locate(v, voxel);
    pack(v, voxel);
    bool one_cell = true;
#pragma unroll
    for (int j = 1; j < vector_voxels; ++j) one_cell &= voxel[j].cell == voxel[0].cell;
    if (one_cell)
      add_to_run(voxel);
    else
      add_singly(voxel);
  }

  __device__ void locate(const Vector& v, Voxel (&voxel)[vector_voxels]) const {
    const std::uint32_t residual_mask = counts_voxels() ? ~0u : 0u;
#pragma unroll
    for (int j = 0; j < vector_voxels; ++j) {
      const grid::Position at = grid::position(v.score[j]);
      voxel[j].cell = at.cell;
      voxel[j].residual = (at.residual >> Layout::residual_unit) & residual_mask;
    }
  }

  __device__ void pack(const Vector& v, Voxel (&voxel)[vector_voxels]) const {
    const std::uint32_t ones = counts_voxels() ? v.inside : 0u;
    // More groups than one count numbers of votes in another way.
    const std::uint32_t votes = grouped() ? 0u : v.votes();
    constexpr auto count = Layout::field(count_column);
    constexpr auto vote = Layout::field(first_vote_column);
    if constexpr (count.word == 0) {
      // Byte j: one voxel in its lowest bit, the vote of rater 0 in its highest.
      static_assert(vote.word == 0 && vote.shift == count.shift + 7);
      const std::uint32_t both = ones | v.label[0] << 7;
#pragma unroll
      for (int j = 0; j < vector_voxels; ++j)
        voxel[j].words[0] = ((both >> (8 * j)) & 0xffu) << count.shift;
    } else {
#pragma unroll
      for (int j = 0; j < vector_voxels; ++j) voxel[j].words[0] = 0;
    }
#pragma unroll
    for (int w = 1; w < Layout::words; ++w) {
      std::uint32_t row[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int column = Layout::column_of_byte(4 * (w - 1) + i);
        const int rater = column - first_vote_column;
        const int number = column - Layout::first_exactly_column + 2;
        row[i] = 0;
        if (column == count_column)
          row[i] = ones;
        else if (rater < raters)
          row[i] = v.label[rater >= 0 && rater < raters ? rater : 0];
        else if (column < Layout::columns)  // 1 in bytes that are `number`
          row[i] = nonzero_bytes(votes ^ 0x01010101u * static_cast<unsigned>(number)) ^ 0x01010101u;
      }
      std::uint32_t column[vector_voxels];
      transpose(row, column);
#pragma unroll
      for (int j = 0; j < vector_voxels; ++j) voxel[j].words[w] = column[j];
    }
  }

  __device__ void start_run(std::uint32_t cell) {
    cell_ = cell;
    length_ = 0;
    residual_ = 0;
#pragma unroll
    for (int w = 0; w < Layout::words; ++w) words_[w] = 0;
  }

  // Adds a vector that lies in one cell to the run.
  __device__ void add_to_run(const Voxel (&voxel)[vector_voxels]) {
    if (voxel[0].cell != cell_) {
      give_run();
      start_run(voxel[0].cell);
    }
    length_ += vector_voxels;
#pragma unroll
    for (int j = 0; j < vector_voxels; ++j) {
      residual_ += voxel[j].residual;
#pragma unroll
      for (int w = 0; w < Layout::words; ++w) words_[w] += voxel[j].words[w];
    }
  }

  // Adds the run to the counters of its cell.
  __device__ void give_run() {
    if (length_ == 0) return;
    // More than 2^18 in all only in long runs and below 2^-24.
    if constexpr (!Layout::own_residual_word)
      if (const std::uint64_t high = residual_ >> residual_bits << residual_bits; high != 0) {
        tables_.touch(cell_ / page_cells);
        add(tables_.cell_sums(cell_).count + residual_column, Layout::units(residual_column, high));
      }
    Voxel run[1];
    run[0].cell = cell_;
    run[0].residual = residual_ & (0xffffffffu >> (32 - residual_bits));
#pragma unroll
    for (int w = 0; w < Layout::words; ++w) run[0].words[w] = words_[w];
    add_singly(run);
  }

  // Adds to the counters of each cell. Loads, additions and what they returned are dealt with for
  // all voxels at a time, so that the waits overlap.
  template <int count>
  __device__ void add_singly(const Voxel (&voxel)[count]) const {
    constexpr int words = Layout::words;
    std::uint32_t home[count];
    bool spills = false;
#pragma unroll
    for (int j = 0; j < count; ++j) {
      home[j] = Shared::homes()[voxel[j].cell / page_cells];
      spills |= home[j] == not_resident;
    }
    std::uint32_t amount[count][words];
    std::uint32_t before[count][words];
#pragma unroll
    for (int j = 0; j < count; ++j) {
      std::uint32_t* counters = Shared::counters() + (home[j] + voxel[j].cell);
#pragma unroll
      for (int w = 0; w < words; ++w) {
        amount[j][w] = voxel[j].words[w] + (w == 0 ? voxel[j].residual : 0u);
        before[j][w] = add_shared(home[j] != not_resident && amount[j][w] != 0,
                                  counters + w * page_cells, amount[j][w]);
      }
    }
    if (spills) {
#pragma unroll
      for (int j = 0; j < count; ++j) {
        if (home[j] != not_resident) continue;
        std::uint32_t* counters = tables_.spilled +
                                  voxel[j].cell / page_cells * Shared::page_words +
                                  voxel[j].cell % page_cells;
#pragma unroll
        for (int w = 0; w < words; ++w)
          if (amount[j][w] != 0) before[j][w] = add(counters + w * page_cells, amount[j][w]);
      }
    }
    // Whether any field of any word carried is asked once.
    std::uint32_t carried = 0;
#pragma unroll
    for (int w = 0; w < words; ++w) {
      std::uint32_t of_word = 0;
#pragma unroll
      for (int j = 0; j < count; ++j)
        of_word |= count == 1 ? carries_of(before[j][w], amount[j][w])  // a run adds more
                              : small_carries_of(before[j][w], amount[j][w]);
      carried |= of_word & Layout::carry_bits(w);
    }
    if (carried != 0) settle<0>(voxel, before, amount);
  }

  // Counts what additions to words `word` and those after it carried.
  template <int word, int count>
  __device__ void settle(const Voxel (&voxel)[count],
                         const std::uint32_t (&before)[count][Layout::words],
                         const std::uint32_t (&amount)[count][Layout::words]) const {
    if constexpr (word < Layout::words) {
      Carries<Layout, word> carries;
#pragma unroll
      for (int j = 0; j < count; ++j) carries.note(j, before[j][word], amount[j][word]);
      carries.for_each([&](int which, int column) {
        std::uint32_t cell = voxel[0].cell;
#pragma unroll
        for (int j = 1; j < count; ++j) cell = which == j ? voxel[j].cell : cell;
        // A resident page is collected in any case.
        if (Shared::homes()[cell / page_cells] == not_resident) tables_.touch(cell / page_cells);
        const CellSums sums = tables_.cell_sums(cell);
        const int bits = Layout::field(column).bits;
        add(sums.template column<Layout>(column), Layout::units(column, std::uint64_t{1} << bits));
        if (const int above = Layout::above(column); above >= 0)
          add(sums.template column<Layout>(above), ~std::uint64_t{0});
      });
      settle<word + 1>(voxel, before, amount);
    }
  }

  // Adds the run straight to the 64-bit sums. If all of `lanes`, which call this together, are in
  // one cell, as they are where large parts of a volume have one value, one of them does so.
  __device__ void give_long_run(unsigned lanes) {
    tables_.touch(cell_ / page_cells);
    const CellSums sums = tables_.cell_sums(cell_);
    const int leader = __ffs(static_cast<int>(lanes)) - 1;
    const bool together =
        __all_sync(lanes, cell_ == __shfl_sync(lanes, cell_, leader) ? 1 : 0) != 0;
    const bool gives = !together || threadIdx.x % warp_size == static_cast<unsigned>(leader);
#pragma unroll
    for (int column = 0; column < Layout::columns; ++column) {
      std::uint64_t total;
      if (column == residual_column) {
        // In two halves: 32 of them may take up more than 32 bits.
        total = sum_over(lanes, together, residual_ & 0xffffu) +
                (std::uint64_t{sum_over(lanes, together, residual_ >> 16)} << 16);
        total = Layout::units(column, total);
      } else {
        total =
            sum_over(lanes, together, Layout::value(column, words_[Layout::field(column).word]));
      }
      if (gives && total != 0) add(sums.template column<Layout>(column), total);
    }
    start_run(cell_);
  }

  __device__ static std::uint32_t sum_over(unsigned lanes, bool together, std::uint32_t value) {
    return together ? __reduce_add_sync(lanes, value) : value;
  }

  static constexpr int residual_bits = Layout::field(residual_column).bits;

  const TallyTables& tables_;
  std::uint32_t cell_;
  std::uint32_t length_;
  std::uint32_t residual_;
  std::uint32_t words_[Layout::words];
  std::uint32_t background_ = 0;
  std::uint64_t fault_ = no_voxel;
};

}  // namespace twintrack::cuda
