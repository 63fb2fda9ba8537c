#include "twintrack/calibration/equal_mass.hpp"

#include <variant>

#include "bindings/arrays/numpy_arrays.hpp"
#include "twintrack/calibration/cell_scores.hpp"

namespace twintrack::bindings {

void register_equal_mass(py::module_& module) {
  module.def(
      "equal_mass_bins",
      [](const TallyArrays& cells, const SumArrays& sums, std::size_t raters, std::uint64_t bins) {
        const TallyRows rows = tally_rows(cells, sums, raters);
        EqualMassBins made;
        {
          const py::gil_scoped_release release;  // the caller holds the arrays
          made = equal_mass_bins(rows, bins);
        }
        const auto count = static_cast<py::ssize_t>(made.count.size());
        return py::make_tuple(
            to_numpy(std::move(made.count), {count}), to_numpy(std::move(made.mean_score), {count}),
            to_numpy(std::move(made.votes), {count, static_cast<py::ssize_t>(raters)}));
      },
      py::arg("cells"), py::arg("sums"), py::arg("raters"), py::arg("bins"));
  module.def(
      "cell_scores",
      [](const std::variant<std::uint64_t, TallyArrays>& cells, const py::array& count,
         const py::array& residual) {
        const CountColumns sums(views_of({count, residual}, "sums"), "sums");
        const auto rows = static_cast<py::ssize_t>(sums.rows());
        const auto* listed = std::get_if<TallyArrays>(&cells);
        if (listed && (listed->ndim() != 1 || listed->shape(0) != rows))
          throw std::invalid_argument("cells and sums do not have as many rows");
        std::vector<double> scores(sums.rows());
        {
          const py::gil_scoped_release release;  // the caller holds the arrays
          if (listed) {
            const std::uint32_t* cell = listed->data();
            cell_scores(sums, [=](std::size_t row) { return cell[row]; }, scores.data());
          } else {
            const std::uint64_t first = std::get<std::uint64_t>(cells);
            cell_scores(sums, [=](std::size_t row) { return first + row; }, scores.data());
          }
        }
        return to_numpy(std::move(scores), {rows});
      },
      py::arg("cells"), py::arg("count"), py::arg("residual"));
}

}  // namespace twintrack::bindings
