"""Painting the CT of a synthetic patient: organs, vessels, body wall, bones, scanner noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twintrack.datasets.panorama import ANATOMY_LABELS
from twintrack.datasets.phantom import patient as standard
from twintrack.datasets.phantom.geometry import Box, Float, Grid, Point, Tube, smooth_field
from twintrack.datasets.phantom.patient import Patient, pancreas_distance

VESSEL_LABELS: dict[str, int] = {"PORTA": 1, "SMV": 2, "AORTA": 3, "CELIAC TRUNK": 4, "SMA": 5}
"""Vessel labels as the CURVAS–PDACVI evaluator numbers them."""

# Attenuation in HU, portal venous phase.
AIR, LUNG, GAS, TABLE, FAT, VISCERAL_FAT = -1000, -840, -950, -120, -108, -98
SKIN, FLUID, CANAL, BOWEL, MUSCLE, WALL = 10, 12, 35, 40, 58, 70
TUMOUR, PANCREAS, LIVER, SPLEEN, HEART = 60, 105, 108, 122, 125
KIDNEY_MEDULLA, KIDNEY_CORTEX, CAVA, VEIN, ARTERY = 130, 175, 135, 168, 178
DISC, MARROW, ENDPLATE, RIM, ARCH, RIB = 90, 190, 400, 430, 500, 620
LOWEST, HIGHEST = -1024, 3071

SCANNER_BLUR = 0.6  # standard deviation in mm, in the plane of a slice


class Canvas:
    """Image and labels of one case, (z, y, x)."""

    def __init__(self, grid: Grid, shape: tuple[int, int, int], least_radius: float) -> None:
        """Start with fat. Tubes are at least `least_radius` (mm) wide, so as not to break up."""
        self.grid = grid
        self.hu: NDArray[np.int16] = np.full(shape, VISCERAL_FAT, np.int16)
        self.anatomy: NDArray[np.uint8] = np.zeros(shape, np.uint8)
        self.vessels: NDArray[np.uint8] = np.zeros(shape, np.uint8)
        self.least_radius = least_radius

    def ellipsoid(self, centre: Point, radii: Point, hu: int) -> None:
        """Paint an ellipsoid, of semi-axes in mm."""
        box = self.grid.around(centre, radii)
        if not box.empty:
            inside = box.ellipsoid(centre, radii) <= 1
            np.copyto(self.hu[box.where], np.int16(hu), where=inside)

    def tube(self, tube: Tube, hu: float, anatomy: str | None = None) -> None:
        """Paint a tube, and label it."""
        box, distance = tube.distance(self.grid, 0.0, self.least_radius)
        self.fill(box, distance < 0, hu, anatomy)

    def fill(self, box: Box, inside: NDArray[np.bool_], hu: float, anatomy: str | None) -> None:
        """Paint voxels of a box, and label them."""
        np.copyto(self.hu[box.where], np.int16(hu), where=inside)
        if anatomy is not None:
            label = np.uint8(ANATOMY_LABELS[anatomy])
            np.copyto(self.anatomy[box.where], label, where=inside)


# --------------------------------------------------------------------------------------------------
# Inside the abdomen; later strokes cover earlier ones


def paint_organs(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
    """Everything around the pancreas."""
    for low, high in standard.SMALL_BOWEL:
        _paint_small_bowel(canvas, low, high, rng)
    for psoas in standard.PSOAS:
        canvas.tube(patient.tube(psoas), MUSCLE)
    canvas.ellipsoid(patient.at(88, 2, 58), (76, 94, 92), LIVER)
    canvas.ellipsoid(patient.at(14, 56, 82), (82, 38, 42), LIVER)
    canvas.ellipsoid(patient.at(62, 50, 2), (15, 19, 30), FLUID)  # gallbladder
    for vein in standard.LIVER_VEINS:
        canvas.tube(patient.tube(vein), VEIN + patient.enhancement)
    canvas.ellipsoid(patient.at(-20, 26, 160), (52, 46, 40), HEART)
    canvas.ellipsoid(patient.at(-116, -44, 66), (34, 48, 54), SPLEEN)
    for side, z in ((1, -38), (-1, -22)):
        kidney = patient.at(side * 66, -58, z)
        hilum = (kidney[0] - side * 12, kidney[1] + 5, kidney[2])
        canvas.ellipsoid(kidney, (37, 38, 62), VISCERAL_FAT)
        canvas.ellipsoid(kidney, (29, 30, 54), KIDNEY_CORTEX)
        canvas.ellipsoid(kidney, (21, 22, 45), KIDNEY_MEDULLA)
        canvas.ellipsoid(hilum, (18, 9, 26), VISCERAL_FAT)
    _paint_stomach(canvas, patient.at(-64, 36, 76))
    for colon in standard.COLON:
        _paint_colon(canvas, patient.tube(colon), rng)
    for duodenum in standard.DUODENUM:
        tube = patient.tube(duodenum)
        canvas.tube(tube, WALL)
        canvas.tube(Tube(tube.axis, tube.points, tube.radii - 3), FLUID)
    canvas.tube(patient.tube(standard.VENA_CAVA), CAVA + patient.enhancement)


def _paint_small_bowel(canvas: Canvas, low: Point, high: Point, rng: np.random.Generator) -> None:
    """Loops of bowel, and strands in the fat between them: level sets of smooth noise."""
    box = canvas.grid.box(low, high)
    if box.empty:
        return
    hu = canvas.hu[box.where]
    loops = smooth_field(rng, box, 14.0)
    # Fewer loops towards the box's faces, so that these do not show.
    x, y, z = (
        np.minimum(axis - np.float32(a), np.float32(b) - axis)
        for axis, a, b in zip((box.x, box.y, box.z), low, high, strict=True)
    )
    loops -= np.maximum(0, (12 - np.minimum(np.minimum(z, y), x)) / 6)
    np.copyto(hu, np.int16(WALL), where=loops > 0.1)
    np.copyto(hu, np.int16(BOWEL), where=loops > 0.4)
    np.copyto(hu, np.int16(GAS), where=loops > 2.3)
    strands = np.abs(smooth_field(rng, box, 9.0)) < 0.06
    strands &= hu == VISCERAL_FAT
    np.copyto(hu, np.int16(BOWEL), where=strands)


def _paint_stomach(canvas: Canvas, centre: Point) -> None:
    """Wall, fluid, and gas in front of the fluid."""
    canvas.ellipsoid(centre, (52, 46, 58), WALL)
    lumen = (48, 42, 54)
    box = canvas.grid.around(centre, lumen)
    if not box.empty:
        inside = box.ellipsoid(centre, lumen) <= 1
        content = np.where(box.y > np.float32(centre[1] + 20), np.int16(GAS), np.int16(FLUID))
        np.copyto(canvas.hu[box.where], content, where=inside)


def _paint_colon(canvas: Canvas, tube: Tube, rng: np.random.Generator) -> None:
    """Wall, stool with bubbles, and gas that collects towards the front."""
    box, distance = tube.distance(canvas.grid, 0.0, 0.0)
    if box.empty:
        return
    hu = canvas.hu[box.where]
    stool = 130 * smooth_field(rng, box, 5.0)
    inside = distance < -2.5
    np.copyto(hu, np.int16(WALL), where=distance < 0)
    np.copyto(hu, (stool - 20).astype(np.int16), where=inside)
    height = box.y - np.float32(tube.points[:, 1].mean())
    np.copyto(hu, np.int16(GAS), where=inside & (stool + 8 * height > 150))


def paint_pancreas(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
    """Parenchyma and ducts; the pancreatic duct is wide upstream of the obstructing tumour."""
    box, distance = pancreas_distance(canvas.grid, patient, rng)
    canvas.fill(box, distance < 0, PANCREAS, "parenchyma")
    duct = patient.tube(standard.PANCREATIC_DUCT)
    upstream = duct.points[:, 0] < patient.tumour_centre[0]
    radii = duct.radii * np.where(upstream, 1.8, 1.0)
    canvas.tube(Tube(duct.axis, duct.points, radii), FLUID, "pancreatic duct")
    canvas.tube(patient.tube(standard.BILE_DUCT), FLUID, "common bile duct")


def paint_tumour(canvas: Canvas, box: Box, distance: Float) -> None:
    """Blend the tumour in over 2 mm: its edge is ill-defined, as in patients."""
    weight = np.clip(np.float32(0.5) - distance * np.float32(0.5), 0, 1)
    hu = canvas.hu[box.where]
    hu += np.rint(weight * (TUMOUR - hu)).astype(np.int16)


def paint_vessels(canvas: Canvas, patient: Patient, margin: float) -> list[tuple[Box, Float]]:
    """Paint veins, then arteries; return signed distances to their walls up to `margin` mm."""
    walls = []
    for tube, name, kind, hu in (
        (standard.SPLENIC_VEIN, "", "veins", VEIN),
        (standard.SMV, "SMV", "veins", VEIN),
        (standard.PORTA, "PORTA", "veins", VEIN),
        (standard.HEPATIC_ARTERY, "", "arteries", ARTERY),
        (standard.SPLENIC_ARTERY, "", "arteries", ARTERY),
        (standard.CELIAC_TRUNK, "CELIAC TRUNK", "arteries", ARTERY),
        (standard.SMA, "SMA", "arteries", ARTERY),
        (standard.AORTA, "AORTA", "arteries", ARTERY),
    ):
        box, distance = patient.tube(tube).distance(canvas.grid, margin, canvas.least_radius)
        lumen = distance < 0
        canvas.fill(box, lumen, hu + patient.enhancement, kind)
        label = np.uint8(VESSEL_LABELS.get(name, 0))
        np.copyto(canvas.vessels[box.where], label, where=lumen)
        walls.append((box, distance))
    return walls


# --------------------------------------------------------------------------------------------------
# Around the abdomen, and the scanner


class Torso:
    """Body wall, bones, lungs and table: planar maps, applied to one slab of slices at a time."""

    def __init__(self, grid: Grid, patient: Patient) -> None:
        x = (grid.axes[0] - np.float32(standard.BODY_CENTRE[0]))[None, :]
        y = (grid.axes[1] - np.float32(standard.BODY_CENTRE[1]))[:, None]
        self.z: Float = grid.axes[2]
        u2 = (x / np.float32(patient.half_axes[0])) ** 2
        v2 = (y / np.float32(patient.half_axes[1])) ** 2
        radius = np.sqrt(x * x + y * y) + np.float32(1e-3)
        back, front = np.clip(-y / radius, 0, 1), np.clip(y / radius, 0, 1)
        # The outline lies between an ellipse and a rounded rectangle: 1 on the skin.
        gauge = np.sqrt(0.65 * (u2 + v2) + 0.35 * np.sqrt(u2 * u2 + v2 * v2))
        # Depth below the skin in mm, measured towards the body's centre; where fat and wall end.
        self.depth: NDArray[np.float64] = radius / np.maximum(gauge, 1e-4) - radius
        self.fat: NDArray[np.float64] = 11 + 9 * front**2 + 5 * back
        beside_spine = np.exp(-(((np.abs(x) - 30) / 26) ** 2)) * (y < -30)
        self.wall: NDArray[np.float64] = self.fat + 10 + 4 * (1 - front) + 26 * beside_spine
        # Lungs reach lowest at the back and sides and leave room for heart and great vessels.
        rim = np.clip(1 - (self.depth - self.wall) / 60, 0, 1)
        mediastinum = np.exp(-(((x + 4) / 34) ** 4)) + np.exp(
            -(((x + 22) / 56) ** 4) - (((y - 32) / 50) ** 4)
        )
        self.lung_floor: NDArray[np.float64] = (
            126 - 95 * rim**2 * (0.35 + 0.65 * back) + 70 * mediastinum
        )
        # Ribs run down towards the front: `slope` is the drop in mm along the wall.
        angle = np.arctan2(np.abs(x), -y)
        in_wall = np.abs(self.depth - (self.wall + self.fat) / 2) < 4.5
        self.rib: NDArray[np.intp] = np.flatnonzero(in_wall & (angle > 0.45) & (angle < 2.4))
        self.slope: NDArray[np.float64] = (28 * angle).ravel()[self.rib]
        top = y + np.float32(patient.half_axes[1]) + 22 - (x / 45) ** 2
        self.table: NDArray[np.intp] = np.flatnonzero(
            (np.abs(top) < 2.5) & (np.abs(x) < 190) & (gauge > 1.06)
        )
        self._place_spine(x, y + np.float32(standard.BODY_CENTRE[1]))

    def _place_spine(self, x: Float, y: Float) -> None:
        body = np.sqrt((x / 22) ** 2 + ((y + 62) / 17) ** 2)
        canal = (x / 10) ** 2 + ((y + 87) / 8) ** 2 < 1
        spinous = (np.abs(x) < 3.5) & (y < -93) & (y > -116)
        lamina = (np.abs(np.abs(x) * 0.8 + (y + 88)) < 4) & (np.abs(x) < 18)
        transverse = np.abs(y + 78 + 0.25 * np.abs(x)) < np.clip(7 - np.abs(x) / 8, 0, 4)
        transverse &= np.abs(x) > 12
        self.body: NDArray[np.intp] = np.flatnonzero(body < 1)
        self.rim: NDArray[np.intp] = np.flatnonzero((body < 1) & (body > 0.88))
        self.arch: NDArray[np.intp] = np.flatnonzero((spinous | lamina | transverse) & ~canal)
        self.canal: NDArray[np.intp] = np.flatnonzero(canal)

    def paint(self, hu: NDArray[np.int16], where: slice) -> None:
        """Cover `hu` (slices, y, x), which are the slices `where` of the volume."""
        z = self.z[where]
        waist = (4 * np.sin((z + 40) / 55) - 2).astype(np.float32)  # mm by which it is narrower
        depth = self.depth - waist[:, None, None]
        above = np.flatnonzero(z > self.lung_floor.min())
        if above.size:
            part = slice(int(above[0]), int(above[-1]) + 1)
            lung = z[part, None, None] > self.lung_floor
            np.copyto(hu[part], np.int16(LUNG), where=lung)
        np.copyto(hu, np.int16(MUSCLE), where=depth < self.wall)
        pixels = hu.reshape(len(z), -1)
        self._paint_bones(pixels, z)
        np.copyto(hu, np.int16(FAT), where=depth < self.fat)
        np.copyto(hu, np.int16(SKIN), where=depth < 2)
        np.copyto(hu, np.int16(AIR), where=depth < 0)
        pixels[:, self.table] = TABLE

    def _paint_bones(self, pixels: NDArray[np.int16], z: Float) -> None:
        rib = (z[:, None] + self.slope) % 33 < 11
        rib &= z[:, None] > -70
        pixels[:, self.rib] = np.where(rib, np.int16(RIB), pixels[:, self.rib])
        height = z[:, None] % 34  # within one vertebra and the disc below it
        disc = height < 6
        endplate = (height < 8) | (height > 32)
        pixels[:, self.body] = np.where(disc, DISC, np.where(endplate, ENDPLATE, MARROW))
        pixels[:, self.rim] = np.where(disc, DISC, RIM)
        pixels[:, self.arch] = np.where(height < 24, np.int16(ARCH), pixels[:, self.arch])
        pixels[:, self.canal] = CANAL


def develop(
    hu: NDArray[np.int16],
    torso: Torso,
    voxel_size: tuple[float, float, float],
    noise: float,
    rng: np.random.Generator,
) -> None:
    """Cover the body wall, blur as a scanner does and add `noise` (HU); in place, slab by slab.

    The noise of a slice is a randomly placed window of one larger field: drawing a normal number
    for every voxel would take longer than all the rest.
    """
    slices, rows, columns = hu.shape
    field = _noise_field(rng, 2 * rows, 2 * columns)
    field *= np.float32(noise)
    corners = rng.integers(0, (rows + 1, columns + 1), (slices, 2))
    step = max(1, 2**19 // (rows * columns))
    for start in range(0, slices, step):
        where = slice(start, min(start + step, slices))
        slab = hu[where]
        torso.paint(slab, where)
        values = slab.astype(np.float32)
        _blur(values, 1, voxel_size[1])
        _blur(values, 2, voxel_size[0])
        for plane, (row, column) in zip(values, corners[where], strict=True):
            plane += field[row : row + rows, column : column + columns]
        np.rint(values, out=values)
        np.clip(values, LOWEST, HIGHEST, out=values)
        slab[...] = values


def _noise_field(rng: np.random.Generator, rows: int, columns: int) -> Float:
    """Noise of variance 1 that is correlated over a pixel or two, as after reconstruction."""
    noise: Float = rng.standard_normal((rows + 2, columns + 2), dtype=np.float32)
    noise = noise[1:-1] + np.float32(0.5) * (noise[:-2] + noise[2:])
    noise = noise[:, 1:-1] + np.float32(0.5) * (noise[:, :-2] + noise[:, 2:])
    noise *= np.float32(1 / 1.5)  # each pass has the weights ½ 1 ½, with sum of squares 1.5
    return noise


def _blur(values: Float, axis: int, spacing: float) -> None:
    """Average neighbouring planes along an axis, but for the first and the last; in place.

    The weights w, 1 − 2w, w spread by the variance of the scanner's response plus that of a voxel,
    which is spacing² / 12; w goes no further than ¼.
    """
    if values.shape[axis] < 3:
        return
    weight = np.float32(min(0.25, 0.5 * ((SCANNER_BLUR / spacing) ** 2 + 1 / 12)))
    planes = np.moveaxis(values, axis, 0)
    neighbours = planes[:-2] + planes[2:]
    neighbours *= weight
    planes[1:-1] *= 1 - 2 * weight
    planes[1:-1] += neighbours
