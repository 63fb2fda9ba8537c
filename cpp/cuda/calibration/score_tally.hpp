// twintrack::ScoreTally for arrays in device memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cuda/arrays/device_case.hpp"
#include "cuda/arrays/runtime.hpp"
#include "twintrack/calibration/tally_rows.hpp"

namespace twintrack::cuda {

/// Sums of voxels tallied on one device, kept there: those of twintrack::ScoreTally, bit for bit.
class ScoreTally {
 public:
  /// Throws InputError if `raters` is not 1 to 255, OutOfDeviceMemory if the sums, 4 MB
  /// per rater and 4 MB more, do not fit. Works on `stream` and waits for it.
  ScoreTally(std::size_t raters, int device, cudaStream_t stream);

  ScoreTally(const ScoreTally&) = delete;
  ScoreTally& operator=(const ScoreTally&) = delete;

  std::size_t raters() const { return raters_; }
  std::size_t columns() const { return TallyColumns::all(raters_); }
  int device() const { return device_; }

  /// Adds the voxels of a case whose arrays lie on this device. Works on `stream` and waits for it,
  /// since an invalid voxel must be reported: throws InputError, as the CPU does, and then has
  /// added none. Also throws it if shapes do not fit, OutOfDeviceMemory if the scratch memory does
  /// not: at most 36 MB on a device of 132 multiprocessors, what for_each_packed takes, and for
  /// more than nine raters a byte a voxel.
  void update(const CaseView& view, cudaStream_t stream);

  /// Returns the sums, `grid::cells` × `columns()`, and starts afresh from 0. Works on `stream` and
  /// waits for it.
  std::vector<std::uint64_t> take(cudaStream_t stream);

 private:
  std::size_t raters_;
  int device_;
  DeviceMemory<std::uint64_t> sums_;
  DeviceMemory<std::uint64_t> of_case_;  // of the case that is being counted
  bool case_is_zero_ = false;
};

/// The sums of a case, and by page of cells whether they may have changed: 0 at first, as they are.
struct CaseTables {
  std::uint64_t* sums;     // cells × columns
  std::uint32_t* touched;  // of case_pages() pages
};

std::size_t case_pages();

/// Queues the count of one group of a case's `all_raters` raters. `votes`, a byte a voxel and three
/// more, is 0 before the first group; null if there is one group.
void count_group(const DeviceCase& from, int first_rater, int all_raters, const CaseTables& of_case,
                 std::uint8_t* votes, std::uint64_t* first_fault, cudaStream_t stream);

/// Queues the addition of a case's sums to a tally's, unless a fault was reported. The case's
/// become 0.
void accept_case(const CaseTables& of_case, const std::uint64_t* first_fault, std::size_t columns,
                 std::uint64_t* sums, cudaStream_t stream);

}  // namespace twintrack::cuda
