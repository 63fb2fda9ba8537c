// The loops of case_tally.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <vector>

#include "twintrack/arrays/array_view.hpp"
#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/fixed_sum.hpp"
#include "twintrack/arrays/instruction_set.hpp"
#include "twintrack/arrays/parallel.hpp"
#include "twintrack/arrays/votes.hpp"
#include "twintrack/arrays/voxel_blocks.hpp"
#include "twintrack/metrics/case_sums.hpp"
#include "twintrack/metrics/case_table.hpp"
#include "twintrack/metrics/case_tally.hpp"
#include "twintrack/metrics/evaluation_cells.hpp"
#include "twintrack/metrics/marked_extent.hpp"

namespace twintrack {

namespace detail {

// Voxels worked on at a time, so that what is computed of them stays in the first-level cache.
inline constexpr int piece_voxels = 256;

// What one thread works in and has counted.
struct CaseWorker {
  CaseWorker(std::size_t raters, int cells, const MarkedExtent& nothing) : extent(nothing) {
    if (raters > votes_per_group) tables.emplace_back(cells, raters + 1);
    for (std::size_t group = 0; group < vote_groups(raters); ++group)
      tables.emplace_back(
          cells, std::size_t{1} << std::min(votes_per_group, raters - group * votes_per_group));
    keys.resize(tables.size() * block_voxels);
  }

  std::uint8_t* keys_of(std::size_t table) { return keys.data() + table * block_voxels; }

  void flush() {
    for (CaseTable& table : tables) table.flush();
    squares.add(0, square_units);
    square_units = 0;
    held = 0;
  }

  MarkedExtent extent;
  // Up to seven raters: one table by vote pattern. More: one by number of votes, then one by
  // pattern for each group of seven.
  std::vector<CaseTable> tables;
  std::vector<std::uint8_t> keys;  // of the voxels of a block, for each table
  std::uint64_t background = 0;    // voxels with score 0 and no votes, not in the tables
  std::int64_t held = 0;           // voxels that the tables' narrow entries may hold
  std::uint64_t square_units = 0;
  fixed::Sum squares;

  alignas(64) std::array<std::uint32_t, piece_voxels> cell;
  alignas(64) std::array<std::uint32_t, piece_voxels> confidence;
  alignas(64) std::array<std::uint32_t, piece_voxels> index;
  alignas(64) std::array<std::uint64_t, piece_voxels> score;
};

// The largest score of a piece without votes; 1 if there is a vote.
template <class Real>
TWINTRACK_INLINE Real largest_unmarked(const Real* score, const std::uint8_t* votes, int n) {
  using Bits = std::conditional_t<sizeof(Real) == 4, std::uint32_t, std::uint64_t>;
  std::uint8_t any_vote = 0;
  for (int i = 0; i < n; ++i) any_vote |= votes[i];
  if (any_vote != 0) return Real{1};
  Bits largest = 0;
  for (int i = 0; i < n; ++i)  // without the sign, since -0 is 0
    largest = std::max<Bits>(largest, bits_as<Bits>(score[i]) << 1);
  return bits_as<Real>(largest >> 1);
}

// Counts a piece without votes whose scores are below the faint limit: two sums of everything
// instead of a table look-up per voxel.
template <class Real>
TWINTRACK_INLINE void count_faint(const EvaluationCells<Real>& of_scores, const Real* score, int n,
                                  CaseWorker& worker) {
  const EvaluationCells<Real> cells = of_scores;  // a copy, which the stores below cannot alias
  std::uint32_t* __restrict doubt = worker.confidence.data();  // 1 - confidence
  std::uint32_t doubts = 0;
  std::uint32_t certain = 0;  // voxels
  for (int i = 0; i < n; ++i) {
    const std::uint32_t d =
        confidence_one - confidence_units(cells.background_confidence(score[i]));
    doubt[i] = d;
    doubts += d;
    certain += d == 0 ? 1 : 0;
  }
  std::uint64_t scores = 0;
  std::uint64_t certain_scores = 0;
  std::uint64_t squares = 0;
  for (int i = 0; i < n; ++i) {
    const double p = static_cast<double>(score[i]);
    const std::uint64_t units = fixed::units(p);
    scores += units;
    certain_scores += doubt[i] == 0 ? units : 0;
    squares += fixed::units(p * p);
  }
  worker.square_units += squares;
  const std::uint64_t in_doubt = static_cast<std::uint32_t>(n) - certain;
  for (CaseTable& table : worker.tables) {
    table.add(0, certain * (CaseTable::one_voxel + confidence_one), certain_scores);
    table.add(std::uint32_t{1} << table.shift(),
              in_doubt * (CaseTable::one_voxel + confidence_one) - doubts, scores - certain_scores);
  }
}

template <class Real>
TWINTRACK_INLINE void locate(const EvaluationCells<Real>& of_scores, const Real* score, int n,
                             CaseWorker& worker) {
  const EvaluationCells<Real> cells = of_scores;  // a copy, which the stores below cannot alias
  std::uint32_t* __restrict cell = worker.cell.data();
  std::uint32_t* __restrict confidence = worker.confidence.data();
  for (int i = 0; i < n; ++i) {
    const ScoreParts parts = cells.parts(score[i]);
    cell[i] = static_cast<std::uint32_t>(cells.cell(parts));
    confidence[i] = confidence_units(parts.confidence);
  }
  std::uint64_t* units = worker.score.data();
  std::uint64_t squares = 0;
  for (int i = 0; i < n; ++i) {
    const double p = static_cast<double>(score[i]);
    units[i] = fixed::units(p);
    squares += fixed::units(p * p);
  }
  worker.square_units += squares;
}

// Adds a located piece, whose keys are given, to a table.
TWINTRACK_INLINE void count_located(CaseWorker& worker, CaseTable& table, const std::uint8_t* key,
                                    int n) {
  constexpr int run_length = 32;
  const std::uint32_t* cell = worker.cell.data();
  const std::uint32_t* confidence = worker.confidence.data();
  const std::uint64_t* score = worker.score.data();
  std::uint32_t* index = worker.index.data();
  const int shift = table.shift();
  for (int i = 0; i < n; ++i) index[i] = (cell[i] << shift) + key[i];

  int i = 0;
  for (; i + run_length <= n; i += run_length) {
    std::uint32_t differs = 0;
    for (int j = i; j < i + run_length; ++j) differs |= index[j] ^ index[i];
    if (differs == 0) {
      std::uint32_t confidences = 0;  // at most 32 × 2^24
      std::uint64_t scores = 0;
      for (int j = i; j < i + run_length; ++j) confidences += confidence[j];
      for (int j = i; j < i + run_length; ++j) scores += score[j];
      table.add(index[i], run_length * CaseTable::one_voxel + confidences, scores);
    } else {
      for (int j = i; j < i + run_length; ++j)
        table.add(index[j], CaseTable::one_voxel + confidence[j], score[j]);
    }
  }
  for (; i < n; ++i) table.add(index[i], CaseTable::one_voxel + confidence[i], score[i]);
}
TWINTRACK_ENTRY void count_piece(CaseWorker& worker, CaseTable& table, const std::uint8_t* key,
                                 int n) {
  with_instruction_set([&]() TWINTRACK_INLINE_LAMBDA { count_located(worker, table, key, n); });
}

// Counts ranks [first, last), at most a task's. False if a voxel was invalid. `scored` has a byte
// for each block, 0 before, or is null; it is given where marked voxels are to be found too.
template <class Real>
bool count_case_range(const VoxelBlocks<Real>& blocks, const EvaluationCells<Real>& cells,
                      Real faint_limit, std::int64_t first, std::int64_t last, std::uint8_t* scored,
                      typename VoxelBlocks<Real>::Buffers& buffers, CaseWorker& worker) {
  if (worker.held > CaseTable::capacity - task_voxels) worker.flush();
  bool valid = true;
  with_instruction_set([&]() TWINTRACK_INLINE_LAMBDA {
    const std::size_t raters = blocks.raters();
    VoxelBlock<Real> block;
    for (std::int64_t rank = first; rank < last; rank += block_voxels) {
      const int n = static_cast<int>(std::min<std::int64_t>(block_voxels, last - rank));
      if (blocks.blank(rank, n)) {
        worker.background += static_cast<std::uint64_t>(n);
        continue;
      }
      if (!blocks.load(rank, n, buffers, block)) {
        valid = false;
        return;
      }
      if (block.count == 0) continue;           // all of it lies outside the region
      std::uint8_t* votes = worker.keys_of(0);  // not 0 where a rater marks
      std::size_t table = 0;
      if (raters > votes_per_group) {
        count_votes(block.raters, raters, block.count, votes);
        ++table;
      }
      for (std::size_t group = 0; table < worker.tables.size(); ++table, ++group)
        pack_votes(block.raters, raters, group, block.count, worker.keys_of(table));
      if (scored != nullptr) {
        std::uint8_t any = 0;
        for (int i = 0; i < n; ++i) any |= votes[i];
        if (any != 0) worker.extent.add(rank, votes, n);
      }
      for (int start = 0; start < block.count; start += piece_voxels) {
        const int length = std::min(piece_voxels, block.count - start);
        const Real* score = block.score + start;
        const Real largest = largest_unmarked(score, votes + start, length);
        if (largest == Real{0}) {
          worker.background += static_cast<std::uint64_t>(length);
          continue;
        }
        if (scored != nullptr) scored[rank / block_voxels] = 1;
        worker.held += length;
        if (largest < faint_limit) {
          count_faint(cells, score, length, worker);
          continue;
        }
        locate(cells, score, length, worker);
        for (std::size_t k = 0; k < worker.tables.size(); ++k)
          count_piece(worker, worker.tables[k], worker.keys_of(k) + start, length);
      }
    }
  });
  return valid;
}

inline fixed::Sum confidence_sum(std::uint64_t units) {
  constexpr std::uint64_t one = std::uint64_t{1} << confidence_bits;
  return {units >> confidence_bits, (units & (one - 1))
                                        << (fixed::fraction_bits - confidence_bits)};
}

// What a worker has counted, as sums; `cells` are the parts of each cell.
TWINTRACK_ENTRY void give(CaseWorker& worker, const std::vector<ScoreParts>& cells,
                          CaseSums& sums) {
  worker.flush();
  const std::size_t raters = sums.raters();
  const bool grouped = raters > votes_per_group;
  for (std::size_t cell = 0; cell < cells.size(); ++cell) {
    const ScoreParts& parts = cells[cell];
    const std::size_t score_row = sums.score_row(parts);
    const std::size_t confidence_row = sums.confidence_row(parts);
    const std::size_t keys = grouped ? raters + 1 : std::size_t{1} << raters;
    for (std::size_t key = 0; key < keys; ++key) {
      const CaseTable::Entry& entry = worker.tables[0].at(cell, key);
      if (entry.count == 0) continue;
      const std::size_t votes = grouped ? key : static_cast<std::size_t>(std::popcount(key));
      sums.at(sums.votes() + static_cast<std::size_t>(parts.exceeded) * (raters + 1) + votes) +=
          entry.count;
      sums.at(score_row) += entry.count;
      sums.add(score_row + 1, entry.score);
      sums.at(confidence_row) += entry.count;
      sums.add(confidence_row + 1, confidence_sum(entry.confidence));
    }
    for (std::size_t rater = 0; rater < raters; ++rater) {
      const CaseTable& table = worker.tables[(grouped ? 1 : 0) + rater / votes_per_group];
      const std::size_t bit = std::size_t{1} << rater % votes_per_group;
      for (std::size_t key = bit; key < std::size_t{1} << table.shift(); key = (key + 1) | bit) {
        const CaseTable::Entry& entry = table.at(cell, key);
        if (entry.count == 0) continue;
        sums.at(score_row + CaseSums::first_vote_column + rater) += entry.count;
        sums.at(confidence_row + CaseSums::first_vote_column + rater) += entry.count;
        sums.add(sums.rater_scores() + 2 * rater, entry.score);
      }
    }
  }
  sums.add(sums.squares(), worker.squares);

  // Background: score 0 is in the first cell with confidence 1.
  const std::size_t score_row = sums.score_row(cells.front());
  const std::size_t confidence_row = sums.confidence_row(cells.front());
  sums.at(sums.votes()) += worker.background;
  sums.at(score_row) += worker.background;
  sums.at(confidence_row) += worker.background;
  sums.add(confidence_row + 1, fixed::Sum{worker.background, 0});
}

// The sums of a case.
template <class Real>
CaseSums count_case(const CaseView& view, std::size_t bins, CaseOverview* overview, int threads) {
  const VoxelBlocks<Real> blocks(view);
  const EvaluationCells<Real> cells(static_cast<int>(bins), view.score.element);
  // VoxelBlocks walks in the order of its first array, the score.
  MarkedExtent extent(Walk(view.score.shape, {&view.score}), view.score.shape);
  std::vector<std::unique_ptr<CaseWorker>> workers;
  std::vector<typename VoxelBlocks<Real>::Buffers> buffers;
  for (int thread = 0; thread < team_size(threads, blocks.tasks()); ++thread) {
    workers.push_back(std::make_unique<CaseWorker>(blocks.raters(), cells.count(), extent));
    buffers.emplace_back(blocks);
  }
  const auto decoded = cells.decode();
  const Real faint_limit = EvaluationCells<Real>::faint_limit(decoded);
  std::vector<std::uint8_t> scored;
  if (overview != nullptr)
    scored.resize(static_cast<std::size_t>((blocks.voxels() + block_voxels - 1) / block_voxels));
  const bool valid = parallel_valid(threads, blocks.tasks(), [&](int thread, std::int64_t task) {
    const std::int64_t last = std::min((task + 1) * task_voxels, blocks.voxels());
    const auto own = static_cast<std::size_t>(thread);
    return count_case_range(blocks, cells, faint_limit, task * task_voxels, last,
                            overview == nullptr ? nullptr : scored.data(), buffers[own],
                            *workers[own]);
  });
  if (!valid) blocks.explain();

  std::vector<ScoreParts> parts;
  for (const auto& cell : decoded) parts.push_back(cell.parts);
  CaseSums found(blocks.raters(), bins);
  for (const auto& worker : workers) {
    give(*worker, parts, found);
    extent.merge(worker->extent);
  }
  if (overview == nullptr) return found;
  overview->marked = extent.any() ? extent.ranges() : std::vector<MarkedExtent::Range>{};
  if (!blocks.score_contiguous()) scored.clear();
  overview->scored = std::move(scored);
  return found;
}

}  // namespace detail

TWINTRACK_ENTRY void CaseTally::update(const CaseView& view, CaseOverview* overview, int threads) {
  require_raters(view, raters());
  if (overview != nullptr && view.region != nullptr)
    throw std::invalid_argument("the overview of a case with a region is not defined");
  sums_ += visit_real(view.score.element, [&](auto real) {
    return detail::count_case<decltype(real)>(view, sums_.bins(), overview, threads);
  });
}

}  // namespace twintrack
