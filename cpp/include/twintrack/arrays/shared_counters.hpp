// Counters in plain memory that several threads change at once: what std::atomic_ref does, which
// libc++ lacks before 19.
#pragma once

#include <atomic>
#include <cstdint>

#include "twintrack/arrays/config.hpp"

namespace twintrack::detail {

#if defined(__cpp_lib_atomic_ref)

TWINTRACK_INLINE void add_shared(std::uint64_t& counter, std::uint64_t amount) {
  std::atomic_ref<std::uint64_t>(counter).fetch_add(amount, std::memory_order_relaxed);
}
TWINTRACK_INLINE void raise_shared(std::uint64_t& greatest, std::uint64_t value) {
  std::atomic_ref<std::uint64_t> shared(greatest);
  std::uint64_t seen = shared.load(std::memory_order_relaxed);
  while (seen < value && !shared.compare_exchange_weak(seen, value, std::memory_order_relaxed)) {
  }
}

#else

TWINTRACK_INLINE void add_shared(std::uint64_t& counter, std::uint64_t amount) {
  __atomic_fetch_add(&counter, amount, __ATOMIC_RELAXED);
}
TWINTRACK_INLINE void raise_shared(std::uint64_t& greatest, std::uint64_t value) {
  std::uint64_t seen = __atomic_load_n(&greatest, __ATOMIC_RELAXED);
  while (seen < value && !__atomic_compare_exchange_n(&greatest, &seen, value, true,
                                                      __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}

#endif

}  // namespace twintrack::detail
