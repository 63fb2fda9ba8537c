// What becomes of merged scores: their mean over the members is mapped and written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "twintrack/arrays/array_view.hpp"
#include "twintrack/arrays/element.hpp"
#include "twintrack/arrays/input_error.hpp"
#include "twintrack/calibration/calibration_map.hpp"
#include "twintrack/calibration/map_block.hpp"
#include "twintrack/calibration/map_rule.hpp"

namespace twintrack::detail {

inline void check_out(const WritableArrayView& out) {
  if (out.element != Element::float32 && out.element != Element::float16 &&
      out.element != Element::bfloat16)
    throw InputError("out", "must be float32, float16 or bfloat16");
  element_count(out.shape, "out");
}

/// The map to apply to scores, or none. Made once, before any loop: a map makes its table then.
inline std::optional<MapView<float>> map_view(const CalibrationMap* map) {
  if (map == nullptr) return std::nullopt;
  return map->view<float>();
}

/// Finishes n <= block_voxels scores: the mean over the members and the map, if there is one.
/// Returns where the result is: in `score` or in `room`.
const float* finish_scores(float members, const std::optional<MapView<float>>& map, int n,
                           MapRoom<float>& room, float* score);

/// Rounds `n` finished scores to the type of the output and stores them; `stride` in bytes.
void write_scores(Element element, const float* score, std::int64_t stride, std::int64_t n,
                  std::byte* p);

}  // namespace twintrack::detail

#if !defined(TWINTRACK_LINKED)
#include "twintrack/ensemble/merged_scores_loops.hpp"
#endif
