// twintrack::CaseTally for arrays in device memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cuda/arrays/device_case.hpp"
#include "cuda/arrays/runtime.hpp"
#include "twintrack/arrays/votes.hpp"
#include "twintrack/metrics/case_tally.hpp"

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

/// The words that a pass counts in: for each cell of scores three sums, then its voxels by pattern
/// of votes and, if the raters come in several groups, by number of votes.
struct CaseLayout {
  /// 1 - confidence in units of 2^-24; scores in units of 2^-46, their lowest 23 bits and the rest.
  enum Sum { doubt, low, high };
  static constexpr int sums = 3;
  static constexpr int low_bits = 23;

  std::uint32_t cells;
  int pattern_bits;  // raters of the group
  int vote_bits;     // 0: not counted by number of votes

  /// A sum's low word; its high word is `cells` words further on.
  __host__ __device__ std::uint32_t sum(int which, std::uint32_t cell) const {
    return 2 * static_cast<std::uint32_t>(which) * cells + cell;
  }
  __host__ __device__ std::uint32_t pattern(std::uint32_t cell, std::uint32_t key) const {
    return 2 * sums * cells + (cell << pattern_bits) + key;
  }
  __host__ __device__ std::uint32_t votes(std::uint32_t cell, std::uint32_t key) const {
    return pattern(cells, 0) + (cell << vote_bits) + key;
  }
  __host__ __device__ std::uint32_t words() const {
    return vote_bits == 0 ? pattern(cells, 0) : votes(cells, 0);
  }
};

/// Sums of terms in units of 2^-46, in parts of this many bits: so that neither the 32 threads of a
/// warp nor any number of warps can overflow them.
inline constexpr int part_bits = 27;
inline constexpr int parts = 3;

/// Where a pass over a group of raters adds to, all of it 64-bit.
struct CaseTotals {
  std::uint64_t* words;         // CaseLayout's
  std::uint64_t* background;    // voxels of score 0 that nobody marks, not in `words`
  std::uint64_t* squares;       // of scores, in parts
  std::uint64_t* rater_scores;  // in parts, by rater
  std::uint64_t* marked;        // by axis: least marked index, complement of the greatest
  std::uint64_t* first_fault;
};

/// What a pass is to do.
struct CasePass {
  CaseLayout layout;
  CaseTotals totals;
  std::uint8_t* votes;  // by rank: votes of the groups so far; null if there is one group
  bool first;           // group
  bool last;            // group: counts what does not depend on the raters of a group
  int marked_axes;      // 0: the marked extent is not asked for
  std::int64_t marked_length[DeviceArray::max_axes];  // innermost first
};

/// Queues a pass. `score` is the type of the case's scores.
void count_case(const DeviceCase& from, int bins, Element score, const CasePass& pass,
                cudaStream_t stream);

}  // namespace twintrack::cuda
