#include "twintrack/metrics/numpy_sum.hpp"
#include "bindings/arrays/numpy_arrays.hpp"
#include "twintrack/arrays/input_error.hpp"
#include "twintrack/arrays/voxel_blocks.hpp"

namespace twintrack::bindings {

static_assert(NonzeroBlocks::block_values == block_voxels, "an overview's blocks are the sum's");

void register_numpy_sum(py::module_& module) {
  using Flags = py::array_t<std::uint8_t, py::array::c_style>;
  module.def(
      "numpy_sum",
      [](const py::array_t<float>& score, const std::optional<Flags>& nonzero) {
        const auto count = static_cast<std::int64_t>(score.size());
        const std::int64_t blocks =
            (count + NonzeroBlocks::block_values - 1) / NonzeroBlocks::block_values;
        if ((score.flags() & (py::array::c_style | py::array::f_style)) == 0)
          throw InputError("score", "is not contiguous");
        if (nonzero && nonzero->size() != blocks)
          throw std::invalid_argument("nonzero has " + std::to_string(nonzero->size()) +
                                      " blocks; score has " + std::to_string(blocks));
        std::vector<std::uint8_t> flags;
        if (nonzero) flags.assign(nonzero->data(), nonzero->data() + blocks);
        const float* values = score.data();
        const py::gil_scoped_release release;
        return numpy_sum(values, count, NonzeroBlocks(flags));
      },
      py::arg("score").noconvert(), py::arg("nonzero") = py::none());
}

}  // namespace twintrack::bindings
