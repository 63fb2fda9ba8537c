// CUDA's runtime as this project uses it: errors are exceptions, memory and the current device are
// owned by objects, and every call that works on a stream is told which.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <new>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

namespace twintrack::cuda {

/// A call or a kernel that failed: CUDA's name for the error, and what was being done.
class CudaError : public std::runtime_error {
 public:
  CudaError(cudaError_t status, const std::string& what)
      : std::runtime_error(what + " failed: " + cudaGetErrorName(status) + " (" +
                           cudaGetErrorString(status) + ")") {}
};

/// Device memory that could not be had; Python sees a MemoryError.
class OutOfDeviceMemory : public std::bad_alloc {
 public:
  explicit OutOfDeviceMemory(std::string message) : message_(std::move(message)) {}
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  std::string message_;
};

/// Throws CudaError unless `status` is success; `what` is e.g. "kernel map_scores".
inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // so that the error is not reported once more by somebody else's call
  throw CudaError(status, what);
}

/// Makes a device current for as long as this lives.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) : device_(device) {
    check(cudaGetDevice(&before_), "cudaGetDevice");
    if (before_ != device)
      check(cudaSetDevice(device), ("choosing device " + std::to_string(device)).c_str());
  }
  ~DeviceGuard() {
    if (before_ != device_) cudaSetDevice(before_);
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int device_;
  int before_ = 0;
};

inline int current_device() {
  int device = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  return device;
}

/// A property of the current device.
inline int attribute(cudaDeviceAttr which) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, which, current_device()), "cudaDeviceGetAttribute");
  return value;
}

/// Throws std::runtime_error if work on `stream` is being captured into a CUDA graph: every call of
/// ours waits for its stream, which a capture forbids. Asked before anything is queued.
void require_not_capturing(cudaStream_t stream);

/// Waits until everything on `stream` is done; `what` is the work that may have failed.
inline void wait(cudaStream_t stream, const char* what) {
  require_not_capturing(stream);
  check(cudaStreamSynchronize(stream), what);
}

/// Makes later work on `stream` wait for what is on `other` now; the host does not wait.
void wait_for(cudaStream_t stream, cudaStream_t other);

namespace detail {
void* allocate(std::size_t bytes, cudaStream_t stream);
void release(void* memory, int device, cudaStream_t stream) noexcept;
}  // namespace detail

/// `count` elements in the current device's memory, uninitialised. Allocation and release are
/// ordered on `stream`, without waiting. Calls begin with this or with a copy, so both refuse a
/// stream that is being captured.
template <class T>
class DeviceMemory {
 public:
  DeviceMemory() = default;

  /// Throws OutOfDeviceMemory, with the size asked for.
  DeviceMemory(std::size_t count, cudaStream_t stream)
      : count_(count), stream_(stream), device_(current_device()) {
    if (count > 0) data_ = static_cast<T*>(detail::allocate(count * sizeof(T), stream));
  }

  DeviceMemory(DeviceMemory&& other) noexcept { swap(other); }
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    swap(other);
    return *this;
  }
  ~DeviceMemory() {
    if (data_ != nullptr) detail::release(data_, device_, stream_);
  }

  T* data() const { return data_; }
  std::size_t size() const { return count_; }
  std::size_t bytes() const { return count_ * sizeof(T); }

  /// Says that this memory may outlive its stream. The caller has waited for every stream that
  /// used it by the time it is released.
  void detach_from_stream() { stream_ = cudaStreamLegacy; }

  /// Zeroes it, ordered on `stream`.
  void clear(cudaStream_t stream) {
    if (count_ > 0) check(cudaMemsetAsync(data_, 0, bytes(), stream), "cudaMemsetAsync");
  }

 private:
  void swap(DeviceMemory& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
    std::swap(stream_, other.stream_);
    std::swap(device_, other.device_);
  }

  T* data_ = nullptr;
  std::size_t count_ = 0;
  cudaStream_t stream_ = nullptr;
  int device_ = 0;
};

/// Copies between host and device, ordered on `stream`; host memory must stay until it is done.
template <class T>
void copy(T* to, const T* from, std::size_t count, cudaMemcpyKind kind, cudaStream_t stream) {
  require_not_capturing(stream);
  if (count > 0) check(cudaMemcpyAsync(to, from, count * sizeof(T), kind, stream), "cudaMemcpy");
}

/// A grid of blocks to run a kernel on.
struct Grid {
  unsigned blocks;
  unsigned threads;              // of each block
  std::size_t shared_bytes = 0;  // dynamic shared memory of each block
};

/// Queues `kernel` on `stream`. Throws CudaError with the kernel's `name`.
template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), const Grid& grid, cudaStream_t stream,
            Arguments&&... arguments) {
  static_assert((std::is_trivially_copyable_v<Parameters> && ...));
  const std::string what = std::string("kernel ") + name;
  // More must be asked for. As much as there is, the same in every call: the attribute is the
  // kernel's, and another thread may be between asking for it and its launch.
  if (grid.shared_bytes > 48 * 1024)
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin)),
          what.c_str());
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(grid.blocks);
  config.blockDim = dim3(grid.threads);
  config.dynamicSmemBytes = grid.shared_bytes;
  config.stream = stream;
  check(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...), what.c_str());
}

}  // namespace twintrack::cuda
