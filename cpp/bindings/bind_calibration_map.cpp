#include "arrays.hpp"
#include "twintrack/calibration_map.hpp"

namespace twintrack::bindings {

// Segments of the map's table as rows x, slope, y, next.
template <class Real>
py::array_t<Real> nodes(const CalibrationMap& map) {
  const MapView<Real> view = map.view<Real>();
  std::vector<Real> rows;
  for (const MapNode<Real>* node = view.nodes; node->x <= Real{1}; ++node)
    rows.insert(rows.end(), {node->x, node->slope, node->y, node->next});
  const auto count = static_cast<py::ssize_t>(rows.size() / 4);
  return to_numpy(std::move(rows), {count, 4});
}

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
      .def("nodes32", [](const CalibrationMap& map) { return nodes<float>(map); })
      .def("nodes64", [](const CalibrationMap& map) { return nodes<double>(map); })
      .def(
          "apply",
          [](const CalibrationMap& map, const py::array& score, py::array& out) {
            const ArrayView from = score_view(score);
            if (!out.writeable()) throw std::invalid_argument("out is read-only");
            const WritableArrayView to{view_of(out, "out")};
            const py::gil_scoped_release release;  // the caller holds both arrays
            map.apply(from, to);
          },
          py::arg("score"), py::arg("out"));
}

}  // namespace twintrack::bindings
