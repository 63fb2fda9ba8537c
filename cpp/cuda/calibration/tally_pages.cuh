// Where the counters of a tally (score_tally.cuh) are: pages of cells in the shared memory of each
// block, chosen from a sample, and tables in global memory for all others.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/arrays/device.cuh"
#include "cuda/arrays/packed_counters.cuh"
#include "cuda/arrays/voxel_vectors.cuh"
#include "twintrack/calibration/score_grid.hpp"

namespace twintrack::cuda {

/// Threads of a block, of which a multiprocessor holds one; fewer where they need more registers.
template <class Layout>
inline constexpr int tally_threads = Layout::words <= 3   ? 1024
                                     : Layout::words == 4 ? 768
                                                          : 512;
inline constexpr unsigned page_cells = 256;
inline constexpr unsigned pages = (grid::cells + page_cells - 1) / page_cells;
/// Vectors of voxels that are looked at to choose pages.
inline constexpr int sample_vectors = 1024;
/// Voxels of a page that each block must expect, by the sample, to hold counters for it: below that
/// storing and collecting a page costs more than adding to global memory.
inline constexpr std::uint64_t least_page_voxels = 256;
inline constexpr std::uint32_t not_resident = 0xffffffffu;

/// The 64-bit sums of one cell of a case, of the columns that a group of raters has.
struct CellSums {
  std::uint64_t* count;    // followed by the residuals'
  std::uint64_t* votes;    // of the group's first rater
  std::uint64_t* exactly;  // of the voxels that exactly one rater of all marked

  /// That of a column of the counters.
  template <class Layout>
  __device__ std::uint64_t* column(int which) const {
    if (which < first_vote_column) return count + which;
    if (which < Layout::first_exactly_column) return votes + (which - first_vote_column);
    return exactly + (which - Layout::first_exactly_column + 1);
  }
};

/// The tables in global memory that a pass over a group of raters works on.
struct TallyTables {
  std::uint64_t* sums;         // of the case: cells × columns
  std::uint32_t* touched;      // by page: not 0 if its sums may have changed
  std::uint32_t* spilled;      // counters of pages that are not resident, by page
  std::uint32_t* resident;     // counters of resident pages, by block and slot
  std::uint8_t* filled;        // by slot and block: whether it left counters in `resident`
  std::uint32_t* homes;        // by page, as in TallyShared
  std::uint64_t* first_fault;  // least rank of an invalid voxel
  std::uint8_t* votes;         // by voxel: of the groups before; null if there is one group
  unsigned resident_pages;
  int all_raters;
  int first_rater;     // of the group
  bool counts_voxels;  // false for all groups but the first
  bool last;           // group

  __device__ CellSums cell_sums(std::uint32_t cell) const {
    const auto columns = static_cast<unsigned>(first_vote_column + 2 * all_raters);
    std::uint64_t* count = sums + static_cast<std::size_t>(cell) * columns;
    std::uint64_t* votes_of_all = count + first_vote_column;
    return {count, votes_of_all + first_rater, votes_of_all + all_raters};
  }

  __device__ void touch(std::uint32_t page) const {
    if (peek(touched + page) == 0) add(touched + page, 1u);
  }
};

/// Shared memory of a block, at fixed places: what choosing the pages needs, then counters.
template <class Layout>
struct TallyShared {
  static constexpr std::size_t counter_words(unsigned resident_pages) {
    return std::size_t{resident_pages} * page_words;
  }
  static constexpr std::size_t bytes(unsigned resident_pages) {
    return counters_at + sizeof(std::uint32_t) * counter_words(resident_pages);
  }
  /// Counters of a page: word by word, so that neighbouring cells lie in neighbouring banks.
  static constexpr unsigned page_words = Layout::words * page_cells;

  /// By page: the index that a cell 0 would have if the page held it, or not_resident.
  __device__ static std::uint32_t* homes() {
    return reinterpret_cast<std::uint32_t*>(shared_memory());
  }
  /// By page: its voxels in the sample.
  __device__ static std::uint32_t* seen() {
    return reinterpret_cast<std::uint32_t*>(shared_memory() + seen_at);
  }
  /// Of resident_pages pages.
  __device__ static std::uint32_t* counters() {
    return reinterpret_cast<std::uint32_t*>(shared_memory() + counters_at);
  }

 private:
  static constexpr std::size_t seen_at = sizeof(std::uint32_t) * pages;
  static constexpr std::size_t counters_at = 2 * seen_at;
  static_assert(counters_at % 16 == 0);
};

/// Clears a block's counters and chooses its resident pages, the same in every block.
template <class Voxels, class Layout>
__device__ inline void open_pages(const PackedCase& from, unsigned resident_pages) {
  using Real = typename Voxels::Real;
  using Shared = TallyShared<Layout>;
  const std::size_t words = Shared::counter_words(resident_pages);
  for (std::size_t i = threadIdx.x; i < words; i += blockDim.x) Shared::counters()[i] = 0;
  for (unsigned page = threadIdx.x; page < pages; page += blockDim.x) Shared::seen()[page] = 0;
  __syncthreads();
  for (unsigned i = threadIdx.x; i < sample_vectors; i += blockDim.x) {
    ScoreFour<Real> v;
    // One in each of as many parts of the case, at another place in each (multiples of the golden
    // ratio): in step they would all lie on one edge of a volume.
    const std::uint64_t place = std::uint64_t{i * 0x9e3779b9u} * from.vectors >> 32;
    const std::uint64_t at = (std::uint64_t{i} * from.vectors + place) / sample_vectors;
    Voxels::load_scores(from, static_cast<std::uint32_t>(at), v);
#pragma unroll
    for (int j = 0; j < vector_voxels; ++j)
      if (v.score[j] != Real{0} && score_fault(v.score[j]) == 0)
        add_shared(true, &Shared::seen()[grid::position(v.score[j]).cell / page_cells], 1u);
  }
  __syncthreads();
  // seen / (sample_vectors vector_voxels) of all voxels, on gridDim.x blocks.
  const std::uint64_t voxels = std::uint64_t{from.vectors} * vector_voxels;
  const std::uint64_t enough =
      least_page_voxels * gridDim.x * sample_vectors * vector_voxels / voxels;
  for (unsigned page = threadIdx.x; page < pages; page += blockDim.x) {
    const std::uint32_t seen = Shared::seen()[page];
    unsigned rank = 0;
    for (unsigned other = 0; other < pages; ++other) {
      const std::uint32_t count = Shared::seen()[other];
      rank += count > seen || (count == seen && other < page) ? 1u : 0u;
    }
    // Modulo 2^32: only the sum with a cell of the page is an index.
    Shared::homes()[page] = rank < resident_pages && seen > 0 && seen >= enough
                                ? rank * Shared::page_words - page * page_cells
                                : not_resident;
  }
  __syncthreads();
}

/// Leaves a block's counters that are not 0 in global memory.
template <class Layout>
__device__ inline void close_pages(const TallyTables& tables) {
  using Shared = TallyShared<Layout>;
  __syncthreads();
  std::uint32_t* const left =
      tables.resident + blockIdx.x * Shared::counter_words(tables.resident_pages);
  const unsigned lane = threadIdx.x % warp_size;
  // A warp for a page. Blocks are of whole warps.
  for (unsigned slot = threadIdx.x / warp_size; slot < tables.resident_pages;
       slot += blockDim.x / warp_size) {
    const std::uint32_t* const counters = Shared::counters() + slot * Shared::page_words;
    std::uint32_t any = 0;
    for (unsigned i = lane; i < Shared::page_words; i += warp_size) any |= counters[i];
    const bool filled = __ballot_sync(whole_warp, any != 0 ? 1 : 0) != 0;
    if (lane == 0) tables.filled[slot * gridDim.x + blockIdx.x] = filled ? 1 : 0;
    if (!filled) continue;
    for (unsigned i = lane; i < Shared::page_words; i += warp_size)
      left[slot * Shared::page_words + i] = counters[i];
  }
  if (blockIdx.x == 0)
    for (unsigned page = threadIdx.x; page < pages; page += blockDim.x)
      tables.homes[page] = Shared::homes()[page];
}

}  // namespace twintrack::cuda
