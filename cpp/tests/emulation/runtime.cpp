// The runtime's functions on host memory.
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include "cuda_runtime.h"

namespace {

thread_local int current = 0;
std::mutex guard;
std::map<void*, std::size_t>& allocations() {
  static std::map<void*, std::size_t> all;
  return all;
}

}  // namespace

namespace emulation {

Device device() {
  Device made;
  const char* text = std::getenv("TWINTRACK_EMULATION");
  if (text == nullptr) return made;
  const std::string all(text);
  const auto read = [&](const std::string& name, auto& value) {
    const std::size_t at = ("," + all).find("," + name + "=");
    if (at != std::string::npos)
      value = static_cast<std::remove_reference_t<decltype(value)>>(
          std::atoll(all.c_str() + at + name.size() + 1));
  };
  read("devices", made.devices);
  read("multiprocessors", made.multiprocessors);
  read("threads", made.threads);
  read("shared", made.shared);
  read("memory", made.memory);
  read("pools", made.pools);
  read("skip", made.skip);
  read("capturing", made.capturing);
  return made;
}

std::size_t live_allocations() {
  const std::lock_guard<std::mutex> lock(guard);
  return allocations().size();
}

}  // namespace emulation

const char* cudaGetErrorName(cudaError_t status) {
  switch (status) {
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    default:
      return "cudaErrorInvalidValue";
  }
}
const char* cudaGetErrorString(cudaError_t) {
  return "emulated";
}
cudaError_t cudaGetLastError() {
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = current;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= emulation::device().devices) return cudaErrorInvalidDevice;
  current = device;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* count) {
  *count = emulation::device().devices;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int) {
  const emulation::Device device = emulation::device();
  switch (which) {
    case cudaDevAttrMaxThreadsPerBlock:
      *value = device.threads;
      return cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
      *value = device.multiprocessors;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = device.shared;
      return cudaSuccess;
    case cudaDevAttrMemoryPoolsSupported:
      *value = device.pools;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
    case cudaDevAttrComputeCapabilityMinor:
      *value = 0;
      return cudaSuccess;
  }
  return cudaErrorInvalidValue;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {"Emulation", emulation::device().memory, 0, 0};
  return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void*) {
  *attributes = {cudaMemoryTypeDevice, 0};  // nobody can tell
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 0;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = 0;
  return cudaSuccess;
}
cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps*) {
  if (emulation::device().pools == 0) return cudaErrorInvalidValue;
  static char some;
  *pool = reinterpret_cast<cudaMemPool_t>(&some);
  return cudaSuccess;
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) {
  return cudaSuccess;
}
cudaError_t cudaMallocFromPoolAsync(void** memory, std::size_t bytes, cudaMemPool_t, cudaStream_t) {
  const std::lock_guard<std::mutex> lock(guard);
  std::size_t used = 0;
  for (const auto& [start, size] : allocations()) used += size;
  if (used + bytes > emulation::device().memory) return cudaErrorMemoryAllocation;
  *memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  std::memset(*memory, 0xcd, bytes);
  allocations()[*memory] = bytes;
  return cudaSuccess;
}
cudaError_t cudaFreeAsync(void* memory, cudaStream_t) {
  const std::lock_guard<std::mutex> lock(guard);
  if (allocations().erase(memory) != 1) return cudaErrorInvalidValue;
  std::free(memory);
  return cudaSuccess;
}
cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  return cudaMallocFromPoolAsync(memory, bytes, nullptr, nullptr);
}
cudaError_t cudaFree(void* memory) {
  return cudaFreeAsync(memory, nullptr);
}
cudaError_t cudaMemsetAsync(void* memory, int byte, std::size_t bytes, cudaStream_t) {
  std::memset(memory, byte, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind,
                            cudaStream_t) {
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  const std::uintptr_t capturing = emulation::device().capturing;
  // CUDA's default stream waits for others, so that it may not be asked about.
  if (capturing != 0 && (stream == nullptr || stream == cudaStreamLegacy))
    return cudaErrorStreamCaptureImplicit;
  *status = capturing != 0 && reinterpret_cast<std::uintptr_t>(stream) == capturing
                ? cudaStreamCaptureStatusActive
                : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) {
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) {
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = nullptr;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) {
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t) {
  return cudaSuccess;
}
