#include "arrays.hpp"

#ifndef TWINTRACK_CUDA_ARCHITECTURES
#define TWINTRACK_CUDA_ARCHITECTURES ""
#endif

namespace twintrack::cuda::bindings {

void register_devices(py::module_& module) {
  module.attr("ARCHITECTURES") = TWINTRACK_CUDA_ARCHITECTURES;
  module.def("runtime_version", [] {
    int version = 0;
    check(cudaRuntimeGetVersion(&version), "cudaRuntimeGetVersion");
    return version;
  });
  // 0 where no driver is installed.
  module.def("driver_version", [] {
    int version = 0;
    check(cudaDriverGetVersion(&version), "cudaDriverGetVersion");
    return version;
  });
  module.def("device_count", [] {
    int count = 0;
    check(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
    return count;
  });
  module.def(
      "compute_capability",
      [](int device) {
        const DeviceGuard guard(device);
        return py::make_tuple(attribute(cudaDevAttrComputeCapabilityMajor),
                              attribute(cudaDevAttrComputeCapabilityMinor));
      },
      py::arg("device"));
  module.def(
      "device_of",
      [](std::uintptr_t pointer) {
        cudaPointerAttributes attributes{};
        check(cudaPointerGetAttributes(&attributes, reinterpret_cast<const void*>(pointer)),
              "cudaPointerGetAttributes");
        return attributes.device;
      },
      py::arg("pointer"));
  module.def(
      "wait_for",
      [](std::uintptr_t stream, std::uintptr_t other, int device) {
        const DeviceGuard guard(device);
        wait_for(stream_of(stream), stream_of(other));
      },
      py::arg("stream"), py::arg("other"), py::arg("device"));
}

}  // namespace twintrack::cuda::bindings
