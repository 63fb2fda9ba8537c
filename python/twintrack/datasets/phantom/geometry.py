"""Coordinates, tubes, distances and smooth random fields: what synthetic cases are made of.

Lengths and coordinates are millimetres; arrays are (z, y, x), x fastest. Everything is a plain sum
or product of NumPy arrays, so that the bits do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Point = tuple[float, float, float]


class Box(NamedTuple):
    """A box of voxels: where it lies in a (z, y, x) array and its coordinates in mm."""

    where: tuple[slice, slice, slice]
    x: Float  # shape (1, 1, nx)
    y: Float  # shape (1, ny, 1)
    z: Float  # shape (nz, 1, 1)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along z, y and x."""
        return (self.z.size, self.y.size, self.x.size)

    @property
    def empty(self) -> bool:
        """Whether it holds no voxel."""
        return 0 in self.shape

    def ellipsoid(self, centre: Point, radii: Point) -> Float:
        """Squared distance from `centre` in units of `radii`: at most 1 inside."""
        x = ((self.x - np.float32(centre[0])) / np.float32(radii[0])) ** 2
        y = ((self.y - np.float32(centre[1])) / np.float32(radii[1])) ** 2
        z = ((self.z - np.float32(centre[2])) / np.float32(radii[2])) ** 2
        return np.asarray((z + y) + x, np.float32)


class Grid:
    """Voxel centres along x, y and z; each axis may run either way."""

    def __init__(self, x: Float, y: Float, z: Float) -> None:
        self.axes: tuple[Float, Float, Float] = (x, y, z)

    def box(self, low: Iterable[float], high: Iterable[float]) -> Box:
        """Find the voxels whose centres lie in [low, high] (x, y, z in mm), possibly none."""
        slices = []
        for axis, a, b in zip(self.axes, low, high, strict=True):
            hits = np.flatnonzero((axis >= a) & (axis <= b))
            slices.append(slice(int(hits[0]), int(hits[-1]) + 1) if hits.size else slice(0, 0))
        x, y, z = (axis[s] for axis, s in zip(self.axes, slices, strict=True))
        sx, sy, sz = slices
        return Box((sz, sy, sx), x[None, None, :], y[None, :, None], z[:, None, None])

    def around(self, centre: Point, radii: Point) -> Box:
        """Find the voxels within `radii` of `centre` along each axis, in mm."""
        return self.box(np.subtract(centre, radii), np.add(centre, radii))

    def everything(self) -> Box:
        """Return the box of all voxels."""
        return self.box((-np.inf,) * 3, (np.inf,) * 3)


class Tube(NamedTuple):
    """A tube along its dominant axis (0 x, 1 y, 2 z) through points (x, y, z), lengths in mm."""

    axis: int
    points: NDArray[np.float64]  # shape (n, 3)
    radii: NDArray[np.float64]  # shape (n,)

    def distance(self, grid: Grid, margin: float, least_radius: float) -> tuple[Box, Float]:
        """Signed distance in mm to the wall, within `margin` of it: negative in the lumen.

        In each plane normal to the dominant axis, the distance is the one to the line that is
        tangent to the centre line there: exact for straight tubes. The ends are flat.
        """
        knots = self.points[:, self.axis]
        a, b = (k for k in range(3) if k != self.axis)
        axis = grid.axes[self.axis]
        course, slopes = smooth_curve(
            knots,
            np.column_stack([self.points[:, [a, b]], np.maximum(self.radii, least_radius)]),
            axis[(axis >= knots.min()) & (axis <= knots.max())],
        )
        low, high = np.full(3, knots.min()), np.full(3, knots.max())
        if len(course):
            low[[a, b]] = (course[:, :2] - course[:, 2:]).min(axis=0) - margin
            high[[a, b]] = (course[:, :2] + course[:, 2:]).max(axis=0) + margin
        box = grid.box(low, high)
        if box.empty:
            return box, np.empty(box.shape, np.float32)
        coordinates = (box.x, box.y, box.z)
        along = coordinates[self.axis]
        centre_a, centre_b, radius = course.T.astype(np.float32)
        slope_a, slope_b, _ = slopes.T
        norm = np.sqrt(1.0 + slope_a**2 + slope_b**2)
        tangent_a, tangent_b = ((s / norm).astype(np.float32) for s in (slope_a, slope_b))
        da = coordinates[a] - centre_a.reshape(along.shape)
        db = coordinates[b] - centre_b.reshape(along.shape)
        aslant = da * tangent_a.reshape(along.shape) + db * tangent_b.reshape(along.shape)
        aslant *= aslant
        squared = da * da + db * db
        squared -= aslant
        np.maximum(squared, 0.0, out=squared)
        distance = np.sqrt(squared, out=squared)
        distance -= radius.reshape(along.shape)
        return box, distance


def smooth_curve(
    knots: NDArray[np.float64], values: NDArray[np.float64], at: NDArray[np.floating[Any]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw a smooth curve through `values` (n, k) at `knots` (n,).

    Returns its values and slopes (m, k) at `at` (m,). Cubic Hermite segments with slopes from
    second-order differences, as in Catmull–Rom curves. The knots may run either way; beyond them
    the curve is the end segment's.
    """
    if knots[0] > knots[-1]:
        knots, values = knots[::-1], values[::-1]
    tangents = np.gradient(values, knots, axis=0)
    k = np.searchsorted(knots[1:-1], at, side="right")
    width = np.diff(knots)[k, None]
    t = (at - knots[k])[:, None] / width
    start, rise = values[k], values[k + 1] - values[k]
    first, last = tangents[k] * width, tangents[k + 1] * width
    # start + first t + c2 t² + c3 t³
    c2 = 3 * rise - 2 * first - last
    c3 = first + last - 2 * rise
    return start + t * (first + t * (c2 + t * c3)), (first + t * (2 * c2 + 3 * t * c3)) / width


def smooth_field(rng: np.random.Generator, box: Box, length: float) -> Float:
    """Draw a random field over the box that changes over `length` mm.

    Its mean is 0 and its variance exactly 1 everywhere. Cubic B-splines on independent normal
    control points `length` (at least a voxel) apart. The weights of each axis are divided by the
    root of their sum of squares, which makes the variance the same between the control points as at
    them.
    """
    control_shape = []
    taps: list[tuple[NDArray[np.intp], Float]] = []
    for axis in (box.z, box.y, box.x):
        coordinates = axis.ravel().astype(np.float64)
        spacing = abs(coordinates[1] - coordinates[0]) if coordinates.size > 1 else 0.0
        position = np.abs(coordinates - coordinates[0]) / max(length, spacing)
        first = position.astype(np.intp)
        f = position - first
        weights = np.stack(
            [(1 - f) ** 3, 3 * f**3 - 6 * f**2 + 4, -3 * f**3 + 3 * f**2 + 3 * f + 1, f**3]
        )
        weights /= np.sqrt((weights**2).sum(axis=0))
        taps.append((first, weights.astype(np.float32)))
        control_shape.append(int(first[-1]) + 4)
    values = rng.standard_normal(control_shape, dtype=np.float32)
    for along in (2, 1, 0):  # the axis that runs slowest comes last, when the array is largest
        first, weights = taps[along]
        weights = weights.reshape(4, *(-1 if k == along else 1 for k in range(3)))
        total = values.take(first, along) * weights[0]
        for k in range(1, 4):
            term = values.take(first + k, along)
            term *= weights[k]
            total += term
        values = total
    return values


def first_order_distance(scaled: Iterable[Float], radii: Iterable[Float | np.float32]) -> Float:
    """Distance to an ellipse or ellipsoid, first order: k (k − 1) / |p / r²| with k = |p / r|.

    That is f / |∇f| for f = k − 1. `scaled` are the coordinates in units of the half-axes
    `radii`. Exact on the axes and for circles and spheres; the error grows with the square of the
    distance elsewhere. At the very centre, where it is undefined, it is minus the least half-axis.
    """
    squares: Any = np.float32(1e-6)
    slopes: Any = np.float32(0)
    least: Any = np.float32(np.inf)
    for coordinate, radius in zip(scaled, radii, strict=True):
        square = coordinate * coordinate
        squares = squares + square
        slopes = slopes + square / (radius * radius)
        least = np.minimum(least, radius)
    k = np.sqrt(squares)
    slope = np.maximum(np.sqrt(slopes), np.float32(1e-3) / least)
    return np.asarray(k * (k - 1) / slope, np.float32)
