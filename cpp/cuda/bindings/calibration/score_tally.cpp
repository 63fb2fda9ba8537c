#include "cuda/calibration/score_tally.hpp"
#include "cuda/bindings/arrays/device_arrays.hpp"
#include "twintrack/calibration/tally_rows.hpp"

namespace twintrack::cuda::bindings {

void register_score_tally(py::module_& module) {
  py::class_<ScoreTally, Owner<ScoreTally>>(module, "ScoreTally")
      .def(py::init([](std::size_t raters, int device, std::uintptr_t stream) {
             const py::gil_scoped_release release;  // no Python object is touched
             return Owner<ScoreTally>(new ScoreTally(raters, device, stream_of(stream)));
           }),
           py::arg("raters"), py::arg("device"), py::arg("stream"))
      .def_property_readonly("raters", &ScoreTally::raters)
      .def_property_readonly("device", &ScoreTally::device)
      .def(
          "update",
          [](ScoreTally& tally, const NamedView& score, const std::vector<NamedView>& raters,
             const std::optional<NamedView>& region, std::uintptr_t stream) {
            const auto arrays = case_of(score, raters, region);
            // Only the views are used from here on, and the caller holds the arrays.
            const py::gil_scoped_release release;
            tally.update(arrays.view(), stream_of(stream));
          },
          py::arg("score"), py::arg("raters"), py::arg("region"), py::arg("stream"))
      .def("take_rows", [](ScoreTally& tally) {
        std::vector<std::uint64_t> sums;
        {
          const py::gil_scoped_release release;
          // Every update has waited for its stream, so any will do.
          sums = tally.take(cudaStreamPerThread);
        }
        const OccurringRows rows(sums, tally.raters());
        // As _core.ScoreTally.rows.
        return py::make_tuple(
            py::array_t<std::uint32_t>(static_cast<py::ssize_t>(rows.cells.size()),
                                       rows.cells.data()),
            py::array_t<std::uint64_t>({rows.cells.size(), rows.columns}, rows.sums.data()));
      });
}

}  // namespace twintrack::cuda::bindings
