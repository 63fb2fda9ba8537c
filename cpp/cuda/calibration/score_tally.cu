#include "cuda/calibration/score_tally.cuh"

#include <algorithm>
#include <type_traits>

#include "cuda/calibration/score_tally.hpp"

namespace twintrack::cuda {

__global__ void accept_sums(const std::uint64_t* of_case, const std::uint64_t* first_fault,
                            std::size_t count, std::uint64_t* sums) {
  if (*first_fault != no_voxel) return;
  const std::size_t step = std::size_t{gridDim.x} * blockDim.x;
  for (std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step)
    sums[i] += of_case[i];
}

namespace {

template <class Voxels, int raters>
void count(const DeviceCase& from, TallyTables tables, cudaStream_t stream) {
  using Layout = CounterLayout<typename Voxels::Real, raters>;
  using Shared = TallyShared<Layout>;
  const auto shared_limit =
      static_cast<std::size_t>(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin));
  while (tables.resident_pages < pages && Shared::bytes(tables.resident_pages + 1) <= shared_limit)
    ++tables.resident_pages;

  Grid launched{};
  launched.threads =
      static_cast<unsigned>(std::min(tally_threads, attribute(cudaDevAttrMaxThreadsPerBlock)));
  const std::int64_t block_voxels = std::int64_t{launched.threads} * vector_voxels;
  launched.blocks = static_cast<unsigned>(std::min<std::int64_t>(
      attribute(cudaDevAttrMultiProcessorCount), (from.voxels + block_voxels - 1) / block_voxels));
  launched.shared_bytes = Shared::bytes(tables.resident_pages);

  DeviceMemory<std::uint32_t> spilled(std::size_t{pages} * Layout::words * page_cells, stream);
  DeviceMemory<std::uint32_t> resident(
      launched.blocks * Shared::counter_words(tables.resident_pages), stream);
  DeviceMemory<std::uint32_t> homes(pages, stream);
  DeviceMemory<std::uint64_t> carried(std::size_t{grid::cells} * Layout::columns, stream);
  spilled.clear(stream);
  carried.clear(stream);
  tables.spilled = spilled.data();
  tables.resident = resident.data();
  tables.homes = homes.data();
  tables.carried = carried.data();
  launch("count_scores", count_scores<Voxels, raters>, launched, stream, from, tables);
  launch("collect_counters", collect_counters<Layout>, {pages, page_cells}, stream, tables,
         launched.blocks);
}

template <int raters>
void count(const DeviceCase& from, const TallyTables& tables, cudaStream_t stream) {
  if (!from.packed()) {
    if (from.score.element == Element::float64)
      return count<StridedVoxels<double>, raters>(from, tables, stream);
    return count<StridedVoxels<float>, raters>(from, tables, stream);
  }
  switch (from.score.element) {
    case Element::float16:
      return count<PackedVoxels<float16>, raters>(from, tables, stream);
    case Element::bfloat16:
      return count<PackedVoxels<bfloat16>, raters>(from, tables, stream);
    case Element::float64:
      return count<PackedVoxels<double>, raters>(from, tables, stream);
    default:
      return count<PackedVoxels<float>, raters>(from, tables, stream);
  }
}

}  // namespace

void count_group(const DeviceCase& from, int first_rater, int all_raters, std::uint64_t* sums,
                 std::uint8_t* votes, std::uint64_t* first_fault, cudaStream_t stream) {
  TallyTables tables{};
  tables.sums = sums;
  tables.first_fault = first_fault;
  tables.votes = votes;
  tables.all_raters = all_raters;
  tables.first_rater = first_rater;
  tables.counts_voxels = first_rater == 0;
  tables.last = first_rater + from.raters == all_raters;
  // Five raters take three words of counters, nine take five.
  if (from.raters <= 5)
    count<5>(from, tables, stream);
  else
    count<group_raters>(from, tables, stream);
}

void accept_case(const DeviceMemory<std::uint64_t>& of_case, const std::uint64_t* first_fault,
                 DeviceMemory<std::uint64_t>& sums, cudaStream_t stream) {
  const Grid grid{static_cast<unsigned>(attribute(cudaDevAttrMultiProcessorCount)) * 8, 256};
  launch("accept_sums", accept_sums, grid, stream,
         static_cast<const std::uint64_t*>(of_case.data()), first_fault, of_case.size(),
         sums.data());
}

}  // namespace twintrack::cuda
