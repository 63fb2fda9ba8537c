// NumPy arrays as the core's views. A 2-byte void dtype stands for bfloat16, which NumPy lacks.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <bit>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arrays/case_arrays.hpp"
#include "twintrack/arrays/array_view.hpp"
#include "twintrack/arrays/voxel_blocks.hpp"
#include "twintrack/calibration/score_grid.hpp"
#include "twintrack/calibration/tally_rows.hpp"

namespace twintrack::bindings {

namespace py = pybind11;

inline Element element_of(const py::array& array, const std::string& name) {
  const py::dtype dtype = array.dtype();
  const char kind = dtype.kind();
  const py::ssize_t size = dtype.itemsize();
  const char order = dtype.byteorder();
  const bool native = order == '=' || order == '|' ||
                      order == (std::endian::native == std::endian::little ? '<' : '>');
  if (native) {
    if (kind == 'b') return Element::boolean;
    if (kind == 'i' && size == 1) return Element::int8;
    if (kind == 'i' && size == 2) return Element::int16;
    if (kind == 'i' && size == 4) return Element::int32;
    if (kind == 'i' && size == 8) return Element::int64;
    if (kind == 'u' && size == 1) return Element::uint8;
    if (kind == 'u' && size == 2) return Element::uint16;
    if (kind == 'u' && size == 4) return Element::uint32;
    if (kind == 'u' && size == 8) return Element::uint64;
    if (kind == 'f' && size == 2) return Element::float16;
    if (kind == 'f' && size == 4) return Element::float32;
    if (kind == 'f' && size == 8) return Element::float64;
    if (kind == 'V' && size == 2) return Element::bfloat16;
  }
  throw py::type_error(name + " has unsupported dtype " +
                       std::string(py::str(static_cast<py::object>(dtype))));
}

inline ArrayView view_of(const py::array& array, const std::string& name) {
  ArrayView view;
  view.data = static_cast<const std::byte*>(array.data());
  view.element = element_of(array, name);
  view.shape.assign(array.shape(), array.shape() + array.ndim());
  view.strides.assign(array.strides(), array.strides() + array.ndim());
  return view;
}

inline ArrayView score_view(const py::array& array) {
  const ArrayView view = view_of(array, "score");
  switch (view.element) {
    case Element::float16:
    case Element::bfloat16:
    case Element::float32:
    case Element::float64:
      return view;
    default:
      throw py::type_error("score has dtype " +
                           std::string(py::str(static_cast<py::object>(array.dtype()))) +
                           "; scores must be float16, bfloat16, float32 or float64");
  }
}

inline std::vector<ArrayView> views_of(const std::vector<py::array>& arrays,
                                       const std::string& name) {
  std::vector<ArrayView> views;
  for (std::size_t k = 0; k < arrays.size(); ++k)
    views.push_back(view_of(arrays[k], name + "[" + std::to_string(k) + "]"));
  return views;
}

inline CaseArrays case_of(const py::array& score, const std::vector<py::array>& raters,
                          const std::optional<py::array>& region = std::nullopt) {
  ArrayView view = score_view(score);  // its type is looked at first
  std::vector<ArrayView> views = views_of(raters, "raters");
  std::optional<ArrayView> inside;
  if (region) inside = view_of(*region, "region");
  return {std::move(view), std::move(views), std::move(inside)};
}

using TallyArrays = py::array_t<std::uint32_t, py::array::c_style>;
using SumArrays = py::array_t<std::uint64_t, py::array::c_style>;

/// Rows of a tally of so many raters, checked; they live as long as the arrays.
inline TallyRows tally_rows(const TallyArrays& cells, const SumArrays& sums, std::size_t raters) {
  if (cells.ndim() != 1 || sums.ndim() != 2 || sums.shape(0) != cells.shape(0) || raters < 1 ||
      static_cast<std::size_t>(sums.shape(1)) < TallyColumns::first_exactly(raters))
    throw std::invalid_argument("cells and sums are not the rows of a tally");
  for (py::ssize_t i = 0; i < cells.shape(0); ++i)
    if (cells.at(i) >= grid::cells || (i > 0 && cells.at(i) < cells.at(i - 1)))
      throw std::invalid_argument("cells are not ascending cells of the score grid");
  return {cells.data(), sums.data(), static_cast<std::size_t>(cells.shape(0)),
          static_cast<std::size_t>(sums.shape(1)), raters};
}

/// A vector as a NumPy array of the given shape that owns it; no copy.
template <class T>
py::array_t<T> to_numpy(std::vector<T>&& values, std::vector<py::ssize_t> shape) {
  auto* owned = new std::vector<T>(std::move(values));
  const py::capsule owner(owned, [](void* p) { delete static_cast<std::vector<T>*>(p); });
  return py::array_t<T>(std::move(shape), owned->data(), owner);
}

}  // namespace twintrack::bindings
