#include "cuda/calibration/score_tally.cuh"

#include <algorithm>
#include <type_traits>

#include "cuda/calibration/score_tally.hpp"

namespace twintrack::cuda {

__global__ void accept_sums(std::uint64_t* of_case, const std::uint32_t* touched,
                            const std::uint64_t* first_fault, unsigned columns,
                            std::uint64_t* sums) {
  const unsigned page = blockIdx.x;
  if (touched[page] == 0) return;
  const bool accepted = *first_fault == no_voxel;
  const unsigned past = (page + 1) * page_cells;
  const unsigned end = (past < grid::cells ? past : grid::cells) * columns;
  for (unsigned i = page * page_cells * columns + threadIdx.x; i < end; i += blockDim.x) {
    const std::uint64_t value = of_case[i];
    if (value == 0) continue;
    of_case[i] = 0;
    if (accepted) sums[i] += value;
  }
}

namespace {

constexpr unsigned accept_threads = 256;

template <class T, int raters>
void count(const DeviceCase& from, TallyTables tables, cudaStream_t stream) {
  using Layout = CounterLayout<typename PackedVoxels<T>::Real, raters>;
  using Shared = TallyShared<Layout>;
  const auto shared_limit =
      static_cast<std::size_t>(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin));
  while (tables.resident_pages < pages && Shared::bytes(tables.resident_pages + 1) <= shared_limit)
    ++tables.resident_pages;

  Grid launched{};
  launched.threads = static_cast<unsigned>(
      std::min(tally_threads<Layout>, attribute(cudaDevAttrMaxThreadsPerBlock)));
  const auto most_blocks = static_cast<unsigned>(attribute(cudaDevAttrMultiProcessorCount));
  launched.shared_bytes = Shared::bytes(tables.resident_pages);

  DeviceMemory<std::uint32_t> spilled(std::size_t{pages} * Layout::words * page_cells, stream);
  DeviceMemory<std::uint32_t> resident(most_blocks * Shared::counter_words(tables.resident_pages),
                                       stream);
  DeviceMemory<std::uint8_t> filled(std::size_t{most_blocks} * tables.resident_pages, stream);
  DeviceMemory<std::uint32_t> homes(pages, stream);
  tables.spilled = spilled.data();
  tables.resident = resident.data();
  tables.filled = filled.data();
  tables.homes = homes.data();
  for_each_packed(from, stream, [&](const PackedCase& part) {
    TallyTables of_part = tables;
    if (tables.votes != nullptr) of_part.votes = tables.votes + part.first;
    launched.blocks =
        std::min(most_blocks, (part.vectors + launched.threads - 1) / launched.threads);
    spilled.clear(stream);
    launch("count_scores", count_scores<PackedVoxels<T>, raters>, launched, stream, part, of_part);
    launch("collect_counters", collect_counters<Layout>, {pages, page_cells}, stream, of_part,
           launched.blocks);
  });
}

template <int raters>
void count(const DeviceCase& from, const TallyTables& tables, cudaStream_t stream) {
  switch (from.score.element) {
    case Element::float16:
      return count<float16, raters>(from, tables, stream);
    case Element::bfloat16:
      return count<bfloat16, raters>(from, tables, stream);
    case Element::float64:
      return count<double, raters>(from, tables, stream);
    default:
      return count<float, raters>(from, tables, stream);
  }
}

}  // namespace

std::size_t case_pages() {
  return pages;
}

void count_group(const DeviceCase& from, int first_rater, int all_raters, const CaseTables& of_case,
                 std::uint8_t* votes, std::uint64_t* first_fault, cudaStream_t stream) {
  TallyTables tables{};
  tables.sums = of_case.sums;
  tables.touched = of_case.touched;
  tables.first_fault = first_fault;
  tables.votes = votes;
  tables.all_raters = all_raters;
  tables.first_rater = first_rater;
  tables.counts_voxels = first_rater == 0;
  tables.last = first_rater + from.raters == all_raters;
  // Three raters take two words of counters, five three, nine five.
  if (votes != nullptr || from.raters > 5)
    count<group_raters>(from, tables, stream);
  else if (from.raters > 3)
    count<5>(from, tables, stream);
  else
    count<3>(from, tables, stream);
}

void accept_case(const CaseTables& of_case, const std::uint64_t* first_fault, std::size_t columns,
                 std::uint64_t* sums, cudaStream_t stream) {
  const unsigned threads =
      std::min(accept_threads, static_cast<unsigned>(attribute(cudaDevAttrMaxThreadsPerBlock)));
  launch("accept_sums", accept_sums, {pages, threads}, stream, of_case.sums,
         static_cast<const std::uint32_t*>(of_case.touched), first_fault,
         static_cast<unsigned>(columns), sums);
}

}  // namespace twintrack::cuda
