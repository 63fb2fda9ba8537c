#include "twintrack/calibration/equal_mass.hpp"
#include "bindings/arrays/numpy_arrays.hpp"

namespace twintrack::bindings {

void register_equal_mass(py::module_& module) {
  module.def(
      "equal_mass_bins",
      [](const TallyArrays& cells, const SumArrays& sums, std::size_t raters, std::uint64_t bins) {
        EqualMassBins made = equal_mass_bins(tally_rows(cells, sums, raters), bins);
        const auto count = static_cast<py::ssize_t>(made.count.size());
        return py::make_tuple(
            to_numpy(std::move(made.count), {count}), to_numpy(std::move(made.mean_score), {count}),
            to_numpy(std::move(made.votes), {count, static_cast<py::ssize_t>(raters)}));
      },
      py::arg("cells"), py::arg("sums"), py::arg("raters"), py::arg("bins"));
}

}  // namespace twintrack::bindings
