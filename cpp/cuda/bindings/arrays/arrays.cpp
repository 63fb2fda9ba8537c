#include "cuda/bindings/arrays/device_arrays.hpp"
#include "twintrack/arrays/input_error.hpp"

namespace twintrack::cuda::bindings {

namespace {

Element element_named(const std::string& dtype, const std::string& name) {
  const std::pair<const char*, Element> known[] = {
      {"bool", Element::boolean},    {"int8", Element::int8},         {"uint8", Element::uint8},
      {"int16", Element::int16},     {"uint16", Element::uint16},     {"int32", Element::int32},
      {"uint32", Element::uint32},   {"int64", Element::int64},       {"uint64", Element::uint64},
      {"float16", Element::float16}, {"bfloat16", Element::bfloat16}, {"float32", Element::float32},
      {"float64", Element::float64},
  };
  for (const auto& [text, element] : known)
    if (dtype == text) return element;
  throw py::type_error(name + " has unsupported dtype " + dtype);
}

NamedView named_view(std::uintptr_t pointer, const std::string& dtype, Shape shape, Shape strides,
                     std::string name) {
  NamedView made;
  made.view.element = element_named(dtype, name);
  made.view.data = reinterpret_cast<const std::byte*>(pointer);
  if (shape.size() != strides.size())
    throw InputError(name, "has " + std::to_string(shape.size()) + " dimensions but " +
                               std::to_string(strides.size()) + " strides");
  const std::int64_t elements = element_count(shape, name);
  // A device cannot read an element across its natural boundaries.
  const auto size = static_cast<std::int64_t>(size_of(made.view.element));
  bool aligned = static_cast<std::int64_t>(pointer % static_cast<std::uintptr_t>(size)) == 0;
  for (std::size_t axis = 0; axis < shape.size(); ++axis)
    aligned &= shape[axis] < 2 || strides[axis] % size == 0;
  if (!aligned && elements > 0)
    throw InputError(name, "is not aligned to its elements of " + std::to_string(size) +
                               " bytes; pass a contiguous copy");
  made.view.shape = std::move(shape);
  made.view.strides = std::move(strides);
  made.name = std::move(name);
  return made;
}

}  // namespace

void register_arrays(py::module_& module) {
  py::class_<NamedView>(module, "Array")
      .def(py::init(&named_view), py::arg("pointer"), py::arg("dtype"), py::arg("shape"),
           py::arg("strides"), py::arg("name"));
}

}  // namespace twintrack::cuda::bindings
