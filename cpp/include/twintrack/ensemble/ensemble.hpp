// The score of an ensemble whose members lie on one grid: K arrays of channels to one volume of
// tumour probabilities, in one pass and without any array between them.
//
// What is computed is in merge.hpp. A thread merges 512 voxels at a time: rows of channels are
// brought to float in the first-level cache, the loop over channels is outside, that over voxels
// inside, where it vectorises. Bound by arithmetic: about 25 operations a logit.
#pragma once

#include <cstddef>
#include <vector>

#include "twintrack/arrays/array_view.hpp"
#include "twintrack/arrays/input_error.hpp"
#include "twintrack/arrays/parallel.hpp"
#include "twintrack/calibration/calibration_map.hpp"
#include "twintrack/ensemble/members.hpp"
#include "twintrack/ensemble/merge.hpp"
#include "twintrack/ensemble/merged_scores.hpp"

namespace twintrack {

namespace detail {

/// The rule, checked against the arrays of an ensemble on one grid. Throws InputError.
inline Merge ensemble_merge(const std::vector<ArrayView>& members, const MergeRule& rule,
                            const WritableArrayView& out) {
  check_members(members, out.shape.size());
  check_out(out);
  for (std::size_t k = 0; k < members.size(); ++k)
    if (channel_of(members[k], 0).shape != out.shape)
      throw InputError(member_name(k), "has shape " + to_text(members[k].shape) +
                                           " but out has shape " + to_text(out.shape));
  return Merge(rule, members[0].shape[0]);
}

}  // namespace detail

/// Scores of `members`, each (channels, *shape of out) and of one float type, to `out` (float32,
/// float16 or bfloat16; must not overlap the members), calibrated if there is a `map`. Throws
/// InputError if shapes, types and rule do not fit together and for a logit that is not finite or a
/// probability outside [0, 1]; `out` is then unspecified.
void ensemble_score(const std::vector<ArrayView>& members, const MergeRule& rule,
                    const CalibrationMap* map, const WritableArrayView& out,
                    int threads = max_threads());

}  // namespace twintrack

#if !defined(TWINTRACK_LINKED)
#include "twintrack/ensemble/ensemble_loops.hpp"
#endif
