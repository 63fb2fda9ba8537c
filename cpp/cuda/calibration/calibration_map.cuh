// CalibrationMap on the device: the rule of map_rule.hpp on every voxel, the same bits as the CPU.
//
// Scores of 32 or 64 bits cost two look-ups, of the group of a score and of its node; 16-bit scores
// cost one, of the result itself, of which there are at most 16257 in [0, 1]. The table lies in
// shared memory where it fits (of 250 knots up to 30 KB for float and 50 KB for double; 32 KB for
// 16 bits), and a block copies it there once. What bounds the kernel is then device memory; next to
// it the banks of shared memory, which 32 random nodes of 16 bytes keep busy for about 10 clocks
// and their groups for about 5, out of 17 that device memory needs for their scores and results.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/arrays/device.cuh"
#include "cuda/arrays/device_case.hpp"
#include "cuda/arrays/voxel_vectors.cuh"
#include "cuda/calibration/calibration_map.hpp"
#include "twintrack/arrays/element.hpp"
#include "twintrack/arrays/voxel_rules.hpp"
#include "twintrack/calibration/map_rule.hpp"

namespace twintrack::cuda {

inline constexpr int map_threads = 1024;
/// Loads of 16 bytes that each thread has under way.
inline constexpr int map_loads = 4;

/// Copies `bytes`, a multiple of 16, to the block's shared memory.
__device__ inline const std::byte* stage(const void* from, unsigned bytes) {
  std::byte* to = shared_memory();
  for (unsigned i = threadIdx.x; i < bytes / 16; i += blockDim.x)
    reinterpret_cast<uint4*>(to)[i] = static_cast<const uint4*>(from)[i];
  __syncthreads();
  return to;
}

/// A node, by loads of 16 bytes: by itself the compiler loads its fields one by one, and each of
/// them lies in every fourth bank of shared memory only.
__device__ inline MapNode<float> load_node(const MapNode<float>* from) {
  const float4 node = *reinterpret_cast<const float4*>(from);
  return {node.x, node.y, node.z, node.w};
}
__device__ inline MapNode<double> load_node(const MapNode<double>* from) {
  const auto* halves = reinterpret_cast<const double2*>(from);
  const double2 first = halves[0];
  const double2 second = halves[1];
  return {first.x, first.y, second.x, second.y};
}

/// A group, likewise.
__device__ inline MapGroup<float> load_group(const MapGroup<float>* from) {
  const uint2 group = *reinterpret_cast<const uint2*>(from);
  return {twintrack::detail::bits_as<float>(group.x), group.y};
}
__device__ inline MapGroup<double> load_group(const MapGroup<double>* from) {
  const double2 group = *reinterpret_cast<const double2*>(from);
  return {group.x, twintrack::detail::bits_as<std::uint64_t>(group.y)};
}

/// Scores of type Real, float or double, by nodes. `staged` says that the table goes to shared
/// memory.
template <class Real_, bool staged_>
struct NodeRule {
  using Real = Real_;
  static constexpr bool staged = staged_;
  MapView<Real> map;  // in device memory, nodes right after groups

  __host__ __device__ unsigned table_bytes() const {
    return static_cast<unsigned>(map.group_bytes() + map.node_bytes());
  }
  __device__ void prepare() {
    if constexpr (staged) {
      const std::byte* table = stage(map.groups, table_bytes());
      map.groups = reinterpret_cast<const MapGroup<Real>*>(table);
      map.nodes = reinterpret_cast<const MapNode<Real>*>(table + map.group_bytes());
    }
  }
  __device__ bool valid(Real score) const { return score_fault(score) == 0; }
  /// The result for a valid score, or NaN if `search` has to be asked.
  __device__ Real look_up(Real score) const {
    const Real u = map_grid::distance(score);
    const MapGroup<Real> group =
        load_group(map.groups + map_grid::group(map, u, score > Real(0.5)));
    const Real offset = u - group.centre;
    const std::uint32_t node = map_grid::node(group.place, offset, map.key_shift);
    return map_value(load_node(map.nodes + node), offset);
  }
  __device__ static bool found(Real value) { return is_value(value); }
  __device__ Real search(Real score) const {
    return static_cast<Real>(interpolate(map.knots, static_cast<double>(score)));
  }
};

/// 16-bit scores by a table of results for all patterns from 0 up to that of 1. The type is that of
/// the patterns: float16 and bfloat16 differ in the pattern of 1 alone.
struct LookUpRule {
  using Real = std::uint16_t;
  static constexpr bool staged = true;
  static constexpr Real minus_zero = 0x8000;
  const std::uint16_t* results;
  std::uint16_t one;

  __host__ __device__ unsigned table_bytes() const { return (2 * (one + 1u) + 15) / 16 * 16; }
  __device__ void prepare() {
    results = reinterpret_cast<const std::uint16_t*>(stage(results, table_bytes()));
  }
  __device__ bool valid(Real score) const { return score <= one || score == minus_zero; }
  __device__ Real look_up(Real score) const { return results[score == minus_zero ? 0 : score]; }
  __device__ static bool found(Real) { return true; }
  __device__ static Real search(Real score) { return score; }
};

/// 16 bytes of scores.
template <class Real>
struct ScoreVector {
  static constexpr int size = 16 / sizeof(Real);
  Real score[size];
};

/// Maps `size` scores in place, the first of which has rank `rank`, and lowers `fault` to the first
/// invalid one. What is rare is asked about once for all of them.
template <class Rule, int size>
__device__ inline void map_vector(const Rule& rule, typename Rule::Real (&score)[size],
                                  std::int64_t rank, std::uint64_t& fault) {
  using Real = typename Rule::Real;
  Real value[size];
  bool all_valid = true;
  bool all_found = true;
#pragma unroll
  for (int j = 0; j < size; ++j) {
    const bool valid = rule.valid(score[j]);
    value[j] = rule.look_up(valid ? score[j] : Real{0});
    all_valid &= valid;
    all_found &= Rule::found(value[j]);
  }
  if (!all_found) {
#pragma unroll
    for (int j = 0; j < size; ++j)
      if (!Rule::found(value[j])) value[j] = rule.search(score[j]);
  }
  if (!all_valid) {
#pragma unroll
    for (int j = 0; j < size; ++j) {
      const auto at = static_cast<std::uint64_t>(rank + j);
      if (!rule.valid(score[j]) && at < fault) fault = at;
    }
  }
#pragma unroll
  for (int j = 0; j < size; ++j) score[j] = value[j];
}

/// For arrays without strides, aligned to 16 bytes.
template <class Rule>
__global__ void __launch_bounds__(map_threads, 1)
    map_packed(Rule rule, const __grid_constant__ MapTask task) {
  using Real = typename Rule::Real;
  using Vector = ScoreVector<Real>;
  if (task.checked && *task.first_fault != no_voxel) return;
  rule.prepare();
  const auto* from = reinterpret_cast<const uint4*>(task.score.data);
  auto* to = reinterpret_cast<uint4*>(const_cast<std::byte*>(task.out.data));
  const std::int64_t vectors = task.voxels / Vector::size;
  const std::int64_t width = blockDim.x;
  std::uint64_t fault = no_voxel;
  for (std::int64_t tile = blockIdx.x * width * map_loads; tile < vectors;
       tile += gridDim.x * width * map_loads) {
    const std::int64_t first = tile + threadIdx.x;
    uint4 raw[map_loads];
#pragma unroll
    for (int k = 0; k < map_loads; ++k)
      if (first + k * width < vectors) raw[k] = load_once(from + first + k * width);
#pragma unroll
    for (int k = 0; k < map_loads; ++k) {
      const std::int64_t i = first + k * width;
      if (i >= vectors) continue;
      Vector v = twintrack::detail::bits_as<Vector>(raw[k]);
      map_vector(rule, v.score, i * Vector::size, fault);
      if (task.writes) store_once(to + i, twintrack::detail::bits_as<uint4>(v));
    }
  }
  // What is left over after the last whole vector.
  const std::int64_t rank = vectors * Vector::size + threadIdx.x;
  if (blockIdx.x == 0 && rank < task.voxels) {
    Real score[1] = {reinterpret_cast<const Real*>(from)[rank]};
    map_vector(rule, score, rank, fault);
    if (task.writes) reinterpret_cast<Real*>(to)[rank] = score[0];
  }
  if (fault != no_voxel) lower(task.first_fault, fault);
}

/// For any strides and alignment.
template <class Rule>
__global__ void __launch_bounds__(map_threads, 1)
    map_strided(Rule rule, const __grid_constant__ MapTask task) {
  using Real = typename Rule::Real;
  if (task.checked && *task.first_fault != no_voxel) return;
  rule.prepare();
  const std::int64_t width = blockDim.x;
  std::uint64_t fault = no_voxel;
  for (std::int64_t rank = blockIdx.x * width + threadIdx.x; rank < task.voxels;
       rank += gridDim.x * width) {
    const DeviceArray* const arrays[2] = {&task.score, &task.out};
    std::int64_t offset[2] = {0, 0};
    add_offsets(task.axes, task.extent, arrays, rank, offset);
    Real score[1] = {*reinterpret_cast<const Real*>(task.score.data + offset[0])};
    map_vector(rule, score, rank, fault);
    if (task.writes)
      *reinterpret_cast<Real*>(const_cast<std::byte*>(task.out.data) + offset[1]) = score[0];
  }
  if (fault != no_voxel) lower(task.first_fault, fault);
}

}  // namespace twintrack::cuda
