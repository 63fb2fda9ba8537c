#include "cuda/calibration/score_tally.hpp"
#include "cuda/bindings/arrays/device_arrays.hpp"
#include "twintrack/calibration/score_tally.hpp"

namespace twintrack::cuda::bindings {

namespace {

static_assert(twintrack::ScoreTally::count_column == 0 &&
              twintrack::ScoreTally::residual_column == 1 &&
              twintrack::ScoreTally::first_vote_column == 2);

// Cells that occur and their rows of sums, as _core.ScoreTally.rows.
py::tuple rows_of(const std::vector<std::uint64_t>& sums, std::size_t columns) {
  std::vector<std::uint32_t> cells;
  for (std::uint32_t cell = 0; cell < grid::cells; ++cell)
    if (sums[cell * columns] != 0) cells.push_back(cell);
  py::array_t<std::uint64_t> rows({cells.size(), columns});
  for (std::size_t i = 0; i < cells.size(); ++i)
    std::copy_n(sums.data() + cells[i] * columns, columns,
                rows.mutable_data(static_cast<py::ssize_t>(i), 0));
  return py::make_tuple(
      py::array_t<std::uint32_t>(static_cast<py::ssize_t>(cells.size()), cells.data()), rows);
}

}  // namespace

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
            const Case arrays(score, raters, region);
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
        return rows_of(sums, tally.columns());
      });
}

}  // namespace twintrack::cuda::bindings
