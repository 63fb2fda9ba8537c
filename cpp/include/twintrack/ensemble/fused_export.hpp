// The fused export: K members' channels at network spacing to one volume of scores at the image's
// spacing. Resampling, softmax, mean, merge and map happen tile by tile; no array of channels at
// image resolution ever exists. Memory beyond the inputs and the output is a few hundred kilobytes
// a thread for ten channels.
//
// Per output voxel and channel: the value is interpolated along axis 2, then 1, then 0 (`lerp`,
// resample.hpp), then merged (merge.hpp). Interpolation is in float32, but in float64 where the
// rule asks for the result to be rounded to float16: nnU-Net interpolates in float64 and stores
// float16, and a value on the other side of a rounding boundary would be a whole float16 step away,
// which for logits above 8 can be more than 0.001 of probability. The few values that lie so close
// to a boundary that float64's own rounding decides are summed up again in SciPy's order
// (`sum_of_corners`), so that the float16 are nnU-Net's, all of them.
//
// A task is a tile of about 1024 voxels of axes 1 and 2 by 32 slices of axis 0. Going along axis 0,
// a member's input slices are brought to the tile's resolution once, in axes 2 and 1, and kept
// while output slices between them use them: two such planes a channel, in the second-level cache.
// So the gathering reads of axis 2 are paid once per input row and not per output voxel, and what
// is left per voxel and logit is one lerp of contiguous rows and one exponential: bound by
// arithmetic, about 30 operations a logit.
#pragma once

#include <vector>

#include "twintrack/arrays/array_view.hpp"
#include "twintrack/arrays/parallel.hpp"
#include "twintrack/calibration/calibration_map.hpp"
#include "twintrack/ensemble/export_grid.hpp"
#include "twintrack/ensemble/merge.hpp"

namespace twintrack {

/// Scores of `members`, each (channels, 3 spatial axes) of one float type on a grid of its own that
/// covers the same box as `out` (z, y, x; float32, float16 or bfloat16; must not overlap the
/// members), calibrated if there is a `map`. Throws as ensemble_score does.
void export_score(const std::vector<ArrayView>& members, const std::vector<ExportGrid>& grids,
                  const MergeRule& rule, const CalibrationMap* map, const WritableArrayView& out,
                  int threads = max_threads());

}  // namespace twintrack

#if !defined(TWINTRACK_LINKED)
#include "twintrack/ensemble/fused_export_loops.hpp"
#endif
