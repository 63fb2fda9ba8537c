"""Inputs of `gpu.py`: made on the device, where 10^9 voxels take milliseconds and not minutes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from suite import inputs

_CHUNK = 1 << 26  # voxels made at a time, a whole number of runs: scratch stays below 2 GB
_RUN = 4096  # as in suite.inputs


class Inputs(Protocol):
    """Where the arrays of a row come from: the distributions of `suite.inputs`."""

    def scores(self, voxels: int, distribution: str) -> Any:
        """Scores in [0, 1], shape (voxels,): float16 of "fp16", else float32."""

    def masks(self, score: Any) -> list[Any]:
        """A uint8 mask a rater, who marks a voxel of score s with probability s²."""

    def as_float64(self, score: Any) -> Any:
        """A copy."""

    def empty_like(self, score: Any) -> Any:
        """Memory for as many scores."""

    def sample(self, score: Any) -> NDArray[Any]:
        """At most two million of the scores, evenly taken, in host memory."""

    def put(self, array: NDArray[Any]) -> Any:
        """A copy of an array in host memory, in the same memory order."""


class Copied:
    """Made in host memory, and copied by `put`: for what has no generator of random numbers."""

    def __init__(self, put: Callable[[NDArray[Any]], Any]) -> None:
        self.put = put
        self._on_host: dict[int, tuple[Any, NDArray[Any]]] = {}  # kept with its copy, for its id

    def scores(self, voxels: int, distribution: str) -> Any:
        return self._remember(inputs.scores(voxels, distribution))

    def masks(self, score: Any) -> list[Any]:
        return [self.put(mask) for mask in inputs.rater_masks(self._host(score))]

    def as_float64(self, score: Any) -> Any:
        return self._remember(self._host(score).astype(np.float64))

    def empty_like(self, score: Any) -> Any:
        return self.put(np.empty_like(self._host(score)))

    def sample(self, score: Any) -> NDArray[Any]:
        return self._host(score)

    def _remember(self, array: NDArray[Any]) -> Any:
        copied = self.put(array)
        self._on_host[id(copied)] = (copied, array)
        return copied

    def _host(self, score: Any) -> NDArray[Any]:
        return self._on_host[id(score)][1]


class Torch:
    """Made by torch on its device: the same distributions, of other random numbers."""

    def __init__(self, device: str = "cuda") -> None:
        import torch

        self._torch = torch
        self._device = device

    def scores(self, voxels: int, distribution: str) -> Any:
        torch = self._torch
        random = self._random(0)
        dtype = torch.float16 if distribution == "fp16" else torch.float32
        result = torch.empty(voxels, dtype=dtype, device=self._device)
        for part in result.split(_CHUNK):
            if distribution == "uniform":
                part.uniform_(generator=random)
                continue
            logits = torch.empty(part.shape, device=self._device).normal_(generator=random)
            networks = inputs.NETWORKS.get(distribution)
            if networks is not None:
                part.zero_()
                for _ in range(networks.members):
                    own = torch.empty_like(logits).normal_(generator=random)
                    output = torch.sigmoid(networks.gain * (2 * logits - 1 + own))
                    part += output.half().float() if networks.half else output
                part /= networks.members
                continue
            if distribution == "fp16":
                part.copy_(torch.sigmoid((logits * 4 - 4).half().float()))
                continue
            runs = -(-part.numel() // _RUN)
            kind = torch.empty(runs, device=self._device).uniform_(generator=random)
            kind = kind.repeat_interleave(_RUN)[: part.numel()]
            part.copy_(torch.sigmoid(torch.where(kind < 0.03, logits * 4, logits * 2 - 12)))
            part.masked_fill_(kind > 2 / 3, 0)
        return result

    def masks(self, score: Any) -> list[Any]:
        torch = self._torch
        random = self._random(1)
        masks = [
            torch.empty(score.shape, dtype=torch.uint8, device=self._device)
            for _ in range(inputs.RATERS)
        ]
        for start in range(0, score.numel(), _CHUNK):
            probability = score[start : start + _CHUNK].float().square()
            for mask in masks:
                drawn = torch.empty_like(probability).uniform_(generator=random)
                mask[start : start + _CHUNK] = drawn < probability
        return masks

    def as_float64(self, score: Any) -> Any:
        return score.double()

    def empty_like(self, score: Any) -> Any:
        return self._torch.empty_like(score)

    def sample(self, score: Any) -> NDArray[Any]:
        taken: NDArray[Any] = score[:: max(score.numel() // 1_000_000, 1)].cpu().numpy()
        return taken

    def put(self, array: NDArray[Any]) -> Any:
        return self._torch.as_tensor(array).to(self._device)

    def _random(self, seed: int) -> Any:
        return self._torch.Generator(self._device).manual_seed(seed)


def ct_shape(text: str) -> tuple[int, int, int]:
    """Voxels along x, y, z, as in ``512,512,160``."""
    x, y, z = (int(part) for part in text.split(","))
    return x, y, z


def nbytes(arrays: Sequence[NDArray[Any]]) -> int:
    """Bytes of arrays in host memory."""
    return sum(array.nbytes for array in arrays)
