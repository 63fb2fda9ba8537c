// twintrack::CalibrationMap for arrays in device memory.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cuda/arrays/device_case.hpp"
#include "cuda/arrays/runtime.hpp"
#include "twintrack/calibration/map_rule.hpp"

namespace twintrack {
struct WritableArrayView;
}

namespace twintrack::cuda {

/// The map, with its tables on every device where it has been used: the same bits as
/// twintrack::CalibrationMap. Safe to use from several threads.
class CalibrationMap {
 public:
  /// Throws InputError unless 0 <= x_1 < … < x_n <= 1 and 0 <= y_1 <= … <= y_n <= 1 with
  /// n >= 1.
  CalibrationMap(std::vector<double> x, std::vector<double> y);
  ~CalibrationMap();

  /// Writes the map of every score to `out`, which has the same shape and element type and may be
  /// the score itself; both lie on `device`. Works on `stream` and waits for it, since an invalid
  /// score must be reported: throws InputError, as the CPU does. `out` is then unspecified,
  /// unless it is the score, which is left as it was (and which takes a second read for that). The
  /// first use on a device uploads a table of some KB.
  void apply(const ArrayView& score, const WritableArrayView& out, int device, cudaStream_t stream);

  /// The map of float32 scores for kernels on `device`, whose tables live as long as this does.
  MapView<float> float_view(int device, cudaStream_t stream);

 private:
  struct Tables;
  Tables& tables_on(int device);

  struct State;
  std::unique_ptr<State> state_;
};

/// What a map kernel is to do.
struct MapTask {
  DeviceArray score;
  DeviceArray out;
  int axes;
  std::int64_t extent[DeviceArray::max_axes];  // outermost axis first
  std::int64_t voxels;
  std::uint64_t* first_fault;  // least rank of an invalid voxel
  bool writes;                 // false: only looks for faults
  bool checked;                // nothing is written if a fault is known already
};

/// Queue a map kernel. Tables lie in device memory; `results` are those of all 16-bit patterns from
/// 0 to `one`, the pattern of 1, padded to a multiple of 16 bytes.
void map_scores(const MapView<float>& map, const MapTask& task, cudaStream_t stream);
void map_scores(const MapView<double>& map, const MapTask& task, cudaStream_t stream);
void map_scores(const std::uint16_t* results, std::uint16_t one, const MapTask& task,
                cudaStream_t stream);

}  // namespace twintrack::cuda
