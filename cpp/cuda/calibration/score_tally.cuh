// ScoreTally on the device: the sums of twintrack::ScoreTally, bit for bit, in one pass.
//
// What bounds it is not arithmetic but additions to counters: a voxel adds to 3 + N of them, in one
// of 120579 cells. They are met by four devices, cheapest first:
//
// 1. A voxel of score 0 that no rater marks, which is what background is, adds one to a register.
// 2. A thread adds up voxels of one cell that come four at a time in registers, until another four
//    come in another cell. Large ties cost little, whatever their value and labels.
// 3. The cells are divided into pages of 256. Each block holds packed counters
//    (packed_counters.cuh) of the pages that occur most in shared memory: up to 74 pages of 472 on
//    a device with 227 KiB of it. Which ones, and how many are worth it for so many voxels, a
//    sample of 4096 voxels says. Uniform scores have 94% of their voxels in 64 pages, the scores of
//    a network most in even fewer.
// 4. The rest goes to packed counters in global memory, shared by all blocks: one table of 1 MiB
//    that stays in the second-level cache.
//
// Shared memory's atomics are the tightest of these bounds: two per voxel for up to five raters and
// scores of at most 32 bits, three where two or more raters mark it, some 4 clocks each for 32
// random cells. A word to which a voxel adds nothing costs none.
//
// Voxels that exactly k raters marked are counted by a pass that sees all raters, up to nine. Of
// more, which go in groups, the last group adds those of two votes or more to the 64-bit sums.
//
// At the end every block stores the pages in which it has counted, `collect_counters` adds them up
// per cell, and `accept_sums` adds the case to the tally unless a voxel was invalid, both of them
// for pages alone in which something may have changed. All sums are integers, so the order in which
// anything happens does not matter.
//
// Beside the voxels a tally of five raters moves 3 MB whatever it counts, 0.15 MB for each page in
// which voxels fall and 0.8 MB for each that is resident on 132 multiprocessors: 45 MB for a CT of
// 42 million voxels (378 MB), 112 MB for as many uniform scores. Much of it stays in the
// second-level cache.
//
// Instructions a voxel of float32 and five raters (benchmarks/sass.py, sm_90): 24 for background,
// 90 where every voxel has a cell of its own, which allows 70% of the copy bandwidth of an H200 if
// none ever waits. Not timed on a device yet.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/arrays/device.cuh"
#include "cuda/arrays/packed_counters.cuh"
#include "cuda/arrays/voxel_vectors.cuh"
#include "cuda/calibration/tally_pages.cuh"
#include "cuda/calibration/thread_tally.cuh"
#include "twintrack/calibration/score_grid.hpp"

namespace twintrack::cuda {

/// Counts every voxel of a packed case, for a group of at most `raters` raters.
template <class Voxels, int raters>
__global__ void __launch_bounds__(tally_threads<CounterLayout<typename Voxels::Real, raters>>, 1)
    count_scores(const __grid_constant__ PackedCase from,
                 const __grid_constant__ TallyTables tables) {
  using Real = typename Voxels::Real;
  using Layout = CounterLayout<Real, raters>;
  open_pages<Voxels, Layout>(from, tables.resident_pages);

  ThreadTally<Real, raters> tally(tables);
  const std::uint32_t step = gridDim.x * blockDim.x;
  // All threads of a block go round equally often. The next vector is on its way while one is
  // counted; beyond the last voxel there are vectors without any.
  std::uint32_t vector = blockIdx.x * blockDim.x + threadIdx.x;
  VoxelVector<Real, raters> next;
  Voxels::load(from, vector, next);
  for (std::uint32_t first = blockIdx.x * blockDim.x; first < from.vectors; first += step) {
    const VoxelVector<Real, raters> v = next;
    Voxels::load(from, vector + step, next);
    tally.take(v, vector);
    vector += step;
  }
  tally.finish(from.first);
  close_pages<Layout>(tables);
}

/// Adds what `blocks` blocks of count_scores have left in counters to the sums. A block of this
/// kernel per page, a thread per cell.
template <class Layout>
__global__ void __launch_bounds__(page_cells)
    collect_counters(const __grid_constant__ TallyTables tables, unsigned blocks) {
  using Shared = TallyShared<Layout>;
  const unsigned page = blockIdx.x;
  const std::uint32_t cell = page * page_cells + threadIdx.x;
  std::uint64_t left[Layout::columns] = {};
  std::uint32_t any = 0;
  const auto collect = [&](const std::uint32_t* counters) {
    std::uint32_t word[Layout::words];
#pragma unroll
    for (int w = 0; w < Layout::words; ++w) any |= word[w] = counters[w * page_cells];
#pragma unroll
    for (int column = 0; column < Layout::columns; ++column)
      left[column] += Layout::value(column, word[Layout::field(column).word]);
  };
  collect(tables.spilled + page * Shared::page_words + threadIdx.x);
  if (const std::uint32_t home = tables.homes[page]; home != not_resident) {
    const std::uint32_t at = home + page * page_cells;
    const std::uint8_t* const filled = tables.filled + at / Shared::page_words * blocks;
    const std::size_t words = Shared::counter_words(tables.resident_pages);  // of a block
#pragma unroll 1
    for (unsigned block = 0; block < blocks; ++block)
      if (filled[block] != 0) collect(tables.resident + block * words + at + threadIdx.x);
    if (threadIdx.x == 0) tables.touch(page);  // for what was carried
  }
  if (any == 0) return;
  tables.touch(page);
  // Nobody else adds to this cell now. Columns that the group does not have come to 0.
  const CellSums sums = tables.cell_sums(cell);
#pragma unroll
  for (int column = 0; column < Layout::columns; ++column)
    if (left[column] != 0)
      *sums.template column<Layout>(column) += Layout::units(column, left[column]);
}

/// Adds the sums of a case to those of a tally, unless a voxel of it was invalid, and makes them 0.
/// A block per page.
__global__ void accept_sums(std::uint64_t* of_case, const std::uint32_t* touched,
                            const std::uint64_t* first_fault, unsigned columns,
                            std::uint64_t* sums);

}  // namespace twintrack::cuda
