// A case whose arrays lie in device memory, in the form that kernels take: plain and of fixed size.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/arrays/runtime.hpp"
#include "twintrack/arrays/element.hpp"

namespace twintrack {
class Walk;
struct ArrayView;
struct CaseView;
}  // namespace twintrack

namespace twintrack::cuda {

/// Raters that one pass of a kernel takes; more are dealt with in groups of this many.
inline constexpr int group_raters = 9;

/// An array in device memory. In walking order its elements are `axis_stride` bytes apart on each
/// axis, or without gaps if `contiguous`.
struct DeviceArray {
  static constexpr int max_axes = 16;

  const std::byte* data = nullptr;
  Element element = Element::float32;
  bool contiguous = false;
  std::int64_t axis_stride[max_axes] = {};
};

/// The arrays that a pass over a case reads. Voxels are numbered in walking order: that of
/// twintrack::Walk, the same as on the CPU. A rank is such a number.
struct DeviceCase {
  DeviceArray score;
  DeviceArray rater[group_raters];
  DeviceArray region;  // without data if every voxel counts
  int raters = 0;
  int axes = 0;
  std::int64_t extent[DeviceArray::max_axes] = {};  // outermost axis first
  std::int64_t voxels = 0;
};

/// Rank of the first invalid voxel while none is known.
inline constexpr std::uint64_t no_voxel = ~std::uint64_t{0};

/// Array `k` of `walk`.
DeviceArray device_array(const ArrayView& array, const Walk& walk, std::size_t k);

/// Writes the extents of the walk's axes and returns their number.
int copy_extents(const Walk& walk, std::int64_t* extent);

/// The raters [first, first + count) of a case, count <= group_raters. `walk` walks score, raters
/// and region.
DeviceCase device_case(const CaseView& view, const Walk& walk, std::size_t first,
                       std::size_t count);

/// Where kernels report the first invalid voxel of a case.
class FaultReport {
 public:
  explicit FaultReport(cudaStream_t stream);

  std::uint64_t* first_fault() const { return memory_.data(); }

  /// Waits for `stream`, then throws InputError if a voxel was reported, in the words of the CPU
  /// and after reading that voxel. `work` names what may have failed on the stream.
  void require_none(const CaseView& view, const Walk& walk, cudaStream_t stream, const char* work);

 private:
  DeviceMemory<std::uint64_t> memory_;
};

}  // namespace twintrack::cuda
