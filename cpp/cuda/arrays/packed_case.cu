#include "cuda/arrays/packed_case.hpp"

#include <algorithm>
#include <vector>

#include "cuda/arrays/strided_elements.cuh"
#include "twintrack/arrays/voxel_rules.hpp"

namespace twintrack::cuda {

namespace {

constexpr unsigned pack_threads = 256;

/// What a copy reads: elements of `array` in walking order.
struct PackTask {
  DeviceArray array;
  int axes;
  std::int64_t extent[DeviceArray::max_axes];
  std::int64_t first;
  std::int64_t count;
};

/// Calls `visit(j, pointer)` for elements i + j of the copy, j = 0 … 3, as far as there are so
/// many. Only the first of a row is looked for by divisions.
template <class Visit>
__device__ inline void visit_four(const PackTask& task, std::int64_t i, const Visit& visit) {
  const DeviceArray* const arrays[1] = {&task.array};
  const int inner = task.axes - 1;
  const std::int64_t length = inner < 0 ? 1 : task.extent[inner];
  const std::int64_t rank = task.first + i;
  std::int64_t left = 0;  // elements of the row
  std::int64_t offset[1] = {0};
#pragma unroll
  for (int j = 0; j < vector_voxels; ++j) {
    if (i + j >= task.count) return;
    if (left > 0) {
      offset[0] += task.array.axis_stride[inner];
      --left;
    } else {
      offset[0] = 0;
      add_offsets(task.axes, task.extent, arrays, rank + j, offset);
      left = j == 0 ? length - 1 - rank % length : length - 1;
    }
    visit(j, task.array.data + offset[0]);
  }
}

/// Elements as they are; Unit is an integer of their size.
template <class Unit>
__global__ void __launch_bounds__(pack_threads)
    copy_elements(const __grid_constant__ PackTask task, Unit* to) {
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x * vector_voxels;
  for (std::int64_t i =
           (static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * vector_voxels;
       i < task.count; i += step)
    visit_four(task, i, [&](int j, const std::byte* from) {
      to[i + j] = *reinterpret_cast<const Unit*>(from);
    });
}

__global__ void __launch_bounds__(pack_threads)
    copy_labels(const __grid_constant__ PackTask task, std::uint32_t* to) {
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x * vector_voxels;
  for (std::int64_t i =
           (static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * vector_voxels;
       i < task.count; i += step) {
    std::uint32_t labels = 0;
    visit_four(task, i, [&](int j, const std::byte* from) {
      labels |= static_cast<std::uint32_t>(visit_value(from, task.array.element, LabelByte{}))
                << (8 * j);
    });
    to[i / vector_voxels] = labels;
  }
}

PackTask task_of(const DeviceArray& array, const DeviceCase& from, std::int64_t first,
                 std::int64_t count) {
  PackTask task{array, from.axes, {}, first, count};
  std::copy(from.extent, from.extent + from.axes, task.extent);
  return task;
}

Grid pack_grid(std::int64_t count) {
  const unsigned threads =
      std::min(pack_threads, static_cast<unsigned>(attribute(cudaDevAttrMaxThreadsPerBlock)));
  const std::int64_t most = std::int64_t{attribute(cudaDevAttrMultiProcessorCount)} * 8;
  const std::int64_t per_block = std::int64_t{threads} * vector_voxels;
  return {
      static_cast<unsigned>(std::clamp<std::int64_t>((count + per_block - 1) / per_block, 1, most)),
      threads};
}

bool aligned(const DeviceArray& array, std::size_t to) {
  return array.contiguous && reinterpret_cast<std::uintptr_t>(array.data) % to == 0;
}

}  // namespace

void pack_scores(const DeviceArray& array, const DeviceCase& from, std::int64_t first,
                 std::int64_t count, std::byte* to, cudaStream_t stream) {
  const PackTask task = task_of(array, from, first, count);
  const Grid grid = pack_grid(count);
  switch (size_of(array.element)) {
    case 2:
      return launch("copy_elements", copy_elements<std::uint16_t>, grid, stream, task,
                    reinterpret_cast<std::uint16_t*>(to));
    case 4:
      return launch("copy_elements", copy_elements<std::uint32_t>, grid, stream, task,
                    reinterpret_cast<std::uint32_t*>(to));
    default:
      return launch("copy_elements", copy_elements<std::uint64_t>, grid, stream, task,
                    reinterpret_cast<std::uint64_t*>(to));
  }
}

void pack_labels(const DeviceArray& array, const DeviceCase& from, std::int64_t first,
                 std::int64_t count, std::byte* to, cudaStream_t stream) {
  launch("copy_labels", copy_labels, pack_grid(count), stream, task_of(array, from, first, count),
         reinterpret_cast<std::uint32_t*>(to));
}

void for_each_packed(const DeviceCase& from, cudaStream_t stream,
                     const std::function<void(const PackedCase&)>& visit) {
  const auto labels = [](const DeviceArray& array) {
    return aligned(array, 4) && size_of(array.element) == 1;
  };
  const auto score_size = static_cast<std::int64_t>(size_of(from.score.element));
  bool copies = !aligned(from.score, 16);
  for (int k = 0; k < from.raters; ++k) copies |= !labels(from.rater[k]);
  if (from.region.data != nullptr) copies |= !labels(from.region);
  const std::int64_t most = copies ? copied_voxels : most_packed_voxels;

  std::vector<DeviceMemory<std::byte>> scratch;
  const auto make_room = [&](bool needed, std::int64_t size) -> std::byte* {
    if (!needed) return nullptr;
    // Whole vectors are written.
    const auto bytes = static_cast<std::size_t>((std::min(from.voxels, copied_voxels) + 3) * size);
    return scratch.emplace_back(bytes, stream).data();
  };
  std::byte* const score = make_room(!aligned(from.score, 16), score_size);
  std::byte* rater[group_raters] = {};
  for (int k = 0; k < from.raters; ++k) rater[k] = make_room(!labels(from.rater[k]), 1);
  std::byte* const region = make_room(from.region.data != nullptr && !labels(from.region), 1);

  for (std::int64_t first = 0; first < from.voxels; first += most) {
    const std::int64_t count = std::min(most, from.voxels - first);
    const auto bytes_of = [&](const DeviceArray& array, std::byte* copied) {
      if (copied == nullptr) return reinterpret_cast<const std::uint32_t*>(array.data + first);
      pack_labels(array, from, first, count, copied, stream);
      return reinterpret_cast<const std::uint32_t*>(copied);
    };
    PackedCase made{};
    made.score = from.score.data + first * score_size;
    if (score != nullptr) {
      pack_scores(from.score, from, first, count, score, stream);
      made.score = score;
    }
    for (int k = 0; k < group_raters; ++k) {
      made.exists[k] = k < from.raters ? ~0u : 0u;
      made.rater[k] = k < from.raters ? bytes_of(from.rater[k], rater[k]) : made.rater[0];
    }
    if (from.region.data != nullptr) made.region = bytes_of(from.region, region);
    made.raters = from.raters;
    made.first = first;
    made.whole = static_cast<std::uint32_t>(count / vector_voxels);
    made.left = static_cast<std::uint32_t>(count % vector_voxels);
    made.vectors = made.whole + (made.left > 0 ? 1 : 0);
    visit(made);
  }
}

}  // namespace twintrack::cuda
