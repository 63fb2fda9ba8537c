// twintrack::contact_angles for arrays in device memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/arrays/device_case.hpp"
#include "cuda/arrays/runtime.hpp"
#include "twintrack/arrays/element.hpp"

namespace twintrack {
struct ContactAngles;
struct ContactInput;
}  // namespace twintrack

namespace twintrack::cuda {

/// What twintrack::contact_angles returns, bit for bit. All arrays lie on `device`. Works on
/// `stream` and waits for it: the counts come back, 4 bytes for each slice, label and mask. Throws
/// as the CPU does, and OutOfDeviceMemory if the counts and 16 bytes per row of voxels do not fit.
ContactAngles contact_angles(const ContactInput& input, int device, cudaStream_t stream);

/// A volume whose axes are in walking order, outermost first.
struct DeviceVolume {
  const std::byte* data;
  Element element;
  std::int64_t stride[3];  // bytes
};

/// The part of a row that is of interest. While it is being looked for, `last` holds its complement
/// and both become less: memory full of ones is a row without any.
struct DeviceRange {
  std::uint32_t first;
  std::uint32_t last;
};

struct ContactTask {
  std::int64_t extent[3];
  DeviceVolume vessels;
  bool dense;  // vessels lie in walking order without gaps, aligned to 16 bytes
  DeviceVolume score;
  const DeviceVolume* rater;
  int raters;
  const double* threshold;
  int thresholds;
  const std::int64_t* label;
  int labels;
  DeviceRange* vessel_rows;    // by row: voxels of the labels
  std::int32_t* reached_rows;  // by row: first and last of the voxels near them, may be beyond ends
  // Counts by axis that a slice is normal to, slice and label; contacts by lane within.
  std::uint32_t* edges;
  std::uint32_t* contacts;
  std::uint32_t lanes;
  std::uint64_t* vessel_fault;  // least rank in walking order of an element that is no whole number
  std::uint64_t* near_fault;    // the same of a score or label that is not valid
};

/// Queues the kernels.
void count_contacts(const ContactTask& task, cudaStream_t stream);

}  // namespace twintrack::cuda
