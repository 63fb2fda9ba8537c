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

// Copies of a table that shared memory holds beside the nodes: a power of two, at most one per
// lane, or none.
unsigned copies_in_shared(std::size_t nodes, std::size_t words) {
  const auto limit = static_cast<std::size_t>(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin));
  unsigned copies = warp_size;
  while (copies > 0 && CaseShared::bytes(nodes, words, copies) > limit) copies /= 2;
  return copies;
}

template <class T, int raters, bool in_shared>
void count(const DeviceCase& from, int bins, Element score, const CasePass& pass, unsigned copies,
           cudaStream_t stream) {
  using Real = typename PackedVoxels<T>::Real;
  const EvaluationCells<Real> cells(bins, score);
  const std::uint32_t words = pass.layout.words();
  const std::size_t nodes = in_shared && sizeof(Real) == 4 ? pass.buckets.count() : 0;
  CaseCounters counters{};
  counters.copies = copies;
  DeviceMemory<std::uint32_t> table(in_shared ? 0 : words, stream);
  counters.global = table.data();

  const auto multiprocessors = static_cast<unsigned>(attribute(cudaDevAttrMultiProcessorCount));
  Grid grid{};
  // Whole warps: their threads finish together.
  grid.threads = static_cast<unsigned>(
      std::min<int>(case_threads<T, raters>, attribute(cudaDevAttrMaxThreadsPerBlock)));
  grid.shared_bytes = CaseShared::bytes(nodes, in_shared ? words : 0, copies);
  std::int64_t voxels = std::int64_t{multiprocessors} * grid.threads * thread_voxels;
  if (!in_shared) voxels = std::min(voxels, shared_table_voxels);
  const auto most =
      static_cast<std::uint32_t>(std::min(voxels, most_packed_voxels) / vector_voxels);
  for_each_packed(from, stream, [&](const PackedCase& part) {
    for (std::uint32_t first = 0; first < part.vectors; first += most) {
      counters.first_vector = first;
      counters.end_vector = first + std::min(most, part.vectors - first);
      grid.blocks = std::min(multiprocessors,
                             (counters.end_vector - first + grid.threads - 1) / grid.threads);
      if constexpr (!in_shared) table.clear(stream);
      launch("count_case_voxels", count_case_voxels<T, raters, in_shared>, grid, stream, part,
             cells, pass, counters);
      if constexpr (!in_shared)
        launch("give_global_table", give_global_table, {multiprocessors, 256}, stream, pass,
               static_cast<const std::uint32_t*>(table.data()));
    }
  });
}

// Evaluations of hundreds of bins have one instance, for all numbers of raters.
template <class T>
void count(const DeviceCase& from, int bins, Element score, const CasePass& pass,
           cudaStream_t stream) {
  const std::size_t nodes = sizeof(typename PackedVoxels<T>::Real) == 4 ? pass.buckets.count() : 0;
  const unsigned copies = copies_in_shared(nodes, pass.layout.words());
  if (copies == 0) return count<T, pattern_raters, false>(from, bins, score, pass, 1, stream);
  if (pass.votes != nullptr || from.raters > 5)
    return count<T, pattern_raters, true>(from, bins, score, pass, copies, stream);
  if (from.raters > 3) return count<T, 5, true>(from, bins, score, pass, copies, stream);
  count<T, 3, true>(from, bins, score, pass, copies, stream);
}

}  // namespace

void count_case(const DeviceCase& from, int bins, Element score, const CasePass& pass,
                cudaStream_t stream) {
  switch (score) {
    case Element::float16:
      return count<float16>(from, bins, score, pass, stream);
    case Element::bfloat16:
      return count<bfloat16>(from, bins, score, pass, stream);
    case Element::float64:
      return count<double>(from, bins, score, pass, stream);
    default:
      return count<float>(from, bins, score, pass, stream);
  }
}

}  // namespace twintrack::cuda
