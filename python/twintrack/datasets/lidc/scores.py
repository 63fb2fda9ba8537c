"""Scores of a simulated ensemble."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.special import expit

from twintrack.datasets.lidc.masks import LidcCase
from twintrack.errors import InputError


def simulate_score(
    case: LidcCase,
    *,
    reader: int | None = None,
    growths: Sequence[float] = (0.5, 1.0, 1.5),
    temperature: float = 0.3,
    roughness: float = 0.5,
    correlation: float = 3.0,
    seed: int = 0,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    r"""Score of a simulated ensemble that follows one reader, and the masks of the others.

    Member k gives :math:`1 / (1 + e^{-(d + g_k + n_k) / T})`: d is the signed distance in mm to the
    reader's outline (inside positive), g its growth, T the temperature and n a smooth random field,
    so that members err differently along the border. The score is the mean of the members. A small
    T makes them certain up to a border that readers dispute by millimetres: over-confidence; the
    growths make them over-segment. Distances run between voxel centres, less half a pixel, since
    the border lies between a pixel that is nodule and one that is not.

    Parameters
    ----------
    case : LidcCase
        With at least one reader whose mask is not empty.
    reader : int, optional
        Whom the members follow; by default one of those with a non-empty mask, drawn with ``seed``.
    growths : sequence of float
        mm, one per member; negative shrinks.
    temperature : float
        mm, above 0: the distance over which a member's odds change by a factor e.
    roughness : float
        Root mean square in mm of each member's random field; 0 for none.
    correlation : float
        mm, above 0: standard deviation of the Gaussian that smooths the field.
    seed : int
        At least 0. The same seed, case and parameters give the same score; each case has its own
        random stream, so neither order nor selection of the cases matters.

    Returns
    -------
    score : float32, shape (X, Y, Z), in [0, 1]
    raters : uint8, shape (readers - 1, X, Y, Z)
        The masks of all readers but the one followed.

    Raises
    ------
    ValueError
        If a parameter is out of range, or the mask to follow is empty.
    """
    if not growths:
        raise InputError("growths must name at least one member, got none")
    for name, value, lowest in (
        ("temperature", temperature, np.nextafter(0, 1)),
        ("roughness", roughness, 0.0),
        ("correlation", correlation, np.nextafter(0, 1)),
    ):
        if not lowest <= value < np.inf:
            sign = "at least" if lowest == 0 else "above"
            raise InputError(f"{name} must be finite and {sign} 0 mm, got {value}")
    random = np.random.default_rng([seed, zlib.crc32(case.case.encode())])

    marked = np.flatnonzero(case.masks.any(axis=(1, 2, 3)))
    if not marked.size:
        raise InputError("no reader has a voxel to follow", case=case.case)
    drawn = int(random.choice(marked))
    followed = drawn if reader is None else reader
    if followed not in marked:
        raise InputError(
            f"reader must be one of {marked.tolist()}, whose masks are not empty, got {reader}",
            case=case.case,
        )

    distance = _signed_distance(case.masks[followed], case.spacing)
    sigma = [correlation / step for step in case.spacing]
    score = np.zeros(distance.shape, dtype=np.float32)
    for growth in growths:
        logit = distance + np.float32(growth)
        if roughness:
            noise = random.standard_normal(distance.shape, dtype=np.float32)
            # wrap: the field is as rough at the sides of the box as in its middle.
            field = gaussian_filter(noise, sigma, mode="wrap")
            logit += field * np.float32(roughness / np.sqrt(np.mean(np.square(field))))
        score += expit(logit / np.float32(temperature))
    score /= np.float32(len(growths))
    return score, np.delete(case.masks, followed, axis=0)


def _signed_distance(
    mask: NDArray[np.uint8], spacing: tuple[float, float, float]
) -> NDArray[np.float32]:
    """Distance in mm to the border of a mask that is not empty, inside positive."""
    half = spacing[0] / 2
    outside = distance_transform_edt(mask == 0, sampling=spacing)
    signed = (half - outside).astype(np.float32)
    # Inside, the nodule's own box suffices; the padding is outside even at the side of the array.
    box = tuple(slice(int(index.min()), int(index.max()) + 1) for index in np.nonzero(mask))
    inside = distance_transform_edt(np.pad(mask[box], 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    np.copyto(signed[box], inside - half, where=inside > 0, casting="same_kind")
    return signed
