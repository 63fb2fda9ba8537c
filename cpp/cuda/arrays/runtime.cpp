#include "cuda/arrays/runtime.hpp"

#include <cstdint>
#include <map>
#include <mutex>

namespace twintrack::cuda {

namespace {

/// Freed memory that is kept for the next call, per device.
constexpr std::uint64_t kept_bytes = std::uint64_t{64} << 20;

// A pool of our own, so that the one that other libraries share keeps its settings. It is never
// destroyed: at the end of the process the driver may be gone before us. Null on devices without
// pools, as some virtual ones are.
cudaMemPool_t pool(int device) {
  static std::mutex guard;
  static auto* const pools = new std::map<int, cudaMemPool_t>;
  const std::lock_guard<std::mutex> lock(guard);
  const auto found = pools->find(device);
  if (found != pools->end()) return found->second;
  if (attribute(cudaDevAttrMemoryPoolsSupported) == 0)
    return pools->emplace(device, nullptr).first->second;
  cudaMemPoolProps properties{};
  properties.allocType = cudaMemAllocationTypePinned;  // CUDA's word for ordinary device memory
  properties.location.type = cudaMemLocationTypeDevice;
  properties.location.id = device;
  cudaMemPool_t made = nullptr;
  check(cudaMemPoolCreate(&made, &properties), "cudaMemPoolCreate");
  std::uint64_t kept = kept_bytes;
  check(cudaMemPoolSetAttribute(made, cudaMemPoolAttrReleaseThreshold, &kept),
        "cudaMemPoolSetAttribute");
  pools->emplace(device, made);
  return made;
}

}  // namespace

void require_not_capturing(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  const cudaError_t asked = cudaStreamIsCapturing(stream, &status);
  // The default stream may not even be asked while a stream that waits for it is captured.
  if (asked == cudaErrorStreamCaptureImplicit)
    cudaGetLastError();
  else
    check(asked, "cudaStreamIsCapturing");
  if (asked == cudaSuccess && status == cudaStreamCaptureStatusNone) return;
  throw std::runtime_error(
      "the CUDA stream is being captured into a graph, but this call waits for its stream and can "
      "be "
      "no part of one; call it before the capture begins or after it has ended, or on another "
      "stream");
}

void* detail::allocate(std::size_t bytes, cudaStream_t stream) {
  require_not_capturing(stream);
  const int device = current_device();
  void* memory = nullptr;
  const cudaMemPool_t from = pool(device);
  const cudaError_t status = from != nullptr ? cudaMallocFromPoolAsync(&memory, bytes, from, stream)
                                             : cudaMalloc(&memory, bytes);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw OutOfDeviceMemory("CUDA device " + std::to_string(device) + " has no " +
                            std::to_string(bytes) + " bytes of memory left");
  }
  check(status, "allocating device memory");
  return memory;
}

void detail::release(void* memory, int device, cudaStream_t stream) noexcept {
  // Failures are not reported: one of an earlier call has been, and at the end of the process the
  // runtime may be shutting down.
  int before = 0;
  cudaGetDevice(&before);
  if (before != device) cudaSetDevice(device);
  // cudaFree waits for everything on the device.
  const bool pooled = pool(device) != nullptr;
  if ((pooled ? cudaFreeAsync(memory, stream) : cudaFree(memory)) != cudaSuccess)
    cudaGetLastError();
  if (before != device) cudaSetDevice(before);
}

void wait_for(cudaStream_t stream, cudaStream_t other) {
  if (stream == other) return;
  require_not_capturing(stream);
  require_not_capturing(other);
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate");
  const cudaError_t recorded = cudaEventRecord(event, other);
  const cudaError_t waited =
      recorded == cudaSuccess ? cudaStreamWaitEvent(stream, event, 0) : recorded;
  cudaEventDestroy(event);  // takes effect once the wait is over
  check(waited, "ordering two streams");
}

}  // namespace twintrack::cuda
