// The one way in which every tally kernel reads a case: vectors of four voxels in walking order,
// the device's counterpart of voxel_blocks.hpp.
//
// `PackedVoxels` is for arrays without strides, labels and region of one byte: one load of 16 bytes
// (float) and one of 4 bytes per rater for four voxels, where the arrays are aligned so.
// `StridedVoxels` takes any strides and element types. Both check nothing; `remove_faults` does.
//
// Loops over voxels and raters are unrolled throughout: what is indexed at run time would lie in
// slow memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "cuda/arrays/device.cuh"
#include "cuda/arrays/device_case.hpp"
#include "twintrack/arrays/element.hpp"
#include "twintrack/arrays/voxel_rules.hpp"

namespace twintrack::cuda {

inline constexpr int vector_voxels = 4;

/// Byte j of `label[k]` is rater k's label of voxel j, byte j of `inside` is 1 if voxel j exists
/// and counts. A voxel that does not has score 0, and no labels either; nor have raters that the
/// case does not have.
template <class Real, int raters>
struct VoxelVector {
  Real score[vector_voxels];
  std::uint32_t label[raters];
  std::uint32_t inside;

  /// Byte j is 0 if nobody marks voxel j.
  __device__ std::uint32_t any_label() const {
    std::uint32_t labels = 0;
#pragma unroll
    for (int k = 0; k < raters; ++k) labels |= label[k];
    return labels;
  }

  /// Takes out a voxel, or leaves it.
  __device__ void keep(int j, bool kept) {
    if (kept) return;
    const std::uint32_t others = ~(0xffu << (8 * j));
    score[j] = Real{0};
#pragma unroll
    for (int k = 0; k < raters; ++k) label[k] &= others;
    inside &= others;
  }

  /// Takes out voxels that break the rules. `first` is the rank of the first voxel; `fault` becomes
  /// the least rank of those that were taken out, if that is less.
  __device__ void remove_faults(std::int64_t first, std::uint64_t& fault) {
    using Bits = decltype(score_fault(Real{}));
    const Bits one = twintrack::detail::bits_as<Bits>(Real{1});
    const std::uint32_t labels = any_label();
    bool suspicious = (labels & 0xfefefefeu) != 0;
#pragma unroll
    for (int j = 0; j < vector_voxels; ++j)
      suspicious |= twintrack::detail::bits_as<Bits>(score[j]) > one;
    if (!suspicious) return;
#pragma unroll
    for (int j = 0; j < vector_voxels; ++j) {
      if (score_fault(score[j]) == 0 && ((labels >> (8 * j)) & 0xfeu) == 0) continue;
      const auto rank = static_cast<std::uint64_t>(first + j);
      if (rank < fault) fault = rank;
      keep(j, false);
    }
  }
};

/// Four elements that lie together, aligned to their size together, at most to 16 bytes.
template <class T>
struct alignas(4 * sizeof(T) < 16 ? 4 * sizeof(T) : 16) FourElements {
  T element[vector_voxels];
};

__device__ inline FourElements<float> load_four(const float* from) {
  const float4 raw = load_once(reinterpret_cast<const float4*>(from));
  return {{raw.x, raw.y, raw.z, raw.w}};
}
__device__ inline FourElements<double> load_four(const double* from) {
  const double2 low = load_once(reinterpret_cast<const double2*>(from));
  const double2 high = load_once(reinterpret_cast<const double2*>(from) + 1);
  return {{low.x, low.y, high.x, high.y}};
}
template <class Half>  // float16, bfloat16
__device__ inline FourElements<Half> load_four(const Half* from) {
  const uint2 raw = load_once(reinterpret_cast<const uint2*>(from));
  return {{Half{static_cast<std::uint16_t>(raw.x)}, Half{static_cast<std::uint16_t>(raw.x >> 16)},
           Half{static_cast<std::uint16_t>(raw.y)}, Half{static_cast<std::uint16_t>(raw.y >> 16)}}};
}

/// 1 in the bytes of `word` that are not 0, else 0.
__device__ inline std::uint32_t nonzero_bytes(std::uint32_t word) {
  return (((word & 0x7f7f7f7fu) + 0x7f7f7f7fu) | word) >> 7 & 0x01010101u;
}

/// A case of packed arrays whose score has elements of type T.
template <class T>
struct PackedVoxels {
  using Real = decltype(to_real(T{}));

  template <int raters>
  __device__ static void load(const DeviceCase& from, std::int64_t vector,
                              VoxelVector<Real, raters>& v) {
    const std::int64_t first = vector * vector_voxels;
    const T* score = reinterpret_cast<const T*>(from.score.data) + first;
    if (first + vector_voxels <= from.voxels) {
      load_scores(score, v.score);
#pragma unroll
      for (int k = 0; k < raters; ++k)
        v.label[k] = k < from.raters ? load_bytes(from.rater[k].data + first) : 0;
      v.inside = 0x01010101u;
      if (from.region.data == nullptr) return;
      const std::uint32_t region = nonzero_bytes(load_bytes(from.region.data + first));
#pragma unroll
      for (int j = 0; j < vector_voxels; ++j) v.keep(j, ((region >> (8 * j)) & 1u) != 0);
      return;
    }
    // The last voxels, or none.
    v.inside = 0;
#pragma unroll
    for (int k = 0; k < raters; ++k) v.label[k] = 0;
#pragma unroll
    for (int j = 0; j < vector_voxels; ++j) {
      v.score[j] = Real{0};
      if (first + j >= from.voxels ||
          (from.region.data != nullptr && byte(from.region.data + first + j) == 0))
        continue;
      v.score[j] = to_real(score[j]);
      v.inside |= 1u << (8 * j);
#pragma unroll
      for (int k = 0; k < raters; ++k)
        if (k < from.raters) v.label[k] |= byte(from.rater[k].data + first + j) << (8 * j);
    }
  }

 private:
  __device__ static void load_scores(const T* from, Real* score) {
    if (reinterpret_cast<std::uintptr_t>(from) % alignof(FourElements<T>) == 0) {
      const FourElements<T> four = load_four(from);
      for (int j = 0; j < vector_voxels; ++j) score[j] = to_real(four.element[j]);
    } else {
      for (int j = 0; j < vector_voxels; ++j) score[j] = to_real(from[j]);
    }
  }

  __device__ static std::uint32_t byte(const std::byte* from) {
    return static_cast<std::uint32_t>(*from);
  }

  // Aligned or not is the same for all threads: ranks are multiples of four.
  __device__ static std::uint32_t load_bytes(const std::byte* from) {
    if (reinterpret_cast<std::uintptr_t>(from) % 4 == 0)
      return load_once(reinterpret_cast<const std::uint32_t*>(from));
    return byte(from) | byte(from + 1) << 8 | byte(from + 2) << 16 | byte(from + 3) << 24;
  }
};

/// `visit(value)` with the element at `p`; the branch is the same for all threads.
template <class Visitor>
__device__ inline auto visit_value(const std::byte* p, Element element, Visitor visit) {
  switch (element) {
    case Element::boolean:
    case Element::uint8:
      return visit(*reinterpret_cast<const std::uint8_t*>(p));
    case Element::int8:
      return visit(*reinterpret_cast<const std::int8_t*>(p));
    case Element::int16:
      return visit(*reinterpret_cast<const std::int16_t*>(p));
    case Element::uint16:
      return visit(*reinterpret_cast<const std::uint16_t*>(p));
    case Element::int32:
      return visit(*reinterpret_cast<const std::int32_t*>(p));
    case Element::uint32:
      return visit(*reinterpret_cast<const std::uint32_t*>(p));
    case Element::int64:
      return visit(*reinterpret_cast<const std::int64_t*>(p));
    case Element::uint64:
      return visit(*reinterpret_cast<const std::uint64_t*>(p));
    case Element::float16:
      return visit(*reinterpret_cast<const float16*>(p));
    case Element::bfloat16:
      return visit(*reinterpret_cast<const bfloat16*>(p));
    case Element::float32:
      return visit(*reinterpret_cast<const float*>(p));
    case Element::float64:
      break;
  }
  return visit(*reinterpret_cast<const double*>(p));
}

/// Adds to `offset[k]` where in array k, in bytes, the element at `rank` lies.
template <int arrays>
__device__ inline void add_offsets(int axes, const std::int64_t* extents,
                                   const DeviceArray* const (&array)[arrays], std::int64_t rank,
                                   std::int64_t (&offset)[arrays]) {
  std::uint64_t rest = static_cast<std::uint64_t>(rank);
  for (int axis = axes; axis-- > 0;) {
    const auto extent = static_cast<std::uint64_t>(extents[axis]);
    std::uint64_t index = rest;
    if (axis > 0) {
      // 32-bit division is several times faster.
      if ((rest | extent) >> 32 == 0) {
        index = static_cast<std::uint32_t>(rest) % static_cast<std::uint32_t>(extent);
        rest = static_cast<std::uint32_t>(rest) / static_cast<std::uint32_t>(extent);
      } else {
        index = rest % extent;
        rest /= extent;
      }
    }
    for (int k = 0; k < arrays; ++k)
      offset[k] += static_cast<std::int64_t>(index) * array[k]->axis_stride[axis];
  }
}

/// A case of any strides and element types. Real is double for float64 scores, else float.
template <class Real_>
struct StridedVoxels {
  using Real = Real_;

  template <int raters>
  __device__ static void load(const DeviceCase& from, std::int64_t vector,
                              VoxelVector<Real, raters>& v) {
    v.inside = 0;
#pragma unroll
    for (int k = 0; k < raters; ++k) v.label[k] = 0;
#pragma unroll
    for (int j = 0; j < vector_voxels; ++j) {
      v.score[j] = Real{0};
      const std::int64_t rank = vector * vector_voxels + j;
      if (rank >= from.voxels) continue;
      const DeviceArray* arrays[raters + 2];
      std::int64_t offset[raters + 2];
      arrays[0] = &from.score;
      arrays[1] = &from.region;
      for (int k = 0; k < raters; ++k) arrays[2 + k] = &from.rater[k];
      for (int k = 0; k < raters + 2; ++k) offset[k] = 0;
      add_offsets(from.axes, from.extent, arrays, rank, offset);
      if (from.region.data != nullptr &&
          visit_value(from.region.data + offset[1], from.region.element, LabelByte{}) == 0)
        continue;
      v.inside |= 1u << (8 * j);
      v.score[j] = score(from.score.data + offset[0], from.score.element);
      for (int k = 0; k < raters; ++k)
        if (k < from.raters)
          v.label[k] |= static_cast<std::uint32_t>(visit_value(from.rater[k].data + offset[2 + k],
                                                               from.rater[k].element, LabelByte{}))
                        << (8 * j);
    }
  }

 private:
  __device__ static Real score(const std::byte* p, Element element) {
    if constexpr (std::is_same_v<Real, double>) {
      return *reinterpret_cast<const double*>(p);
    } else {
      if (element == Element::float16) return to_real(*reinterpret_cast<const float16*>(p));
      if (element == Element::bfloat16) return to_real(*reinterpret_cast<const bfloat16*>(p));
      return *reinterpret_cast<const float*>(p);
    }
  }
};

}  // namespace twintrack::cuda
