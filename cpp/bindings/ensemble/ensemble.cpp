#include <array>
#include <utility>

#include "bindings/arrays/numpy_arrays.hpp"
#include "twintrack/arrays/input_error.hpp"
#include "twintrack/arrays/instruction_set.hpp"
#include "twintrack/ensemble/ensemble.hpp"
#include "twintrack/ensemble/exponential.hpp"
#include "twintrack/ensemble/fused_export.hpp"

namespace twintrack::bindings {

namespace {

WritableArrayView out_view(py::array& out) {
  if (!out.writeable()) throw InputError("out", "is read-only");
  return {view_of(out, "out")};
}

}  // namespace

void register_ensemble(py::module_& module) {
  py::class_<MergeRule>(module, "MergeRule")
      .def(py::init([](std::vector<std::int64_t> tumour, bool logits, bool regions,
                       bool mean_of_logits) {
             return MergeRule{std::move(tumour), logits, regions, mean_of_logits};
           }),
           py::arg("tumour"), py::arg("logits"), py::arg("regions"), py::arg("mean_of_logits"));

  py::class_<ExportGrid>(module, "ExportGrid")
      .def(py::init([](std::array<int, 3> axes, std::array<bool, 3> nearest, bool float32,
                       bool round_to_input) {
             ExportGrid grid;
             grid.axes = axes;
             for (std::size_t axis = 0; axis < 3; ++axis)
               grid.interpolation[axis] =
                   nearest[axis] ? Interpolation::nearest : Interpolation::linear;
             grid.coordinates = float32 ? Coordinates::float32 : Coordinates::float64;
             grid.round_to_input = round_to_input;
             return grid;
           }),
           py::arg("axes"), py::arg("nearest"), py::arg("float32_coordinates"),
           py::arg("round_to_input"));

  module.def(
      "ensemble_score",
      [](const std::vector<py::array>& members, const MergeRule& rule, const CalibrationMap* map,
         py::array& out) {
        const std::vector<ArrayView> views = views_of(members, "members");
        const WritableArrayView to = out_view(out);
        const py::gil_scoped_release release;  // only views from here on; the caller holds arrays
        ensemble_score(views, rule, map, to);
      },
      py::arg("members"), py::arg("rule"), py::arg("map").none(true), py::arg("out"));

  module.def(
      "export_score",
      [](const std::vector<py::array>& members, const std::vector<ExportGrid>& grids,
         const MergeRule& rule, const CalibrationMap* map, py::array& out) {
        const std::vector<ArrayView> views = views_of(members, "members");
        const WritableArrayView to = out_view(out);
        const py::gil_scoped_release release;  // as above
        export_score(views, grids, rule, map, to);
      },
      py::arg("members"), py::arg("grids"), py::arg("rule"), py::arg("map").none(true),
      py::arg("out"));

  // For tests: the core's exponential and logistic of float32 arrays.
  const auto apply = [&module](const char* name, auto function) {
    module.def(
        name,
        [function](const py::array_t<float, py::array::c_style>& x) {
          std::vector<float> y(static_cast<std::size_t>(x.size()));
          const float* from = x.data();
          with_instruction_set([&]() TWINTRACK_INLINE_LAMBDA {
            for (std::size_t i = 0; i < y.size(); ++i) y[i] = function(from[i]);
          });
          return to_numpy(std::move(y), {x.size()});
        },
        py::arg("x"));
  };
  apply("exp_nonpositive", [](float x) TWINTRACK_INLINE_LAMBDA { return exp_nonpositive(x); });
  apply("logistic", [](float x) TWINTRACK_INLINE_LAMBDA { return logistic(x); });
}

}  // namespace twintrack::bindings
