// CaseTally on the device: the sums of twintrack::CaseTally, bit for bit, in one pass.
//
// A voxel's score falls into one of some 40 cells (evaluation_cells.hpp). Per cell three sums are
// kept, of scores in two words and of 1 - confidence, and per cell and pattern of votes a count:
// up to four additions to shared memory for a voxel, each in 32 bits, with a carry to a second word
// once in some hundred. Evaluations are of few cells, and most voxels of a volume fall into one or
// two of them, so contention is what has to be avoided:
//
// 1. A voxel of score 0 that no rater marks, which is what background is, adds one to a register.
// 2. A thread adds up voxels of one cell and pattern that come four at a time in registers, until
//    another four come in another: faint scores around and high ones inside a tumour cost little.
// 3. The table has as many copies as shared memory holds, 32 for up to five raters and 20 bins:
//    each lane of a warp has one, in a memory bank of its own. Lanes never wait for each other
//    then, whatever the scores are. A table too large for shared memory, which takes hundreds of
//    bins, is in global memory, once.
//
// What does not depend on the cell, squares and the scores that each rater marks, is summed in
// registers.
//
// Bytes: 4 + N a voxel (float32, N raters), read once: device memory allows 3 voxels per clock and
// multiprocessor for N = 3 (4.8 TB/s, 132 of them, 1.7 GHz). Four additions for 32 lanes without
// conflicts take about 8 clocks, which is 4 voxels per clock. Some 60 instructions a voxel are next
// to that what bounds it, 2 voxels per clock, where voxels are neither background nor in runs.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/arrays/device.cuh"
#include "cuda/arrays/device_case.hpp"
#include "cuda/arrays/voxel_vectors.cuh"
#include "cuda/metrics/case_tally.hpp"
#include "twintrack/arrays/fixed_sum.hpp"
#include "twintrack/metrics/evaluation_cells.hpp"

namespace twintrack::cuda {

template <class Voxels>
inline constexpr bool is_packed = false;
template <class T>
inline constexpr bool is_packed<PackedVoxels<T>> = true;

/// Threads of a block, of which a multiprocessor holds one; fewer where they need more registers.
template <class Voxels, int raters>
inline constexpr int case_threads = raters <= 4 && is_packed<Voxels> ? 768 : 512;

/// Voxels that a thread may see in one launch, so that its sums of terms of up to 2^46 stay below
/// 2^62, and voxels of a launch whose counters of 32 bits all blocks share.
inline constexpr std::int64_t thread_voxels = std::int64_t{1} << 16;
inline constexpr std::int64_t shared_table_voxels = std::int64_t{1} << 31;

/// Where a launch counts: `copies` interleaved tables of words, a power of two.
struct CaseCounters {
  std::uint32_t* global;  // null: in shared memory
  unsigned copies;
  std::int64_t first_vector;
  std::int64_t end_vector;
};

/// Shared memory of a block: the marked extent, then counters.
struct CaseShared {
  static constexpr std::size_t counters_at = 2 * DeviceArray::max_axes * sizeof(std::uint64_t);
  static std::size_t bytes(std::size_t words, unsigned copies) {
    return counters_at + sizeof(std::uint32_t) * words * copies;
  }
  __device__ static std::uint64_t* marked() {
    return reinterpret_cast<std::uint64_t*>(shared_memory());
  }
  __device__ static std::uint32_t* counters() {
    return reinterpret_cast<std::uint32_t*>(shared_memory() + counters_at);
  }
};

/// What a thread has counted and not yet given away.
template <class Real, int raters, bool in_shared>
class CaseThread {
 public:
  using Vector = VoxelVector<Real, raters>;

  __device__ CaseThread(const EvaluationCells<Real>& cells, const CasePass& pass,
                        const CaseCounters& counters)
      : cells_(cells),
        pass_(pass),
        counters_(in_shared ? CaseShared::counters() : counters.global),
        copies_(counters.copies),
        copy_(threadIdx.x & (counters.copies - 1)) {}

  /// Counts a vector whose first voxel has rank `first`.
  __device__ void take(Vector v, std::int64_t first) {
    v.remove_faults(first, fault_);
    const std::uint32_t labels = v.any_label();
    if (labels != 0 && pass_.marked_axes > 0) note_marked(labels, first);
    std::uint32_t pattern = 0;
    std::uint32_t votes = 0;
#pragma unroll
    for (int k = 0; k < raters; ++k) {
      pattern |= v.label[k] << k;
      votes += v.label[k];
    }
    if (pass_.votes != nullptr) {
      auto* const so_far = reinterpret_cast<std::uint32_t*>(pass_.votes + first);
      if (v.inside != 0 && !pass_.first) votes += *so_far;
      if (v.inside != 0 && !pass_.last) *so_far = votes;
    }
    // Background takes no part in what follows.
    std::uint32_t zero = 0;
#pragma unroll
    for (int j = 0; j < vector_voxels; ++j) zero |= v.score[j] == Real{0} ? 1u << (8 * j) : 0u;
    zero &= v.inside & ~nonzero_bytes(pattern | votes);
    background_ += static_cast<std::uint32_t>(__popc(static_cast<int>(zero)));
    v.inside &= ~zero;
    if (v.inside != 0) take_voxels(v, pattern, votes);
  }

  /// Gives away everything. The threads of a warp call this together.
  __device__ void finish() {
    give_run();
    const std::uint32_t background = __reduce_add_sync(whole_warp, background_);
    if (threadIdx.x % warp_size == 0 && background > 0 && pass_.last)
      add(pass_.totals.background, background);
    if (pass_.last) give_parts(squares_, pass_.totals.squares);
#pragma unroll
    for (int k = 0; k < raters; ++k)
      if (k < pass_.layout.pattern_bits)
        give_parts(rater_scores_[k], pass_.totals.rater_scores + parts * k);
    if (fault_ != no_voxel) lower(pass_.totals.first_fault, fault_);
  }

 private:
  // A run's sums must stay below 2^32; each term is at most 2^23.
  static constexpr std::uint32_t longest_run = 256;

  struct Voxel {
    std::uint32_t key;  // cell, votes and pattern
    std::uint32_t term[CaseLayout::sums];
  };
  // 1000 bins have 1507 cells.
  __device__ static std::uint32_t key_of(std::uint32_t cell, std::uint32_t votes,
                                         std::uint32_t pattern) {
    return cell << 16 | votes << 8 | pattern;
  }

  __device__ void take_voxels(const Vector& v, std::uint32_t pattern, std::uint32_t votes) {
    Voxel voxel[vector_voxels];
#pragma unroll
    for (int j = 0; j < vector_voxels; ++j) {
      const ScoreParts of_score = cells_.parts(v.score[j]);
      const double p = static_cast<double>(v.score[j]);
      const std::uint64_t units = fixed::units(p);
      voxel[j].key = key_of(static_cast<std::uint32_t>(cells_.cell(of_score)),
                            (votes >> (8 * j)) & ((1u << pass_.layout.vote_bits) - 1),
                            (pattern >> (8 * j)) & 0xffu);
      voxel[j].term[CaseLayout::doubt] = confidence_one - confidence_units(of_score.confidence);
      voxel[j].term[CaseLayout::low] =
          static_cast<std::uint32_t>(units) & ((1u << CaseLayout::low_bits) - 1);
      voxel[j].term[CaseLayout::high] = static_cast<std::uint32_t>(units >> CaseLayout::low_bits);
      squares_ += fixed::units(p * p);
#pragma unroll
      for (int k = 0; k < raters; ++k)
        rater_scores_[k] += ((v.label[k] >> (8 * j)) & 1u) != 0 ? units : 0;
    }
    bool together = true;
#pragma unroll
    for (int j = 1; j < vector_voxels; ++j) together &= voxel[j].key == voxel[0].key;
    if (together) {
      if (voxel[0].key != run_.key || length_ > longest_run - vector_voxels) {
        give_run();
        run_ = Voxel{voxel[0].key, {}};
        length_ = 0;
      }
      length_ += static_cast<std::uint32_t>(__popc(static_cast<int>(v.inside)));
#pragma unroll
      for (int j = 0; j < vector_voxels; ++j)
#pragma unroll
        for (int s = 0; s < CaseLayout::sums; ++s) run_.term[s] += voxel[j].term[s];
    } else {
      std::uint32_t count[vector_voxels];
#pragma unroll
      for (int j = 0; j < vector_voxels; ++j) count[j] = (v.inside >> (8 * j)) & 1u;
      give(voxel, count);
    }
  }

  __device__ void give_run() {
    if (length_ == 0) return;
    const Voxel run[1] = {run_};
    const std::uint32_t count[1] = {length_};
    give(run, count);
  }

  // Adds to the counters. Terms of voxels that are not counted are 0: their score is. All additions
  // come first and what they returned is looked at after that, so that the waits overlap.
  template <int n>
  __device__ void give(const Voxel (&voxel)[n], const std::uint32_t (&count)[n]) {
    std::uint32_t before[n][CaseLayout::sums];
    std::uint32_t carried = 0;
#pragma unroll
    for (int j = 0; j < n; ++j) {
      const std::uint32_t cell = voxel[j].key >> 16;
      add_to(pass_.layout.pattern(cell, voxel[j].key & 0xffu), count[j]);
      if (pass_.layout.vote_bits != 0)
        add_to(pass_.layout.votes(cell, voxel[j].key >> 8 & 0xffu), count[j]);
#pragma unroll
      for (int s = 0; s < CaseLayout::sums; ++s)
        before[j][s] = add_to(pass_.layout.sum(s, cell), pass_.last ? voxel[j].term[s] : 0u);
    }
#pragma unroll
    for (int j = 0; j < n; ++j)
#pragma unroll
      for (int s = 0; s < CaseLayout::sums; ++s)
        if (before[j][s] + voxel[j].term[s] < before[j][s])
          carried |= 1u << (j * CaseLayout::sums + s);
    if (carried == 0) return;
#pragma unroll
    for (int j = 0; j < n; ++j)
#pragma unroll
      for (int s = 0; s < CaseLayout::sums; ++s)
        add_to(pass_.layout.sum(s, voxel[j].key >> 16) + pass_.layout.cells,
               carried >> (j * CaseLayout::sums + s) & 1u);
  }

  __device__ std::uint32_t add_to(std::uint32_t word, std::uint32_t amount) {
    std::uint32_t* const to = counters_ + (static_cast<std::size_t>(word) * copies_ + copy_);
    if constexpr (in_shared)
      return add_shared(amount != 0, to, amount);
    else
      return amount != 0 ? add(to, amount) : 0;
  }

  __device__ static void give_parts(std::uint64_t value, std::uint64_t* to) {
#pragma unroll
    for (int i = 0; i < parts; ++i) {
      const auto part =
          static_cast<std::uint32_t>(value >> (i * part_bits)) & ((1u << part_bits) - 1);
      const std::uint32_t total = __reduce_add_sync(whole_warp, part);
      if (threadIdx.x % warp_size == 0 && total != 0) add(to + i, total);
    }
  }

  // Marked voxels are few, and those outside the extent so far fewer still.
  __device__ void note_marked(std::uint32_t labels, std::int64_t first) {
    for (int j = 0; j < vector_voxels; ++j) {
      if (((labels >> (8 * j)) & 0xffu) == 0) continue;
      auto rest = static_cast<std::uint64_t>(first + j);
      for (int axis = 0; axis < pass_.marked_axes; ++axis) {
        const auto length = static_cast<std::uint64_t>(pass_.marked_length[axis]);
        std::uint64_t index;
        if ((rest | length) >> 32 == 0) {  // 32-bit division is several times faster
          index = static_cast<std::uint32_t>(rest) % static_cast<std::uint32_t>(length);
          rest = static_cast<std::uint32_t>(rest) / static_cast<std::uint32_t>(length);
        } else {
          index = rest % length;
          rest /= length;
        }
        std::uint64_t* const range = CaseShared::marked() + 2 * axis;
        if (index < peek(range)) lower(range, index);
        if (~index < peek(range + 1)) lower(range + 1, ~index);
      }
    }
  }

  const EvaluationCells<Real>& cells_;
  const CasePass& pass_;
  std::uint32_t* const counters_;
  const unsigned copies_;
  const unsigned copy_;
  Voxel run_{};
  std::uint32_t length_ = 0;
  std::uint32_t background_ = 0;
  std::uint64_t squares_ = 0;
  std::uint64_t rater_scores_[raters] = {};
  std::uint64_t fault_ = no_voxel;
};

/// Adds interleaved tables to the totals.
__device__ inline void give_tables(const std::uint32_t* counters, std::uint32_t words,
                                   unsigned copies, std::uint64_t* totals, std::uint32_t first,
                                   std::uint32_t step) {
  for (std::uint32_t word = first; word < words; word += step) {
    std::uint64_t total = 0;
    for (unsigned i = 0; i < copies; ++i) {
      // Each thread begins elsewhere: in step they would all read from one bank.
      const unsigned copy = (i + word) & (copies - 1);
      total += counters[static_cast<std::size_t>(word) * copies + copy];
    }
    if (total != 0) add(totals + word, total);
  }
}

/// Counts vectors [first_vector, end_vector) of a case, for a group of at most `raters` raters.
template <class Voxels, int raters, bool in_shared>
__global__ void __launch_bounds__(case_threads<Voxels, raters>, 1)
    count_case_voxels(const __grid_constant__ DeviceCase from,
                      const __grid_constant__ EvaluationCells<typename Voxels::Real> cells,
                      const __grid_constant__ CasePass pass,
                      const __grid_constant__ CaseCounters counters) {
  using Real = typename Voxels::Real;
  const std::uint32_t words = pass.layout.words();
  if constexpr (in_shared)
    for (std::uint32_t i = threadIdx.x; i < words * counters.copies; i += blockDim.x)
      CaseShared::counters()[i] = 0;
  const auto marked_words = static_cast<unsigned>(2 * pass.marked_axes);
  for (unsigned i = threadIdx.x; i < marked_words; i += blockDim.x)
    CaseShared::marked()[i] = no_voxel;
  __syncthreads();

  CaseThread<Real, raters, in_shared> thread(cells, pass, counters);
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  std::int64_t vector =
      counters.first_vector + static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  // The next vector is on its way while one is counted.
  VoxelVector<Real, raters> next;
  Voxels::load(from, vector, next);
  for (; vector < counters.end_vector; vector += step) {
    const VoxelVector<Real, raters> v = next;
    Voxels::load(from, vector + step, next);
    thread.take(v, vector * vector_voxels);
  }
  thread.finish();

  __syncthreads();
  if constexpr (in_shared)
    give_tables(CaseShared::counters(), words, counters.copies, pass.totals.words, threadIdx.x,
                blockDim.x);
  for (unsigned i = threadIdx.x; i < marked_words; i += blockDim.x)
    lower(pass.totals.marked + i, CaseShared::marked()[i]);
}

}  // namespace twintrack::cuda
