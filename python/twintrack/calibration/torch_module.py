"""A calibration map as a torch module."""

from __future__ import annotations

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn


class PiecewiseLinear(nn.Module):
    """Linear between knots, constant outside them.

    Parameters
    ----------
    x, y : (K,) floats
        Knots; x strictly increasing.
    """

    x: Tensor
    y: Tensor
    slope: Tensor

    def __init__(self, x: ArrayLike, y: ArrayLike) -> None:
        super().__init__()
        knots_x = torch.as_tensor(x, dtype=torch.float64)
        knots_y = torch.as_tensor(y, dtype=torch.float64)
        flat = torch.zeros(1, dtype=torch.float64)
        self.register_buffer("x", knots_x)
        self.register_buffer("y", knots_y)
        self.register_buffer("slope", torch.cat([knots_y.diff() / knots_x.diff(), flat]))

    def forward(self, score: Tensor) -> Tensor:
        """Map scores of any shape; the result has the input's dtype."""
        p = score.double().clamp(self.x[0], self.x[-1])
        knot = (torch.bucketize(p, self.x, right=True) - 1).clamp(min=0)
        limit = self.y[(knot + 1).clamp(max=self.y.numel() - 1)]
        # Where the slope is infinite the segment is a step above its lower knot, as in the core.
        beyond = p - self.x[knot]
        rise = torch.where(beyond > 0, beyond * self.slope[knot], 0.0)
        mapped = torch.minimum(self.y[knot] + rise, limit)
        return torch.where(torch.isnan(p), p, mapped).to(score.dtype)
