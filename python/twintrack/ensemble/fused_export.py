"""The members of an ensemble resampled, merged and pasted into the image, in one pass.

What nnU-Net does on export, without an array of channels at image resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from twintrack import _core
from twintrack.arrays.backend import cuda_module
from twintrack.arrays.calls import DeviceCall, open_members
from twintrack.ensemble.export_geometry import ExportGeometry
from twintrack.ensemble.merge import Inputs, core_map, merge_rule
from twintrack.ensemble.record import Average
from twintrack.errors import InputError

if TYPE_CHECKING:
    from twintrack.arrays.libraries import Array

Resampling = Literal["nnunet", "torch"]


def export_score(
    members: Sequence[Array],
    geometry: ExportGeometry | Sequence[ExportGeometry],
    tumour: int | Sequence[int] = (1,),
    inputs: Inputs = "logits",
    average: Average = "probabilities",
    calibrator: Any = None,
    out: Array | None = None,
    *,
    regions: bool = False,
    resampling: Resampling = "nnunet",
    force_separate_z: bool | None = None,
) -> Array:
    """Resample the members to the image, merge, calibrate and paste them, in one pass.

    Parameters
    ----------
    members : K arrays (C, *grid), float16, bfloat16, float32 or float64
        What the networks return, on their own grids, axes in their own order; of one dtype.
    geometry : ExportGeometry, or one for each member
        All of one image shape and box.
    resampling : {"nnunet", "torch"}
        Which of nnU-Net's functions to follow: ``resample_data_or_seg_to_shape`` with order 1 and
        order_z 0, the default of its plans, or ``resample_torch_fornnunet``. The first stores
        resampled float16 logits as float16, and so does this; the second does not.
    force_separate_z : bool, optional
        As in the plans' arguments of that function.
    tumour, inputs, average, calibrator, regions
        As in `ensemble_score`. The mean of logits needs members on one grid.
    out : float32, float16 or bfloat16 array of the image's shape, optional
        Where to write, any strides; it may be a part of a larger volume.

    Returns
    -------
    `out`, or a new float32 array of the members' library. Outside the box it is exactly 0, with a
    calibrator too.

    Raises
    ------
    ValueError
        As `ensemble_score`.

    Notes
    -----
    The probabilities are those of nnU-Net's own export, mean and merge to float32's rounding: a
    resampled float16 logit becomes the float16 that nnU-Net stores, also where that is decided by
    the order of SciPy's roundings. Memory beyond the members and the score is less than a megabyte
    a thread for ten channels.
    """
    geometries = _geometries(geometry, len(members))
    if resampling not in ("nnunet", "torch"):
        raise InputError("it is 'nnunet' or 'torch'", argument="resampling", value=resampling)
    # The items of an ExportGrid: axes, nearest, coordinates in float32, rounds to the input's type.
    grids = []
    for each in geometries:
        separate = each.separate_axis(force_separate_z)
        axes = [each.transpose.index(axis) for axis in range(3)]
        nearest = [axis == separate for axis in range(3)]
        grids.append((axes, nearest, resampling == "torch", resampling == "nnunet"))
    rule = merge_rule(len(members), tumour, inputs, average, regions, calibrator)
    shape = geometries[0].shape if geometries else None
    call = open_members(members, out, shape)
    if call.out.shape != shape:
        raise InputError(f"out has shape {call.out.shape} but the image has shape {shape}")
    box = tuple(slice(*ends) for ends in geometries[0].box)
    if isinstance(call, DeviceCall):
        cuda_module().export_score(
            [member.compiled() for member in call.inputs],
            grids,
            rule,
            core_map(calibrator, on_device=True),
            call.out[box].compiled(),
            call.device,
            call.stream,
        )
        if out is not None:
            _clear_outside(out, box, 0)
    else:
        core_grids = [_core.ExportGrid(*grid) for grid in grids]
        fitted, inside = core_map(calibrator), call.out[box]
        _core.export_score(call.inputs, core_grids, _core.MergeRule(*rule), fitted, inside)
        if out is not None:
            # 16-bit floats of a void dtype too: all bits 0 is the value 0.
            _clear_outside(call.out, box, np.zeros((), call.out.dtype))
    result: Array = call.result
    return result


def _geometries(
    geometry: ExportGeometry | Sequence[ExportGeometry], members: int
) -> list[ExportGeometry]:
    if isinstance(geometry, ExportGeometry):
        return [geometry] * members
    geometries = list(geometry)
    if len(geometries) != members:
        raise InputError(f"there are {members} members but {len(geometries)} geometries")
    for k, each in enumerate(geometries):
        if (each.shape, each.box) != (geometries[0].shape, geometries[0].box):
            raise InputError(
                f"geometry[{k}] is of an image of {each.shape} with box {each.box}, but "
                f"geometry[0] is of {geometries[0].shape} with box {geometries[0].box}"
            )
    return geometries


def _clear_outside(volume: Any, box: Sequence[slice], zero: Any) -> None:
    rest = volume
    for axis, part in enumerate(box):
        rest[(slice(None),) * axis + (slice(0, part.start),)] = zero
        rest[(slice(None),) * axis + (slice(part.stop, None),)] = zero
        rest = rest[(slice(None),) * axis + (part,)]
