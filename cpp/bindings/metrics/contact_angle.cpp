#include "twintrack/metrics/contact_angle.hpp"
#include "bindings/arrays/numpy_arrays.hpp"

namespace twintrack::bindings {

void register_contact_angle(py::module_& module) {
  module.def(
      "contact_angles",
      [](const py::array& score, const std::vector<py::array>& raters, const py::array& vessels,
         std::vector<std::int64_t> labels, std::vector<double> thresholds) {
        const CaseArrays arrays = case_of(score, raters);
        const auto label_count = static_cast<py::ssize_t>(labels.size());
        const auto masks = static_cast<py::ssize_t>(raters.size() + thresholds.size());
        const ContactInput input{arrays.view(), view_of(vessels, "vessels"), std::move(labels),
                                 std::move(thresholds)};
        ContactAngles angles;
        {
          const py::gil_scoped_release release;  // only views from here on; the caller holds arrays
          angles = contact_angles(input);
        }
        py::array_t<bool> occurs(label_count);
        std::copy(angles.label_occurs.begin(), angles.label_occurs.end(), occurs.mutable_data());
        return py::make_tuple(to_numpy(std::move(angles.degrees), {label_count, 3, masks}), occurs);
      },
      py::arg("score"), py::arg("raters"), py::arg("vessels"), py::arg("labels"),
      py::arg("thresholds"));
}

}  // namespace twintrack::bindings
