"""Where voxels lie: the same grid, a part of it, or neither."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from volume_samples import AFFINE, SHAPE

from twintrack.volumes import Volume, check_same_geometry


def volume_at(affine: np.ndarray | None, name: str, shape: tuple[int, ...] = SHAPE) -> Volume:
    return Volume(np.zeros(shape), affine, Path(name))


@pytest.mark.parametrize(
    ("change", "part", "amount"),
    [
        (lambda a: a @ np.diag([1, 1, 1.4, 1]), "spacing", r"1\.00\d mm"),
        (lambda a: a + np.eye(4, k=3) * 1000, "origin", "1000 mm"),
        (lambda a: a @ np.diag([-1, 1, 1, 1]), "direction", r"1\.98"),
        (lambda a: a * np.nan, "spacing", "nan mm"),
    ],
)
def test_geometry_fault_names_files_part_amount_and_override(change, part, amount):
    reference, other = volume_at(AFFINE, "ct.nii"), volume_at(change(AFFINE), "rater.nii")
    with pytest.raises(ValueError, match=rf"rater\.nii.*ct\.nii.*{part}.*{amount}") as caught:
        check_same_geometry(reference, other)
    assert "ignore_header=True" in str(caught.value)
    assert "--ignore-header" in str(caught.value)
    check_same_geometry(reference, other, ignore=("spacing", "origin", "direction"))
    if part != "spacing":  # the other parts agree
        assert "spacing" not in str(caught.value)
        check_same_geometry(reference, other, ignore=(part,))


def test_geometry_tolerates_rounding_and_unknown_places_but_never_another_shape():
    reference = volume_at(AFFINE, "ct.nii")
    check_same_geometry(reference, volume_at(AFFINE + 5e-4, "rater.nii"))
    check_same_geometry(reference, volume_at(None, "score.npy"))
    for affine in (AFFINE, None):
        other = volume_at(affine, "rater.nii", (5, 4, 2))
        with pytest.raises(ValueError, match=r"rater\.nii: shape \(5, 4, 2\).*3\) of ct\.nii"):
            check_same_geometry(reference, other, ignore=("spacing", "origin", "direction"))
    with pytest.raises(ValueError, match="orign"):
        check_same_geometry(reference, reference, ignore=("orign",))


@pytest.mark.parametrize("part", ["spacing", "origin", "direction"])
def test_geometry_tolerates_a_thousandth_and_no_more(part):
    """Of a millimetre, or of a unit vector: a hundredth would hide a wrong slice distance."""
    spacing, origin, angle = np.diag([0.7, 0.8, 2.5]), [90.5, -40.25, 12.0], 0.3

    def placed(off: float) -> np.ndarray:
        turn = angle + off * (part == "direction")
        c, s = np.cos(turn), np.sin(turn)
        longer = spacing + np.diag([0, 0, off * (part == "spacing")])
        turned = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ longer
        return nib.affines.from_matvec(turned, np.add(origin, [0, off * (part == "origin"), 0]))

    reference = volume_at(placed(0), "ct.nii")
    for off in (0.9e-3, -0.9e-3):
        check_same_geometry(reference, volume_at(placed(off), "rater.nii"))
    for off in (1.2e-3, -1.2e-3, 0.01):
        with pytest.raises(ValueError, match=rf"geometry differs from ct\.nii: {part} "):
            check_same_geometry(reference, volume_at(placed(off), "rater.nii"))


def test_spacing_and_voxel_volume():
    volume = volume_at(np.diag([-0.5, 0.8, 3.0, 1.0]), "a.nii")
    assert volume.spacing == pytest.approx((0.5, 0.8, 3.0))
    assert volume.voxel_volume == pytest.approx(1.2)
    for unknown in ("voxel_volume", "spacing"):  # 1 would pass for millimetres
        with pytest.raises(ValueError, match=r"a\.npy: states no voxel size"):
            getattr(volume_at(None, "a.npy"), unknown)
    # Of the array's axes, wherever these point: sagittal slices, a little aslant.
    slices = nib.affines.from_matvec([[0, 0, 3.0], [-0.4, 0, 0], [0.3, -0.8, 0]])
    assert volume_at(slices, "a.nii").spacing == pytest.approx((0.5, 0.8, 3.0))
    assert volume_at(slices, "a.nii").voxel_volume == pytest.approx(0.4 * 0.8 * 3)
