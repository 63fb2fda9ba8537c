#include "cuda/metrics/contact_angle.cuh"

#include <algorithm>

#include "cuda/metrics/contact_angle.hpp"

namespace twintrack::cuda {

namespace {

// Blocks for that many threads, but no more than a few for each multiprocessor: kernels go round.
Grid grid_for(std::int64_t threads) {
  Grid grid{};
  grid.threads =
      static_cast<unsigned>(std::min(contact_threads, attribute(cudaDevAttrMaxThreadsPerBlock)));
  const std::int64_t most = std::int64_t{16} * attribute(cudaDevAttrMultiProcessorCount);
  grid.blocks = static_cast<unsigned>(
      std::clamp<std::int64_t>((threads + grid.threads - 1) / grid.threads, 1, most));
  return grid;
}

}  // namespace

void count_contacts(const ContactTask& task, cudaStream_t stream) {
  const std::int64_t rows = task.extent[0] * task.extent[1];
  launch("scan_vessels", scan_vessels, grid_for(rows * task.extent[2]), stream, task);
  launch("reach_rows", reach_rows, grid_for(rows), stream, task);
  launch("check_near", check_near, grid_for(rows * warp_size), stream, task);
  launch("count_rows", count_rows, grid_for(rows * warp_size), stream, task);
}

}  // namespace twintrack::cuda
