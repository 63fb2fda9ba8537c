#include "twintrack/metrics/contact_angle.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "cuda/metrics/case_tally.hpp"
#include "cuda/metrics/contact_angle.hpp"
#include "twintrack/arrays/array_view.hpp"
#include "twintrack/arrays/element_runs.hpp"
#include "twintrack/arrays/input_error.hpp"

namespace twintrack::cuda {

namespace {

DeviceVolume volume_of(const ArrayView& array, const VolumeOrder& order) {
  const WalkedVolume walked = order.arrange(array);
  return {walked.data, walked.element, {walked.stride[0], walked.stride[1], walked.stride[2]}};
}

template <class T>
DeviceMemory<T> send(const std::vector<T>& from, cudaStream_t stream) {
  DeviceMemory<T> memory(from.size(), stream);
  copy(memory.data(), from.data(), from.size(), cudaMemcpyHostToDevice, stream);
  return memory;
}

template <class T>
DeviceMemory<T> filled(std::size_t count, int byte, cudaStream_t stream) {
  DeviceMemory<T> memory(count, stream);
  if (count > 0)
    check(cudaMemsetAsync(memory.data(), byte, memory.bytes(), stream), "cudaMemsetAsync");
  return memory;
}

[[noreturn]] void refuse(const ArrayView& vessels, const VolumeOrder& order, std::uint64_t rank,
                         cudaStream_t stream) {
  const auto at = static_cast<std::int64_t>(rank);
  const std::int64_t row = at / order.extent(2);
  const std::array<std::int64_t, 3> walked{row / order.extent(1), row % order.extent(1),
                                           at % order.extent(2)};
  const WalkedVolume volume = order.arrange(vessels);
  std::byte raw[8];
  copy(raw, volume.at(walked[0], walked[1], walked[2]), size_of(vessels.element),
       cudaMemcpyDeviceToHost, stream);
  wait(stream, "reading a voxel");
  refuse_vessel(order, walked, twintrack::detail::element_value(vessels.element, raw));
}

}  // namespace

ContactAngles contact_angles(const ContactInput& input, int device, cudaStream_t stream) {
  twintrack::detail::check_contacts(input);
  const VesselLabels labels(input.labels);
  case_walk(input.view);  // checks the raters' shapes
  const std::size_t masks = input.view.raters.size() + input.thresholds.size();
  const VolumeOrder order(input.vessels);
  std::array<RowRange, 3> box;
  for (std::size_t axis = 0; axis < 3; ++axis)
    box[axis] = {0, static_cast<std::int32_t>(order.extent(axis))};
  ContactAngles angles;
  if (element_count(input.vessels.shape) == 0) box = {};
  twintrack::detail::ContactSums sums(box, labels.count(), masks);
  if (element_count(input.vessels.shape) > 0) {
    const DeviceGuard guard(device);
    ContactTask task{};
    for (std::size_t axis = 0; axis < 3; ++axis) task.extent[axis] = order.extent(axis);
    const auto rows = static_cast<std::size_t>(task.extent[0] * task.extent[1]);
    task.vessels = volume_of(input.vessels, order);
    const auto size = static_cast<std::int64_t>(size_of(input.vessels.element));
    task.dense = task.vessels.stride[2] == size &&
                 task.vessels.stride[1] == size * task.extent[2] &&
                 (task.extent[0] == 1 ||
                  task.vessels.stride[0] == task.vessels.stride[1] * task.extent[1]) &&
                 reinterpret_cast<std::uintptr_t>(task.vessels.data) % 16 == 0;
    task.score = volume_of(input.view.score, order);
    std::vector<DeviceVolume> volumes;
    for (const ArrayView& rater : input.view.raters) volumes.push_back(volume_of(rater, order));
    const auto raters = send(volumes, stream);
    const auto thresholds = send(input.thresholds, stream);
    const auto wanted = send(input.labels, stream);
    task.rater = raters.data();
    task.raters = static_cast<int>(raters.size());
    task.threshold = thresholds.data();
    task.thresholds = static_cast<int>(thresholds.size());
    task.label = wanted.data();
    task.labels = static_cast<int>(wanted.size());
    const auto vessel_rows = filled<DeviceRange>(rows, 0xff, stream);
    const DeviceMemory<std::int32_t> reached(2 * rows, stream);
    const auto edges = filled<std::uint32_t>(sums.all_edges().size(), 0, stream);
    const auto contacts = filled<std::uint32_t>(sums.all_contacts().size(), 0, stream);
    const auto faults = filled<std::uint64_t>(2, 0xff, stream);
    task.vessel_rows = vessel_rows.data();
    task.reached_rows = reached.data();
    task.edges = edges.data();
    task.contacts = contacts.data();
    task.lanes = static_cast<std::uint32_t>(sums.lanes());
    task.vessel_fault = faults.data();
    task.near_fault = faults.data() + 1;
    count_contacts(task, stream);

    std::array<std::uint64_t, 2> found{};
    const auto fetch = [&]<class T>(T* to, const DeviceMemory<T>& from) {
      copy(to, static_cast<const T*>(from.data()), from.size(), cudaMemcpyDeviceToHost, stream);
    };
    fetch(found.data(), faults);
    fetch(sums.all_edges().data(), edges);
    fetch(sums.all_contacts().data(), contacts);
    wait(stream, "measuring contact angles");
    if (found[0] != no_voxel) refuse(input.vessels, order, found[0], stream);
    if (found[1] != no_voxel) {
      // As on the CPU, the first voxel of the whole case is named, near a vessel or not.
      case_sums(input.view, 1, nullptr, device, stream);
      throw InputError("", "an array changed while it was being read");
    }
  }
  twintrack::detail::summarise(sums, order, labels.count(), masks, angles);
  return angles;
}

}  // namespace twintrack::cuda
