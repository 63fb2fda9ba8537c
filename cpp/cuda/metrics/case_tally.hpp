// twintrack::CaseTally for arrays in device memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cuda/arrays/device_case.hpp"
#include "cuda/arrays/runtime.hpp"
#include "cuda/metrics/cell_nodes.hpp"
#include "twintrack/arrays/fixed_sum.hpp"
#include "twintrack/arrays/votes.hpp"
#include "twintrack/metrics/case_tally.hpp"
#include "twintrack/metrics/evaluation_cells.hpp"

namespace twintrack::cuda {

/// The sums that twintrack::CaseTally(raters, bins) has after an update with this case, bit for
/// bit. The arrays lie on `device`. Works on `stream` and waits for it: some kilobytes of sums come
/// back, or an invalid voxel must be reported. If `marked` is given, it becomes the bounding box of
/// the voxels that a rater marks, empty if there are none; the case must not have a region then.
///
/// Throws InputError as the CPU does, OutOfDeviceMemory if the scratch
/// memory does not fit: some kilobytes, and a byte per voxel for more than 7 raters.
CaseSums case_sums(const CaseView& view, int bins, std::vector<MarkedExtent::Range>* marked,
                   int device, cudaStream_t stream);

/// Raters that a pass over a case counts by their pattern of votes.
inline constexpr int pattern_raters = static_cast<int>(votes_per_group);

/// What is summed of a score p besides its bins.
///
/// A score is `whole` units of 2^-24, to which it is rounded, and `rest` units of 2^-46 less
/// `rest_bias`, so that no term is negative: 0 <= rest <= 2^22. `doubt` is 1 - confidence in units
/// of 2^-24. Scores of 32 and 64 bits that predict background have whole = doubt, those that
/// predict tumour whole = 2^24 - doubt: their cell tells one from the other. Confidences of 16-bit
/// scores are rounded to 16 bits, so both are summed; a float16 has no rest.
struct ScoreTerms {
  static constexpr int whole_shift = fixed::fraction_bits - confidence_bits;
  static constexpr std::uint32_t rest_bias = 1u << (whole_shift - 1);
  static constexpr bool own_confidence(Element score) { return size_of(score) == 2; }
  static constexpr bool has_rest(Element score) { return score != Element::float16; }
};

/// The words that a pass counts in: sums of the terms by cell of scores and by pattern of votes;
/// then voxels by cell and pattern and, if the raters come in several groups, by cell and number of
/// votes. A cell after the last takes what does not count, as do the sums of pattern 0.
struct CaseLayout {
  std::uint32_t cells;
  int pattern_bits;  // raters of the group
  int vote_bits;     // 0: not counted by number of votes
  int cell_sums;     // doubt, then whole for 16-bit scores, then rest but for float16
  int pattern_sums;  // whole, then rest but for float16

  __host__ __device__ std::uint32_t no_cell() const { return cells; }
  __host__ __device__ std::uint32_t patterns() const { return 1u << pattern_bits; }
  /// A sum's low word; its high word, of what it carried, is `high_cells()` words further on.
  __host__ __device__ std::uint32_t cell_sum(std::uint32_t cell, int which) const {
    return cell * static_cast<std::uint32_t>(cell_sums) + static_cast<std::uint32_t>(which);
  }
  __host__ __device__ std::uint32_t high_cells() const { return cell_sum(cells + 1, 0); }
  /// Its high word is `high_patterns()` words further on.
  __host__ __device__ std::uint32_t pattern_sum(std::uint32_t key, int which) const {
    return 2 * high_cells() + key * static_cast<std::uint32_t>(pattern_sums) +
           static_cast<std::uint32_t>(which);
  }
  __host__ __device__ std::uint32_t high_patterns() const {
    return patterns() * static_cast<std::uint32_t>(pattern_sums);
  }
  __host__ __device__ std::uint32_t pattern(std::uint32_t cell, std::uint32_t key) const {
    return 2 * (high_cells() + high_patterns()) + (cell << pattern_bits) + key;
  }
  __host__ __device__ std::uint32_t votes(std::uint32_t cell, std::uint32_t key) const {
    return pattern(cells + 1, 0) + (cell << vote_bits) + key;
  }
  __host__ __device__ std::uint32_t words() const {
    return vote_bits == 0 ? pattern(cells + 1, 0) : votes(cells + 1, 0);
  }
};

/// Sums of terms in units of 2^-46, in parts of this many bits: so that neither the 32 threads of a
/// warp nor any number of warps can overflow them.
inline constexpr int part_bits = 27;
inline constexpr int parts = 3;

/// Where a pass over a group of raters adds to, all of it 64-bit.
struct CaseTotals {
  std::uint64_t* words;       // CaseLayout's
  std::uint64_t* background;  // voxels of score 0 that nobody marks, not in `words`
  std::uint64_t* squares;     // of scores, in parts
  std::uint64_t* marked;      // by axis: least marked index, complement of the greatest
  std::uint64_t* first_fault;
};

/// What a pass is to do.
struct CasePass {
  CaseLayout layout{};
  CaseTotals totals{};
  const CellNode* nodes = nullptr;  // of scores of at most 32 bits
  Buckets buckets;
  std::uint8_t* votes = nullptr;  // by rank: of the groups so far; null if there is one group
  bool first = true;              // group
  bool last = true;               // group: counts what does not depend on the raters of a group
  int marked_axes = 0;            // 0: the marked extent is not asked for
  std::int64_t marked_length[DeviceArray::max_axes] = {};  // innermost first
};

/// Queues a pass. `score` is the type of the case's scores.
void count_case(const DeviceCase& from, int bins, Element score, const CasePass& pass,
                cudaStream_t stream);

}  // namespace twintrack::cuda
