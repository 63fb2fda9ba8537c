// The one way in which every tally kernel reads a case: vectors of four voxels in walking order,
// the device's counterpart of voxel_blocks.hpp.
//
// A packed case (packed_case.hpp) is all that kernels read: one load of 16 bytes (float) and one of
// 4 bytes per rater for four voxels, and nothing to decide for a voxel. Nothing is checked;
// `remove_faults` does.
//
// Loops over voxels and raters are unrolled throughout: what is indexed at run time would lie in
// slow memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/arrays/device.cuh"
#include "cuda/arrays/packed_case.hpp"
#include "cuda/arrays/strided_elements.cuh"
#include "twintrack/arrays/element.hpp"
#include "twintrack/arrays/voxel_rules.hpp"

namespace twintrack::cuda {

/// 1 in the bytes of `word` that are not 0, else 0.
__device__ inline std::uint32_t nonzero_bytes(std::uint32_t word) {
  return (((word & 0x7f7f7f7fu) + 0x7f7f7f7fu) | word) >> 7 & 0x01010101u;
}

/// Four scores, and whether they count: byte j of `inside` is 1 if voxel j exists and counts, else
/// its score is 0.
template <class Real>
struct ScoreFour {
  Real score[vector_voxels];
  std::uint32_t inside;

  /// Takes out a voxel, or leaves it.
  __device__ void keep(int j, bool kept) {
    if (kept) return;
    score[j] = Real{0};
    inside &= ~(0xffu << (8 * j));
  }

  /// Whether all scores are 0, but not -0.
  __device__ bool blank() const {
    using Bits = decltype(score_fault(Real{}));
    Bits all = 0;
#pragma unroll
    for (int j = 0; j < vector_voxels; ++j) all |= twintrack::detail::bits_as<Bits>(score[j]);
    return all == 0;
  }

  /// Byte j is 1 if voxel j counts and has score 0.
  __device__ std::uint32_t zeros() const {
    std::uint32_t zero = 0;
#pragma unroll
    for (int j = 0; j < vector_voxels; ++j) zero |= score[j] == Real{0} ? 1u << (8 * j) : 0u;
    return zero & inside;
  }
};

/// Byte j of `label[k]` is rater k's label of voxel j. A voxel that does not count has no labels;
/// nor have raters that the case does not have.
template <class Real, int raters>
struct VoxelVector : ScoreFour<Real> {
  std::uint32_t label[raters];

  /// Byte j is 0 if nobody marks voxel j.
  __device__ std::uint32_t any_label() const {
    std::uint32_t labels = 0;
#pragma unroll
    for (int k = 0; k < raters; ++k) labels |= label[k];
    return labels;
  }

  /// Byte j: the raters who mark voxel j.
  __device__ std::uint32_t votes() const {
    std::uint32_t all = 0;
#pragma unroll
    for (int k = 0; k < raters; ++k) all += label[k];
    return all;
  }

  /// Takes out voxels that break the rules, and makes -0 of scores 0. `vector` is the number of
  /// this one, and `fault` becomes the number of the least faulty voxel of the packed case, if that
  /// is less.
  __device__ void remove_faults(std::uint32_t vector, std::uint64_t& fault) {
    using Bits = decltype(score_fault(Real{}));
    const Bits one = twintrack::detail::bits_as<Bits>(Real{1});
    const std::uint32_t labels = any_label();
    bool suspicious = (labels & 0xfefefefeu) != 0;
#pragma unroll
    for (int j = 0; j < vector_voxels; ++j)
      suspicious |= twintrack::detail::bits_as<Bits>(this->score[j]) > one;
    if (!suspicious) return;
#pragma unroll
    for (int j = 0; j < vector_voxels; ++j) {
      if (score_fault(this->score[j]) == 0 && ((labels >> (8 * j)) & 0xfeu) == 0) {
        if (this->score[j] == Real{0}) this->score[j] = Real{0};  // -0
        continue;
      }
      const auto voxel = std::uint64_t{vector} * vector_voxels + static_cast<unsigned>(j);
      if (voxel < fault) fault = voxel;
      this->keep(j, false);
#pragma unroll
      for (int k = 0; k < raters; ++k) label[k] &= ~(0xffu << (8 * j));
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

/// `to_real`, by one instruction where the device has one.
template <class T>
__device__ inline auto real_of(T element) {
  return to_real(element);
}
#if defined(__CUDACC__)
template <>
__device__ inline auto real_of(float16 element) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(element.bits));
  return value;
}
#endif

/// Reads packed cases whose score has elements of type T.
template <class T>
struct PackedVoxels {
  using Element = T;
  using Real = decltype(to_real(T{}));

  /// Scores alone.
  __device__ static void load_scores(const PackedCase& from, std::uint32_t vector,
                                     ScoreFour<Real>& v) {
    const T* const score =
        reinterpret_cast<const T*>(from.score) + std::size_t{vector} * vector_voxels;
    if (vector < from.whole) {
      const FourElements<T> four = load_four(score);
#pragma unroll
      for (int j = 0; j < vector_voxels; ++j) v.score[j] = real_of(four.element[j]);
      v.inside = 0x01010101u;
      if (from.region != nullptr) {
        const std::uint32_t region = nonzero_bytes(from.region[vector]);
#pragma unroll
        for (int j = 0; j < vector_voxels; ++j) v.keep(j, ((region >> (8 * j)) & 1u) != 0);
      }
      return;
    }
    // The last voxels, or none.
    v.inside = 0;
#pragma unroll
    for (int j = 0; j < vector_voxels; ++j) {
      v.score[j] = Real{0};
      if (vector != from.whole || static_cast<unsigned>(j) >= from.left) continue;
      if (from.region != nullptr && byte(from.region + vector, j) == 0) continue;
      v.score[j] = to_real(score[j]);
      v.inside |= 1u << (8 * j);
    }
  }

  template <int raters>
  __device__ static void load(const PackedCase& from, std::uint32_t vector,
                              VoxelVector<Real, raters>& v) {
    load_scores(from, vector, v);
    if (vector < from.whole) {
#pragma unroll
      for (int k = 0; k < raters; ++k)
        v.label[k] = load_once(from.rater[k] + vector) & from.exists[k] & (v.inside * 0xffu);
      return;
    }
#pragma unroll
    for (int k = 0; k < raters; ++k) {
      v.label[k] = 0;
#pragma unroll
      for (int j = 0; j + 1 < vector_voxels; ++j)
        if ((v.inside >> (8 * j) & 1u) != 0)
          v.label[k] |= byte(from.rater[k] + vector, j) << (8 * j) & from.exists[k];
    }
  }

 private:
  __device__ static std::uint32_t byte(const std::uint32_t* from, int j) {
    return static_cast<std::uint32_t>(reinterpret_cast<const std::byte*>(from)[j]);
  }
};

}  // namespace twintrack::cuda
