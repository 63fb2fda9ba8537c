#include "cuda/ensemble/fused_export.cuh"

#include <algorithm>

#include "cuda/ensemble/fused_export.hpp"

namespace twintrack::cuda {

namespace {

// Threads of a block whose values of `bytes` each fit into shared memory, at most `export_threads`.
Grid grid_for(std::size_t bytes) {
  const auto limit = static_cast<std::size_t>(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin));
  Grid grid{};
  grid.threads =
      static_cast<unsigned>(std::min(export_threads, attribute(cudaDevAttrMaxThreadsPerBlock)));
  // Less than a warp if need be: no lane waits for another.
  while (grid.threads > 1 && grid.threads * bytes > limit) grid.threads /= 2;
  grid.shared_bytes = grid.threads * bytes;
  return grid;
}

unsigned blocks_of(std::int64_t wanted) {
  // Enough to fill any device; the kernels go round.
  constexpr std::int64_t most = std::int64_t{1} << 20;
  return static_cast<unsigned>(std::min(wanted, most));
}

template <class Visitor>
void visit_float(Element element, Visitor&& visit) {
  switch (element) {
    case Element::float16:
      return visit(float16{});
    case Element::bfloat16:
      return visit(bfloat16{});
    case Element::float64:
      return visit(double{});
    default:
      return visit(float{});
  }
}

}  // namespace

void export_voxels(const ExportTask& task, Element element, cudaStream_t stream) {
  Grid grid = grid_for(export_bytes(task.merge.channels, task.rounds));
  const std::int64_t columns = task.extent[1] * task.extent[2];
  grid.blocks = blocks_of((columns + grid.threads - 1) / grid.threads *
                          ((task.extent[0] + export_depth - 1) / export_depth));
  visit_float(element, [&](auto sample) {
    launch("export_columns", export_columns<decltype(sample)>, grid, stream, task);
  });
}

void merge_voxels(const EnsembleTask& task, Element element, cudaStream_t stream) {
  const int width = task.packed ? ensemble_width : 1;
  Grid grid = grid_for(sizeof(float) * static_cast<std::size_t>(width * task.merge.channels));
  const std::int64_t per_block = std::int64_t{width} * grid.threads;
  grid.blocks = blocks_of((task.voxels + per_block - 1) / per_block);
  visit_float(element, [&](auto sample) {
    using T = decltype(sample);
    if (task.packed)
      launch("merge_packed", merge_packed<T>, grid, stream, task);
    else
      launch("merge_strided", merge_strided<T>, grid, stream, task);
  });
}

}  // namespace twintrack::cuda
