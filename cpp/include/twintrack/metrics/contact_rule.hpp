// The rule of contact angles (contact_angle.hpp) for one pixel, shared by the CPU loops and the
// CUDA kernels.
//
// In a slice, for one vessel and one tumour mask T: lesion is T dilated by the 2-D cross; edge is
// the vessel without its erosion by the cross (beyond the image is background). An edge pixel that
// the lesion covers is one contact. One that it does not cover gets, from the lesion outside the
// edge (`open`), one contact each for: open at (0,1); open at (1,0); open at (1,1); open at (0,1)
// or (1,0). These are the two-pixel kernels [1 1], its transpose and the two diagonals as
// scipy.ndimage.convolve lays an even kernel, from the pixel towards higher indices. Hence
//     degrees = 360 contacts / edge pixels,
// which may exceed 360, and the angle of a vessel is the largest over the slices of an axis. The
// rule is symmetric in the slice's two axes, so volumes can be walked with axes in any order.
#pragma once

#include <cstddef>
#include <cstdint>

#include "twintrack/arrays/config.hpp"

namespace twintrack {

/// The masks that mark a voxel: bit k is mask k, raters first, then thresholds.
using MaskWord = std::uint64_t;
inline constexpr std::size_t max_masks = 64;

/// A contact is settled by voxels from one below to two above an edge voxel along each axis: the
/// cross of a neighbour towards higher indices.
inline constexpr int contact_before = 1;
inline constexpr int contact_after = 2;

/// A count for each mask, in binary digits: bit k of each word belongs to mask k.
struct MaskCounts {
  MaskWord ones;
  MaskWord twos;
  MaskWord fours;
};

/// Contacts (0 to 4) of an edge pixel: `here` is the lesion on it; the others are the open lesion
/// one step along the first axis, along the second, and along both.
TWINTRACK_HD MaskCounts contacts(MaskWord here, MaskWord first, MaskWord second, MaskWord both) {
  // first + second + (first | second) is 2 (first | second) + (first & second).
  const MaskWord either = first | second;
  const MaskWord pair = first & second;
  const MaskWord carry = pair & both;
  return {here | (~here & (pair ^ both)), ~here & (either ^ carry), ~here & either & carry};
}

/// The masks dilated by the cross, at one pixel of a slice whose axes have strides `a` and `b`.
TWINTRACK_HD MaskWord lesion(const MaskWord* mask, std::int64_t a, std::int64_t b) {
  return mask[0] | mask[-a] | mask[a] | mask[-b] | mask[b];
}

/// For the slice normal to each axis a bit, axis 0 lowest: whether a vessel voxel is on the edge
/// there. The arguments say whether a neighbour along an axis is not of the same vessel.
TWINTRACK_HD std::uint8_t edge_planes(std::uint8_t along0, std::uint8_t along1,
                                      std::uint8_t along2) {
  return static_cast<std::uint8_t>((along1 | along2) | (along0 | along2) << 1 |
                                   (along0 | along1) << 2);
}

}  // namespace twintrack
