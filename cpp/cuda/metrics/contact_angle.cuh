// Vascular contact on the device: the counts of contact_angle.hpp, bit for bit.
//
// 1. `scan_vessels` reads the label map and notes for each row where its vessels begin and end.
// 2. `reach_rows` and `check_near` look at each score and label near a vessel, those that the CPU
//    reads, and report what is not valid.
// 3. `count_rows` goes through the rows with vessels, a warp each, and settles every voxel on an
//    edge by looking at the label map and at the masks around it.
//
// Bytes: the label map once, which is all that counts: vessels fill less than a hundredth of a CT,
// and what is read around them, score and N raters of some 2% of the voxels, comes from the caches
// after the first time. Hence the neighbourhood of an edge voxel, up to 60 masks, is computed where
// it is needed rather than stored: for 200 000 edge voxels that is the arithmetic of some
// microseconds, where storing masks would take as much memory traffic as the label map.
//
// A warp counts edges of its row together in the two directions in which a row lies in one slice.
// Contacts are so few that each is added by itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "cuda/arrays/device.cuh"
#include "cuda/arrays/strided_elements.cuh"
#include "cuda/metrics/contact_angle.hpp"
#include "twintrack/arrays/voxel_rules.hpp"
#include "twintrack/metrics/contact_rule.hpp"
#include "twintrack/metrics/vessel_labels.hpp"

namespace twintrack::cuda {

inline constexpr int contact_threads = 256;
/// Blocks that a multiprocessor holds at least; more would leave a thread too few registers.
inline constexpr int contact_blocks = 4;
/// A contact is settled by voxels from one below to two above an edge voxel along each axis.

/// Position of a voxel in walking order.
struct VoxelIndex {
  std::int64_t at[3];

  __device__ VoxelIndex step(int axis, int by) const {
    VoxelIndex moved = *this;
    moved.at[axis] += by;
    return moved;
  }
};

__device__ inline const std::byte* address(const DeviceVolume& volume, const VoxelIndex& voxel) {
  return volume.data + voxel.at[0] * volume.stride[0] + voxel.at[1] * volume.stride[1] +
         voxel.at[2] * volume.stride[2];
}

__device__ inline bool inside(const ContactTask& task, const VoxelIndex& voxel) {
  bool all = true;
#pragma unroll
  for (int axis = 0; axis < 3; ++axis)
    all &= voxel.at[axis] >= 0 && voxel.at[axis] < task.extent[axis];
  return all;
}

/// The code of an element of the label map, as VesselLabels gives it; `whole` becomes false if it
/// is no whole number.
struct VesselCode {
  const ContactTask& task;
  bool& whole;

  template <class T>
  __device__ unsigned operator()(T element) const {
    if constexpr (std::is_class_v<T>) {
      return (*this)(to_real(element));
    } else {
      if (element == T{0}) return 0;
      whole = twintrack::detail::is_whole(element);
      for (int k = 0; k < task.labels; ++k)
        if (twintrack::detail::holds_label<T>(task.label[k]) &&
            element == static_cast<T>(task.label[k]))
          return static_cast<unsigned>(k + 1);
      return 0;
    }
  }
};

__device__ inline unsigned code_at(const ContactTask& task, const VoxelIndex& voxel) {
  if (!inside(task, voxel)) return 0;
  bool whole = true;
  return visit_value(address(task.vessels, voxel), task.vessels.element, VesselCode{task, whole});
}

// --- where the vessels are -----------------------------------------------------------------------

__device__ inline VoxelIndex index_of(const ContactTask& task, std::int64_t rank) {
  const std::int64_t row = rank / task.extent[2];
  return {{row / task.extent[1], row % task.extent[1], rank % task.extent[2]}};
}

/// Notes the voxel of a rank, at `p`, if it is of a vessel.
__device__ inline void scan_voxel(const ContactTask& task, std::int64_t rank, const std::byte* p,
                                  std::uint64_t& fault) {
  bool whole = true;
  const unsigned code = visit_value(p, task.vessels.element, VesselCode{task, whole});
  if (!whole && static_cast<std::uint64_t>(rank) < fault) fault = static_cast<std::uint64_t>(rank);
  if (code == 0) return;
  DeviceRange& row = task.vessel_rows[rank / task.extent[2]];
  const auto inner = static_cast<std::uint32_t>(rank % task.extent[2]);
  if (inner < peek(&row.first)) lower(&row.first, inner);
  if (~inner < peek(&row.last)) lower(&row.last, ~inner);
}

__global__ void __launch_bounds__(contact_threads, contact_blocks)
    scan_vessels(const __grid_constant__ ContactTask task) {
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  const auto own = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const std::int64_t voxels = task.extent[0] * task.extent[1] * task.extent[2];
  std::uint64_t fault = no_voxel;
  std::int64_t rest = 0;  // first rank that no vector holds
  if (task.dense) {
    // Four loads of 16 bytes at a time; nearly all of them are zero.
    constexpr int loads = 4;
    const auto size = static_cast<std::int64_t>(size_of(task.vessels.element));
    const std::int64_t width = 16 / size;
    const std::int64_t vectors = voxels / width;
    rest = vectors * width;
    for (std::int64_t first = own; first < vectors; first += loads * step) {
      uint4 raw[loads];
#pragma unroll
      for (int k = 0; k < loads; ++k) {
        const std::int64_t i = first + k * step;
        raw[k] = i < vectors ? load_once(reinterpret_cast<const uint4*>(task.vessels.data) + i)
                             : uint4{0, 0, 0, 0};
      }
#pragma unroll
      for (int k = 0; k < loads; ++k) {
        if ((raw[k].x | raw[k].y | raw[k].z | raw[k].w) == 0) continue;
        const std::int64_t rank = (first + k * step) * width;
        for (std::int64_t j = 0; j < width; ++j)
          scan_voxel(task, rank + j, task.vessels.data + (rank + j) * size, fault);
      }
    }
  }
  for (std::int64_t rank = rest + own; rank < voxels; rank += step)
    scan_voxel(task, rank, address(task.vessels, index_of(task, rank)), fault);
  if (fault != no_voxel) lower(task.vessel_fault, fault);
}

/// For each row, a thread each, the range that vessels of this and of neighbouring rows reach.
__global__ void __launch_bounds__(contact_threads, contact_blocks)
    reach_rows(const __grid_constant__ ContactTask task) {
  const std::int64_t rows = task.extent[0] * task.extent[1];
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
       row < rows; row += step) {
    const std::int64_t outer = row / task.extent[1];
    const std::int64_t middle = row % task.extent[1];
    std::uint32_t first = ~0u;
    std::uint32_t last = ~0u;
    for (std::int64_t o = outer - contact_after; o <= outer + contact_before; ++o)
      for (std::int64_t m = middle - contact_after; m <= middle + contact_before; ++m) {
        if (o < 0 || o >= task.extent[0] || m < 0 || m >= task.extent[1]) continue;
        const DeviceRange range = task.vessel_rows[o * task.extent[1] + m];
        first = range.first < first ? range.first : first;
        last = range.last < last ? range.last : last;
      }
    const bool any = first != ~0u;
    task.reached_rows[2 * row] = any ? static_cast<std::int32_t>(first) - contact_before : 0;
    task.reached_rows[2 * row + 1] = any ? static_cast<std::int32_t>(~last) + 1 + contact_after : 0;
  }
}

// --- what is near them ---------------------------------------------------------------------------

/// Value of a score, exact.
struct ScoreValue {
  template <class T>
  __device__ double operator()(T element) const {
    if constexpr (std::is_class_v<T>)
      return static_cast<double>(to_real(element));
    else
      return static_cast<double>(element);
  }
};

/// Each score and label that vessels reach, a warp for a row.
__global__ void __launch_bounds__(contact_threads, contact_blocks)
    check_near(const __grid_constant__ ContactTask task) {
  const std::int64_t rows = task.extent[0] * task.extent[1];
  const std::int64_t warps = static_cast<std::int64_t>(gridDim.x) * blockDim.x / warp_size;
  const auto lane = static_cast<std::int64_t>(threadIdx.x % warp_size);
  bool valid = true;
  for (std::int64_t row =
           (static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / warp_size;
       row < rows; row += warps) {
    const std::int64_t first = task.reached_rows[2 * row];
    const std::int64_t last = task.reached_rows[2 * row + 1];
    const std::int64_t end = last < task.extent[2] ? last : task.extent[2];
    for (std::int64_t inner = (first > 0 ? first : 0) + lane; inner < end; inner += warp_size) {
      const VoxelIndex voxel{{row / task.extent[1], row % task.extent[1], inner}};
      const double score =
          visit_value(address(task.score, voxel), task.score.element, ScoreValue{});
      valid &= score_fault(score) == 0;
      for (int k = 0; k < task.raters; ++k)
        valid &= visit_value(address(task.rater[k], voxel), task.rater[k].element, LabelByte{}) < 2;
    }
  }
  if (!valid) lower(task.near_fault, std::uint64_t{0});
}

// --- contacts ------------------------------------------------------------------------------------

/// The masks that mark a voxel.
__device__ inline MaskWord masks_at(const ContactTask& task, const VoxelIndex& voxel) {
  if (!inside(task, voxel)) return 0;
  MaskWord word = 0;
  for (int k = 0; k < task.raters; ++k) {
    const MaskWord label =
        visit_value(address(task.rater[k], voxel), task.rater[k].element, LabelByte{});
    word |= (label & 1u) << k;
  }
  const double score = visit_value(address(task.score, voxel), task.score.element, ScoreValue{});
  for (int k = 0; k < task.thresholds; ++k)
    word |= static_cast<MaskWord>(score > task.threshold[k] ? 1u : 0u) << (task.raters + k);
  return word;
}

/// The masks dilated by the cross in the plane of axes `a` and `b`.
__device__ inline MaskWord lesion_at(const ContactTask& task, const VoxelIndex& voxel, int a,
                                     int b) {
  return masks_at(task, voxel) | masks_at(task, voxel.step(a, -1)) |
         masks_at(task, voxel.step(a, 1)) | masks_at(task, voxel.step(b, -1)) |
         masks_at(task, voxel.step(b, 1));
}

/// Whether a neighbour along an axis is not of the vessel `code`.
__device__ inline std::uint8_t leaves(const ContactTask& task, const VoxelIndex& voxel, int axis,
                                      unsigned code) {
  return code_at(task, voxel.step(axis, -1)) != code || code_at(task, voxel.step(axis, 1)) != code
             ? 1
             : 0;
}

__device__ inline unsigned edges_at(const ContactTask& task, const VoxelIndex& voxel,
                                    unsigned code) {
  return edge_planes(leaves(task, voxel, 0, code), leaves(task, voxel, 1, code),
                     leaves(task, voxel, 2, code));
}

/// Contacts of an edge voxel in the plane of axes `a` and `b`, normal to `axis`.
__device__ inline MaskCounts contacts_at(const ContactTask& task, const VoxelIndex& voxel,
                                         unsigned code, int axis, int a, int b) {
  const auto open = [&](const VoxelIndex& other) {
    const bool closed =
        code_at(task, other) == code && (edges_at(task, other, code) >> axis & 1u) != 0;
    return closed ? MaskWord{0} : lesion_at(task, other, a, b);
  };
  const MaskWord here = lesion_at(task, voxel, a, b);
  return contacts(here, open(voxel.step(a, 1)), open(voxel.step(b, 1)),
                  open(voxel.step(a, 1).step(b, 1)));
}

/// Adds the edge voxels of a warp, which calls this together, to the counts of their entries.
__device__ inline void add_edges(const ContactTask& task, bool on_edge, std::uint32_t entry) {
  const unsigned lanes = __ballot_sync(whole_warp, on_edge ? 1 : 0);
  if (lanes == 0) return;
  const int leader = __ffs(static_cast<int>(lanes)) - 1;
  const bool same = entry == __shfl_sync(whole_warp, entry, leader);
  if (__all_sync(whole_warp, !on_edge || same ? 1 : 0) == 0) {
    if (on_edge) add(task.edges + entry, 1u);
  } else if (threadIdx.x % warp_size == static_cast<unsigned>(leader)) {
    add(task.edges + entry, static_cast<std::uint32_t>(__popc(static_cast<int>(lanes))));
  }
}

__device__ inline void add_contacts(const ContactTask& task, std::uint32_t entry,
                                    const MaskCounts& counts) {
  std::uint32_t* const to = task.contacts + std::size_t{entry} * task.lanes;
  for (MaskWord left = counts.ones | counts.twos | counts.fours; left != 0; left &= left - 1) {
    const int mask = __ffsll(static_cast<long long>(left)) - 1;
    add(to + mask,
        static_cast<std::uint32_t>((counts.ones >> mask & 1u) + 2 * (counts.twos >> mask & 1u) +
                                   4 * (counts.fours >> mask & 1u)));
  }
}

/// Edges and contacts of all vessels, a warp for a row.
__global__ void __launch_bounds__(contact_threads, contact_blocks)
    count_rows(const __grid_constant__ ContactTask task) {
  const std::int64_t rows = task.extent[0] * task.extent[1];
  const std::int64_t warps = static_cast<std::int64_t>(gridDim.x) * blockDim.x / warp_size;
  const auto lane = static_cast<std::int64_t>(threadIdx.x % warp_size);
  for (std::int64_t row =
           (static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / warp_size;
       row < rows; row += warps) {
    const DeviceRange range = task.vessel_rows[row];
    if (range.first == ~0u) continue;
    // All lanes go round equally often.
    for (std::int64_t start = range.first; start <= std::int64_t{~range.last}; start += warp_size) {
      const VoxelIndex voxel{{row / task.extent[1], row % task.extent[1], start + lane}};
      const unsigned code = code_at(task, voxel);
      const unsigned edge = code == 0 ? 0u : edges_at(task, voxel, code);
      std::int64_t slices = 0;  // of the axes before
#pragma unroll 1
      for (int axis = 0; axis < 3; ++axis) {
        const bool on_edge = (edge >> axis & 1u) != 0;
        const auto entry = static_cast<std::uint32_t>((slices + voxel.at[axis]) * task.labels +
                                                      static_cast<std::int64_t>(code) - 1);
        // Along the row every voxel has a slice of its own.
        if (axis < 2)
          add_edges(task, on_edge, entry);
        else if (on_edge)
          add(task.edges + entry, 1u);
        if (on_edge)
          add_contacts(task, entry,
                       contacts_at(task, voxel, code, axis, axis == 0 ? 1 : 0, axis == 2 ? 1 : 2));
        slices += task.extent[axis];
      }
    }
  }
}

}  // namespace twintrack::cuda
