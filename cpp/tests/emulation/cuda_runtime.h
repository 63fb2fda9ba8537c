// CUDA on the CPU, for tests: as much of the runtime and of the language's built-ins as this
// project's kernels and host code use. Sources of cpp/cuda include it in place of CUDA's header of
// this name and are compiled as ordinary C++.
//
// What is faithful: grid, block and thread indices; blocks that run at the same time and in any
// order; threads of a block that are interleaved at every barrier, warp-wide operation and, now and
// then, atomic; barriers, warp-wide operations with their masks (who is missing or not expected is
// reported); atomics without ordering; memory that is not initialised. Under ThreadSanitizer every
// CUDA thread is one of its threads, so that a missing barrier is a data race, in shared memory
// too. What is not: speed, memory ordering weaker than the CPU's, streams (work is done at once).
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>

#define __host__
#define __device__
#define __global__
#define __grid_constant__
#define __launch_bounds__(...)
#define __noinline__

// --- types ---------------------------------------------------------------------------------------

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3() = default;
  explicit dim3(unsigned width) : x(width) {}
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};

// --- execution -----------------------------------------------------------------------------------

namespace emulation {

/// Indices of the CUDA thread that is running.
struct Place {
  uint3 thread_index, block_index;
  dim3 block_size, grid_size;
};
const Place& place();

std::byte* shared_memory();
void barrier();
void warp_barrier(unsigned lanes);
/// Gives `value` to the other `lanes` and returns everyone's. `operation` must be the same for all.
struct Exchanged {
  std::uint64_t value[32];
};
Exchanged exchange(unsigned lanes, std::uint64_t value, const char* operation);
/// A place where another thread may come in between.
void interleave();

/// The device that is emulated, from the environment variable TWINTRACK_EMULATION, e.g.
/// "devices=2,multiprocessors=3,threads=64,shared=65536,memory=1000000"; each may be left out. Of a
/// grid of more than `skip` blocks only the first one is executed and those from `skip` on.
struct Device {
  int devices = 2;
  int multiprocessors = 3;
  int threads = 64;              // of a block, at most
  int shared = 64 * 1024;        // bytes of shared memory of a block, at most
  std::size_t memory = 1 << 30;  // bytes
  int pools = 1;                 // whether it has memory pools
  unsigned skip = 1;
  std::uintptr_t capturing = 0;  // the stream that is being captured, if any
};
Device device();

/// What has been launched, for tests that look.
struct Launch {
  void* stream;
  int device;
  unsigned blocks, threads;
};
const Launch& last_launch();
std::size_t live_allocations();

}  // namespace emulation

// Objects, not macros: the runtime has members of these names.
template <unsigned (*now)()>
struct EmulatedIndex {
  operator unsigned() const { return now(); }
};
inline unsigned emulated_thread() {
  return ::emulation::place().thread_index.x;
}
inline unsigned emulated_block() {
  return ::emulation::place().block_index.x;
}
inline unsigned emulated_block_size() {
  return ::emulation::place().block_size.x;
}
inline unsigned emulated_grid_size() {
  return ::emulation::place().grid_size.x;
}
inline constexpr struct {
  EmulatedIndex<emulated_thread> x;
} threadIdx;
inline constexpr struct {
  EmulatedIndex<emulated_block> x;
} blockIdx;
inline constexpr struct {
  EmulatedIndex<emulated_block_size> x;
} blockDim;
inline constexpr struct {
  EmulatedIndex<emulated_grid_size> x;
} gridDim;

inline void __syncthreads() {
  ::emulation::barrier();
}
inline void __syncwarp(unsigned lanes = 0xffffffffu) {
  ::emulation::warp_barrier(lanes);
}

namespace twintrack::cuda {
inline std::byte* shared_memory() {
  return ::emulation::shared_memory();
}
}  // namespace twintrack::cuda

// --- functions of a warp -------------------------------------------------------------------------

inline unsigned __ballot_sync(unsigned lanes, int predicate) {
  const auto all = ::emulation::exchange(lanes, predicate != 0 ? 1 : 0, "ballot");
  unsigned votes = 0;
  for (unsigned lane = 0; lane < 32; ++lane)
    if ((lanes >> lane & 1u) != 0 && all.value[lane] != 0) votes |= 1u << lane;
  return votes;
}
inline int __all_sync(unsigned lanes, int predicate) {
  return __ballot_sync(lanes, predicate) == lanes ? 1 : 0;
}
inline unsigned __reduce_add_sync(unsigned lanes, unsigned value) {
  const auto all = ::emulation::exchange(lanes, value, "reduce_add");
  unsigned sum = 0;
  for (unsigned lane = 0; lane < 32; ++lane)
    if ((lanes >> lane & 1u) != 0) sum += static_cast<unsigned>(all.value[lane]);
  return sum;
}
template <class T>
T __shfl_sync(unsigned lanes, T value, int from) {
  static_assert(sizeof(T) <= 8 && std::is_integral_v<T>);
  const auto all = ::emulation::exchange(lanes, static_cast<std::uint64_t>(value), "shfl");
  return static_cast<T>(all.value[static_cast<unsigned>(from) % 32]);
}

// --- functions of a thread -----------------------------------------------------------------------

inline int __popc(int bits) {
  return std::popcount(static_cast<unsigned>(bits));
}
inline int __clz(int bits) {
  return std::countl_zero(static_cast<unsigned>(bits));
}
inline int __ffs(int bits) {
  return bits == 0 ? 0 : std::countr_zero(static_cast<unsigned>(bits)) + 1;
}
inline int __ffsll(long long bits) {
  return bits == 0 ? 0 : std::countr_zero(static_cast<unsigned long long>(bits)) + 1;
}
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
  const std::uint64_t bytes = std::uint64_t{high} << 32 | low;
  unsigned result = 0;
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned from = selector >> (4 * i) & 7u;
    result |= static_cast<unsigned>(bytes >> (8 * from) & 0xffu) << (8 * i);
  }
  return result;
}
template <class T>
T __ldcs(const T* from) {
  return *from;
}
template <class T>
void __stcs(T* to, T value) {
  *to = value;
}

// CUDA's atomics are relaxed: they order nothing.
template <class T>
T atomicAdd(T* to, T amount) {
  ::emulation::interleave();
  return __atomic_fetch_add(to, amount, __ATOMIC_RELAXED);
}
template <class T>
T atomicMin(T* to, T value) {
  ::emulation::interleave();
  T seen = __atomic_load_n(to, __ATOMIC_RELAXED);
  while (value < seen &&
         !__atomic_compare_exchange_n(to, &seen, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return seen;
}

// --- runtime -------------------------------------------------------------------------------------

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidDevice = 101,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorStreamCaptureImplicit = 906,
};
enum cudaStreamCaptureStatus { cudaStreamCaptureStatusNone = 0, cudaStreamCaptureStatusActive = 1 };
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 };
enum cudaDeviceAttr {
  cudaDevAttrMaxThreadsPerBlock = 1,
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
  cudaDevAttrMemoryPoolsSupported = 115,
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum { cudaEventDisableTiming = 2 };
enum cudaMemoryType { cudaMemoryTypeDevice = 2, cudaMemoryTypeManaged = 3 };
struct cudaPointerAttributes {
  cudaMemoryType type;
  int device;
};
struct cudaDeviceProp {
  char name[256];
  std::size_t totalGlobalMem;
  int major, minor;
};
enum cudaMemAllocationType { cudaMemAllocationTypePinned = 1 };
enum cudaMemLocationType { cudaMemLocationTypeDevice = 1 };
enum cudaMemPoolAttr { cudaMemPoolAttrReleaseThreshold = 4 };
struct cudaMemPoolProps {
  cudaMemAllocationType allocType;
  struct {
    cudaMemLocationType type;
    int id;
  } location;
};
using cudaStream_t = struct CUstream_st*;
using cudaEvent_t = struct CUevent_st*;
using cudaMemPool_t = struct CUmemPool_st*;
#define cudaStreamLegacy (reinterpret_cast<cudaStream_t>(0x1))
#define cudaStreamPerThread (reinterpret_cast<cudaStream_t>(0x2))

const char* cudaGetErrorName(cudaError_t);
const char* cudaGetErrorString(cudaError_t);
cudaError_t cudaGetLastError();
cudaError_t cudaGetDevice(int*);
cudaError_t cudaSetDevice(int);
cudaError_t cudaGetDeviceCount(int*);
cudaError_t cudaDeviceGetAttribute(int*, cudaDeviceAttr, int);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp*, int);
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes*, const void*);
cudaError_t cudaRuntimeGetVersion(int*);
cudaError_t cudaDriverGetVersion(int*);
cudaError_t cudaMemPoolCreate(cudaMemPool_t*, const cudaMemPoolProps*);
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*);
cudaError_t cudaMallocFromPoolAsync(void**, std::size_t, cudaMemPool_t, cudaStream_t);
cudaError_t cudaFreeAsync(void*, cudaStream_t);
cudaError_t cudaMalloc(void**, std::size_t);
cudaError_t cudaFree(void*);
cudaError_t cudaMemsetAsync(void*, int, std::size_t, cudaStream_t);
cudaError_t cudaMemcpyAsync(void*, const void*, std::size_t, cudaMemcpyKind, cudaStream_t);
cudaError_t cudaStreamSynchronize(cudaStream_t);
cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus*);
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t*, unsigned);
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t);
cudaError_t cudaEventDestroy(cudaEvent_t);

template <class Function>
cudaError_t cudaFuncSetAttribute(Function*, cudaFuncAttribute, int shared_bytes) {
  return shared_bytes <= ::emulation::device().shared ? cudaSuccess : cudaErrorInvalidValue;
}

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes;
  cudaStream_t stream;
};

namespace emulation {
cudaError_t run_grid(const cudaLaunchConfig_t& config, const std::function<void()>& kernel);
}

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  const std::tuple<Parameters...> values(std::forward<Arguments>(arguments)...);
  return ::emulation::run_grid(*config, [&] { std::apply(kernel, values); });
}
