#include "arrays.hpp"
#include "calibration_map.hpp"
#include "fused_export.hpp"
#include "twintrack/fused_export.hpp"
#include "twintrack/merge.hpp"

namespace twintrack::cuda::bindings {

namespace {

std::vector<ArrayView> views_of(const std::vector<NamedView>& arrays) {
  std::vector<ArrayView> views;
  for (const NamedView& array : arrays) views.push_back(array.view);
  return views;
}

}  // namespace

// Rules and grids are _core's.
void register_fused_export(py::module_& module) {
  module.def(
      "ensemble_score",
      [](const std::vector<NamedView>& members, const MergeRule& rule, CalibrationMap* map,
         const NamedView& out, int device, std::uintptr_t stream) {
        const std::vector<ArrayView> views = views_of(members);
        const WritableArrayView to{out.view};
        const py::gil_scoped_release release;  // the caller holds arrays, rule and map
        ensemble_score(views, rule, map, to, device, stream_of(stream));
      },
      py::arg("members"), py::arg("rule"), py::arg("map").none(true), py::arg("out"),
      py::arg("device"), py::arg("stream"));
  module.def(
      "export_score",
      [](const std::vector<NamedView>& members, const std::vector<ExportGrid>& grids,
         const MergeRule& rule, CalibrationMap* map, const NamedView& out, int device,
         std::uintptr_t stream) {
        const std::vector<ArrayView> views = views_of(members);
        const WritableArrayView to{out.view};
        const py::gil_scoped_release release;  // as above
        export_score(views, grids, rule, map, to, device, stream_of(stream));
      },
      py::arg("members"), py::arg("grids"), py::arg("rule"), py::arg("map").none(true),
      py::arg("out"), py::arg("device"), py::arg("stream"));
}

}  // namespace twintrack::cuda::bindings
