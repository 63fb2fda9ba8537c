// The core's InputError as twintrack.InputError, with its parts.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <exception>

#include "twintrack/arrays/input_error.hpp"

namespace twintrack::bindings {

/// Registers the translation for the module that is being made.
inline void translate_input_errors() {
  pybind11::register_local_exception_translator([](std::exception_ptr thrown) {
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const InputError& error) {
      using pybind11::literals::operator""_a;
      pybind11::object voxel = pybind11::none();
      if (error.voxel()) voxel = pybind11::cast(*error.voxel());
      pybind11::object argument = pybind11::none();
      if (!error.argument().empty()) argument = pybind11::cast(error.argument());
      const pybind11::object type =
          pybind11::module_::import("twintrack.errors").attr("InputError");
      const pybind11::object raised = type(error.wrong(), "argument"_a = argument,
                                           "voxel"_a = voxel, "value"_a = error.value());
      PyErr_SetObject(type.ptr(), raised.ptr());
    }
  });
}

}  // namespace twintrack::bindings
