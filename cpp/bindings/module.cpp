// The compiled module: one registration per topic, in <room>/<topic>.cpp.
#include <pybind11/pybind11.h>

#include "bindings/arrays/input_error.hpp"
#include "twintrack/arrays/instruction_set.hpp"
#include "twintrack/arrays/parallel.hpp"

namespace twintrack::bindings {
void register_score_tally(pybind11::module_& module);
void register_case_tally(pybind11::module_& module);
void register_contact_angle(pybind11::module_& module);
void register_cut_refinement(pybind11::module_& module);
void register_ensemble(pybind11::module_& module);
void register_equal_mass(pybind11::module_& module);
void register_isotonic(pybind11::module_& module);
void register_map_fit(pybind11::module_& module);
void register_numpy_sum(pybind11::module_& module);
void register_volume_gap(pybind11::module_& module);
void register_calibration_map(pybind11::module_& module);
}  // namespace twintrack::bindings

PYBIND11_MODULE(_core, module) {
  module.doc() = "Compiled core of TwinTrack; use the names in `twintrack`.";
  twintrack::bindings::translate_input_errors();
  module.def("instruction_set", [] { return twintrack::name(twintrack::instruction_set()); });
  module.def("max_threads", &twintrack::max_threads);
  module.def("set_thread_limit", &twintrack::set_thread_limit, pybind11::arg("threads"));
  twintrack::bindings::register_score_tally(module);
  twintrack::bindings::register_case_tally(module);
  twintrack::bindings::register_contact_angle(module);
  twintrack::bindings::register_cut_refinement(module);
  twintrack::bindings::register_ensemble(module);
  twintrack::bindings::register_equal_mass(module);
  twintrack::bindings::register_isotonic(module);
  twintrack::bindings::register_map_fit(module);
  twintrack::bindings::register_numpy_sum(module);
  twintrack::bindings::register_volume_gap(module);
  twintrack::bindings::register_calibration_map(module);
}
