// Large arrays that are zero at first, without filling them: from the system, which provides
// memory page by page where something is written, or from who had one before and has made it zero
// again, which is quicker still.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>
#include <type_traits>
#include <utility>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#define TWINTRACK_MAPPED 1
#else
#define TWINTRACK_MAPPED 0
#endif

namespace twintrack {

namespace detail {

struct Memory {
  void* data = nullptr;
  std::size_t bytes = 0;
};

// Memory that is kept for who needs it next.
inline std::array<Memory, 16> kept_memory;
inline std::atomic_flag kept_memory_in_use;

// Calls `use(kept)` unless another thread is doing so. Nobody waits: in a process forked meanwhile
// the other thread would never be done.
template <class Use>
void with_kept_memory(const Use& use) {
  if (kept_memory_in_use.test_and_set(std::memory_order_acquire)) return;
  use(kept_memory);
  kept_memory_in_use.clear(std::memory_order_release);
}

inline void* zeroed_memory(std::size_t bytes) {
  void* data = nullptr;
  with_kept_memory([&](auto& kept) {
    for (Memory& each : kept)
      if (data == nullptr && each.bytes == bytes) data = std::exchange(each, {}).data;
  });
  if (data != nullptr) return data;
#if TWINTRACK_MAPPED  // calloc would fill memory that was used before
  data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) throw std::bad_alloc();
#else
  data = std::calloc(bytes, 1);
  if (data == nullptr) throw std::bad_alloc();
#endif
  return data;
}

inline void free_memory(Memory memory) {
  if (memory.data == nullptr) return;
#if TWINTRACK_MAPPED
  munmap(memory.data, memory.bytes);
#else
  std::free(memory.data);
#endif
}

// Keeps memory that is all zero; if there is enough already, what was kept longest is freed.
inline void keep_memory(Memory memory) {
  with_kept_memory([&](auto& kept) {
    auto place = std::find_if(kept.begin(), kept.end(), [](Memory& each) { return !each.data; });
    if (place == kept.end()) place = std::rotate(kept.begin(), kept.begin() + 1, kept.end());
    std::swap(*place, memory);
  });
  free_memory(memory);
}

}  // namespace detail

/// `size` numbers, all 0 at first. Throws std::bad_alloc.
template <class T>
class Zeroed {
  static_assert(std::is_trivial_v<T>);

 public:
  /// What is larger is not kept.
  static constexpr std::size_t most_kept_bytes = 20 << 20;

  explicit Zeroed(std::size_t size)
      : memory_{detail::zeroed_memory(size * sizeof(T)), size * sizeof(T)} {}
  Zeroed(Zeroed&& other) noexcept : memory_(std::exchange(other.memory_, {})) {}
  Zeroed& operator=(Zeroed&& other) noexcept {
    std::swap(memory_, other.memory_);
    return *this;
  }
  ~Zeroed() { detail::free_memory(memory_); }

  /// Whether it is worth while to make all of it zero and call `keep`.
  bool keepable() const { return memory_.data != nullptr && memory_.bytes <= most_kept_bytes; }
  /// Leaves the memory, which must be all zero, to others.
  void keep() { detail::keep_memory(std::exchange(memory_, {})); }

  T* data() { return static_cast<T*>(memory_.data); }
  const T* data() const { return static_cast<const T*>(memory_.data); }
  std::size_t size() const { return memory_.bytes / sizeof(T); }

 private:
  detail::Memory memory_;
};

}  // namespace twintrack
