#include "twintrack/calibration/cut_refinement.hpp"
#include "bindings/arrays/numpy_arrays.hpp"

namespace twintrack::bindings {

void register_cut_refinement(py::module_& module) {
  py::class_<CutRefinement>(module, "CutRefinement")
      .def(py::init([](const TallyArrays& cells, const SumArrays& sums, std::size_t raters,
                       std::uint64_t bins) {
             return std::make_unique<CutRefinement>(tally_rows(cells, sums, raters), bins);
           }),
           py::arg("cells"), py::arg("sums"), py::arg("raters"), py::arg("bins"))
      .def_property_readonly("done", &CutRefinement::done)
      .def(
          "update",
          [](CutRefinement& refinement, const py::array& score,
             const std::vector<py::array>& raters, const std::optional<py::array>& region) {
            const CaseArrays arrays = case_of(score, raters, region);
            const py::gil_scoped_release release;  // the caller holds the arrays
            refinement.update(arrays.view());
          },
          py::arg("score"), py::arg("raters"), py::arg("region") = py::none())
      .def("advance", &CutRefinement::advance)
      .def("rows", [](const CutRefinement& refinement) {
        std::vector<std::uint32_t> cells = refinement.cells();
        const auto rows = static_cast<py::ssize_t>(cells.size());
        const auto columns = static_cast<py::ssize_t>(refinement.columns());
        return py::make_tuple(to_numpy(std::move(cells), {rows}),
                              to_numpy(refinement.sums(), {rows, columns}));
      });
}

}  // namespace twintrack::bindings
