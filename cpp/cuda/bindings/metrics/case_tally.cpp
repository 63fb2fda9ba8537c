#include "cuda/metrics/case_tally.hpp"
#include "cuda/bindings/arrays/device_arrays.hpp"

namespace twintrack::cuda::bindings {

void register_case_tally(py::module_& module) {
  // The sums that a _core.CaseTally has after this update, and, if asked for, the marked extent: a
  // (first, last) pair per axis, or no pairs.
  module.def(
      "case_sums",
      [](const NamedView& score, const std::vector<NamedView>& raters,
         const std::optional<NamedView>& region, int bins, bool find_marked, int device,
         std::uintptr_t stream) {
        const auto arrays = case_of(score, raters, region);
        std::vector<MarkedExtent::Range> marked;
        const std::vector<std::uint64_t> sums = [&] {
          const py::gil_scoped_release release;  // the caller holds all arrays
          return case_sums(arrays.view(), bins, find_marked ? &marked : nullptr, device,
                           stream_of(stream))
              .values();
        }();
        std::vector<std::pair<std::int64_t, std::int64_t>> ranges;
        for (const MarkedExtent::Range& range : marked)
          ranges.emplace_back(range.first, range.last);
        return py::make_tuple(
            py::array_t<std::uint64_t>(static_cast<py::ssize_t>(sums.size()), sums.data()), ranges);
      },
      py::arg("score"), py::arg("raters"), py::arg("region"), py::arg("bins"),
      py::arg("find_marked"), py::arg("device"), py::arg("stream"));
}

}  // namespace twintrack::cuda::bindings
