#include "twintrack/calibration/map_fit.hpp"
#include "bindings/arrays/numpy_arrays.hpp"

namespace twintrack::bindings {

void register_map_fit(py::module_& module) {
  module.def(
      "fitted_knots",
      [](const py::array_t<std::uint64_t, py::array::c_style>& count,
         const py::array_t<double, py::array::c_style>& mean_score,
         const py::array_t<std::uint64_t, py::array::c_style>& votes, const std::string& target,
         std::size_t rater) {
        if (count.ndim() != 1 || mean_score.ndim() != 1 || votes.ndim() != 2 ||
            mean_score.shape(0) != count.shape(0) || votes.shape(0) != count.shape(0))
          throw std::invalid_argument("count, mean_score and votes are not those of the same bins");
        const EqualMassBins bins{{count.data(), count.data() + count.size()},
                                 {mean_score.data(), mean_score.data() + mean_score.size()},
                                 {votes.data(), votes.data() + votes.size()},
                                 {}};
        Knots knots = fitted_knots(bins, static_cast<std::size_t>(votes.shape(1)),
                                   target_named(target), rater);
        const auto size = static_cast<py::ssize_t>(knots.x.size());
        return py::make_tuple(to_numpy(std::move(knots.x), {size}),
                              to_numpy(std::move(knots.y), {size}));
      },
      py::arg("count"), py::arg("mean_score"), py::arg("votes"), py::arg("target"),
      py::arg("rater"));
}

}  // namespace twintrack::bindings
