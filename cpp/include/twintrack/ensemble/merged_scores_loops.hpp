// The loops of merged_scores.hpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>

#include "twintrack/arrays/config.hpp"
#include "twintrack/arrays/element.hpp"
#include "twintrack/arrays/instruction_set.hpp"
#include "twintrack/calibration/map_block.hpp"
#include "twintrack/calibration/map_rule.hpp"
#include "twintrack/ensemble/merged_scores.hpp"

namespace twintrack::detail {

TWINTRACK_INLINE const float* finish(float members, const std::optional<MapView<float>>& map, int n,
                                     MapRoom<float>& room, float* score) {
  for (int i = 0; i < n; ++i) score[i] /= members;
  if (!map) return score;
  // Nothing lies ahead.
  map_block<MapStore::cached>(*map, score, n, score, room, room.value.data());
  return room.value.data();
}
TWINTRACK_ENTRY const float* finish_scores(float members, const std::optional<MapView<float>>& map,
                                           int n, MapRoom<float>& room, float* score) {
  const float* finished = nullptr;
  with_instruction_set(
      [&]() TWINTRACK_INLINE_LAMBDA { finished = finish(members, map, n, room, score); });
  return finished;
}

template <class T>
TWINTRACK_INLINE void write_as(const float* score, std::int64_t stride, std::int64_t n,
                               std::byte* p) {
  for (std::int64_t i = 0; i < n; ++i) {
    const T value = from_unit<T>(score[i]);
    std::memcpy(p + i * stride, &value, sizeof value);
  }
}

TWINTRACK_ENTRY void write_scores(Element element, const float* score, std::int64_t stride,
                                  std::int64_t n, std::byte* p) {
  if (element == Element::float32 && stride == std::int64_t{sizeof(float)}) {
    std::memcpy(p, score, static_cast<std::size_t>(n) * sizeof(float));
    return;
  }
  with_instruction_set([&]() TWINTRACK_INLINE_LAMBDA {
    if (element == Element::float32)
      write_as<float>(score, stride, n, p);
    else if (element == Element::float16)
      write_as<float16>(score, stride, n, p);
    else
      write_as<bfloat16>(score, stride, n, p);
  });
}

}  // namespace twintrack::detail
