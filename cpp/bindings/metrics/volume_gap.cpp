#include "twintrack/metrics/volume_gap.hpp"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>

namespace twintrack::bindings {

namespace py = pybind11;

namespace {

double gap_at(double volume, void* gap) {
  return (*static_cast<const VolumeGap*>(gap))(volume);
}

}  // namespace

// A function of C and its data, for scipy.LowLevelCallable: an integral asks for thousands of
// points, each of which costs a hundred times as much by a function of Python.
void register_volume_gap(py::module_& module) {
  module.def(
      "volume_gap",
      [](std::vector<double> at, std::vector<double> share, double predicted) {
        if (at.size() < 2 || share.size() != at.size())
          throw std::invalid_argument("at and share are not as many points, two or more");
        const py::capsule data(new VolumeGap(std::move(at), std::move(share), predicted),
                               [](void* gap) { delete static_cast<VolumeGap*>(gap); });
        return py::make_tuple(
            py::capsule(reinterpret_cast<const void*>(&gap_at), "double (double, void *)"), data);
      },
      py::arg("at"), py::arg("share"), py::arg("predicted"));
}

}  // namespace twintrack::bindings
