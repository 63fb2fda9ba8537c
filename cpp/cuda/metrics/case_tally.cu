#include "cuda/metrics/case_tally.cuh"

#include <algorithm>

#include "cuda/metrics/case_tally.hpp"

namespace twintrack::cuda {

namespace {

__global__ void give_global_table(const __grid_constant__ CasePass pass,
                                  const std::uint32_t* counters) {
  give_tables(counters, pass.layout.words(), 1, pass.totals.words,
              blockIdx.x * blockDim.x + threadIdx.x, gridDim.x * blockDim.x);
}

// Copies of a table that shared memory holds: a power of two, at most one per lane, or none.
unsigned copies_in_shared(std::size_t words) {
  const auto limit = static_cast<std::size_t>(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin));
  unsigned copies = warp_size;
  while (copies > 0 && CaseShared::bytes(words, copies) > limit) copies /= 2;
  return copies;
}

template <class Voxels, int raters>
void count(const DeviceCase& from, int bins, Element score, const CasePass& pass,
           cudaStream_t stream) {
  using Real = typename Voxels::Real;
  const EvaluationCells<Real> cells(bins, score);
  const std::uint32_t words = pass.layout.words();
  CaseCounters counters{};
  counters.copies = copies_in_shared(words);
  const bool in_shared = counters.copies > 0;
  DeviceMemory<std::uint32_t> table(in_shared ? 0 : words, stream);
  counters.global = table.data();
  if (!in_shared) counters.copies = 1;

  const auto multiprocessors = static_cast<unsigned>(attribute(cudaDevAttrMultiProcessorCount));
  Grid grid{};
  // Whole warps: their threads finish together.
  grid.threads = static_cast<unsigned>(
      std::min<int>(case_threads<Voxels, raters>, attribute(cudaDevAttrMaxThreadsPerBlock)));
  grid.shared_bytes = CaseShared::bytes(in_shared ? words : 0, counters.copies);
  const std::int64_t vectors = (from.voxels + vector_voxels - 1) / vector_voxels;
  std::int64_t most = std::int64_t{multiprocessors} * grid.threads * thread_voxels;
  if (!in_shared) most = std::min(most, shared_table_voxels);
  most /= vector_voxels;
  for (std::int64_t first = 0; first < vectors; first += most) {
    counters.first_vector = first;
    counters.end_vector = std::min(first + most, vectors);
    grid.blocks = static_cast<unsigned>(std::min<std::int64_t>(
        multiprocessors, (counters.end_vector - first + grid.threads - 1) / grid.threads));
    if (in_shared) {
      launch("count_case_voxels", count_case_voxels<Voxels, raters, true>, grid, stream, from,
             cells, pass, counters);
    } else {
      table.clear(stream);
      launch("count_case_voxels", count_case_voxels<Voxels, raters, false>, grid, stream, from,
             cells, pass, counters);
      launch("give_global_table", give_global_table, {multiprocessors, 256}, stream, pass,
             static_cast<const std::uint32_t*>(table.data()));
    }
  }
}

template <int raters>
void count(const DeviceCase& from, int bins, Element score, const CasePass& pass,
           cudaStream_t stream) {
  if (!from.packed()) {
    if (score == Element::float64)
      return count<StridedVoxels<double>, raters>(from, bins, score, pass, stream);
    return count<StridedVoxels<float>, raters>(from, bins, score, pass, stream);
  }
  switch (score) {
    case Element::float16:
      return count<PackedVoxels<float16>, raters>(from, bins, score, pass, stream);
    case Element::bfloat16:
      return count<PackedVoxels<bfloat16>, raters>(from, bins, score, pass, stream);
    case Element::float64:
      return count<PackedVoxels<double>, raters>(from, bins, score, pass, stream);
    default:
      return count<PackedVoxels<float>, raters>(from, bins, score, pass, stream);
  }
}

}  // namespace

void count_case(const DeviceCase& from, int bins, Element score, const CasePass& pass,
                cudaStream_t stream) {
  if (from.raters <= 4)
    count<4>(from, bins, score, pass, stream);
  else
    count<pattern_raters>(from, bins, score, pass, stream);
}

}  // namespace twintrack::cuda
