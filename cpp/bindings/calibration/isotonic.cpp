#include "twintrack/calibration/isotonic.hpp"
#include "bindings/arrays/numpy_arrays.hpp"

namespace twintrack::bindings {

void register_isotonic(py::module_& module) {
  module.def(
      "isotonic",
      [](const py::array_t<double, py::array::c_style>& values,
         const std::optional<py::array_t<double, py::array::c_style>>& weights) {
        const auto n = static_cast<std::size_t>(values.size());
        std::vector<double> fitted(n);
        {
          const double* y = values.data();
          const double* w = weights ? weights->data() : nullptr;
          const py::gil_scoped_release release;  // plain memory from here on
          isotonic(y, w, n, fitted.data());
        }
        return to_numpy(std::move(fitted), {static_cast<py::ssize_t>(n)});
      },
      py::arg("values"), py::arg("weights"));
}

}  // namespace twintrack::bindings
