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
#include <vector>

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

/// A case whose views, the region's too, live as long as this does.
class Case {
 public:
  Case(const NamedView& score, const std::vector<NamedView>& raters,
       const std::optional<NamedView>& region) {
    require_scores(score);
    view_.score = score.view;
    for (const NamedView& rater : raters) view_.raters.push_back(rater.view);
    if (region) {
      region_ = region->view;
      view_.region = &region_;
    }
  }
  Case(const Case&) = delete;
  Case& operator=(const Case&) = delete;

  const CaseView& view() const { return view_; }

 private:
  CaseView view_;
  ArrayView region_;
};

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
