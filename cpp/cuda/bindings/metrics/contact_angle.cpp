#include "cuda/metrics/contact_angle.hpp"
#include "cuda/bindings/arrays/device_arrays.hpp"
#include "twintrack/metrics/contact_angle.hpp"

namespace twintrack::cuda::bindings {

void register_contact_angle(py::module_& module) {
  module.def(
      "contact_angles",
      [](const NamedView& score, const std::vector<NamedView>& raters, const NamedView& vessels,
         std::vector<std::int64_t> labels, std::vector<double> thresholds, int device,
         std::uintptr_t stream) {
        const auto arrays = case_of(score, raters, std::nullopt);
        const auto label_count = static_cast<py::ssize_t>(labels.size());
        const auto masks = static_cast<py::ssize_t>(raters.size() + thresholds.size());
        const ContactInput input{arrays.view(), vessels.view, std::move(labels),
                                 std::move(thresholds)};
        ContactAngles angles;
        {
          const py::gil_scoped_release release;  // the caller holds all arrays
          angles = contact_angles(input, device, stream_of(stream));
        }
        py::array_t<double> degrees({label_count, py::ssize_t{3}, masks});
        std::copy(angles.degrees.begin(), angles.degrees.end(), degrees.mutable_data());
        py::array_t<bool> occurs(label_count);
        std::copy(angles.label_occurs.begin(), angles.label_occurs.end(), occurs.mutable_data());
        return py::make_tuple(degrees, occurs);
      },
      py::arg("score"), py::arg("raters"), py::arg("vessels"), py::arg("labels"),
      py::arg("thresholds"), py::arg("device"), py::arg("stream"));
}

}  // namespace twintrack::cuda::bindings
