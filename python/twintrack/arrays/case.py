"""The arrays of a case, converted once: a `HostCase` or a `DeviceCase`.

`open_case` is the door of everything that takes a score and its raters. What lies behind it, the
tallies, the angles, the sums, takes the case and never asks again where its arrays are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from numpy.typing import NDArray

from twintrack.arrays.backend import on_device
from twintrack.arrays.case_arguments import check_one_case
from twintrack.arrays.checks import mask_value, require_mask_dtype, require_scores
from twintrack.arrays.device import DeviceArray, common_stream, on_one_device
from twintrack.arrays.host import rater_arrays, region_array, score_array, to_numpy
from twintrack.arrays.libraries import surely_a_mask
from twintrack.errors import InputError

if TYPE_CHECKING:
    from typing_extensions import Self

    from twintrack import _cuda

Array = TypeVar("Array", NDArray[Any], DeviceArray)


@dataclass(frozen=True, eq=False)
class Case(Generic[Array]):
    """The arrays of a case, wherever they are.

    Attributes
    ----------
    score : (*shape) float16, bfloat16, float32 or float64
    raters : N arrays (*shape)
    region : array (*shape), or None where every voxel counts
    vessels : array (*shape), or None
    """

    score: Array
    raters: list[Array]
    region: Array | None = None
    vessels: Array | None = None

    def cropped(self, box: tuple[slice, ...]) -> Self:
        """Return score and raters inside of a box, where every voxel counts."""
        raters = [mask[box] for mask in self.raters]
        return replace(self, score=self.score[box], raters=raters, region=None, vessels=None)


@dataclass(frozen=True, eq=False)
class HostCase(Case[NDArray[Any]]):
    """Views in host memory, as the compiled core takes them; bfloat16 is a 2-byte void dtype."""

    def on_host(self) -> HostCase:
        """Return the case."""
        return self


@dataclass(frozen=True, eq=False)
class DeviceCase(Case[DeviceArray]):
    """What kernels need to know of arrays on one device, and the stream to work on.

    Attributes
    ----------
    stream
        Its handle; it waits for what the arrays were made on.
    held
        What was given: the memory lives as long as it does.
    """

    stream: int = 0
    held: Any = None

    @property
    def device(self) -> int:
        """CUDA's number of the device."""
        return self.score.device

    def on_host(self) -> HostCase:
        """Return a copy of score, raters and region in host memory."""
        region = None if self.region is None else self.region.fetched(self.stream)
        raters = [mask.fetched(self.stream) for mask in self.raters]
        return HostCase(self.score.fetched(self.stream), raters, region)

    def compiled(self) -> tuple[_cuda.Array, list[_cuda.Array], _cuda.Array | None]:
        """Return score, raters and region as the compiled module takes them."""
        region = None if self.region is None else self.region.compiled()
        return self.score.compiled(), [mask.compiled() for mask in self.raters], region


OpenCase: TypeAlias = HostCase | DeviceCase


def open_case(
    score: Any, raters: Any, region: Any | None = None, vessels: Any | None = None
) -> OpenCase:
    """Return the arrays of one case, in host memory or on a device; nothing is copied.

    Parameters
    ----------
    score, raters, region
        As `ScoreTally.update` takes them.
    vessels
        Array of the score's shape, optional.

    Raises
    ------
    TypeError
        An array has a dtype that it must not have, is none, or lies in host memory where another
        is on a device; or all are where ``TWINTRACK_BACKEND`` excludes them.
    ValueError
        The arrays may be a stack of cases, or lie on several devices; there are no raters; or the
        region is no mask.
    """
    check_one_case(score, raters)
    if on_device(score=score, raters=raters, region=region, vessels=vessels):
        return _on_device(score, raters, region, vessels)
    return HostCase(
        score_array(score),
        rater_arrays(raters),
        region_array(region),
        None if vessels is None else to_numpy(vessels, "vessels"),
    )


def _on_device(score: Any, raters: Any, region: Any, vessels: Any) -> DeviceCase:
    stacked = not isinstance(raters, (list, tuple))
    masks = [("raters", raters)] if stacked else [(f"raters[{k}]", r) for k, r in enumerate(raters)]
    optional = [("region", region), ("vessels", vessels)]
    given = [("score", score), *masks, *(pair for pair in optional if pair[1] is not None)]
    found = on_one_device(given)
    views = dict(zip((name for name, _ in given), found, strict=True))
    stream = common_stream(found)
    require_scores(views["score"].dtype, "score")
    split = views["raters"].split() if stacked else [views[name] for name, _ in masks]
    if not split:
        raise InputError("raters is empty: at least one rater mask is needed")
    mask = views.get("region")
    if mask is not None:
        _require_mask(region, mask, stream)
    held = (score, raters, region, vessels)
    return DeviceCase(views["score"], split, mask, views.get("vessels"), stream, held)


def _require_mask(region: Any, view: DeviceArray, stream: int) -> None:
    require_mask_dtype(view.dtype, "region")
    if view.dtype == "bool" or 0 in view.shape or surely_a_mask(region, view.dtype):
        return
    # What is wrong, and where, is looked for in host memory.
    mask_value(view.fetched(stream), lambda voxel: f"region{list(voxel)}")
