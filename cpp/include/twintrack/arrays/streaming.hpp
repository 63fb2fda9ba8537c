// Large arrays that are read once or written once: hints to the cache, where the processor has
// them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "twintrack/arrays/config.hpp"

#if defined(__SSE2__) && !defined(__CUDACC__)
#include <emmintrin.h>
#define TWINTRACK_STREAMING_STORES 1
#else
#define TWINTRACK_STREAMING_STORES 0
#endif

namespace twintrack {

/// Outputs of at least this many bytes would not stay in the cache anyway.
inline constexpr std::size_t streaming_bytes = std::size_t{4} << 20;

/// Asks for `bytes` bytes from `p` on, which may end beyond the array.
TWINTRACK_INLINE void prefetch(const void* p, std::size_t bytes) {
#if defined(__GNUC__) || defined(__clang__)
  const char* at = static_cast<const char*>(p);
  for (std::size_t offset = 0; offset < bytes; offset += 64) __builtin_prefetch(at + offset);
#else
  (void)p;
  (void)bytes;
#endif
}

/// Copies past the cache: the lines of `to` are not read first. `end_streaming` must follow before
/// another thread looks at them.
TWINTRACK_INLINE void stream_copy(const void* from, std::size_t bytes, void* to) {
#if TWINTRACK_STREAMING_STORES
  const char* source = static_cast<const char*>(from);
  char* target = static_cast<char*>(to);
  while (bytes > 0 && reinterpret_cast<std::uintptr_t>(target) % 16 != 0) {
    *target++ = *source++;
    --bytes;
  }
  for (; bytes >= 64; bytes -= 64, source += 64, target += 64)
    for (int part = 0; part < 64; part += 16)
      _mm_stream_si128(reinterpret_cast<__m128i*>(target + part),
                       _mm_loadu_si128(reinterpret_cast<const __m128i*>(source + part)));
  std::memcpy(target, source, bytes);
#else
  std::memcpy(to, from, bytes);
#endif
}

/// Stores `from` past the cache, at a multiple of 16 bytes.
template <class Vector>
TWINTRACK_INLINE void stream_vector(const Vector& from, void* to) {
#if TWINTRACK_STREAMING_STORES
  static_assert(sizeof from % 16 == 0);
  __m128i part[sizeof from / 16];
  std::memcpy(part, &from, sizeof from);
  for (std::size_t i = 0; i < sizeof from / 16; ++i)
    _mm_stream_si128(static_cast<__m128i*>(to) + i, part[i]);
#else
  std::memcpy(to, &from, sizeof from);
#endif
}

/// Stores `word(0)` to `word(7)` past the cache, at a multiple of 16 bytes.
template <class Word>
TWINTRACK_INLINE void stream_eight(std::uint16_t* to, Word&& word) {
#if TWINTRACK_STREAMING_STORES
  const auto at = [&](int i) TWINTRACK_INLINE_LAMBDA { return static_cast<short>(word(i)); };
  _mm_stream_si128(reinterpret_cast<__m128i*>(to),
                   _mm_setr_epi16(at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7)));
#else
  for (int i = 0; i < 8; ++i) to[i] = word(i);
#endif
}

TWINTRACK_INLINE void end_streaming() {
#if TWINTRACK_STREAMING_STORES
  _mm_sfence();
#endif
}

}  // namespace twintrack
