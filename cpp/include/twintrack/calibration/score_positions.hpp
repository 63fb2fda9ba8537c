// Where the scores of a block lie in the score grid.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/voxel_blocks.hpp"
#include "twintrack/calibration/score_grid.hpp"

namespace twintrack::detail {

/// Positions by column, so that the loop that makes them vectorises. Cells are multiplied by
/// 2^`shift`, which makes them places in a table of so many columns.
struct ScorePositions {
  alignas(64) std::array<std::uint32_t, block_voxels> cell;
  alignas(64) std::array<std::uint32_t, block_voxels> residual;

  template <class Real>
  TWINTRACK_INLINE void locate(const Real* __restrict score, int n, unsigned shift = 0) {
    std::uint32_t* __restrict cells = cell.data();
    std::uint32_t* __restrict residuals = residual.data();
    for (int i = 0; i < n; ++i) {
      const grid::Position position = grid::position(score[i]);
      cells[i] = position.cell << shift;
      residuals[i] = position.residual;
    }
  }
};

}  // namespace twintrack::detail
