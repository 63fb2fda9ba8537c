#include <string>

#include "cuda/bindings/arrays/device_arrays.hpp"

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
  // E.g. "NVIDIA H200 (compute capability 9.0, 140 GB)", in CUDA's order.
  module.def("devices", [] {
    int count = 0;
    check(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
    std::vector<std::string> devices;
    for (int device = 0; device < count; ++device) {
      cudaDeviceProp properties{};
      check(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
      devices.push_back(
          std::string(properties.name) + " (compute capability " +
          std::to_string(properties.major) + "." + std::to_string(properties.minor) + ", " +
          std::to_string((properties.totalGlobalMem + 500000000) / 1000000000) + " GB)");
    }
    return devices;
  });
  // The device that an array lies on; an empty one has no address and lies on the current device.
  module.def(
      "device_of",
      [](std::uintptr_t pointer) {
        if (pointer == 0) return current_device();
        cudaPointerAttributes attributes{};
        check(cudaPointerGetAttributes(&attributes, reinterpret_cast<const void*>(pointer)),
              "cudaPointerGetAttributes");
        if (attributes.type != cudaMemoryTypeDevice && attributes.type != cudaMemoryTypeManaged)
          throw std::invalid_argument("the memory of an array is not that of a CUDA device");
        return attributes.device;
      },
      py::arg("pointer"));
  // A copy of memory on a device, after what is queued on the stream.
  module.def(
      "fetch",
      [](std::uintptr_t pointer, std::size_t size, int device, std::uintptr_t stream) {
        py::array_t<std::uint8_t> made(static_cast<py::ssize_t>(size));
        std::uint8_t* const to = made.mutable_data();
        const py::gil_scoped_release release;  // the caller holds the array
        const DeviceGuard guard(device);
        copy(to, reinterpret_cast<const std::uint8_t*>(pointer), size, cudaMemcpyDeviceToHost,
             stream_of(stream));
        wait(stream_of(stream), "fetching an array");
        return made;
      },
      py::arg("pointer"), py::arg("size"), py::arg("device"), py::arg("stream"));
  module.def(
      "wait_for",
      [](std::uintptr_t stream, std::uintptr_t other, int device) {
        const DeviceGuard guard(device);
        wait_for(stream_of(stream), stream_of(other));
      },
      py::arg("stream"), py::arg("other"), py::arg("device"));
}

}  // namespace twintrack::cuda::bindings
