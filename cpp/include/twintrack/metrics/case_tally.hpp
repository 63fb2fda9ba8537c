// CaseTally: everything the metrics need of a case, gathered in one pass.
//
// A voxel is looked at once: its score's cell (evaluation_cells.hpp) and its raters' votes address
// one entry of a table, which counts it and adds up its confidence and its score. All that the
// metrics use are sums over parts of that table:
//   - voxels by number of thresholds exceeded and number of votes: the Dice scores (TDSC);
//   - per bin of the score and per bin of the confidence in the predicted class: voxels, sum of
//     scores or confidences, voxels that each rater marked: calibration errors, per rater or
//     against the mean human response (MHR), and reliability curves;
//   - sum of scores and, per rater, of scores of marked voxels; sum of squared scores: predicted
//     volume and Brier scores.
// All of it is integer sums (fixed_sum.hpp), so a tally does not depend on the order, chunking or
// number of threads in which voxels came, and tallies of parts add up to the tally of the whole,
// bit for bit. Capacity: 2^64 voxels; a score is rounded to a multiple of 2^-46.
//
// Speed. Per voxel the loop does one read-modify-write of a 16-byte entry; with up to seven raters
// votes are kept apart by pattern, so nothing else is written per voxel. Background (score 0, no
// votes) is only counted, blocks of it at the speed of memory, and runs of one entry are added 32
// at a time.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/fixed_sum.hpp"
#include "twintrack/arrays/instruction_set.hpp"
#include "twintrack/arrays/parallel.hpp"
#include "twintrack/arrays/votes.hpp"
#include "twintrack/arrays/voxel_blocks.hpp"
#include "twintrack/metrics/evaluation_cells.hpp"
#include "twintrack/metrics/marked_extent.hpp"

namespace twintrack {

/// The sums of a CaseTally as one row of integers, and where in it they are.
class CaseSums {
 public:
  /// Columns of a bin: voxels, whole and fraction of the sum of scores or confidences, then the
  /// voxels that each rater marked.
  static constexpr std::size_t first_vote_column = 3;

  CaseSums(std::size_t raters, std::size_t bins)
      : raters_(raters), bins_(bins), values_(rater_scores() + 2 * raters) {}

  std::size_t raters() const { return raters_; }
  std::size_t bins() const { return bins_; }
  std::size_t bin_columns() const { return first_vote_column + raters_; }
  std::size_t bin_rows() const { return bins_ + 1; }

  /// First value of each part. Voxels by thresholds exceeded (0 … 6) and votes (0 … N).
  std::size_t votes() const { return 0; }
  /// By bin of the score.
  std::size_t score_bins() const { return votes() + (dice_thresholds + 1) * (raters_ + 1); }
  /// By predicted class, background first, and bin of the confidence in it.
  std::size_t confidence_bins() const { return score_bins() + bin_rows() * bin_columns(); }
  /// Row of the scores with these parts, and of their confidences.
  std::size_t score_row(const ScoreParts& parts) const {
    return score_bins() + static_cast<std::size_t>(parts.bin) * bin_columns();
  }
  std::size_t confidence_row(const ScoreParts& parts) const {
    const auto bin = static_cast<std::size_t>(parts.confidence_bin);
    return confidence_bins() +
           (static_cast<std::size_t>(parts.tumour) * bin_rows() + bin) * bin_columns();
  }
  /// Sum of squared scores: whole and fraction.
  std::size_t squares() const { return confidence_bins() + 2 * bin_rows() * bin_columns(); }
  /// Sum of the scores of the voxels that each rater marked: whole and fraction.
  std::size_t rater_scores() const { return squares() + 2; }

  const std::vector<std::uint64_t>& values() const { return values_; }
  std::vector<std::uint64_t>& values() { return values_; }

  std::uint64_t& at(std::size_t index) { return values_[index]; }

  /// Adds to the fixed-point sum at `index` and `index + 1`.
  void add(std::size_t index, const fixed::Sum& sum) {
    fixed::Sum total{values_[index], values_[index + 1]};
    total.add(sum.whole, sum.fraction);
    values_[index] = total.whole;
    values_[index + 1] = total.fraction;
  }

  CaseSums& operator+=(const CaseSums& other) {
    std::vector<std::size_t> fixed_sums;
    for (std::size_t row = 0; row < 3 * bin_rows(); ++row)
      fixed_sums.push_back(score_bins() + row * bin_columns() + 1);
    for (std::size_t k = 0; k <= raters_; ++k) fixed_sums.push_back(squares() + 2 * k);
    std::size_t next = 0;
    for (const std::size_t index : fixed_sums) {
      for (; next < index; ++next) values_[next] += other.values_[next];
      add(index, fixed::Sum{other.values_[index], other.values_[index + 1]});
      next = index + 2;
    }
    return *this;
  }

 private:
  std::size_t raters_;
  std::size_t bins_;
  std::vector<std::uint64_t> values_;
};

/// What a first look at a case tells besides its sums.
struct CaseOverview {
  /// Bounding box of the voxels that a rater marks, empty if there are none.
  std::vector<MarkedExtent::Range> marked;
  /// Whether a block of `block_voxels` voxels, in the order of the score's memory, may hold a score
  /// other than 0. Empty if the score is not contiguous.
  std::vector<std::uint8_t> scored;
};

class CaseTally {
 public:
  static constexpr std::size_t most_raters = 255;

  CaseTally(std::size_t raters, int bins)
      : bins_(bins), sums_(checked(raters), static_cast<std::size_t>(UniformBins(bins).count())) {}

  std::size_t raters() const { return sums_.raters(); }
  int bins() const { return bins_; }
  const CaseSums& sums() const { return sums_; }
  CaseSums& sums() { return sums_; }

  /// Adds the voxels of a case. Either all of them are added or, when InputError or
  /// std::invalid_argument is thrown, none. If `overview` is given, it is filled in; the case must
  /// not have a region then.
  void update(const CaseView& view, CaseOverview* overview = nullptr, int threads = max_threads()) {
    if (view.raters.size() != raters())
      throw std::invalid_argument("raters has " + std::to_string(view.raters.size()) +
                                  " masks but the tally was made for " + std::to_string(raters()));
    if (overview != nullptr && view.region != nullptr)
      throw std::invalid_argument("the overview of a case with a region is not defined");
    visit_real(view.score.element, [&](auto real) {
      using Real = decltype(real);
      add(VoxelBlocks<Real>(view), EvaluationCells<Real>(bins_, view.score.element), view, overview,
          threads);
    });
  }

  CaseTally& operator+=(const CaseTally& other) {
    if (other.raters() != raters() || other.bins_ != bins_)
      throw std::invalid_argument("cannot add a tally of " + std::to_string(other.raters()) +
                                  " raters and " + std::to_string(other.bins_) +
                                  " bins to one of " + std::to_string(raters()) + " raters and " +
                                  std::to_string(bins_) + " bins");
    sums_ += other.sums_;
    return *this;
  }

 private:
  static std::size_t checked(std::size_t raters) {
    if (raters < 1 || raters > most_raters)
      throw std::invalid_argument("raters is " + std::to_string(raters) + "; it must be 1 to " +
                                  std::to_string(most_raters));
    return raters;
  }

  // An entry holds this many voxels before it must be emptied: the sum of their confidences takes
  // 42 bits, of their scores 64, and their count the other 22 bits of the first word.
  static constexpr std::int64_t entry_capacity = std::int64_t{1} << 17;
  static constexpr int count_shift = 42;
  static constexpr std::uint64_t one_voxel = std::uint64_t{1} << count_shift;
  // Voxels worked on at a time, so that what is computed of them stays in the first-level cache.
  static constexpr int piece_voxels = 256;
  static constexpr int run_length = 32;

  struct Entry {
    std::uint64_t count_and_confidence;
    std::uint64_t score;
  };
  struct WideEntry {
    std::uint64_t count;
    std::uint64_t confidence;  // in units of 2^-24: enough for 2^40 voxels in one update
    fixed::Sum score;
  };

  // Sums of one thread, by cell and key: a vote pattern or a number of votes.
  class Table {
   public:
    Table(int cells, std::size_t keys)
        : shift_(static_cast<int>(std::bit_width(keys - 1))),
          entries_(static_cast<std::size_t>(cells) << shift_),
          wide_(entries_.size()) {}

    TWINTRACK_INLINE int shift() const { return shift_; }

    TWINTRACK_INLINE void add(std::uint32_t index, std::uint64_t count_and_confidence,
                              std::uint64_t score) {
      Entry& entry = entries_[index];
      entry.count_and_confidence += count_and_confidence;
      entry.score += score;
    }

    void flush() {
      for (std::size_t i = 0; i < entries_.size(); ++i) {
        const Entry entry = std::exchange(entries_[i], Entry{});
        wide_[i].count += entry.count_and_confidence >> count_shift;
        wide_[i].confidence += entry.count_and_confidence & ((std::uint64_t{1} << count_shift) - 1);
        wide_[i].score.add(0, entry.score);
      }
    }

    const WideEntry& at(std::size_t cell, std::size_t key) const {
      return wide_[(cell << shift_) + key];
    }

   private:
    int shift_;
    std::vector<Entry> entries_;
    std::vector<WideEntry> wide_;
  };

  // What one thread works in and has counted.
  template <class Real>
  struct Worker {
    Worker(const VoxelBlocks<Real>& blocks, int cells, const MarkedExtent& nothing)
        : buffers(blocks), extent(nothing) {
      const std::size_t raters = blocks.raters();
      if (raters > votes_per_group) tables.emplace_back(cells, raters + 1);
      for (std::size_t group = 0; group < vote_groups(raters); ++group)
        tables.emplace_back(
            cells, std::size_t{1} << std::min(votes_per_group, raters - group * votes_per_group));
      keys.resize(tables.size() * block_voxels);
    }

    std::uint8_t* keys_of(std::size_t table) { return keys.data() + table * block_voxels; }

    void flush() {
      for (Table& table : tables) table.flush();
      squares.add(0, square_units);
      square_units = 0;
      held = 0;
    }

    typename VoxelBlocks<Real>::Buffers buffers;
    MarkedExtent extent;
    // Up to seven raters: one table by vote pattern. More: one by number of votes, then one by
    // pattern for each group of seven.
    std::vector<Table> tables;
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
  TWINTRACK_INLINE static Real largest_unmarked(const Real* score, const std::uint8_t* votes,
                                                int n) {
    using Bits = std::conditional_t<sizeof(Real) == 4, std::uint32_t, std::uint64_t>;
    std::uint8_t any_vote = 0;
    for (int i = 0; i < n; ++i) any_vote |= votes[i];
    if (any_vote != 0) return Real{1};
    Bits largest = 0;
    for (int i = 0; i < n; ++i)  // without the sign, since -0 is 0
      largest = std::max<Bits>(largest, detail::bits_as<Bits>(score[i]) << 1);
    return detail::bits_as<Real>(largest >> 1);
  }

  // Counts a piece without votes whose scores are below the faint limit: two sums of everything
  // instead of a table look-up per voxel.
  template <class Real>
  TWINTRACK_INLINE static void count_faint(const EvaluationCells<Real>& of_scores,
                                           const Real* score, int n, Worker<Real>& worker) {
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
    for (Table& table : worker.tables) {
      table.add(0, certain * (one_voxel + confidence_one), certain_scores);
      table.add(std::uint32_t{1} << table.shift(), in_doubt * (one_voxel + confidence_one) - doubts,
                scores - certain_scores);
    }
  }

  template <class Real>
  TWINTRACK_INLINE static void locate(const EvaluationCells<Real>& of_scores, const Real* score,
                                      int n, Worker<Real>& worker) {
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
  template <class Real>
  TWINTRACK_INLINE static void count(Worker<Real>& worker, Table& table, const std::uint8_t* key,
                                     int n) {
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
        table.add(index[i], run_length * one_voxel + confidences, scores);
      } else {
        for (int j = i; j < i + run_length; ++j)
          table.add(index[j], one_voxel + confidence[j], score[j]);
      }
    }
    for (; i < n; ++i) table.add(index[i], one_voxel + confidence[i], score[i]);
  }

  template <class Real>
  TWINTRACK_INLINE static void count_votes(const VoxelBlock<Real>& block, std::size_t raters,
                                           std::uint8_t* __restrict votes) {
    const int n = block.count;  // a copy, which stores of bytes cannot alias
    for (int i = 0; i < n; ++i) votes[i] = 0;
    for (std::size_t k = 0; k < raters; ++k) {
      const std::uint8_t* label = block.raters[k];
      for (int i = 0; i < n; ++i) votes[i] = static_cast<std::uint8_t>(votes[i] + label[i]);
    }
  }

  // Counts ranks [first, last), at most a task's. False if a voxel was invalid. `scored` has a byte
  // for each block, 0 before, or is null; it is given where marked voxels are to be found too.
  template <class Real>
  static bool count_range(const VoxelBlocks<Real>& blocks, const EvaluationCells<Real>& cells,
                          Real faint_limit, std::int64_t first, std::int64_t last,
                          std::uint8_t* scored, Worker<Real>& worker) {
    if (worker.held > entry_capacity - task_voxels) worker.flush();
    bool valid = true;
    with_instruction_set(instruction_set(), [&]() TWINTRACK_INLINE_LAMBDA {
      const std::size_t raters = blocks.raters();
      const bool grouped = raters > votes_per_group;
      VoxelBlock<Real> block;
      for (std::int64_t rank = first; rank < last; rank += block_voxels) {
        const int n = static_cast<int>(std::min<std::int64_t>(block_voxels, last - rank));
        if (blocks.blank(rank, n)) {
          worker.background += static_cast<std::uint64_t>(n);
          continue;
        }
        if (!blocks.load(rank, n, worker.buffers, block)) {
          valid = false;
          return;
        }
        if (block.count == 0) continue;           // all of it lies outside the region
        std::uint8_t* votes = worker.keys_of(0);  // not 0 where a rater marks
        if (grouped)
          count_votes(block, raters, votes);
        else
          pack_votes(block, raters, 0, votes);
        for (std::size_t table = 1; table < worker.tables.size(); ++table)
          pack_votes(block, raters, table - 1, worker.keys_of(table));
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
          for (std::size_t table = 0; table < worker.tables.size(); ++table)
            count(worker, worker.tables[table], worker.keys_of(table) + start, length);
        }
      }
    });
    return valid;
  }

  // What a worker has counted, as sums.
  template <class Real>
  void give(Worker<Real>& worker, const std::vector<typename EvaluationCells<Real>::Cell>& cells,
            CaseSums& sums) const {
    worker.flush();
    const bool grouped = raters() > votes_per_group;
    for (std::size_t cell = 0; cell < cells.size(); ++cell) {
      const ScoreParts& parts = cells[cell].parts;
      const std::size_t score_row = sums.score_row(parts);
      const std::size_t confidence_row = sums.confidence_row(parts);
      const std::size_t keys = grouped ? raters() + 1 : std::size_t{1} << raters();
      for (std::size_t key = 0; key < keys; ++key) {
        const WideEntry& entry = worker.tables[0].at(cell, key);
        if (entry.count == 0) continue;
        const std::size_t votes = grouped ? key : static_cast<std::size_t>(std::popcount(key));
        sums.at(sums.votes() + static_cast<std::size_t>(parts.exceeded) * (raters() + 1) + votes) +=
            entry.count;
        sums.at(score_row) += entry.count;
        sums.add(score_row + 1, entry.score);
        sums.at(confidence_row) += entry.count;
        sums.add(confidence_row + 1, confidence_sum(entry.confidence));
      }
      for (std::size_t rater = 0; rater < raters(); ++rater) {
        const Table& table = worker.tables[(grouped ? 1 : 0) + rater / votes_per_group];
        const std::size_t bit = std::size_t{1} << rater % votes_per_group;
        for (std::size_t key = bit; key < std::size_t{1} << table.shift(); key = (key + 1) | bit) {
          const WideEntry& entry = table.at(cell, key);
          if (entry.count == 0) continue;
          sums.at(score_row + CaseSums::first_vote_column + rater) += entry.count;
          sums.at(confidence_row + CaseSums::first_vote_column + rater) += entry.count;
          sums.add(sums.rater_scores() + 2 * rater, entry.score);
        }
      }
    }
    sums.add(sums.squares(), worker.squares);

    // Background: score 0 is in the first cell with confidence 1.
    const std::size_t score_row = sums.score_row(cells.front().parts);
    const std::size_t confidence_row = sums.confidence_row(cells.front().parts);
    sums.at(sums.votes()) += worker.background;
    sums.at(score_row) += worker.background;
    sums.at(confidence_row) += worker.background;
    sums.add(confidence_row + 1, fixed::Sum{worker.background, 0});
  }

  static fixed::Sum confidence_sum(std::uint64_t units) {
    constexpr std::uint64_t one = std::uint64_t{1} << confidence_bits;
    return {units >> confidence_bits, (units & (one - 1))
                                          << (fixed::fraction_bits - confidence_bits)};
  }

  template <class Real>
  void add(const VoxelBlocks<Real>& blocks, const EvaluationCells<Real>& cells,
           const CaseView& view, CaseOverview* overview, int threads) {
    threads = static_cast<int>(std::clamp<std::int64_t>(blocks.tasks(), 1, std::max(threads, 1)));
    // VoxelBlocks walks in the order of its first array, the score.
    MarkedExtent extent(Walk(view.score.shape, {&view.score}), view.score.shape);
    std::vector<std::unique_ptr<Worker<Real>>> workers;
    for (int thread = 0; thread < threads; ++thread)
      workers.push_back(std::make_unique<Worker<Real>>(blocks, cells.count(), extent));
    const auto decoded = cells.decode();
    const Real faint_limit = EvaluationCells<Real>::faint_limit(decoded);
    std::vector<std::uint8_t> scored;
    if (overview != nullptr)
      scored.resize(static_cast<std::size_t>((blocks.voxels() + block_voxels - 1) / block_voxels));
    std::atomic<bool> valid{true};
    parallel_tasks(threads, blocks.tasks(), [&](int thread, std::int64_t task) {
      if (!valid.load(std::memory_order_relaxed)) return;
      const std::int64_t last = std::min((task + 1) * task_voxels, blocks.voxels());
      if (!count_range(blocks, cells, faint_limit, task * task_voxels, last,
                       overview == nullptr ? nullptr : scored.data(),
                       *workers[static_cast<std::size_t>(thread)]))
        valid.store(false, std::memory_order_relaxed);
    });
    if (!valid) blocks.explain();

    CaseSums found(raters(), static_cast<std::size_t>(bins_));
    for (const auto& worker : workers) {
      give(*worker, decoded, found);
      extent.merge(worker->extent);
    }
    sums_ += found;
    if (overview == nullptr) return;
    overview->marked = extent.any() ? extent.ranges() : std::vector<MarkedExtent::Range>{};
    if (!blocks.score_contiguous()) scored.clear();
    overview->scored = std::move(scored);
  }

  int bins_;
  CaseSums sums_;
};

}  // namespace twintrack
