// The loops of cut_refinement.hpp: counting the voxels of the cells that a cut falls in.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/instruction_set.hpp"
#include "twintrack/arrays/parallel.hpp"
#include "twintrack/arrays/shared_counters.hpp"
#include "twintrack/arrays/voxel_blocks.hpp"
#include "twintrack/calibration/cut_refinement.hpp"
#include "twintrack/calibration/score_grid.hpp"
#include "twintrack/calibration/score_positions.hpp"
#include "twintrack/calibration/tally_rows.hpp"

namespace twintrack {

template <class Real>
void CutRefinement::count_voxel(const VoxelBlock<Real>& block, int i, grid::Position at) {
  const std::uint64_t score = key(block.score[i]);
  const std::uint32_t last = first_active_[at.cell + 1];
  std::uint32_t id = first_active_[at.cell];
  // Pieces of one cell are few and ascending. The outermost take what rounding put outside.
  while (id + 1 < last && active_[id].high < score) ++id;
  const Active& active = active_[id];
  const bool whole_cell = pieces_[active.piece].low == lowest_key(at.cell) &&
                          pieces_[active.piece].high == highest_key(at.cell);
  if (!whole_cell && (score < active.low || score > active.high)) return;
  const std::uint64_t part =
      (std::clamp(score, active.low, active.high) - active.low) >> active.shift;
  std::uint64_t* sums = counters_.get() + (id * parts + part) * part_columns();
  detail::add_shared(sums[TallyColumns::count], 1);
  detail::add_shared(sums[TallyColumns::residual], at.residual);
  for (std::size_t k = 0; k < raters_; ++k)
    if (block.raters[k][i] != 0) detail::add_shared(sums[TallyColumns::first_vote + k], 1);
  detail::raise_shared(sums[columns()], ~score);
  detail::raise_shared(sums[columns() + 1], score);
}

template <class Real>
void CutRefinement::count(const VoxelBlocks<Real>& blocks, int threads) {
  if (active_.empty()) return;
  const bool valid = parallel_valid(threads, blocks.tasks(), [&](int, std::int64_t task) {
    typename VoxelBlocks<Real>::Buffers buffers(blocks);
    detail::ScorePositions at;
    const std::int64_t last = std::min((task + 1) * task_voxels, blocks.voxels());
    bool good = true;
    with_instruction_set([&]() TWINTRACK_INLINE_LAMBDA {
      VoxelBlock<Real> block;
      for (std::int64_t rank = task * task_voxels; rank < last; rank += block_voxels) {
        const int n = static_cast<int>(std::min<std::int64_t>(block_voxels, last - rank));
        good = blocks.load(rank, n, buffers, block);
        if (!good) return;
        at.locate(block.score, block.count);
        for (int i = 0; i < block.count; ++i) {
          const auto k = static_cast<std::size_t>(i);
          if (first_active_[at.cell[k]] != first_active_[at.cell[k] + 1])
            count_voxel(block, i, {at.cell[k], at.residual[k]});
        }
      }
    });
    return good;
  });
  if (!valid) blocks.explain();
}

TWINTRACK_ENTRY void CutRefinement::update(const CaseView& view, int threads) {
  require_raters(view, raters_);
  visit_real(view.score.element,
             [&](auto real) { count(VoxelBlocks<decltype(real)>(view), threads); });
}

}  // namespace twintrack
