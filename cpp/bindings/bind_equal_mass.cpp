#include "arrays.hpp"
#include "twintrack/equal_mass.hpp"

namespace twintrack::bindings {

void register_equal_mass(py::module_& module) {
  module.def(
      "equal_mass_bins",
      [](const py::array_t<std::uint32_t, py::array::c_style>& cells,
         const py::array_t<std::uint64_t, py::array::c_style>& sums, std::uint64_t bins) {
        if (cells.ndim() != 1 || sums.ndim() != 2 || sums.shape(0) != cells.shape(0) ||
            sums.shape(1) < 3)
          throw std::invalid_argument("cells and sums are not the rows of a tally");
        for (py::ssize_t i = 0; i < cells.shape(0); ++i)
          if (cells.at(i) >= grid::cells || (i > 0 && cells.at(i) < cells.at(i - 1)))
            throw std::invalid_argument("cells are not ascending cells of the score grid");
        const auto raters = sums.shape(1) - 2;
        EqualMassBins made =
            equal_mass_bins({cells.data(), sums.data(), static_cast<std::size_t>(cells.shape(0)),
                             static_cast<std::size_t>(sums.shape(1))},
                            bins);
        const auto count = static_cast<py::ssize_t>(made.count.size());
        return py::make_tuple(to_numpy(std::move(made.count), {count}),
                              to_numpy(std::move(made.mean_score), {count}),
                              to_numpy(std::move(made.votes), {count, raters}));
      },
      py::arg("cells"), py::arg("sums"), py::arg("bins"));
}

}  // namespace twintrack::bindings
