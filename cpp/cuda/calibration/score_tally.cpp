#include "cuda/calibration/score_tally.hpp"

#include <algorithm>

#include "twintrack/arrays/array_view.hpp"
#include "twintrack/arrays/input_error.hpp"
#include "twintrack/arrays/voxel_blocks.hpp"
#include "twintrack/calibration/score_grid.hpp"
#include "twintrack/calibration/score_tally.hpp"

namespace twintrack::cuda {

ScoreTally::ScoreTally(std::size_t raters, int device, cudaStream_t stream)
    : raters_(twintrack::ScoreTally::checked(raters)), device_(device) {
  const DeviceGuard guard(device);
  sums_ = DeviceMemory<std::uint64_t>(grid::cells * columns(), stream);
  of_case_ = DeviceMemory<std::uint64_t>(grid::cells * columns(), stream);
  sums_.clear(stream);
  wait(stream, "making a tally");  // the next update may come on another stream
  sums_.detach_from_stream();
  of_case_.detach_from_stream();
}

void ScoreTally::update(const CaseView& view, cudaStream_t stream) {
  require_raters(view, raters_);
  const Walk walk = case_walk(view);
  if (walk.count() == 0) return;
  const DeviceGuard guard(device_);
  FaultReport faults(stream);
  // Every case leaves zeros to the next, unless it fails before its end.
  if (!case_is_zero_) of_case_.clear(stream);
  case_is_zero_ = false;
  DeviceMemory<std::uint32_t> touched(case_pages(), stream);
  touched.clear(stream);
  const CaseTables of_case{of_case_.data(), touched.data()};
  const bool grouped = raters_ > group_raters;
  DeviceMemory<std::uint8_t> votes(grouped ? static_cast<std::size_t>(walk.count() + 3) : 0,
                                   stream);
  if (grouped) votes.clear(stream);
  for (std::size_t first = 0; first < raters_; first += group_raters) {
    const std::size_t count = std::min<std::size_t>(group_raters, raters_ - first);
    count_group(device_case(view, walk, first, count), static_cast<int>(first),
                static_cast<int>(raters_), of_case, votes.data(), faults.first_fault(), stream);
  }
  accept_case(of_case, faults.first_fault(), columns(), sums_.data(), stream);
  case_is_zero_ = true;
  faults.require_none(view, walk, stream, "tallying scores");
}

std::vector<std::uint64_t> ScoreTally::take(cudaStream_t stream) {
  const DeviceGuard guard(device_);
  std::vector<std::uint64_t> sums(sums_.size());
  copy(sums.data(), static_cast<const std::uint64_t*>(sums_.data()), sums.size(),
       cudaMemcpyDeviceToHost, stream);
  sums_.clear(stream);
  wait(stream, "fetching a tally");
  for (std::size_t cell = 0; cell < grid::cells; ++cell)
    twintrack::detail::derive_single_votes(sums.data() + cell * columns(), raters_);
  return sums;
}

}  // namespace twintrack::cuda
