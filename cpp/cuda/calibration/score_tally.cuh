// ScoreTally on the device: the sums of twintrack::ScoreTally, bit for bit, in one pass.
//
// What bounds it is not arithmetic but additions to counters: a voxel adds to 3 + N of them, in one
// of 120579 cells. They are met by four devices, cheapest first:
//
// 1. A voxel of score 0 that no rater marks, which is what background is, adds one to a register.
// 2. A thread adds up voxels of one cell that come four at a time in registers, until another four
//    come in another cell. Large ties cost little, whatever their value and labels.
// 3. The cells are divided into pages of 256. Each block holds packed counters
//    (packed_counters.cuh) of the pages that occur most in shared memory: 74 pages of 472 on a
//    device with 227 KiB of it. Which ones, a sample of 4096 voxels says. Uniform scores have 94%
//    of their voxels in 64 pages, the scores of a network most in even fewer.
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
// At the end every block stores its pages, `collect_counters` adds them up per cell, and
// `accept_sums` adds the case to the tally unless a voxel was invalid. All sums are integers, so
// the order in which anything happens does not matter.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/arrays/device.cuh"
#include "cuda/arrays/device_case.hpp"
#include "cuda/arrays/packed_counters.cuh"
#include "cuda/arrays/voxel_vectors.cuh"
#include "cuda/calibration/tally_pages.cuh"
#include "cuda/calibration/thread_tally.cuh"
#include "twintrack/calibration/score_grid.hpp"

namespace twintrack::cuda {

/// Counts every voxel of a case, for a group of at most `raters` raters.
template <class Voxels, int raters>
__global__ void __launch_bounds__(tally_threads, 1)
    count_scores(const __grid_constant__ DeviceCase from,
                 const __grid_constant__ TallyTables tables) {
  using Real = typename Voxels::Real;
  using Layout = CounterLayout<Real, raters>;
  using Shared = TallyShared<Layout>;
  open_pages<Voxels, Layout>(from, tables.resident_pages);

  ThreadTally<Real, raters> tally(tables);
  const std::int64_t vectors = (from.voxels + vector_voxels - 1) / vector_voxels;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  const std::int64_t own = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  // All threads of a block go round equally often. The next vector is on its way while one is
  // counted; beyond the last voxel there are vectors without any.
  VoxelVector<Real, raters> next;
  Voxels::load(from, own, next);
  for (std::int64_t first = own - threadIdx.x; first < vectors; first += step) {
    const VoxelVector<Real, raters> v = next;
    const std::int64_t vector = first + threadIdx.x;
    Voxels::load(from, vector + step, next);
    tally.take(v, vector * vector_voxels);
  }
  tally.finish();

  __syncthreads();
  const std::size_t words = Shared::counter_words(tables.resident_pages);
  std::uint32_t* left = tables.resident + blockIdx.x * words;
  for (std::size_t i = threadIdx.x; i < words; i += blockDim.x) left[i] = Shared::counters()[i];
  if (blockIdx.x == 0)
    for (unsigned page = threadIdx.x; page < pages; page += blockDim.x)
      tables.homes[page] = Shared::homes()[page];
}

/// Adds what `blocks` blocks of count_scores have left in counters to the sums. A block of this
/// kernel per page, a thread per cell.
template <class Layout>
__global__ void __launch_bounds__(page_cells)
    collect_counters(const __grid_constant__ TallyTables tables, unsigned blocks) {
  using Shared = TallyShared<Layout>;
  const unsigned page = blockIdx.x;
  const std::uint32_t cell = page * page_cells + threadIdx.x;
  if (cell >= grid::cells) return;
  std::uint64_t left[Layout::columns] = {};
  const auto collect = [&](const std::uint32_t* counters) {
    std::uint32_t word[Layout::words];
#pragma unroll
    for (int w = 0; w < Layout::words; ++w) word[w] = counters[w * page_cells];
#pragma unroll
    for (int column = 0; column < Layout::columns; ++column)
      left[column] += Layout::value(column, word[Layout::field(column).word]);
  };
  collect(tables.spilled + page * Shared::page_words + threadIdx.x);
  if (const std::uint32_t home = tables.homes[page]; home != not_resident) {
    const std::size_t words = Shared::counter_words(tables.resident_pages);  // of a block
#pragma unroll 4
    for (unsigned block = 0; block < blocks; ++block)
      collect(tables.resident + block * words + (home + cell));
  }
  // Nobody else adds to this cell now.
  const std::uint64_t* carried = tables.carried + cell * Layout::columns;
  const CellSums sums = tables.cell_sums(cell);
#pragma unroll
  for (int column = 0; column < Layout::columns; ++column) {
    // Columns that the group does not have come to 0.
    const std::uint64_t total = Layout::total(column, left[column], carried);
    if (total != 0) *sums.template column<Layout>(column) += total;
  }
}

/// Adds the sums of a case to those of a tally, unless a voxel of it was invalid.
__global__ void accept_sums(const std::uint64_t* of_case, const std::uint64_t* first_fault,
                            std::size_t count, std::uint64_t* sums);

}  // namespace twintrack::cuda
