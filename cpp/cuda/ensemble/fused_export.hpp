// The score of an ensemble for arrays in device memory: twintrack::ensemble_score and export_score.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "cuda/arrays/device_case.hpp"
#include "cuda/arrays/runtime.hpp"
#include "twintrack/arrays/element.hpp"
#include "twintrack/calibration/map_rule.hpp"
#include "twintrack/ensemble/resample.hpp"

namespace twintrack {
struct ExportGrid;
struct MergeRule;
struct WritableArrayView;
}  // namespace twintrack

namespace twintrack::cuda {

class CalibrationMap;

/// What twintrack::ensemble_score writes, bit for bit. All arrays lie on `device`. Works on
/// `stream` and waits for it, since an invalid logit or probability must be reported. Throws as the
/// CPU does, and OutOfDeviceMemory.
void ensemble_score(const std::vector<ArrayView>& members, const MergeRule& rule,
                    CalibrationMap* map, const WritableArrayView& out, int device,
                    cudaStream_t stream);

/// What twintrack::export_score writes, bit for bit; otherwise as ensemble_score. Beside the arrays
/// it takes some kilobytes of device memory. Where the output is coarser than a member, values
/// between those that an output voxel is interpolated from are not looked at, and so not checked.
void export_score(const std::vector<ArrayView>& members, const std::vector<ExportGrid>& grids,
                  const MergeRule& rule, CalibrationMap* map, const WritableArrayView& out,
                  int device, cudaStream_t stream);

/// How a voxel's channels become one probability: twintrack::MergeRule in device memory.
struct MergeTask {
  enum Kind { softmax, classes, regions, region_logits };
  Kind kind;
  bool logits;  // the input's
  bool mean_of_logits;
  int members;
  int channels;                 // that are read
  const std::int64_t* channel;  // their numbers
  const std::uint8_t* tumour;   // 1 if they are tumour
  float divisor;                // of the sum of the members' probabilities
  bool mapped;
  MapView<float> map;
  Element out;           // float32, float16 or bfloat16
  std::uint64_t* fault;  // becomes 0 if a value is not valid
};

/// A member seen along the output's axes; of each axis a Tap by output voxel, of double if `round`,
/// else of float. The last three are twintrack::detail::ExportSource's.
struct DeviceSource {
  const std::byte* data;
  std::int64_t channel_stride;
  std::int64_t stride[3];
  const void* taps[3];
  bool identity_inner;  // axis 2 is the member's own
  int order[3];
  bool round;
  double tie_margin;
};

struct ExportTask {
  MergeTask merge;
  const DeviceSource* sources;
  bool rounds;  // one of them
  std::byte* out;
  std::int64_t extent[3];
  std::int64_t out_stride[3];
};

/// Members on the output's grid: voxels by rank, as DeviceCase's.
struct EnsembleTask {
  MergeTask merge;
  const DeviceArray* member;           // of channel 0
  const std::int64_t* channel_stride;  // by member
  DeviceArray out;
  int axes;
  std::int64_t extent[DeviceArray::max_axes];  // outermost axis first
  std::int64_t voxels;
  bool packed;  // all without strides and aligned to four elements
};

/// Queue a kernel; `element` is the members'.
void export_voxels(const ExportTask& task, Element element, cudaStream_t stream);
void merge_voxels(const EnsembleTask& task, Element element, cudaStream_t stream);

}  // namespace twintrack::cuda
