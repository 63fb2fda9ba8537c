"""The patient behind a synthetic case: where organs, vessels and tumour lie.

The frame is the patient's: millimetres from the confluence of splenic and superior mesenteric vein,
x to the right, y to the front, z up. Sizes and distances are those of an average adult.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from twintrack.datasets.phantom.geometry import (
    Box,
    Float,
    Grid,
    Point,
    Tube,
    first_order_distance,
    smooth_curve,
    smooth_field,
)
from twintrack.files import read_table

Doubles = NDArray[np.float64]


def _read_tubes() -> dict[str, list[Tube]]:
    """Read the tubes of an average adult: a row of the file is a point on the axis of one."""
    knots: dict[tuple[str, ...], list[list[float]]] = {}
    for row in read_table(Path(__file__).with_name("tubes.csv"))[1].values():
        place = [float(row[column]) for column in ("x", "y", "z", "radius")]
        knots.setdefault((row["name"], row["number"], row["axis"]), []).append(place)
    tubes: dict[str, list[Tube]] = {}
    for (name, _, axis), places in knots.items():
        table = np.array(places)
        tubes.setdefault(name, []).append(Tube("xyz".index(axis), table[:, :3], table[:, 3]))
    return tubes


TUBES = _read_tubes()
"""Vessels, ducts, bowel and muscles by name, several of a name where there are."""

# Corners of the boxes that small bowel fills: below the transverse colon, and left of the pancreas.
SMALL_BOWEL: tuple[tuple[Point, Point], ...] = (
    ((-100, -15, -220), (95, 80, -48)),
    ((-104, -8, -62), (-22, 58, 14)),
)

# Cross-sections of the pancreas along x, head to tail: centre y and z, half-axes along y and z.
_PANCREAS_X = np.array([44.0, 30.0, 15.0, 4.0, -15.0, -40.0, -65.0, -92.0])
_PANCREAS_SECTIONS = np.array(
    [
        (0, -16, 13, 22),
        (0, -14, 15, 26),
        (4, -10, 14, 23),
        (12, 2, 8.5, 12),
        (12, 8, 9, 12),
        (2, 13, 10, 11.5),
        (-14, 18, 10, 11),
        (-30, 27, 8, 10),
    ],
    np.float64,
)
_LOBE_SIZE, _LOBE_HEIGHT = 6.0, 1.3

# Share of the tumours and range of x where they grow: head, body, tail of the pancreas.
_TUMOUR_SITES = ((0.65, 12.0, 32.0), (0.25, -45.0, 5.0), (0.10, -75.0, -45.0))
_TYPICAL_SITE = 20.0
_FARTHEST_MOVE = 15.0  # mm by which a tumour is moved to touch a vessel

BODY_CENTRE: Point = (0.0, -12.0, 0.0)
_BODY_HALF_AXES = (166.0, 116.0)


class Patient(NamedTuple):
    """One patient: the standard anatomy, bent, with a tumour.

    Attributes
    ----------
    bend
        Smooth displacement of points, shape (n, 3) to (n, 3).
    tumour_centre, tumour_radii
        Centre and half-axes of the tumour's ellipsoid in mm.
    tumour_axes
        Its axes, unit vectors in the rows of a (3, 3) array.
    bulge
        Standard deviation in mm of the tumour's surface about the ellipsoid.
    enhancement
        HU added to vessels filled with contrast agent.
    half_axes
        Half-axes of the body in mm along x and y.
    """

    bend: Callable[[Doubles], Doubles]
    tumour_centre: Point
    tumour_radii: Point
    tumour_axes: Doubles
    bulge: float
    enhancement: float
    half_axes: tuple[float, float]

    def tubes(self, name: str) -> list[Tube]:
        """Bend the standard tubes of a name to their course in this patient."""
        return [Tube(tube.axis, self.bend(tube.points), tube.radii) for tube in TUBES[name]]

    def at(self, x: float, y: float, z: float) -> Point:
        """Where a point of the standard anatomy lies in this patient."""
        return _point(self.bend(np.array([[x, y, z]]))[0])

    def pancreas_bounds(self) -> tuple[Doubles, Doubles]:
        """Lowest and highest corner (x, y, z) of a box around the pancreas."""
        knots = self.bend(np.column_stack([_PANCREAS_X, _PANCREAS_SECTIONS[:, :2]]))
        extent = np.pad(_PANCREAS_SECTIONS[:, 2:], ((0, 0), (1, 0))) + 4 * _LOBE_HEIGHT
        return (knots - extent).min(axis=0), (knots + extent).max(axis=0)


def draw_patient(rng: np.random.Generator, tumour_radius: float, variation: float) -> Patient:
    """Draw a patient whose differences from the standard one are scaled by `variation`.

    `tumour_radius` is the typical radius in mm of the sphere of equal volume.
    """

    def normal(size: int) -> Doubles:
        return variation * np.clip(rng.standard_normal(size), -2, 2)

    # One smooth displacement for all structures keeps vessels joined where they branch.
    waves = rng.standard_normal((3, 3))
    waves /= np.linalg.norm(waves, axis=0) * rng.uniform(150, 300, 3)
    phases = rng.uniform(0, 2 * np.pi, 3)
    amplitudes = 3.5 * normal(3)

    def bend(points: Doubles) -> Doubles:
        return points + amplitudes * np.sin(2 * np.pi * (points @ waves) + phases)

    radius = tumour_radius * float(np.exp(0.25 * normal(1)[0]))
    stretch = np.exp(0.15 * normal(3))
    radii = radius * stretch / np.cbrt(stretch.prod())
    axes = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    centre = _tumour_centre(bend, radius, rng, vary=variation > 0)
    width, depth = np.array(_BODY_HALF_AXES) * (1 + 0.05 * normal(2))
    return Patient(
        bend=bend,
        tumour_centre=centre,
        tumour_radii=_point(radii),
        tumour_axes=axes,
        bulge=float(0.08 * variation * radii.min()),
        enhancement=float(8 * normal(1)[0]),
        half_axes=(float(width), float(depth)),
    )


def _tumour_centre(
    bend: Callable[[Doubles], Doubles], radius: float, rng: np.random.Generator, vary: bool
) -> Point:
    """Choose a place in the pancreas; in most patients it touches one of the vessels in reach."""
    site, along, gap, choice = rng.random(4)
    shares = np.cumsum([share for share, _, _ in _TUMOUR_SITES])
    _, low, high = _TUMOUR_SITES[min(int(np.searchsorted(shares, site, "right")), 2)]
    x = low + along * (high - low) if vary else _TYPICAL_SITE
    section, _ = smooth_curve(_PANCREAS_X, _PANCREAS_SECTIONS, np.array([x]))
    centre = bend(np.array([[x, section[0, 0], section[0, 1]]]))[0]
    # From half engulfing the vessel's wall to a gap of a few mm.
    wanted = radius * (0.55 + 0.6 * gap if vary else 0.8)
    steps = []
    for vessel in ("PORTA", "SMV", "CELIAC TRUNK", "SMA"):
        (tube,) = TUBES[vessel]
        course = _resampled(bend(tube.points), tube.radii)
        towards = course[:, :3] - centre
        distance = np.linalg.norm(towards, axis=1)
        nearest = int(np.argmin(distance - course[:, 3]))
        step = distance[nearest] - course[nearest, 3] - wanted
        steps.append((step, towards[nearest] / max(distance[nearest], 1e-6)))
    steps.sort(key=lambda pair: float(pair[0]))
    reachable = sum(step <= _FARTHEST_MOVE for step, _ in steps)
    step, direction = steps[int(choice * reachable) if vary else 0]
    return _point(centre + np.clip(step, -_FARTHEST_MOVE, _FARTHEST_MOVE) * direction)


def _resampled(points: Doubles, radii: Doubles) -> Doubles:
    """64 points (x, y, z, radius) along a polyline."""
    at = np.linspace(0, len(points) - 1, 64)
    columns = (*points.T, radii)
    return np.stack([np.interp(at, np.arange(len(points)), c) for c in columns], axis=1)


def _point(values: Iterable[float]) -> Point:
    x, y, z = (float(v) for v in values)
    return (x, y, z)


def pancreas_distance(grid: Grid, patient: Patient, rng: np.random.Generator) -> tuple[Box, Float]:
    """Signed distance in mm, in planes of constant x, to the lobulated surface of the pancreas."""
    low, high = patient.pancreas_bounds()
    knots = patient.bend(np.column_stack([_PANCREAS_X, _PANCREAS_SECTIONS[:, :2]]))
    low[0], high[0] = knots[-1, 0], knots[0, 0]
    box = grid.box(low, high)
    if box.empty:
        return box, np.empty(box.shape, np.float32)
    at = box.x.ravel().astype(np.float64)
    sections, _ = smooth_curve(
        knots[:, 0], np.column_stack([knots[:, 1:], _PANCREAS_SECTIONS[:, 2:]]), at
    )
    end = np.minimum(at - low[0], high[0] - at).clip(0.01, 10) / 10  # rounded off over 10 mm
    sections[:, 2:] *= np.sqrt(end * (2 - end))[:, None]
    y, z, half_y, half_z = (column.astype(np.float32) for column in sections.T)
    distance = first_order_distance(((box.y - y) / half_y, (box.z - z) / half_z), (half_y, half_z))
    distance += np.float32(_LOBE_HEIGHT) * smooth_field(rng, box, _LOBE_SIZE)
    return box, distance


def tumour_distance(box: Box, patient: Patient, rng: np.random.Generator) -> Float:
    """Signed distance in mm (to first order) to the tumour's surface, vessels not yet carved."""
    if box.empty:
        return np.empty(box.shape, np.float32)
    x, y, z = (
        axis - np.float32(centre)
        for axis, centre in zip((box.x, box.y, box.z), patient.tumour_centre, strict=True)
    )
    scaled = []
    for axis, radius in zip(patient.tumour_axes, patient.tumour_radii, strict=True):
        u, v, w = (axis / radius).astype(np.float32)
        scaled.append(((z * w) + (y * v)) + x * u)
    distance = first_order_distance(scaled, [np.float32(r) for r in patient.tumour_radii])
    bulges = smooth_field(rng, box, max(0.5 * min(patient.tumour_radii), 1.0))
    bulges *= np.float32(patient.bulge)
    distance += bulges
    return distance
