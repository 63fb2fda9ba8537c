#include "twintrack/calibration/score_tally.hpp"
#include "bindings/arrays/numpy_arrays.hpp"

namespace twintrack::bindings {

void register_score_tally(py::module_& module) {
  module.attr("GRID_CELLS") = grid::cells;

  py::class_<ScoreTally>(module, "ScoreTally")
      .def(py::init<std::size_t>(), py::arg("raters"))
      .def_property_readonly("raters", &ScoreTally::raters)
      .def(
          "update",
          [](ScoreTally& tally, const py::array& score, const std::vector<py::array>& raters,
             const std::optional<py::array>& region) {
            const CaseArrays arrays = case_of(score, raters, region);
            // Only the views are used from here on, and the caller holds the arrays.
            const py::gil_scoped_release release;
            tally.update(arrays.view());
          },
          py::arg("score"), py::arg("raters"), py::arg("region") = py::none())
      .def("rows",
           [](const ScoreTally& tally) {
             OccurringRows found(tally.sums());
             const auto rows = static_cast<py::ssize_t>(found.cells.size());
             const auto columns = static_cast<py::ssize_t>(found.columns);
             return py::make_tuple(to_numpy(std::move(found.cells), {rows}),
                                   to_numpy(std::move(found.sums), {rows, columns}));
           })
      .def(
          "add_rows",
          [](ScoreTally& tally, const TallyArrays& cells, const SumArrays& sums) {
            const TallyRows rows = tally_rows(cells, sums, tally.raters());
            // Rows of tallies of earlier versions end with the votes.
            if (rows.columns != tally.columns() &&
                rows.columns != TallyColumns::first_exactly(tally.raters()))
              throw std::invalid_argument("rows do not fit a tally of " +
                                          std::to_string(tally.raters()) + " raters");
            for (std::size_t i = 0; i < rows.rows; ++i)
              tally.sums().add(rows.cell[i], rows.row(i), rows.columns);
          },
          py::arg("cells"), py::arg("sums"))
      .def("__iadd__", [](ScoreTally& tally, const ScoreTally& other) -> ScoreTally& {
        return tally += other;
      });
}

}  // namespace twintrack::bindings
