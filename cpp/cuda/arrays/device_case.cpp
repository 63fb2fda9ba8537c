#include "cuda/arrays/device_case.hpp"

#include <vector>

#include "twintrack/arrays/array_view.hpp"
#include "twintrack/arrays/element_runs.hpp"
#include "twintrack/arrays/input_error.hpp"
#include "twintrack/arrays/voxel_blocks.hpp"

namespace twintrack::cuda {

static_assert(DeviceArray::max_axes == max_dimensions);

namespace {

// Element `rank` of array `k`, fetched from the device.
double fetch(const ArrayView& array, const Walk& walk, std::size_t k, std::uint64_t rank,
             cudaStream_t stream) {
  std::byte raw[8];
  walk.for_each_run(k, static_cast<std::int64_t>(rank), 1,
                    [&](const std::byte* p, std::int64_t, std::int64_t, std::int64_t) {
                      copy(raw, p, size_of(array.element), cudaMemcpyDeviceToHost, stream);
                    });
  wait(stream, "reading a voxel");
  return twintrack::detail::element_value(array.element, raw);
}

}  // namespace

DeviceArray device_array(const ArrayView& array, const Walk& walk, std::size_t k) {
  DeviceArray made;
  made.data = walk.start(k);
  made.element = array.element;
  made.contiguous = walk.contiguous(k, size_of(array.element));
  for (std::size_t axis = 0; axis < walk.axes().size(); ++axis)
    made.axis_stride[axis] = walk.axes()[axis].strides[k];
  return made;
}

int copy_extents(const Walk& walk, std::int64_t* extent) {
  for (const Walk::Axis& axis : walk.axes()) *extent++ = axis.extent;
  return static_cast<int>(walk.axes().size());
}

DeviceCase device_case(const CaseView& view, const Walk& walk, std::size_t first,
                       std::size_t count) {
  DeviceCase made;
  made.voxels = walk.count();
  made.axes = copy_extents(walk, made.extent);
  made.score = device_array(view.score, walk, 0);
  made.raters = static_cast<int>(count);
  for (std::size_t k = 0; k < count; ++k)
    made.rater[k] = device_array(view.raters[first + k], walk, 1 + first + k);
  if (view.region != nullptr)
    made.region = device_array(*view.region, walk, 1 + view.raters.size());
  return made;
}

FaultReport::FaultReport(cudaStream_t stream) : memory_(1, stream) {
  static_assert(no_voxel == ~std::uint64_t{0});
  check(cudaMemsetAsync(memory_.data(), 0xff, memory_.bytes(), stream), "cudaMemsetAsync");
}

void FaultReport::require_none(const CaseView& view, const Walk& walk, cudaStream_t stream,
                               const char* work) {
  std::uint64_t rank = no_voxel;
  copy(&rank, static_cast<const std::uint64_t*>(memory_.data()), 1, cudaMemcpyDeviceToHost, stream);
  wait(stream, work);
  if (rank == no_voxel) return;
  const Shape voxel = walk.index_of(static_cast<std::int64_t>(rank));
  require_score(fetch(view.score, walk, 0, rank, stream), voxel);
  for (std::size_t k = 0; k < view.raters.size(); ++k)
    require_label(fetch(view.raters[k], walk, 1 + k, rank, stream), k, voxel);
  throw InputError("", "an array changed while it was being read");
}

}  // namespace twintrack::cuda
