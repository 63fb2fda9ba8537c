#include "twintrack/metrics/case_tally.hpp"
#include "bindings/arrays/numpy_arrays.hpp"
#include "twintrack/metrics/counted_scores.hpp"

namespace twintrack::bindings {

namespace {

// The sums of a case alone. They are added to a tally with the interpreter's lock held, so that
// several threads may add to one.
CaseTally sums_of(const CaseTally& like, const CaseArrays& arrays,
                  CaseOverview* overview = nullptr) {
  // Only the views are used from here on, and the caller holds the arrays.
  const py::gil_scoped_release release;
  CaseTally found(like.raters(), like.bins());
  found.update(arrays.view(), overview);
  return found;
}

// A copy of part of a tally's sums, from `first` on.
py::array_t<std::uint64_t> part(const CaseTally& tally, std::size_t first,
                                std::vector<std::size_t> shape) {
  std::vector<py::ssize_t> extents(shape.begin(), shape.end());
  return py::array_t<std::uint64_t>(extents, tally.sums().values().data() + first);
}

CaseTally from_state(std::size_t raters, int bins,
                     const py::array_t<std::uint64_t, py::array::c_style>& values) {
  CaseTally tally(raters, bins);
  std::vector<std::uint64_t>& into = tally.sums().values();
  if (values.ndim() != 1 || static_cast<std::size_t>(values.size()) != into.size())
    throw std::invalid_argument("these are not the " + std::to_string(into.size()) +
                                " sums of a tally of " + std::to_string(raters) + " raters and " +
                                std::to_string(bins) + " bins");
  std::copy_n(values.data(), into.size(), into.begin());
  return tally;
}

CountColumns count_columns(const py::array& score, const std::vector<py::array>& counts) {
  CountColumns columns(views_of(counts, "counts"), "counts");
  if (score.ndim() != 1 || static_cast<std::size_t>(score.shape(0)) != columns.rows())
    throw std::invalid_argument("score and counts do not have as many rows");
  return columns;
}

}  // namespace

void register_case_tally(py::module_& module) {
  module.attr("DICE_THRESHOLDS") = dice_threshold_values();
  module.attr("FIXED_SUM_ONE") = fixed::one;
  module.def(
      "uniform_bin_edges",
      [](int bins) {
        std::vector<float> edges = UniformBins(bins).edges();
        const auto count = static_cast<py::ssize_t>(edges.size());
        return to_numpy(std::move(edges), {count});
      },
      py::arg("bins"));

  py::class_<CaseTally>(module, "CaseTally")
      .def(py::init<std::size_t, int>(), py::arg("raters"), py::arg("bins"))
      .def_property_readonly("raters", &CaseTally::raters)
      .def_property_readonly("bins", &CaseTally::bins)
      .def(
          "update",
          [](CaseTally& tally, const py::array& score, const std::vector<py::array>& raters,
             const std::optional<py::array>& region) {
            tally += sums_of(tally, case_of(score, raters, region));
          },
          py::arg("score"), py::arg("raters"), py::arg("region") = py::none())
      .def(
          "update_and_overview",
          [](CaseTally& tally, const py::array& score, const std::vector<py::array>& raters) {
            CaseOverview overview;
            tally += sums_of(tally, case_of(score, raters), &overview);
            std::vector<std::pair<std::int64_t, std::int64_t>> marked;
            for (const MarkedExtent::Range& range : overview.marked)
              marked.emplace_back(range.first, range.last);
            const auto blocks = static_cast<py::ssize_t>(overview.scored.size());
            return py::make_tuple(marked, to_numpy(std::move(overview.scored), {blocks}));
          },
          py::arg("score"), py::arg("raters"))
      .def(
          "add_counted",
          [](CaseTally& tally, const py::array& score, const std::string& type,
             const std::vector<py::array>& counts) {
            const CountColumns columns = count_columns(score, counts);
            const Counted found = [&] {
              if (type == "float64") {
                const py::array_t<double, py::array::c_style | py::array::forcecast> values(score);
                const py::gil_scoped_release release;
                return count_scores(tally.raters(), tally.bins(), values.data(), Element::float64,
                                    columns);
              }
              const Element element = type == "float16"    ? Element::float16
                                      : type == "bfloat16" ? Element::bfloat16
                                                           : Element::float32;
              const py::array_t<float, py::array::c_style | py::array::forcecast> values(score);
              const py::gil_scoped_release release;
              return count_scores(tally.raters(), tally.bins(), values.data(), element, columns);
            }();
            tally.sums() += found.sums;
            return found.log_loss;
          },
          py::arg("score"), py::arg("element"), py::arg("counts"))
      .def_property_readonly("votes",
                             [](const CaseTally& tally) {
                               const CaseSums& sums = tally.sums();
                               return part(tally, sums.votes(),
                                           {dice_thresholds + 1, sums.raters() + 1});
                             })
      .def_property_readonly("score_bins",
                             [](const CaseTally& tally) {
                               const CaseSums& sums = tally.sums();
                               return part(tally, sums.score_bins(),
                                           {sums.bin_rows(), sums.bin_columns()});
                             })
      .def_property_readonly("confidence_bins",
                             [](const CaseTally& tally) {
                               const CaseSums& sums = tally.sums();
                               return part(tally, sums.confidence_bins(),
                                           {2, sums.bin_rows(), sums.bin_columns()});
                             })
      .def_property_readonly(
          "squares",
          [](const CaseTally& tally) { return part(tally, tally.sums().squares(), {2}); })
      .def_property_readonly("rater_scores",
                             [](const CaseTally& tally) {
                               const CaseSums& sums = tally.sums();
                               return part(tally, sums.rater_scores(), {sums.raters(), 2});
                             })
      .def("__iadd__",
           [](CaseTally& tally, const CaseTally& other) -> CaseTally& { return tally += other; })
      .def(py::pickle(
          [](const CaseTally& tally) {
            return py::make_tuple(tally.raters(), tally.bins(),
                                  part(tally, 0, {tally.sums().values().size()}));
          },
          [](const py::tuple& state) {
            return from_state(state[0].cast<std::size_t>(), state[1].cast<int>(),
                              state[2].cast<py::array_t<std::uint64_t, py::array::c_style>>());
          }));
}

}  // namespace twintrack::bindings
