// Arrays in device memory as the core's views. The Python layer knows the libraries; what comes
// here is a pointer, the name of a dtype, a shape and strides in bytes.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arrays/case_arrays.hpp"
#include "cuda/arrays/runtime.hpp"
#include "twintrack/arrays/array_view.hpp"
#include "twintrack/arrays/voxel_blocks.hpp"

namespace twintrack::cuda::bindings {

namespace py = pybind11;

/// A view with the name that messages call it.
struct NamedView {
  ArrayView view;
  std::string name;
};

/// Throws TypeError unless the elements are of a type that scores may have.
inline void require_scores(const NamedView& array) {
  switch (array.view.element) {
    case Element::float16:
    case Element::bfloat16:
    case Element::float32:
    case Element::float64:
      return;
    default:
      throw py::type_error(array.name + " must be float16, bfloat16, float32 or float64");
  }
}

inline cudaStream_t stream_of(std::uintptr_t handle) {
  return reinterpret_cast<cudaStream_t>(handle);
}

inline std::vector<ArrayView> views_of(const std::vector<NamedView>& arrays) {
  std::vector<ArrayView> views;
  for (const NamedView& array : arrays) views.push_back(array.view);
  return views;
}

inline twintrack::bindings::CaseArrays case_of(const NamedView& score,
                                               const std::vector<NamedView>& raters,
                                               const std::optional<NamedView>& region) {
  require_scores(score);
  std::optional<ArrayView> inside;
  if (region) inside = region->view;
  return {score.view, views_of(raters), std::move(inside)};
}

/// Frees device memory without the GIL: a release may wait for the device, and work queued there
/// may be waiting for a host function that needs the GIL.
template <class T>
struct DeleteWithoutGil {
  void operator()(T* owned) const {
    const py::gil_scoped_release release;
    delete owned;
  }
};
template <class T>
using Owner = std::unique_ptr<T, DeleteWithoutGil<T>>;

}  // namespace twintrack::cuda::bindings
