"""A calibration map as a torch module."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["PiecewiseLinear", "map_module"]


class PiecewiseLinear(nn.Module):
    """min(y + (p - x) · slope, next) with the segment that starts at the last x not above p.

    Parameters
    ----------
    nodes32, nodes64 : (K, 4) float32 and float64 tensors
        Columns x, slope, y, next of the map's segments; float16, bfloat16 and float32 inputs are
        evaluated in float32, float64 inputs in float64.
    """

    nodes32: Tensor
    nodes64: Tensor

    def __init__(self, nodes32: Tensor, nodes64: Tensor) -> None:
        super().__init__()
        self.register_buffer("nodes32", nodes32)
        self.register_buffer("nodes64", nodes64)

    def forward(self, score: Tensor) -> Tensor:
        """Map scores of any shape; the result has the input's dtype."""
        nodes = self.nodes64 if score.dtype == torch.float64 else self.nodes32
        p = score.to(nodes.dtype).clamp(0.0, 1.0)
        x, slope, y, following = (nodes[:, column].contiguous() for column in range(4))
        segment = torch.bucketize(p, x, right=True) - 1
        risen = (p - x[segment]) * slope[segment]
        mapped = torch.minimum(y[segment] + risen, following[segment])
        return torch.where(torch.isnan(p), p, mapped).to(score.dtype)


def map_module(nodes32: NDArray[Any], nodes64: NDArray[Any]) -> PiecewiseLinear:
    """Return the module for the segment tables of a compiled map."""
    return PiecewiseLinear(torch.from_numpy(nodes32), torch.from_numpy(nodes64))
