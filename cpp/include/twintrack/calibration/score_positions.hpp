// Where the scores of a block lie in the score grid.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/voxel_blocks.hpp"
#include "twintrack/calibration/score_grid.hpp"

namespace twintrack::detail {

/// Positions by column, so that the loop that makes them vectorises.
struct ScorePositions {
  alignas(64) std::array<std::uint32_t, block_voxels> cell;
  const std::uint32_t* residual() const { return padded_residual.data() + padding; }

  // Around the residuals there is room, so that whole vectors around any of them can be loaded.
  static constexpr int padding = 16;
  alignas(64) std::array<std::uint32_t, block_voxels + 2 * padding> padded_residual{};

  template <class Real>
  TWINTRACK_INLINE void locate(const Real* __restrict score, int n) {
    std::uint32_t* __restrict cells = cell.data();
    std::uint32_t* __restrict residuals = padded_residual.data() + padding;
    for (int i = 0; i < n; ++i) {
      const grid::Position position = grid::position(score[i]);
      cells[i] = position.cell;
      residuals[i] = position.residual;
    }
  }
};

}  // namespace twintrack::detail
