#include <array>
#include <tuple>

#include "cuda/bindings/arrays/device_arrays.hpp"
#include "cuda/calibration/calibration_map.hpp"
#include "cuda/ensemble/fused_export.hpp"
#include "twintrack/ensemble/fused_export.hpp"
#include "twintrack/ensemble/merge.hpp"

namespace twintrack::cuda::bindings {

namespace {

// Rules and grids as the tuples of what _core's classes of these names are made from.
using RuleItems = std::tuple<std::vector<std::int64_t>, bool, bool, bool>;
using GridItems = std::tuple<std::array<int, 3>, std::array<bool, 3>, bool, bool>;

MergeRule rule_of(const RuleItems& items) {
  const auto& [tumour, logits, regions, mean_of_logits] = items;
  return {tumour, logits, regions, mean_of_logits};
}

std::vector<ExportGrid> grids_of(const std::vector<GridItems>& all) {
  std::vector<ExportGrid> grids;
  for (const auto& [axes, nearest, float32, round_to_input] : all) {
    ExportGrid& grid = grids.emplace_back();
    grid.axes = axes;
    for (std::size_t axis = 0; axis < 3; ++axis)
      grid.interpolation[axis] = nearest[axis] ? Interpolation::nearest : Interpolation::linear;
    grid.coordinates = float32 ? Coordinates::float32 : Coordinates::float64;
    grid.round_to_input = round_to_input;
  }
  return grids;
}

}  // namespace

void register_fused_export(py::module_& module) {
  module.def(
      "ensemble_score",
      [](const std::vector<NamedView>& members, const RuleItems& rule, CalibrationMap* map,
         const NamedView& out, int device, std::uintptr_t stream) {
        const std::vector<ArrayView> views = views_of(members);
        const WritableArrayView to{out.view};
        const py::gil_scoped_release release;  // the caller holds arrays and map
        ensemble_score(views, rule_of(rule), map, to, device, stream_of(stream));
      },
      py::arg("members"), py::arg("rule"), py::arg("map").none(true), py::arg("out"),
      py::arg("device"), py::arg("stream"));
  module.def(
      "export_score",
      [](const std::vector<NamedView>& members, const std::vector<GridItems>& grids,
         const RuleItems& rule, CalibrationMap* map, const NamedView& out, int device,
         std::uintptr_t stream) {
        const std::vector<ArrayView> views = views_of(members);
        const WritableArrayView to{out.view};
        const py::gil_scoped_release release;  // as above
        export_score(views, grids_of(grids), rule_of(rule), map, to, device, stream_of(stream));
      },
      py::arg("members"), py::arg("grids"), py::arg("rule"), py::arg("map").none(true),
      py::arg("out"), py::arg("device"), py::arg("stream"));
}

}  // namespace twintrack::cuda::bindings
