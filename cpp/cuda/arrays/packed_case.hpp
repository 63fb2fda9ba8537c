// A case as the tally kernels read it: whole aligned vectors, whatever the caller's arrays are.
//
// Alignment, strides and element types are looked at once, on the host. Arrays that are not packed
// already are copied to scratch memory by a kernel, a part of the case at a time, so that the large
// kernels exist for packed cases alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#include "cuda/arrays/device_case.hpp"

namespace twintrack::cuda {

inline constexpr int vector_voxels = 4;
/// Voxels that are copied at a time; a multiple of 16, so that alignment is kept from part to part.
/// Tests make it small.
inline std::int64_t copied_voxels = std::int64_t{1} << 24;
/// Voxels of a packed case, at most: vectors are counted in 32 bits.
inline constexpr std::int64_t most_packed_voxels = std::int64_t{1} << 33;

/// Consecutive voxels of a case. Scores lie in walking order without gaps, aligned to 16 bytes,
/// labels and region as bytes, aligned to 4.
struct PackedCase {
  const std::byte* score;
  const std::uint32_t* rater[group_raters];  // of those that the case does not have: the first's
  const std::uint32_t* region;               // null if every voxel counts
  std::uint32_t exists[group_raters];        // all bits, or none if the case has no such rater
  int raters;
  std::int64_t first;     // rank of the first voxel
  std::uint32_t whole;    // vectors of four voxels
  std::uint32_t left;     // voxels after them, 0 to 3
  std::uint32_t vectors;  // with that of what is left
};

/// Calls `visit` for one packed case after the other that make up `from`, which has a rater at
/// least; what it queues on `stream` may read them. For arrays that have to be copied scratch
/// memory of at most 16 Mi elements each is taken: throws OutOfDeviceMemory.
void for_each_packed(const DeviceCase& from, cudaStream_t stream,
                     const std::function<void(const PackedCase&)>& visit);

/// Queues the copy of elements [first, first + count) of an array in walking order to `to`: of
/// scores as they are, of labels and regions as LabelByte says. `to` is aligned to 16 bytes, and of
/// labels whole vectors are written: up to three bytes more.
void pack_scores(const DeviceArray& array, const DeviceCase& from, std::int64_t first,
                 std::int64_t count, std::byte* to, cudaStream_t stream);
void pack_labels(const DeviceArray& array, const DeviceCase& from, std::int64_t first,
                 std::int64_t count, std::byte* to, cudaStream_t stream);

}  // namespace twintrack::cuda
