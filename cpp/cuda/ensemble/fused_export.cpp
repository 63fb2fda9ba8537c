#include "twintrack/ensemble/fused_export.hpp"

#include <algorithm>
#include <cstring>

#include "cuda/calibration/calibration_map.hpp"
#include "cuda/ensemble/fused_export.hpp"
#include "twintrack/arrays/array_view.hpp"
#include "twintrack/ensemble/ensemble.hpp"

namespace twintrack::cuda {

namespace {

using twintrack::detail::Merge;

/// Small tables of different types that travel to the device in one piece.
class Tables {
 public:
  /// Adds elements and returns where they will be, in bytes from the start.
  template <class T>
  std::size_t add(const T* from, std::size_t count) {
    const std::size_t at = (host_.size() + 15) / 16 * 16;
    host_.resize(at + count * sizeof(T));
    if (count > 0) std::memcpy(host_.data() + at, from, count * sizeof(T));
    return at;
  }
  template <class T>
  std::size_t add(const std::vector<T>& from) {
    return add(from.data(), from.size());
  }

  /// Reserves device memory, to which the places refer; then `send`s.
  void place(cudaStream_t stream) { device_ = DeviceMemory<std::byte>(host_.size(), stream); }
  template <class T>
  const T* at(std::size_t place) const {
    return reinterpret_cast<const T*>(device_.data() + place);
  }
  /// Overwrites what was added at `place`.
  template <class T>
  void set(std::size_t place, const std::vector<T>& values) {
    std::memcpy(host_.data() + place, values.data(), values.size() * sizeof(T));
  }
  void send(cudaStream_t stream) {
    copy(device_.data(), static_cast<const std::byte*>(host_.data()), host_.size(),
         cudaMemcpyHostToDevice, stream);
  }

 private:
  std::vector<std::byte> host_;
  DeviceMemory<std::byte> device_;
};

struct MergeTables {
  MergeTables(const Merge& merge, Tables& tables)
      : channel(tables.add(merge.channels())), tumour(tables.add(merge.tumour())) {}
  std::size_t channel;
  std::size_t tumour;
};

MergeTask merge_task(const Merge& merge, std::size_t members, const MergeTables& at,
                     const Tables& tables, CalibrationMap* map, Element out, std::uint64_t* fault,
                     int device, cudaStream_t stream) {
  const MergeRule& rule = merge.rule();
  MergeTask task{};
  task.kind = merge.softmax()
                  ? MergeTask::softmax
                  : (!rule.regions ? MergeTask::classes
                                   : (rule.logits ? MergeTask::region_logits : MergeTask::regions));
  task.logits = rule.logits;
  task.mean_of_logits = rule.mean_of_logits;
  task.members = static_cast<int>(members);
  task.channels = static_cast<int>(merge.channels().size());
  task.channel = tables.at<std::int64_t>(at.channel);
  task.tumour = tables.at<std::uint8_t>(at.tumour);
  task.divisor = rule.mean_of_logits ? 1.0f : static_cast<float>(members);
  task.mapped = map != nullptr;
  if (map != nullptr) task.map = map->float_view(device, stream);
  task.out = out;
  task.fault = fault;
  return task;
}

/// A host copy of what lies between the first and the last element of a device array.
struct HostCopy {
  HostCopy(const ArrayView& array, cudaStream_t stream) : view(array) {
    std::int64_t below = 0;
    std::int64_t above = static_cast<std::int64_t>(size_of(array.element));
    for (std::size_t axis = 0; axis < array.shape.size(); ++axis) {
      const std::int64_t reach = (array.shape[axis] - 1) * array.strides[axis];
      (reach < 0 ? below : above) += reach;
    }
    memory.resize(static_cast<std::size_t>(above - below));
    copy(memory.data(), array.data + below, memory.size(), cudaMemcpyDeviceToHost, stream);
    view.data = memory.data() - below;
  }
  ArrayView view;
  std::vector<std::byte> memory;
};

/// Waits; then throws, in the words of the CPU, if a value was not valid.
void require_valid(const std::vector<ArrayView>& members, const Merge& merge,
                   const DeviceMemory<std::uint64_t>& fault, cudaStream_t stream,
                   const char* work) {
  std::uint64_t found = no_voxel;
  copy(&found, static_cast<const std::uint64_t*>(fault.data()), 1, cudaMemcpyDeviceToHost, stream);
  wait(stream, work);
  if (found == no_voxel) return;
  // The first one in the order of the members is asked for: that takes a look at all of them.
  std::vector<HostCopy> copies;
  std::vector<ArrayView> views;
  for (const ArrayView& member : members) copies.emplace_back(member, stream);
  wait(stream, "fetching members");
  for (const HostCopy& made : copies) views.push_back(made.view);
  twintrack::detail::explain_members(views, merge);
}

DeviceMemory<std::uint64_t> no_fault(cudaStream_t stream) {
  DeviceMemory<std::uint64_t> fault(1, stream);
  check(cudaMemsetAsync(fault.data(), 0xff, fault.bytes(), stream), "cudaMemsetAsync");
  return fault;
}

template <class Real>
std::size_t add_taps(const AxisTaps& taps, Tables& tables) {
  std::vector<Tap<Real>> all;
  for (std::int64_t i = 0; i < taps.output(); ++i)
    all.push_back({taps[i].low, taps[i].high, static_cast<Real>(taps[i].weight)});
  return tables.add(all);
}

}  // namespace

void export_score(const std::vector<ArrayView>& members, const std::vector<ExportGrid>& grids,
                  const MergeRule& rule, CalibrationMap* map, const WritableArrayView& out,
                  int device, cudaStream_t stream) {
  const Merge merge = twintrack::detail::export_merge(members, grids, rule, out);
  const auto sources = twintrack::detail::export_sources(members, grids, rule, out);
  if (element_count(out.shape) == 0) return;
  const DeviceGuard guard(device);

  Tables tables;
  const MergeTables merge_tables(merge, tables);
  ExportTask task{};
  std::vector<std::array<std::size_t, 3>> taps;
  for (const auto& source : sources) {
    auto& at = taps.emplace_back();
    for (std::size_t axis = 0; axis < 3; ++axis)
      at[axis] = source.round ? add_taps<double>(source.taps[axis], tables)
                              : add_taps<float>(source.taps[axis], tables);
    task.rounds |= source.round;
  }
  std::vector<DeviceSource> on_device(sources.size());
  const std::size_t sources_at = tables.add(on_device);
  tables.place(stream);
  for (std::size_t k = 0; k < sources.size(); ++k) {
    DeviceSource& to = on_device[k];
    to.data = sources[k].data;
    to.channel_stride = sources[k].channel_stride;
    std::copy(sources[k].stride.begin(), sources[k].stride.end(), to.stride);
    for (std::size_t axis = 0; axis < 3; ++axis)
      to.taps[axis] = tables.at<std::byte>(taps[k][axis]);
    to.identity_inner = sources[k].taps[2].identity;
    std::copy(sources[k].order.begin(), sources[k].order.end(), to.order);
    to.round = sources[k].round;
    to.tie_margin = sources[k].tie_margin;
  }
  tables.set(sources_at, on_device);
  tables.send(stream);

  const DeviceMemory<std::uint64_t> fault = no_fault(stream);
  task.merge = merge_task(merge, members.size(), merge_tables, tables, map, out.element,
                          fault.data(), device, stream);
  task.sources = tables.at<DeviceSource>(sources_at);
  task.out = const_cast<std::byte*>(out.data);  // a WritableArrayView's
  std::copy(out.shape.begin(), out.shape.end(), task.extent);
  std::copy(out.strides.begin(), out.strides.end(), task.out_stride);
  export_voxels(task, members[0].element, stream);
  require_valid(members, merge, fault, stream, "exporting scores");
}

void ensemble_score(const std::vector<ArrayView>& members, const MergeRule& rule,
                    CalibrationMap* map, const WritableArrayView& out, int device,
                    cudaStream_t stream) {
  const Merge merge = twintrack::detail::ensemble_merge(members, rule, out);
  if (element_count(out.shape) == 0) return;
  const DeviceGuard guard(device);

  std::vector<ArrayView> first;  // channel of each member
  for (const ArrayView& member : members) first.push_back(twintrack::detail::channel_of(member, 0));
  std::vector<const ArrayView*> arrays{&out};
  for (const ArrayView& channel : first) arrays.push_back(&channel);
  const Walk walk(out.shape, arrays);

  EnsembleTask task{};
  task.axes = copy_extents(walk, task.extent);
  task.voxels = walk.count();
  task.out = device_array(out, walk, 0);
  const auto aligned = [](const DeviceArray& array, std::int64_t channel_stride) {
    const auto bytes =
        std::min<std::int64_t>(4 * static_cast<std::int64_t>(size_of(array.element)), 16);
    return array.contiguous && channel_stride % bytes == 0 &&
           reinterpret_cast<std::uintptr_t>(array.data) % static_cast<std::uintptr_t>(bytes) == 0;
  };
  task.packed = aligned(task.out, 0);
  std::vector<DeviceArray> on_device;
  std::vector<std::int64_t> channel_strides;
  for (std::size_t k = 0; k < members.size(); ++k) {
    on_device.push_back(device_array(first[k], walk, 1 + k));
    channel_strides.push_back(members[k].shape[0] > 1 ? members[k].strides[0] : 0);
    task.packed &= aligned(on_device.back(), channel_strides.back());
  }
  Tables tables;
  const MergeTables merge_tables(merge, tables);
  const std::size_t members_at = tables.add(on_device);
  const std::size_t strides_at = tables.add(channel_strides);
  tables.place(stream);
  tables.send(stream);

  const DeviceMemory<std::uint64_t> fault = no_fault(stream);
  task.merge = merge_task(merge, members.size(), merge_tables, tables, map, out.element,
                          fault.data(), device, stream);
  task.member = tables.at<DeviceArray>(members_at);
  task.channel_stride = tables.at<std::int64_t>(strides_at);
  merge_voxels(task, members[0].element, stream);
  require_valid(members, merge, fault, stream, "merging an ensemble");
}

}  // namespace twintrack::cuda
