// Placing the cuts between equal-mass bins exactly, by reading the voxels again.
//
// A ScoreTally knows which grid cell a cut falls in, but not between which scores of the cell. A
// refinement pass counts the voxels of those cells once more, each divided into `parts` ranges of
// score, and keeps for every range count, residuals and votes, and its least and greatest score. A
// range that holds a single score is a block of ties and is left alone; one that holds several and
// a cut is divided again in the next pass. Scores of 32 bits are done after one pass (two below
// 2^-24), float64 scores usually after two.
//
// Memory: 4096 × (4 + N) × 8 bytes for each cut that lies inside a cell, 74 MB for 250 bins and
// five raters at most, whatever the number of voxels. All counters are integers shared by the
// threads: the result does not depend on order.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <stdexcept>
#include <vector>

#include "twintrack/arrays/input_error.hpp"
#include "twintrack/arrays/parallel.hpp"
#include "twintrack/arrays/voxel_blocks.hpp"
#include "twintrack/calibration/equal_mass.hpp"
#include "twintrack/calibration/score_grid.hpp"
#include "twintrack/calibration/tally_rows.hpp"

namespace twintrack {

class CutRefinement {
 public:
  static constexpr unsigned part_bits = 12;
  static constexpr std::uint64_t parts = std::uint64_t{1} << part_bits;

  /// Starts from the rows of the finished tally of all voxels.
  CutRefinement(const TallyRows& tally, std::uint64_t bins) : raters_(tally.raters), bins_(bins) {
    if (bins == 0) throw InputError("bins", "is 0; at least one bin is needed");
    for (std::size_t row = 0; row < tally.rows; ++row) {
      if (tally.count(row) == 0) continue;
      const std::uint64_t* sums = tally.row(row);
      pieces_.push_back(
          {tally.cell[row], lowest_key(tally.cell[row]), highest_key(tally.cell[row]), {}});
      pieces_.back().sums.assign(sums, sums + columns());
      voxels_ += tally.count(row);
    }
    plan();
  }

  /// Whether every cut lies between two different scores.
  bool done() const { return active_.empty(); }

  /// Counts the voxels of a case. Every pass must be given the same voxels as the tally.
  void update(const CaseView& view, int threads = max_threads());

  /// Ends a pass. Throws std::runtime_error if the voxels were not those of the tally.
  void advance() {
    std::vector<Piece> refined;
    std::uint64_t before = 0;
    std::size_t next = 0;
    for (std::size_t index = 0; index < pieces_.size(); ++index) {
      const std::uint64_t count = pieces_[index].sums[TallyColumns::count];
      if (next < active_.size() && active_[next].piece == index) {
        divide(active_[next], pieces_[index], before, refined);
        ++next;
      } else {
        refined.push_back(std::move(pieces_[index]));
      }
      before += count;
    }
    pieces_ = std::move(refined);
    plan();
  }

  /// The cells and sums of the refined rows, up to the votes, as equal_mass_bins takes them.
  std::vector<std::uint32_t> cells() const {
    std::vector<std::uint32_t> all;
    for (const Piece& piece : pieces_) all.push_back(piece.cell);
    return all;
  }
  std::vector<std::uint64_t> sums() const {
    std::vector<std::uint64_t> all;
    for (const Piece& piece : pieces_) all.insert(all.end(), piece.sums.begin(), piece.sums.end());
    return all;
  }
  std::size_t columns() const { return TallyColumns::first_vote + raters_; }

 private:
  // Scores from `low` to `high`, as keys, in one grid cell.
  struct Piece {
    std::uint32_t cell;
    std::uint64_t low;
    std::uint64_t high;
    std::vector<std::uint64_t> sums;
  };

  // A piece that this pass divides into ranges of 2^shift keys.
  struct Active {
    std::size_t piece;
    std::uint64_t low;
    std::uint64_t high;
    unsigned shift;
  };

  // Columns of a part: those of a tally, then the complement of its least key and its greatest key
  // (so that zeroed memory is right for both).
  std::size_t part_columns() const { return columns() + 2; }

  // Order-preserving integer of a score; float scores are widened exactly.
  template <class Real>
  static std::uint64_t key(Real p) {
    return detail::bits_as<std::uint64_t>(static_cast<double>(p)) & ~(1ull << 63);
  }

  // Bounds of the keys in a cell. At the upper end 1 - d rounds below 2^-53: a key just outside is
  // counted in the part next to it, which keeps the order.
  static double bound(std::uint32_t index) { return grid::scale(index).base; }
  static std::uint64_t lowest_key(std::uint32_t cell) {
    if (cell == 0) return 0;
    if (cell == 1) return 1;
    if (cell <= grid::half_cell) return key(bound(cell));
    return key(1.0 - bound(2 * grid::half_cell - cell + 1)) + 1;
  }
  static std::uint64_t highest_key(std::uint32_t cell) {
    if (cell == 0) return 0;
    if (cell < grid::half_cell) return key(bound(cell + 1)) - 1;
    return key(1.0 - bound(2 * grid::half_cell - cell));
  }

  // The first cut at or after position `from`: its number, `bins_` if there is none.
  std::uint64_t first_cut(std::uint64_t from) const {
    std::uint64_t low = 1;
    std::uint64_t high = bins_;
    while (low < high) {
      const std::uint64_t middle = low + (high - low) / 2;
      if (cut_position(middle, voxels_, bins_) < from)
        low = middle + 1;
      else
        high = middle;
    }
    return low;
  }

  // Whether a cut falls at one of the positions [first, last).
  bool has_cut(std::uint64_t first, std::uint64_t last) const {
    const std::uint64_t cut = first_cut(first);
    return cut < bins_ && cut_position(cut, voxels_, bins_) < last;
  }

  void plan() {
    active_.clear();
    first_active_.assign(grid::cells + 1, 0);
    std::uint64_t before = 0;
    for (std::size_t index = 0; index < pieces_.size(); ++index) {
      const Piece& piece = pieces_[index];
      const std::uint64_t after = before + piece.sums[TallyColumns::count];
      if (piece.low < piece.high && has_cut(before + 1, after)) {
        unsigned shift = 0;
        while (((piece.high - piece.low) >> shift) >= parts) ++shift;
        active_.push_back({index, piece.low, piece.high, shift});
        ++first_active_[piece.cell + 1];
      }
      before = after;
    }
    for (std::size_t cell = 0; cell < grid::cells; ++cell)
      first_active_[cell + 1] += first_active_[cell];
    counters_.reset();
    if (active_.empty()) return;
    counters_.reset(static_cast<std::uint64_t*>(
        std::calloc(active_.size() * parts * part_columns(), sizeof(std::uint64_t))));
    if (!counters_) throw std::bad_alloc();
  }

  template <class Real>
  void count_voxel(const VoxelBlock<Real>& block, int i, grid::Position at);
  template <class Real>
  void count(const VoxelBlocks<Real>& blocks, int threads);

  // Replaces `piece`, whose first voxel is at position `before`, by its parts. Parts that hold no
  // cut are put together.
  void divide(const Active& active, const Piece& piece, std::uint64_t before,
              std::vector<Piece>& refined) const {
    const std::size_t id = static_cast<std::size_t>(&active - active_.data());
    const std::uint64_t expected = before + piece.sums[TallyColumns::count];
    bool open = false;  // whether the last refined piece may be added to
    for (std::uint64_t part = 0; part < parts; ++part) {
      const std::uint64_t* sums = counters_.get() + (id * parts + part) * part_columns();
      const std::uint64_t count = sums[TallyColumns::count];
      if (count == 0) continue;
      const bool cut = has_cut(before, before + count);
      if (open && !cut) {
        Piece& run = refined.back();
        for (std::size_t k = 0; k < columns(); ++k) run.sums[k] += sums[k];
        run.high = sums[columns() + 1];
      } else {
        refined.push_back({piece.cell, ~sums[columns()], sums[columns() + 1], {}});
        refined.back().sums.assign(sums, sums + columns());
      }
      open = !cut;
      before += count;
    }
    if (before != expected)
      throw std::runtime_error("the voxels of this pass are not those of the tally");
  }

  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };

  std::size_t raters_;
  std::uint64_t bins_;
  std::uint64_t voxels_ = 0;
  std::vector<Piece> pieces_;
  std::vector<Active> active_;
  std::vector<std::uint32_t> first_active_;  // by cell: its first active piece
  std::unique_ptr<std::uint64_t[], Free> counters_;
};

}  // namespace twintrack

#if !defined(TWINTRACK_LINKED)
#include "twintrack/calibration/cut_refinement_loops.hpp"
#endif
