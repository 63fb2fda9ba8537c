"""The axes of an image as the networks see them, and back, for every way in which it can lie."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest

from twintrack.nnunet.images import as_image
from twintrack.nnunet.network_axes import NetworkAxes
from twintrack.nnunet.roi import Roi

SHAPE = (5, 7, 6)
LIES = [
    "".join(way)
    for axes in itertools.permutations(("RL", "AP", "SI"))
    for way in itertools.product(*axes)
]


def lying(codes: str) -> tuple[np.ndarray, np.ndarray]:
    """An array, and the affine with which its axes run towards these sides."""
    array = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    size = {"R": 0.7, "L": 0.7, "A": 1.1, "P": 1.1, "S": 2.5, "I": 2.5}
    orientation = nib.orientations.axcodes2ornt(codes)
    matrix = np.zeros((3, 3))
    for axis, (towards, sign) in enumerate(orientation):
        matrix[int(towards), axis] = sign * size[codes[axis]]
    return array, nib.affines.from_matvec(matrix, [11, -23, 57])


@pytest.mark.parametrize("codes", LIES)
def test_the_view_is_that_of_nibabel(codes: str) -> None:
    array, affine = lying(codes)
    frame = NetworkAxes(as_image(array, affine), canonical=True)
    turned = nib.as_closest_canonical(nib.Nifti1Image(array, affine))
    np.testing.assert_array_equal(frame.view(array), np.asarray(turned.dataobj).T)
    assert frame.spacing == pytest.approx((2.5, 1.1, 0.7))
    assert frame.patient_axes == (2, 1, 0)
    as_stored = NetworkAxes(as_image(array, affine), canonical=False)
    np.testing.assert_array_equal(as_stored.view(array), array.T)
    assert as_stored.spacing[::-1] == pytest.approx(np.linalg.norm(affine[:3, :3], axis=0))
    towards = nib.orientations.axcodes2ornt(codes)[:, 0].astype(int)
    assert as_stored.patient_axes == tuple(towards[::-1])


@pytest.mark.parametrize("canonical", [False, True])
@pytest.mark.parametrize("codes", LIES)
def test_a_region_comes_back_to_where_it_was_seen(codes: str, canonical: bool) -> None:
    array, affine = lying(codes)
    frame = NetworkAxes(as_image(array, affine), canonical)
    seen = frame.view(np.zeros(SHAPE, bool))
    box = tuple(slice(1, length - 2) for length in seen.shape)
    inside = np.random.default_rng(0).random([n - 3 for n in seen.shape]) < 0.5
    for part in (None, inside):
        marked, expected = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
        frame.view(expected)[box] = True if part is None else part
        back = frame.back(Roi(box, part, found=part is None))
        marked[back.box] = True if back.inside is None else back.inside
        np.testing.assert_array_equal(marked, expected)
        assert back.found == (part is None)
