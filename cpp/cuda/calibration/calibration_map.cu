#include <algorithm>

#include "cuda/calibration/calibration_map.cuh"
#include "cuda/calibration/calibration_map.hpp"

namespace twintrack::cuda {

namespace {

bool aligned(const DeviceArray& array) {
  return array.contiguous && reinterpret_cast<std::uintptr_t>(array.data) % 16 == 0;
}

template <class Rule>
void map_by(const Rule& rule, const MapTask& task, cudaStream_t stream) {
  const bool packed = aligned(task.score) && aligned(task.out);
  Grid grid{};
  grid.threads =
      static_cast<unsigned>(std::min(map_threads, attribute(cudaDevAttrMaxThreadsPerBlock)));
  const std::int64_t per_thread =
      packed ? map_loads * ScoreVector<typename Rule::Real>::size : std::int64_t{1};
  const std::int64_t per_block = per_thread * grid.threads;
  grid.shared_bytes = Rule::staged ? rule.table_bytes() : 0;
  // One block, by its registers, has room on a multiprocessor.
  grid.blocks = static_cast<unsigned>(std::clamp<std::int64_t>(
      (task.voxels + per_block - 1) / per_block, 1, attribute(cudaDevAttrMultiProcessorCount)));
  if (packed)
    launch("map_packed", map_packed<Rule>, grid, stream, rule, task);
  else
    launch("map_strided", map_strided<Rule>, grid, stream, rule, task);
}

template <class Real>
void map_by_nodes(const MapView<Real>& map, const MapTask& task, cudaStream_t stream) {
  const NodeRule<Real, true> staged{map};
  if (staged.table_bytes() <=
      static_cast<unsigned>(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin)))
    map_by(staged, task, stream);
  else
    map_by(NodeRule<Real, false>{map}, task, stream);
}

}  // namespace

void map_scores(const MapView<float>& map, const MapTask& task, cudaStream_t stream) {
  map_by_nodes(map, task, stream);
}

void map_scores(const MapView<double>& map, const MapTask& task, cudaStream_t stream) {
  map_by_nodes(map, task, stream);
}

void map_scores(const std::uint16_t* results, std::uint16_t one, const MapTask& task,
                cudaStream_t stream) {
  map_by(LookUpRule{results, one}, task, stream);
}

}  // namespace twintrack::cuda
