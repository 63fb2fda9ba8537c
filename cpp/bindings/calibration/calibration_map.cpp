#include "twintrack/calibration/calibration_map.hpp"
#include "bindings/arrays/numpy_arrays.hpp"
#include "twintrack/arrays/input_error.hpp"

namespace twintrack::bindings {

void register_calibration_map(py::module_& module) {
  py::class_<CalibrationMap>(module, "CalibrationMap")
      .def(py::init<std::vector<double>, std::vector<double>>(), py::arg("x"), py::arg("y"))
      .def_property_readonly("x",
                             [](const CalibrationMap& map) {
                               return py::array_t<double>(static_cast<py::ssize_t>(map.x().size()),
                                                          map.x().data());
                             })
      .def_property_readonly("y",
                             [](const CalibrationMap& map) {
                               return py::array_t<double>(static_cast<py::ssize_t>(map.y().size()),
                                                          map.y().data());
                             })
      .def(
          "apply",
          [](const CalibrationMap& map, const py::array& score, py::array& out) {
            const ArrayView from = score_view(score);
            if (!out.writeable()) throw InputError("out", "is read-only");
            const WritableArrayView to{view_of(out, "out")};
            const py::gil_scoped_release release;  // the caller holds both arrays
            map.apply(from, to);
          },
          py::arg("score"), py::arg("out"));
}

}  // namespace twintrack::bindings
