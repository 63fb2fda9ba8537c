// CaseTally on the device: the sums of twintrack::CaseTally, bit for bit, in one pass.
//
// A voxel's score falls into one of some 40 cells (evaluation_cells.hpp), found by one look-up
// (cell_nodes.hpp). Two sums of its terms (ScoreTerms) are kept by cell, two by the pattern of its
// votes, and a count by cell and pattern: five additions to shared memory for a voxel that a rater
// marks, three for any other, each in 32 bits, with a carry to a second word once in some hundred.
// Evaluations are of few cells, and most voxels of a volume fall into one or two of them, so
// contention is what has to be avoided:
//
// 1. A voxel of score 0 that no rater marks, which is what background is, adds one to a register.
// 2. A thread adds up voxels of one cell and pattern that come four at a time in registers, until
//    another four come in another: faint scores around and high ones inside a tumour cost little.
// 3. The table has as many copies as shared memory holds, 32 for up to five raters and 20 bins:
//    each lane of a warp has one, in a memory bank of its own. Lanes never wait for each other
//    then, whatever the scores are. A table too large for shared memory, which takes hundreds of
//    bins, is in global memory, once.
//
// Squares depend on neither and are summed in registers.
//
// Instructions a voxel of float32 and five raters (benchmarks/sass.py, sm_90): 24 for background,
// 80 where four voxels fall into different cells, which allows 78% of the copy bandwidth of an H200
// if none ever waits. Next to that are the banks of shared memory: 32 voxels keep them busy for
// some 20 clocks, ten for random nodes and two for each addition, of the 26 that 60% leave. Not
// timed on a device yet.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "cuda/arrays/device.cuh"
#include "cuda/arrays/voxel_vectors.cuh"
#include "cuda/metrics/case_tally.hpp"
#include "cuda/metrics/score_terms.cuh"
#include "twintrack/metrics/evaluation_cells.hpp"

namespace twintrack::cuda {

/// Threads of a block, of which a multiprocessor holds one; fewer where they need more registers.
template <class T, int raters>
inline constexpr int case_threads = raters <= 5 && sizeof(T) <= 4 ? 768 : 512;

/// Voxels that a thread may see in one launch, so that its sums of terms of up to 2^46 stay below
/// 2^62, and voxels of a launch whose counters of 32 bits all blocks share.
inline constexpr std::int64_t thread_voxels = std::int64_t{1} << 16;
inline constexpr std::int64_t shared_table_voxels = std::int64_t{1} << 31;

/// Where a launch counts: `copies` interleaved tables of words, a power of two.
struct CaseCounters {
  std::uint32_t* global;  // null: in shared memory
  unsigned copies;
  std::uint32_t first_vector;
  std::uint32_t end_vector;
};

/// Shared memory of a block: the marked extent, nodes, then counters.
struct CaseShared {
  static constexpr std::size_t nodes_at = 2 * DeviceArray::max_axes * sizeof(std::uint64_t);
  static std::size_t bytes(std::size_t nodes, std::size_t words, unsigned copies) {
    return nodes_at + sizeof(CellNode) * nodes + sizeof(std::uint32_t) * words * copies;
  }
  __device__ static std::uint64_t* marked() {
    return reinterpret_cast<std::uint64_t*>(shared_memory());
  }
  __device__ static CellNode* nodes() {
    return reinterpret_cast<CellNode*>(shared_memory() + nodes_at);
  }
  __device__ static std::uint32_t* counters(std::size_t nodes) {
    return reinterpret_cast<std::uint32_t*>(CaseShared::nodes() + nodes);
  }
};

/// The cell of a score, which is not -0.
__device__ inline std::uint32_t looked_up_cell(const CellNode* nodes, const Buckets& buckets,
                                               float p) {
  // One load of 16 bytes: by itself the compiler makes four.
  const uint4 node = *reinterpret_cast<const uint4*>(nodes + buckets.bucket(p));
  const auto bits = twintrack::detail::bits_as<std::uint32_t>(p);
  std::uint32_t cell = node.w;
  count_carry(cell, bits, node.x);
  count_carry(cell, bits, node.y);
  count_carry(cell, bits, node.z);
  return cell;
}

/// What a thread has counted and not yet given away.
template <class T, int raters, bool in_shared>
class CaseThread {
 public:
  using Real = typename PackedVoxels<T>::Real;
  using Vector = VoxelVector<Real, raters>;

  __device__ CaseThread(const EvaluationCells<Real>& cells, const CasePass& pass,
                        const CaseCounters& counters, std::int64_t first, const CellNode* nodes,
                        std::uint32_t* table)
      : cells_(cells),
        pass_(pass),
        first_(first),
        nodes_(nodes),
        table_(table),
        step_(in_shared ? counters.copies * 4 : 1),
        cells_at_(in_shared ? shared_place(table + (threadIdx.x & (counters.copies - 1))) : 0),
        patterns_at_(cells_at_ + pass.layout.pattern_sum(0, 0) * step_),
        counts_at_(cells_at_ + pass.layout.pattern(0, 0) * step_),
        row_step_(step_ << pass.layout.pattern_bits) {}

  /// Counts vector number `vector` of the packed case.
  __device__ void take(Vector v, std::uint32_t vector) {
    v.remove_faults(vector, fault_);
    std::uint32_t pattern = 0;
#pragma unroll
    for (int k = 0; k < raters; ++k) pattern |= v.label[k] << k;
    if (pattern != 0 && pass_.marked_axes > 0) note_marked(nonzero_bytes(pattern), vector);
    std::uint32_t votes = 0;
    if (grouped()) {
      votes = v.votes();
      auto* const so_far = reinterpret_cast<std::uint32_t*>(pass_.votes + first_) + vector;
      if (v.inside != 0 && !pass_.first) votes += *so_far;
      if (v.inside != 0 && !pass_.last) *so_far = votes;
    }
    // Background, which takes no part in what follows, if there is nothing else among the four.
    if ((pattern | votes) == 0 && v.blank())
      background_ += static_cast<std::uint32_t>(__popc(static_cast<int>(v.inside)));
    else
      take_voxels(v, pattern, votes);
  }

  /// Gives away everything. The threads of a warp call this together.
  __device__ void finish() {
    give_run();
    const std::uint32_t background = __reduce_add_sync(whole_warp, background_);
    if (threadIdx.x % warp_size == 0 && background > 0 && last())
      add(pass_.totals.background, background);
    if (last()) give_parts(squares_, pass_.totals.squares);
    if (fault_ != no_voxel)
      lower(pass_.totals.first_fault, static_cast<std::uint64_t>(first_) + fault_);
  }

 private:
  // A run's sums must stay below 2^32; each term is at most 2^24.
  static constexpr std::uint32_t longest_run = 252;
  static constexpr bool own_confidence = sizeof(T) == 2;
  static constexpr bool has_rest = !std::is_same_v<T, float16>;
  static constexpr int cell_sums = (own_confidence ? 2 : 1) + (has_rest ? 1 : 0);
  static constexpr int pattern_sums = has_rest ? 2 : 1;

  struct Voxel {
    std::uint32_t key;  // cell, votes and pattern
    Terms terms;
  };
  // 1000 bins have 1507 cells.
  __device__ static std::uint32_t key_of(std::uint32_t cell, std::uint32_t votes,
                                         std::uint32_t pattern) {
    return cell << 16 | votes << 8 | pattern;
  }

  // Groups are as large as they can be, but the last.
  __device__ bool grouped() const { return raters == pattern_raters && pass_.votes != nullptr; }
  __device__ bool last() const { return raters != pattern_raters || pass_.last; }

  __device__ std::uint32_t cell_of(float p) const {
    return looked_up_cell(nodes_, pass_.buckets, p);
  }
  __device__ std::uint32_t cell_of(double p) const {
    return static_cast<std::uint32_t>(cells_.cell(cells_.parts(p)));
  }

  __device__ void take_voxels(const Vector& v, std::uint32_t pattern, std::uint32_t votes) {
    Voxel voxel[vector_voxels];
    if (grouped()) votes &= 0x01010101u * ((1u << pass_.layout.vote_bits) - 1);
    bool together = v.inside == 0x01010101u;
#pragma unroll
    for (int j = 0; j < vector_voxels; ++j) {
      voxel[j].key =
          key_of(cell_of(v.score[j]), (votes >> (8 * j)) & 0xffu, (pattern >> (8 * j)) & 0xffu);
      voxel[j].terms = terms_of<T>(v.score[j]);
      squares_ += squared_units(v.score[j]);
    }
    if (!together) {
#pragma unroll
      for (int j = 0; j < vector_voxels; ++j)
        if ((v.inside >> (8 * j) & 1u) == 0) voxel[j].key = key_of(pass_.layout.no_cell(), 0, 0);
    }
#pragma unroll
    for (int j = 1; j < vector_voxels; ++j) together &= voxel[j].key == voxel[0].key;
    if (!together) return give(voxel, 1, pattern != 0);
    if (voxel[0].key != run_.key || length_ > longest_run - vector_voxels) {
      give_run();
      run_ = Voxel{voxel[0].key, {}};
      length_ = 0;
    }
    length_ += vector_voxels;
#pragma unroll
    for (int j = 0; j < vector_voxels; ++j) {
      run_.terms.doubt += voxel[j].terms.doubt;
      run_.terms.whole += voxel[j].terms.whole;
      run_.terms.rest += voxel[j].terms.rest;
    }
  }

  __device__ void give_run() {
    if (length_ == 0) return;
    const Voxel run[1] = {run_};
    give(run, length_, (run_.key & 0xffu) != 0);
  }

  __device__ static std::uint32_t cell_term(const Terms& terms, int which) {
    if (which == 0) return terms.doubt;
    return own_confidence && which == 1 ? terms.whole : terms.rest;
  }
  __device__ static std::uint32_t pattern_term(const Terms& terms, int which) {
    return which == 0 ? terms.whole : terms.rest;
  }

  // Where the first of the words of a cell, of a pattern and of both are: bytes in shared memory,
  // or words of the table.
  __device__ std::uint32_t of_cell(std::uint32_t key) const {
    return cells_at_ + (key >> 16) * (cell_sums * step_);
  }
  __device__ std::uint32_t of_pattern(std::uint32_t key) const {
    return patterns_at_ + (key & 0xffu) * (pattern_sums * step_);
  }
  __device__ std::uint32_t of_both(std::uint32_t key) const {
    return counts_at_ + (key >> 16) * row_step_ + (key & 0xffu) * step_;
  }

  // Adds to the counters `count` of each; `marked` if some of the voxels are. All additions come
  // first and what they returned is looked at after that, so that the waits overlap.
  template <int n>
  __device__ void give(const Voxel (&voxel)[n], std::uint32_t count, bool marked) {
    std::uint32_t before[n][cell_sums] = {};
    std::uint32_t carried = 0;
#pragma unroll
    for (int j = 0; j < n; ++j) {
      const std::uint32_t key = voxel[j].key;
      add_to(of_both(key), count);
      if (grouped() && pass_.layout.vote_bits != 0)
        add_to(cells_at_ + pass_.layout.votes(key >> 16, key >> 8 & 0xffu) * step_, count);
      if (!last()) continue;
#pragma unroll
      for (int s = 0; s < cell_sums; ++s)
        before[j][s] =
            add_to(of_cell(key) + static_cast<unsigned>(s) * step_, cell_term(voxel[j].terms, s));
    }
    if (last()) {
#pragma unroll
      for (int j = 0; j < n; ++j)
#pragma unroll
        for (int s = 0; s < cell_sums; ++s)
          count_carry(carried, before[j][s], cell_term(voxel[j].terms, s));
    }
    if (carried != 0) {
#pragma unroll
      for (int j = 0; j < n; ++j)
#pragma unroll
        for (int s = 0; s < cell_sums; ++s)
          carry(before[j][s], cell_term(voxel[j].terms, s),
                of_cell(voxel[j].key) +
                    (pass_.layout.high_cells() + static_cast<unsigned>(s)) * step_);
    }
    if (marked) give_patterns(voxel);
  }

  // The scores that the raters of a pattern marked.
  template <int n>
  __device__ void give_patterns(const Voxel (&voxel)[n]) {
    std::uint32_t before[n][pattern_sums];
    std::uint32_t carried = 0;
#pragma unroll
    for (int j = 0; j < n; ++j)
#pragma unroll
      for (int s = 0; s < pattern_sums; ++s)
        before[j][s] = add_to(of_pattern(voxel[j].key) + static_cast<unsigned>(s) * step_,
                              pattern_term(voxel[j].terms, s));
#pragma unroll
    for (int j = 0; j < n; ++j)
#pragma unroll
      for (int s = 0; s < pattern_sums; ++s)
        count_carry(carried, before[j][s], pattern_term(voxel[j].terms, s));
    if (carried == 0) return;
#pragma unroll
    for (int j = 0; j < n; ++j)
#pragma unroll
      for (int s = 0; s < pattern_sums; ++s)
        carry(before[j][s], pattern_term(voxel[j].terms, s),
              of_pattern(voxel[j].key) +
                  (pass_.layout.high_patterns() + static_cast<unsigned>(s)) * step_);
  }

  __device__ void carry(std::uint32_t before, std::uint32_t amount, std::uint32_t to) {
    if (before + amount < before) add_to(to, 1u);
  }

  __device__ std::uint32_t add_to(std::uint32_t at, std::uint32_t amount) {
    if constexpr (in_shared)
      return add_shared_at(at, amount);
    else
      return add(table_ + at, amount);
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

  // Marked voxels are few, and those outside the extent so far fewer still. Byte j of `marked` is 1
  // if voxel j is.
  __device__ void note_marked(std::uint32_t marked, std::uint32_t vector) {
    const int least = (__ffs(static_cast<int>(marked)) - 1) / 8;
    const int most = (31 - __clz(static_cast<int>(marked))) / 8;
    // Along a row the first of them and the last say all.
    const std::int64_t rank = first_ + std::int64_t{vector} * vector_voxels + least;
    if (rank % pass_.marked_length[0] + (most - least) < pass_.marked_length[0]) {
      note_voxels(rank, static_cast<unsigned>(most - least));
    } else {
#pragma unroll 1
      for (int j = least; j <= most; ++j)
        if ((marked >> (8 * j) & 1u) != 0) note_voxels(rank + j - least, 0);
    }
  }

  // The voxels of `rank` and `more` further on in its row.
  __device__ void note_voxels(std::int64_t rank, unsigned more) {
    auto rest = static_cast<std::uint64_t>(rank);
#pragma unroll 1
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
      const std::uint64_t last_index = index + (axis == 0 ? more : 0);
      std::uint64_t* const range = CaseShared::marked() + 2 * axis;
      if (index < peek(range)) lower(range, index);
      if (~last_index < peek(range + 1)) lower(range + 1, ~last_index);
    }
  }

  const EvaluationCells<Real>& cells_;
  const CasePass& pass_;
  const std::int64_t first_;  // rank of the packed case's first voxel
  const CellNode* const nodes_;
  std::uint32_t* const table_;
  // Bytes in shared memory, of this thread's copy, or words of the table: from word to word, where
  // the parts begin, and from cell to cell of counts.
  const std::uint32_t step_;
  const std::uint32_t cells_at_;
  const std::uint32_t patterns_at_;
  const std::uint32_t counts_at_;
  const std::uint32_t row_step_;
  Voxel run_{};
  std::uint32_t length_ = 0;
  std::uint32_t background_ = 0;
  std::uint64_t squares_ = 0;
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

/// Counts vectors [first_vector, end_vector) of a packed case, for a group of at most `raters`
/// raters.
template <class T, int raters, bool in_shared>
__global__ void __launch_bounds__(case_threads<T, raters>, 1)
    count_case_voxels(const __grid_constant__ PackedCase from,
                      const __grid_constant__ EvaluationCells<typename PackedVoxels<T>::Real> cells,
                      const __grid_constant__ CasePass pass,
                      const __grid_constant__ CaseCounters counters) {
  using Voxels = PackedVoxels<T>;
  using Real = typename Voxels::Real;
  const std::uint32_t words = pass.layout.words();
  constexpr bool staged = in_shared && sizeof(Real) == 4;
  const std::uint32_t nodes = staged ? pass.buckets.count() : 0;
  std::uint32_t* const table = in_shared ? CaseShared::counters(nodes) : counters.global;
  if constexpr (in_shared)
    for (std::uint32_t i = threadIdx.x; i < words * counters.copies; i += blockDim.x) table[i] = 0;
  if constexpr (staged)
    for (std::uint32_t i = threadIdx.x; i < nodes; i += blockDim.x)
      CaseShared::nodes()[i] = pass.nodes[i];
  const auto marked_words = static_cast<unsigned>(2 * pass.marked_axes);
  for (unsigned i = threadIdx.x; i < marked_words; i += blockDim.x)
    CaseShared::marked()[i] = no_voxel;
  __syncthreads();

  CaseThread<T, raters, in_shared> thread(cells, pass, counters, from.first,
                                          in_shared ? CaseShared::nodes() : pass.nodes, table);
  const std::uint32_t step = gridDim.x * blockDim.x;
  std::uint32_t vector = counters.first_vector + blockIdx.x * blockDim.x + threadIdx.x;
  // The next vector is on its way while one is counted.
  VoxelVector<Real, raters> next;
  Voxels::load(from, vector, next);
  for (; vector < counters.end_vector; vector += step) {
    const VoxelVector<Real, raters> v = next;
    Voxels::load(from, vector + step, next);
    thread.take(v, vector);
  }
  thread.finish();

  __syncthreads();
  if constexpr (in_shared)
    give_tables(table, words, counters.copies, pass.totals.words, threadIdx.x, blockDim.x);
  for (unsigned i = threadIdx.x; i < marked_words; i += blockDim.x)
    lower(pass.totals.marked + i, CaseShared::marked()[i]);
}

}  // namespace twintrack::cuda
