// The compiled module: one registration per topic, in <room>/<topic>.cpp.
#include <pybind11/pybind11.h>

#include "bindings/arrays/input_error.hpp"

namespace twintrack::cuda::bindings {
void register_arrays(pybind11::module_& module);
void register_devices(pybind11::module_& module);
void register_score_tally(pybind11::module_& module);
void register_calibration_map(pybind11::module_& module);
void register_case_tally(pybind11::module_& module);
void register_fused_export(pybind11::module_& module);
void register_contact_angle(pybind11::module_& module);
}  // namespace twintrack::cuda::bindings

PYBIND11_MODULE(_cuda, module) {
  module.doc() = "TwinTrack's kernels for arrays in CUDA memory; use the names in `twintrack`.";
  twintrack::bindings::translate_input_errors();
  twintrack::cuda::bindings::register_arrays(module);
  twintrack::cuda::bindings::register_devices(module);
  twintrack::cuda::bindings::register_score_tally(module);
  twintrack::cuda::bindings::register_calibration_map(module);
  twintrack::cuda::bindings::register_case_tally(module);
  twintrack::cuda::bindings::register_fused_export(module);
  twintrack::cuda::bindings::register_contact_angle(module);
}
