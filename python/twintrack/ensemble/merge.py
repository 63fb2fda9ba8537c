"""The members of an ensemble merged to one tumour probability a voxel, on the grid they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from twintrack import _core
from twintrack.arrays.backend import cuda_module
from twintrack.arrays.calls import DeviceCall, open_members
from twintrack.ensemble.record import Average, check_ensemble, ensemble_record, tumour_channels
from twintrack.errors import InputError

if TYPE_CHECKING:
    from twintrack.arrays.libraries import Array

Inputs = Literal["logits", "probabilities"]


def ensemble_score(
    members: Sequence[Array],
    tumour: int | Sequence[int] = (1,),
    inputs: Inputs = "logits",
    average: Average = "probabilities",
    calibrator: Any = None,
    out: Array | None = None,
    *,
    regions: bool = False,
) -> Array:
    """Merge the members of an ensemble to one tumour probability per voxel.

    Parameters
    ----------
    members : K arrays (C, *shape), float16, bfloat16, float32 or float64
        Channels first, any memory order and strides; all of one shape and dtype. Computed in
        float32.
    tumour : int or sequence of int
        Channels that are tumour: their probabilities are added.
    inputs : {"logits", "probabilities"}
        What the members hold.
    average : {"probabilities", "logits"}
        The mean over the members: of their probabilities (the TwinTrack paper, and
        ``nnUNetv2_ensemble``) or of their logits before the softmax (nnU-Net for the folds of one
        model; like there, sums of float16 logits are rounded to float16).
    calibrator : Calibrator, CalibrationMap or anything with their knots, optional
        Maps the merged score. A calibrator that records how its score was made must fit.
    out : float32, float16 or bfloat16 array of shape `shape`, optional
        Where to write; must not overlap the members.
    regions : bool
        Channels are regions that may overlap (nnU-Net's region-based training), each with its own
        sigmoid; of several tumour regions the highest probability counts.

    Returns
    -------
    `out`, or a new float32 array of the members' library, in their memory order; values in [0, 1].
    Its bits do not depend on the number of threads, the instruction set or the memory order. Of
    members on a CUDA device it is made there; the work is waited for, since a value that is not
    allowed must be reported.

    Raises
    ------
    ValueError
        For a logit that is not finite or not below 2^100 in magnitude, or a probability outside
        [0, 1], with its member, channel and voxel (`out` is then unspecified), and for arguments
        that do not fit together.
    """
    rule = merge_rule(len(members), tumour, inputs, average, regions, calibrator)
    call = open_members(members, out)
    if isinstance(call, DeviceCall):
        cuda_module().ensemble_score(
            [member.compiled() for member in call.inputs],
            rule,
            core_map(calibrator, on_device=True),
            call.out.compiled(),
            call.device,
            call.stream,
        )
    else:
        fitted = core_map(calibrator)
        _core.ensemble_score(call.inputs, _core.MergeRule(*rule), fitted, call.out)
    result: Array = call.result
    return result


def merge_rule(
    members: int,
    tumour: int | Sequence[int],
    inputs: str,
    average: Average,
    regions: bool,
    calibrator: Any,
) -> tuple[list[int], bool, bool, bool]:
    """Return the items of a `MergeRule`: tumour channels, logits, regions, mean of logits.

    Raises
    ------
    ValueError
        They do not fit together, or the calibrator is of scores that were made in another way.
    """
    choices = ("logits", "probabilities")
    for name, value in (("inputs", inputs), ("average", average)):
        if value not in choices:
            raise InputError("it is 'logits' or 'probabilities'", argument=name, value=value)
    if average == "logits" and inputs == "probabilities":
        raise InputError("average='logits' needs logits, but inputs is 'probabilities'")
    check_ensemble(calibrator, ensemble_record(members, tumour, average, regions))
    return tumour_channels(tumour), inputs == "logits", bool(regions), average == "logits"


def core_map(calibrator: Any, on_device: bool = False) -> Any:
    """Return the core's map of a calibrator, or the CUDA module's; None for None.

    Raises
    ------
    TypeError
        It has no map: neither `compiled`, as a `CalibrationMap`, whose tables are made once, not
        for each case, nor knots.
    """
    if calibrator is None:
        return None
    knots = getattr(calibrator, "map_", calibrator)
    if hasattr(knots, "compiled"):
        return knots.compiled(on_device)
    for x, y in (("x", "y"), ("X_thresholds_", "y_thresholds_")):
        if hasattr(knots, x) and hasattr(knots, y):
            at, value = (np.asarray(getattr(knots, name), np.float64).tolist() for name in (x, y))
            checked = _core.CalibrationMap(at, value)
            return cuda_module().CalibrationMap(at, value) if on_device else checked
    raise TypeError(
        f"calibrator is {type(calibrator).__name__}; it must have a map: a fitted Calibrator, a "
        "CalibrationMap, or an object with X_thresholds_ and y_thresholds_"
    )
