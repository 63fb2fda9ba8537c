// Small device functions that every kernel uses.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace twintrack::cuda {

/// Every lane of a warp.
inline constexpr unsigned whole_warp = 0xffffffffu;
inline constexpr unsigned warp_size = 32;

/// A block's dynamic shared memory, uninitialised and aligned to 16 bytes. Kernels use no other, so
/// that their whole need is known to the host.
#if defined(__CUDACC__)
__device__ inline std::byte* shared_memory() {
  extern __shared__ uint4 twintrack_shared_memory[];
  return reinterpret_cast<std::byte*>(twintrack_shared_memory);
}
#else
std::byte* shared_memory();  // the tests' execution on the CPU provides it
#endif

/// Atomic additions without order, returning what was there before.
__device__ inline std::uint32_t add(std::uint32_t* to, std::uint32_t amount) {
  return atomicAdd(to, amount);
}

/// Where an object in shared memory lies, in bytes: addresses of 32 bits take half the arithmetic.
__device__ inline std::uint32_t shared_place(const void* object) {
#if defined(__CUDACC__)
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(object));
#else
  return static_cast<std::uint32_t>(static_cast<const std::byte*>(object) - shared_memory());
#endif
}

/// The same for a counter at a place in shared memory, if `wanted`; else returns 0. Written out
/// because the compiler by itself merges additions to shared and to global memory into a slower
/// instruction that finds out which it is, and makes a branch of the condition.
__device__ inline std::uint32_t add_shared_at(bool wanted, std::uint32_t place,
                                              std::uint32_t amount) {
#if defined(__CUDACC__)
  // Nothing is written before all inputs are read, so that they may share registers.
  std::uint32_t before = 0;
  asm volatile(
      "{\n"
      " .reg .pred wanted;\n"
      " setp.ne.u32 wanted, %3, 0;\n"
      " @wanted atom.shared.add.u32 %0, [%1], %2;\n"
      "}"
      : "+r"(before)
      : "r"(place), "r"(amount), "r"(static_cast<std::uint32_t>(wanted))
      : "memory");
  return before;
#else
  return wanted ? add(reinterpret_cast<std::uint32_t*>(shared_memory() + place), amount) : 0;
#endif
}

/// The same without a condition, which takes half the instructions.
__device__ inline std::uint32_t add_shared_at(std::uint32_t place, std::uint32_t amount) {
#if defined(__CUDACC__)
  std::uint32_t before;
  asm volatile("atom.shared.add.u32 %0, [%1], %2;"
               : "=r"(before)
               : "r"(place), "r"(amount)
               : "memory");
  return before;
#else
  return add(reinterpret_cast<std::uint32_t*>(shared_memory() + place), amount);
#endif
}

__device__ inline std::uint32_t add_shared(bool wanted, std::uint32_t* to, std::uint32_t amount) {
  return add_shared_at(wanted, shared_place(to), amount);
}

/// Adds 1 to `to` if `a + b` carries out of 32 bits.
__device__ inline void count_carry(std::uint32_t& to, std::uint32_t a, std::uint32_t b) {
#if defined(__CUDACC__)
  asm("{\n .reg .u32 low;\n add.cc.u32 low, %1, %2;\n addc.u32 %0, %0, 0;\n}"
      : "+r"(to)
      : "r"(a), "r"(b));
#else
  to += a + b < a ? 1u : 0u;
#endif
}

__device__ inline void add(std::uint64_t* to, std::uint64_t amount) {
  atomicAdd(reinterpret_cast<unsigned long long*>(to), static_cast<unsigned long long>(amount));
}

__device__ inline void lower(std::uint64_t* least, std::uint64_t value) {
  atomicMin(reinterpret_cast<unsigned long long*>(least), static_cast<unsigned long long>(value));
}

__device__ inline void lower(std::uint32_t* least, std::uint32_t value) {
  atomicMin(least, value);
}

/// A value that others change meanwhile, as it is now or was before.
template <class T>
__device__ inline T peek(const T* from) {
#if defined(__CUDACC__)
  return *static_cast<const volatile T*>(from);
#else
  return __atomic_load_n(from, __ATOMIC_RELAXED);
#endif
}

/// Loads and stores of data that is not used again.
template <class T>
__device__ inline T load_once(const T* from) {
  return __ldcs(from);
}
template <class T>
__device__ inline void store_once(T* to, T value) {
  __stcs(to, value);
}

}  // namespace twintrack::cuda
