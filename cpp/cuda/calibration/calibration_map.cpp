#include "twintrack/calibration/calibration_map.hpp"

#include <cstddef>
#include <cstring>
#include <map>
#include <mutex>
#include <type_traits>
#include <utility>

#include "cuda/calibration/calibration_map.hpp"
#include "twintrack/arrays/array_view.hpp"
#include "twintrack/arrays/input_error.hpp"
#include "twintrack/arrays/voxel_blocks.hpp"

namespace twintrack::cuda {

namespace {

/// Memory with a copy of host data in it, complete on return.
template <class T>
DeviceMemory<T> upload(const T* from, std::size_t count, cudaStream_t stream) {
  DeviceMemory<T> memory(count, stream);
  copy(memory.data(), from, count, cudaMemcpyHostToDevice, stream);
  wait(stream, "uploading a map");
  memory.detach_from_stream();
  return memory;
}

/// Pattern of 1.
constexpr std::uint16_t one_of(Element element) {
  return element == Element::float16 ? 0x3c00 : 0x3f80;
}

}  // namespace

/// A map's tables on one device, each made when it is first needed.
struct CalibrationMap::Tables {
  std::mutex guard;
  DeviceMemory<double> knots;      // x, then y, then slope
  DeviceMemory<std::byte> floats;  // groups, then nodes
  DeviceMemory<std::byte> doubles;
  DeviceMemory<std::uint16_t> float16s;
  DeviceMemory<std::uint16_t> bfloat16s;

  template <class Real>
  MapView<Real> view(const twintrack::CalibrationMap& map, cudaStream_t stream) {
    const std::lock_guard<std::mutex> lock(guard);
    const MapView<Real> host = map.view<Real>();
    const std::size_t count = host.knots.count;
    if (knots.size() == 0) {
      std::vector<double> all(host.knots.x, host.knots.x + count);
      all.insert(all.end(), host.knots.y, host.knots.y + count);
      all.insert(all.end(), host.knots.slope, host.knots.slope + count);
      knots = upload(all.data(), all.size(), stream);
    }
    DeviceMemory<std::byte>& table = std::is_same_v<Real, double> ? doubles : floats;
    const std::size_t groups = host.group_bytes();
    if (table.size() == 0) {
      std::vector<std::byte> all(groups + host.node_bytes());
      std::memcpy(all.data(), host.groups, groups);
      std::memcpy(all.data() + groups, host.nodes, host.node_bytes());
      table = upload(all.data(), all.size(), stream);
    }
    MapView<Real> view = host;
    view.groups = reinterpret_cast<const MapGroup<Real>*>(table.data());
    view.nodes = reinterpret_cast<const MapNode<Real>*>(table.data() + groups);
    const double* x = knots.data();
    view.knots = {x, x + count, x + 2 * count, host.knots.count};
    return view;
  }

  const std::uint16_t* results(const twintrack::CalibrationMap& map, Element element,
                               cudaStream_t stream) {
    const std::lock_guard<std::mutex> lock(guard);
    DeviceMemory<std::uint16_t>& memory = element == Element::float16 ? float16s : bfloat16s;
    if (memory.size() == 0) {
      const std::size_t count = std::size_t{one_of(element)} + 1;
      std::vector<std::uint16_t> table((count + 7) / 8 * 8);
      for (std::size_t i = 0; i < count; ++i) table[i] = static_cast<std::uint16_t>(i);
      const ArrayView all{reinterpret_cast<const std::byte*>(table.data()),
                          element,
                          {static_cast<std::int64_t>(count)},
                          {2}};
      map.apply(all, WritableArrayView{all});  // on the CPU
      memory = upload(table.data(), table.size(), stream);
    }
    return memory.data();
  }
};

struct CalibrationMap::State {
  State(std::vector<double> x, std::vector<double> y) : map(std::move(x), std::move(y)) {}
  twintrack::CalibrationMap map;
  std::mutex guard;
  std::map<int, Tables> by_device;
};

CalibrationMap::CalibrationMap(std::vector<double> x, std::vector<double> y)
    : state_(std::make_unique<State>(std::move(x), std::move(y))) {}
CalibrationMap::~CalibrationMap() = default;

CalibrationMap::Tables& CalibrationMap::tables_on(int device) {
  const std::lock_guard<std::mutex> lock(state_->guard);
  return state_->by_device[device];
}

MapView<float> CalibrationMap::float_view(int device, cudaStream_t stream) {
  const DeviceGuard guard(device);
  return tables_on(device).view<float>(state_->map, stream);
}

void CalibrationMap::apply(const ArrayView& score, const WritableArrayView& out, int device,
                           cudaStream_t stream) {
  twintrack::detail::check_mapped(score, out);
  if (element_count(score.shape) == 0) return;

  const DeviceGuard guard(device);
  CaseView view;
  view.score = score;
  const Walk score_walk = case_walk(view);
  // The same first array, so the same order of voxels.
  const Walk walk(score.shape, {&score, &out});
  FaultReport faults(stream);
  MapTask task{};
  task.score = device_array(score, walk, 0);
  task.out = device_array(out, walk, 1);
  task.axes = copy_extents(walk, task.extent);
  task.voxels = walk.count();
  task.first_fault = faults.first_fault();

  Tables& tables = tables_on(device);
  const auto pass = [&](bool writes, bool checked) {
    task.writes = writes;
    task.checked = checked;
    switch (score.element) {
      case Element::float16:
      case Element::bfloat16:
        return map_scores(tables.results(state_->map, score.element, stream), one_of(score.element),
                          task, stream);
      case Element::float64:
        return map_scores(tables.view<double>(state_->map, stream), task, stream);
      case Element::float32:
        return map_scores(tables.view<float>(state_->map, stream), task, stream);
      default:
        throw InputError("score", "must be float16, bfloat16, float32 or float64");
    }
  };
  // Scores that are to be overwritten are all checked before the first one is.
  const bool in_place = out.data == score.data;
  if (in_place) pass(false, false);
  pass(true, in_place);
  faults.require_none(view, score_walk, stream, "mapping scores");
}

}  // namespace twintrack::cuda
