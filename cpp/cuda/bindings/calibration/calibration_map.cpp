#include "cuda/calibration/calibration_map.hpp"
#include "cuda/bindings/arrays/device_arrays.hpp"

namespace twintrack::cuda::bindings {

void register_calibration_map(py::module_& module) {
  py::class_<CalibrationMap, Owner<CalibrationMap>>(module, "CalibrationMap")
      .def(py::init([](std::vector<double> x, std::vector<double> y) {
             return Owner<CalibrationMap>(new CalibrationMap(std::move(x), std::move(y)));
           }),
           py::arg("x"), py::arg("y"))
      .def(
          "apply",
          [](CalibrationMap& map, const NamedView& score, const NamedView& out, int device,
             std::uintptr_t stream) {
            require_scores(score);
            const WritableArrayView to{out.view};
            const py::gil_scoped_release release;  // the caller holds both arrays
            map.apply(score.view, to, device, stream_of(stream));
          },
          py::arg("score"), py::arg("out"), py::arg("device"), py::arg("stream"));
}

}  // namespace twintrack::cuda::bindings
