"""A calibration map as a torch module."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from twintrack.errors import InputError

# Scores at a time: what is held between two steps stays small.
_CHUNK = 1 << 19

# Slopes are kept divided by this, as float32 would not hold those of knots that lie close to 0.
_STEEPEST = 2.0**100

_TALLEST = 1 / 8  # rise of a piece: rounding its slope then moves no value by more than 2^-26

_HALF = 1024  # cells of a score below 1/2, and above it
_CELLS = 2 * _HALF + 1

# Older versions of torch do not tell an export from other compiling.
_is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)


class TorchMap(nn.Module):
    """Non-decreasing, piecewise-linear map of [0, 1] into itself; see `torch_module`.

    Parameters
    ----------
    x : (K,) scores of the knots
    evaluate : maps float64 scores
    """

    def __init__(self, x: NDArray[np.float64], evaluate: Callable[[Any], Any]) -> None:
        super().__init__()
        self._bits: Tensor
        pieces = linear_pieces(x, evaluate)
        first, steps = search_table(pieces[0])
        unused = np.array([[2], [0], [0]], np.float32).repeat(
            1 << steps, 1
        )  # no score is found in them
        # Programs that are exported have the tables as constants.
        self._first: list[int] = first.tolist()
        self._pieces: list[float] = np.hstack([pieces, unused]).ravel().tolist()
        self._steps = steps
        # Elsewhere they are a buffer of integers, which no cast of a model changes. Not in its
        # state: a checkpoint of the network alone fits the network with its map, too.
        self.register_buffer("_bits", self._tables(), persistent=False)

    def forward(self, score: Tensor) -> Tensor:
        """Map scores of any shape and floating dtype."""
        if not score.is_floating_point():
            raise TypeError(
                f"score has dtype {score.dtype}; it must be a probability of a floating dtype"
            )
        if torch.jit.is_scripting():
            return self._exported(score)
        return self._called(score)

    @torch.jit.unused  # type: ignore[untyped-decorator]
    def _called(self, score: Tensor) -> Tensor:
        if torch.jit.is_tracing() or _is_exporting():
            return self._exported(score)
        if self._bits.device != score.device:
            raise InputError(
                f"score is on {score.device} but the map on {self._bits.device}: move the module"
            )
        first = self._bits[:_CELLS]
        pieces = self._bits[_CELLS:].view(torch.float32).view(3, -1)
        if torch.compiler.is_compiling():
            return _mapped(first, pieces, self._steps, score)
        # A few at a time, in the order in which they lie in memory.
        axes = sorted(range(score.ndim), key=lambda axis: -score.stride(axis))
        ordered = score.permute(axes)
        parts = ordered.reshape(-1).split(_CHUNK)
        mapped = torch.cat([_mapped(first, pieces, self._steps, part) for part in parts])
        return mapped.view(ordered.shape).permute([axes.index(k) for k in range(score.ndim)])

    def _exported(self, score: Tensor) -> Tensor:
        first = torch.tensor(self._first, dtype=torch.int32, device=score.device)
        pieces = torch.tensor(self._pieces, dtype=torch.float32, device=score.device)
        return _mapped(first, pieces.view(3, -1), self._steps, score)

    def _tables(self) -> Tensor:
        pieces = torch.tensor(self._pieces, dtype=torch.float32, device="cpu")
        first = torch.tensor(self._first, dtype=torch.int32, device="cpu")
        return torch.cat([first, pieces.view(torch.int32)])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "TorchMap":
        super()._apply(fn, recurse)
        # `to_empty` leaves whatever was in the memory.
        self._bits = self._tables().to(self._bits.device)
        return self


def _take(table: Tensor, index: Tensor) -> Tensor:
    if index.dim() == 1:
        return table.index_select(0, index)  # the faster one
    return table[index.long()]


def _mapped(first: Tensor, pieces: Tensor, steps: int, score: Tensor) -> Tensor:
    # Its dtype is taken from a view of it: a trace takes `score` itself for its copy in float32.
    like = score.detach()
    p = score.to(torch.float32).clamp(0.0, 1.0)
    start, height, slope = pieces[0], pieces[1], pieces[2]
    known = p.detach()
    key = known.sqrt().sqrt_() - (1.0 - known).sqrt_().sqrt_()
    # Of NaN anything may come.
    cell = key.mul_(1024.0).add_(1024.0).to(torch.int32).clamp(0, 2048)
    piece = _take(first, cell)
    for k in range(steps):
        step = 1 << (steps - 1 - k)
        beyond = known >= _take(start[step:], piece)
        piece = torch.add(piece, beyond.to(torch.int32), alpha=step)
    # In this order: NaN stays NaN, and the memory order of the result is that of the score.
    scaled = (p - _take(start, piece)) * 2.0**100
    return (scaled * _take(slope, piece) + _take(height, piece)).type_as(like)


def search_table(start: NDArray[np.float32]) -> tuple[NDArray[np.int32], int]:
    """Return where the search for the piece of a score begins.

    Cells are equally wide in p^(1/4) - (1 - p)^(1/4), since knots crowd at 0 and 1.

    Parameters
    ----------
    start : (P,) scores at which pieces start

    Returns
    -------
    first : (cells,) the lowest piece that a score of the cell may be in
    steps : the highest is less than 2^steps above it
    """
    p = start.astype(np.float64)
    place = (p**0.25 - (1 - p) ** 0.25 + 1) * _HALF
    slack = 2.0**-6  # far more than the error of any device's float32
    cells = np.arange(_CELLS)
    first = np.searchsorted(place, cells - slack, "right") - 1
    last = np.searchsorted(place, cells + 1 + slack, "left") - 1
    first = first.clip(0)
    return first.astype(np.int32), int((last - first).max()).bit_length()


def linear_pieces(x: NDArray[np.float64], evaluate: Callable[[Any], Any]) -> NDArray[np.float32]:
    """Return the pieces on which the map of float32 scores is linear.

    Parameters
    ----------
    x : (K,) scores of the knots
    evaluate : maps float64 scores

    Returns
    -------
    (3, P) float32, P >= 2
        Score at which a piece starts, value there, and slope divided by 2^100. The first starts at
        0. A value is at most that of any later score, rounded to float32.
    """
    ends = np.concatenate([[0.0], x, [1.0]])
    rises = np.diff(evaluate(ends))
    parts = np.ceil(rises / _TALLEST).clip(1).astype(int)
    split = [np.linspace(ends[k], ends[k + 1], parts[k] + 1) for k in np.flatnonzero(parts > 1)]
    cuts = np.concatenate([ends[:-1], [0.5], *split])  # 1/2, as two pieces at least are needed
    start = cuts.astype(np.float32)
    start = np.unique(np.where(start < cuts, np.nextafter(start, np.float32(2)), start))
    # Every float32 from `start` to `last` lies between the same two knots.
    last = np.append(np.nextafter(start[1:], np.float32(-1)), np.float32(1))
    width = last.astype(np.float64) - start
    height = evaluate(start.astype(np.float64))
    rise = evaluate(last.astype(np.float64)) - height
    low = height.astype(np.float32) + np.float32(0)  # no -0
    high = (height + rise).astype(np.float32)
    rise = np.minimum(rise, high.astype(np.float64) - low)
    slope = np.divide(rise, width * _STEEPEST, out=np.zeros_like(width), where=width > 0)
    slope = slope.astype(np.float32)
    scaled = (last - start) * np.float32(_STEEPEST)
    while np.any(over := scaled * slope + low > high):
        slope[over] = np.nextafter(slope[over], np.float32(0))
    return np.stack([start, low, slope])
