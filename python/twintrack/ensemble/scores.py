"""The score of an ensemble: K members' channels to one volume of tumour probabilities, in one pass.

`ensemble_score` is for members on the grid of the score. `export_score` also does what nnU-Net does
on export: it resamples each member from the network's spacing to the image's and pastes the result
into the image, without an array of channels at image resolution.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twintrack import _core
from twintrack.arrays.backend import cuda_module
from twintrack.arrays.device import device_members, device_part
from twintrack.arrays.host import on_device, output_array, to_numpy
from twintrack.arrays.libraries import device_empty_like, device_zeros
from twintrack.arrays.numbers import whole_number
from twintrack.calibration.calibration_map import CalibrationMap
from twintrack.errors import InputError

T = TypeVar("T")
Inputs = Literal["logits", "probabilities"]
Average = Literal["probabilities", "logits"]
Resampling = Literal["nnunet", "torch"]

ANISOTROPY_LIMIT = 3.0
"""Largest over smallest spacing above which nnU-Net resamples the coarsest axis on its own."""


@dataclass(frozen=True)
class ExportGeometry:
    """Where the voxels of a member's array lie in the image.

    All but `transpose` is in the order of the image array's axes.

    Parameters
    ----------
    shape : (3,) int
        The whole image.
    box : (3,) pairs of int
        First voxel and the one after the last, by axis, of the part that the network saw (nnU-Net's
        crop to the non-zero region). The member's array covers just this box.
    spacing : (3,) float
        Of the image, in mm.
    member_spacing : (3,) float
        Of the member's voxels, in mm: nnU-Net's configured one. It decides with `spacing` whether
        the coarsest axis is resampled on its own; the factors follow from the shapes.
    transpose : (3,) int
        Axis i of the member's array runs along axis ``transpose[i]`` of the image (nnU-Net's
        ``transpose_forward``).

    Raises
    ------
    ValueError
        If a box is empty or leaves the image, a spacing is not positive, or `transpose` is not an
        order of the axes.
    """

    shape: tuple[int, int, int]
    box: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    spacing: tuple[float, float, float]
    member_spacing: tuple[float, float, float]
    transpose: tuple[int, int, int] = (0, 1, 2)

    def __post_init__(self) -> None:
        if sorted(self.transpose) != [0, 1, 2]:
            raise InputError(f"transpose is {self.transpose}; it must be an order of 0, 1 and 2")
        for name in ("shape", "box", "spacing", "member_spacing"):
            if len(getattr(self, name)) != 3:
                raise InputError(f"{name} is {getattr(self, name)}; it needs one entry an axis")
        for axis, ((start, stop), extent) in enumerate(zip(self.box, self.shape, strict=True)):
            if not 0 <= start < stop <= extent:
                raise InputError(
                    f"box[{axis}] is ({start}, {stop}); it must be a part of the image's "
                    f"{extent} voxels along that axis"
                )
        for name in ("spacing", "member_spacing"):
            if not all(np.isfinite(value) and value > 0 for value in getattr(self, name)):
                raise InputError(f"{name} is {getattr(self, name)}; spacings are positive, in mm")

    @classmethod
    def from_nnunet(
        cls,
        properties: Mapping[str, Any],
        spacing: Sequence[float],
        transpose_forward: Sequence[int] = (0, 1, 2),
    ) -> ExportGeometry:
        """Return the geometry of a case that nnU-Net has preprocessed.

        Parameters
        ----------
        properties
            What nnU-Net's preprocessor returns with the data and stores in ``case.pkl``: `spacing`,
            `shape_before_cropping`, `bbox_used_for_cropping`.
        spacing : (3,) or (2,) float
            The configuration's, in the plans' axis order; a 2-D configuration has none for slices.
        transpose_forward
            The plans'.
        """
        forward = tuple(int(axis) for axis in transpose_forward)
        backward = np.argsort(forward)
        image_spacing = [float(value) for value in properties["spacing"]]
        member = [float(value) for value in spacing]
        if len(member) == 2:
            member = [image_spacing[forward[0]], *member]
        shape = properties["shape_before_cropping"]
        box = properties["bbox_used_for_cropping"]
        return cls(
            shape=_three(int(shape[axis]) for axis in backward),
            box=_three((int(box[axis][0]), int(box[axis][1])) for axis in backward),
            spacing=_three(image_spacing),
            member_spacing=_three(member[axis] for axis in backward),
            transpose=_three(forward),
        )

    def separate_axis(self, force: bool | None = None) -> int | None:
        """Return the image axis that nnU-Net resamples on its own, by nearest neighbour, or None.

        It is the coarsest axis of the member's spacing, or else of the image's, if that is more
        than three times as coarse as the finest, and no other is as coarse. `force` is nnU-Net's
        ``force_separate_z``: True asks for it at any anisotropy, False never does it.
        """
        if force is False:
            return None
        for spacing in (self.member_spacing, self.spacing):
            if force or max(spacing) / min(spacing) > ANISOTROPY_LIMIT:
                coarsest = [axis for axis in range(3) if max(spacing) / spacing[axis] == 1]
                return coarsest[0] if len(coarsest) == 1 else None
        return None


def ensemble_score(
    members: Sequence[Any],
    tumour: int | Sequence[int] = (1,),
    inputs: Inputs = "logits",
    average: Average = "probabilities",
    calibrator: Any = None,
    out: Any = None,
    *,
    regions: bool = False,
) -> Any:
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
    `out`, or a new float32 array in the memory order of the members; values in [0, 1]. Its bits do
    not depend on the number of threads, the instruction set or the memory order. Of members on a
    CUDA device it is made there, by their library; the work is waited for, since a value that is
    not allowed must be reported.

    Raises
    ------
    ValueError
        For a logit that is not finite or not below 2^100 in magnitude, or a probability outside
        [0, 1], with its member, channel and voxel (`out` is then unspecified), and for arguments
        that do not fit together.
    """
    if on_device(members=members, out=out):
        rule = _rule(len(members), tumour, inputs, average, regions, calibrator)
        result: Any = device_empty_like(members[0][0], float32=True) if out is None else out
        views, view, stream = device_members(members, result)
        compiled = [member.compiled() for member in views]
        cuda_module().ensemble_score(
            compiled, rule, _cuda_map(calibrator), view.compiled(), view.device, stream
        )
        return result
    arrays = _members(members)
    rule = _rule(len(arrays), tumour, inputs, average, regions, calibrator)
    fresh = out is None
    result = np.empty_like(arrays[0][0], dtype=np.float32, subok=False) if fresh else out
    target = _target(result, arrays)
    _core.ensemble_score(arrays, _core.MergeRule(*rule), core_map(calibrator), target)
    return result


def export_score(
    members: Sequence[Any],
    geometry: ExportGeometry | Sequence[ExportGeometry],
    tumour: int | Sequence[int] = (1,),
    inputs: Inputs = "logits",
    average: Average = "probabilities",
    calibrator: Any = None,
    out: Any = None,
    *,
    regions: bool = False,
    resampling: Resampling = "nnunet",
    force_separate_z: bool | None = None,
) -> Any:
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
    `out`, or a new float32 array. Outside the box it is exactly 0, with a calibrator too.

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
    there = on_device(members=members, out=out)
    arrays = [] if there else _members(members)
    geometries = _geometries(geometry, len(members))
    if resampling not in ("nnunet", "torch"):
        raise InputError("it is 'nnunet' or 'torch'", argument="resampling", value=resampling)
    grids = []
    for each in geometries:
        separate = each.separate_axis(force_separate_z)
        grids.append(
            (
                [each.transpose.index(axis) for axis in range(3)],
                [axis == separate for axis in range(3)],
                resampling == "torch",  # coordinates in float32
                resampling == "nnunet",  # rounds to the input's type
            )
        )
    rule = _rule(len(members), tumour, inputs, average, regions, calibrator)
    shape, box = geometries[0].shape, geometries[0].box
    fresh = out is None
    if there:
        result: Any = device_zeros(members[0], shape) if fresh else out
        views, view, stream = device_members(members, result)
        if view.shape != shape:
            raise InputError(f"out has shape {view.shape} but the image has shape {shape}")
        part = device_part(view, box).compiled()
        compiled = [member.compiled() for member in views]
        cuda_module().export_score(
            compiled, grids, rule, _cuda_map(calibrator), part, view.device, stream
        )
        if not fresh:
            _clear_outside(result, box, 0)
        return result
    result = np.zeros(shape, np.float32) if fresh else out
    target = _target(result, arrays)
    if target.shape != shape:
        raise InputError(f"out has shape {target.shape} but the image has shape {shape}")
    inside = target[tuple(slice(*ends) for ends in box)]
    core_grids = [_core.ExportGrid(*grid) for grid in grids]
    _core.export_score(arrays, core_grids, _core.MergeRule(*rule), core_map(calibrator), inside)
    if not fresh:
        # 16-bit floats of a void dtype too: all bits 0 is the value 0.
        _clear_outside(target, box, np.zeros((), target.dtype))
    return result


def ensemble_record(
    members: int, tumour: int | Sequence[int], average: Average, regions: bool = False
) -> dict[str, Any]:
    """Return how a score is made, for `Calibrator(ensemble=...)`: plain values for its file."""
    return {
        "members": members,
        "tumour": _channels(tumour),
        "average": average,
        "regions": regions,
    }


def check_ensemble(calibrator: Any, made: Mapping[str, Any]) -> None:
    """Refuse a calibrator that was fitted on scores made in another way.

    Its map is wrong for other scores, however plausible the result looks.

    Parameters
    ----------
    calibrator
        What it records of its ensemble (``provenance_["ensemble"]``) is compared; one that records
        nothing, a bare map or None fits every score.
    made
        How the scores at hand are made: `ensemble_record`.

    Raises
    ------
    ValueError
        Names the first entry that differs, with both values.
    """
    provenance = getattr(calibrator, "provenance_", None)
    recorded = provenance.get("ensemble") if isinstance(provenance, Mapping) else None
    for key, value in (recorded or {}).items():
        if key in made and made[key] != (list(value) if isinstance(value, tuple) else value):
            raise InputError(
                f"the calibrator was fitted on scores of an ensemble with {key} = {value!r}, but "
                f"this one has {key} = {made[key]!r}"
            )


def _three(values: Iterable[T]) -> tuple[T, T, T]:
    a, b, c = values
    return a, b, c


def _members(members: Sequence[Any]) -> list[NDArray[Any]]:
    arrays = [to_numpy(member, f"members[{k}]") for k, member in enumerate(members)]
    if not arrays:
        raise InputError("members is empty: at least one array is needed")
    for k, array in enumerate(arrays):
        floating = array.dtype.kind == "f" and array.dtype.itemsize <= 8
        if not (floating or array.dtype == np.dtype("V2") or array.dtype.name == "bfloat16"):
            raise TypeError(
                f"members[{k}] has dtype {array.dtype}; it must be float16, bfloat16, float32 or "
                "float64"
            )
        if array.ndim == 0:
            raise InputError(f"members[{k}] is a single value; its first axis is that of channels")
    return arrays


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


def _channels(tumour: int | Sequence[int]) -> list[int]:
    given: Any = tumour if np.iterable(tumour) else [tumour]
    channels = [whole_number(channel, f"tumour[{k}]", 0) for k, channel in enumerate(given)]
    if len(set(channels)) != len(channels):
        raise InputError(f"tumour is {tuple(channels)}; it names a channel twice")
    return channels


def _rule(
    members: int,
    tumour: int | Sequence[int],
    inputs: str,
    average: Average,
    regions: bool,
    calibrator: Any,
) -> tuple[list[int], bool, bool, bool]:
    # The items of a MergeRule: tumour channels, logits, regions, mean of logits.
    choices = ("logits", "probabilities")
    for name, value in (("inputs", inputs), ("average", average)):
        if value not in choices:
            raise InputError("it is 'logits' or 'probabilities'", argument=name, value=value)
    if average == "logits" and inputs == "probabilities":
        raise InputError("average='logits' needs logits, but inputs is 'probabilities'")
    check_ensemble(calibrator, ensemble_record(members, tumour, average, regions))
    return _channels(tumour), inputs == "logits", bool(regions), average == "logits"


def core_map(calibrator: Any) -> Any:
    """Return the core's map of a calibrator, None for None; TypeError if it has no map."""
    if calibrator is None or isinstance(calibrator, _core.CalibrationMap):
        return calibrator
    knots = getattr(calibrator, "map_", calibrator)
    if isinstance(knots, CalibrationMap):
        return knots._map  # its tables are made once, not for each case
    for x, y in (("x", "y"), ("X_thresholds_", "y_thresholds_")):
        if hasattr(knots, x) and hasattr(knots, y):
            return _core.CalibrationMap(
                np.asarray(getattr(knots, x), np.float64).tolist(),
                np.asarray(getattr(knots, y), np.float64).tolist(),
            )
    raise TypeError(
        f"calibrator is {type(calibrator).__name__}; it must have a map: a fitted Calibrator, a "
        "CalibrationMap, or an object with X_thresholds_ and y_thresholds_"
    )


def _cuda_map(calibrator: Any) -> Any:
    knots = getattr(calibrator, "map_", calibrator)
    if isinstance(knots, CalibrationMap):
        return knots._on_cuda()  # its tables are made once, not for each case
    found = core_map(calibrator)
    if found is None:
        return None
    return cuda_module().CalibrationMap(found.x.tolist(), found.y.tolist())


def _target(out: ArrayLike | Any, arrays: list[NDArray[Any]]) -> NDArray[Any]:
    target = output_array(out)
    for k, array in enumerate(arrays):
        if np.may_share_memory(target, array):
            raise InputError(f"out overlaps members[{k}] in memory")
    return target


def _clear_outside(volume: Any, box: Sequence[tuple[int, int]], zero: Any) -> None:
    rest = volume
    for axis, (start, stop) in enumerate(box):
        rest[(slice(None),) * axis + (slice(0, start),)] = zero
        rest[(slice(None),) * axis + (slice(stop, None),)] = zero
        rest = rest[(slice(None),) * axis + (slice(start, stop),)]
