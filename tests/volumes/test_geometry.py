"""Where voxels lie: the same grid, a part of it, or neither."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from volume_samples import AFFINE, SHAPE, scores

from twintrack.volumes import Volume, check_same_geometry, find_part, paste, read_volume


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


def part_at(start: tuple[int, ...], shape: tuple[int, ...], affine: np.ndarray = AFFINE) -> Volume:
    placed = affine.copy()
    placed[:3, 3] += AFFINE[:3, :3] @ start
    return Volume(scores(shape), placed)


@given(st.data())
def test_every_box_of_a_grid_is_found_and_nothing_else(data):
    whole = Volume(scores((9, 8, 7)), AFFINE)
    shape = [data.draw(st.integers(1, n)) for n in (9, 8, 7)]
    start = [data.draw(st.integers(-2, n)) for n in (9, 8, 7)]
    box = tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))
    inside = all(b.start >= 0 and b.stop <= n for b, n in zip(box, (9, 8, 7), strict=True))
    part = part_at(tuple(start), tuple(shape))
    found = find_part(whole, part)
    assert found == (box if inside and shape != [9, 8, 7] else None)
    if found is not None:
        pasted = paste(part, found, whole)
        np.testing.assert_array_equal(pasted.array[box], part.array)
        assert np.count_nonzero(pasted.array) == np.count_nonzero(part.array)
        assert pasted.array.dtype == part.array.dtype
        np.testing.assert_array_equal(pasted.affine, AFFINE)


def test_part_of_a_grid_is_told_by_every_corner(tmp_path):
    whole = Volume(scores((40, 30, 20)), AFFINE)
    box = (slice(10, 30), slice(5, 25), slice(3, 4))
    shape = (20, 20, 1)
    part = part_at((10, 5, 3), shape)
    assert find_part(whole, part) == box
    # What headers round, but neither another spacing, also across one plane, nor half a voxel.
    rounded = part.affine.astype(np.float32).astype(np.float64)
    assert find_part(whole, Volume(part.array, rounded)) == box
    for axis in range(3):
        stretched = part.affine.copy()
        stretched[:3, axis] *= 1.1
        assert find_part(whole, Volume(part.array, stretched)) is None
        shifted = part.affine.copy()
        shifted[:3, 3] += 0.5 * AFFINE[:3, axis]
        assert find_part(whole, Volume(part.array, shifted)) is None
    for unknown in (None, np.full((4, 4), np.nan), np.zeros((4, 4))):
        assert find_part(whole, Volume(part.array, unknown)) is None
        assert find_part(Volume(whole.array, unknown), part) is None
    # Without codes every reader has its own guess; nibabel's puts all volumes around one point.
    files = []
    for name, array in (("whole", whole.array), ("part", scores((20, 10, 10)))):
        header = nib.Nifti1Header()
        header.set_data_shape(array.shape)
        image = nib.Nifti1Image(array, None, header)
        files.append(tmp_path / f"{name}.nii")
        nib.save(image, files[-1])
    guessed = [read_volume(file) for file in files]
    assert find_part(*guessed) is None
    # One code is enough: a file may have a qform alone, or an sform.
    part = part_at((10, 5, 3), shape)
    for code in ("qform", "sform"):
        placed = []
        for volume, of in zip((whole, part), guessed, strict=True):
            header = of.header.copy()
            header[f"{code}_code"] = 1
            placed.append(Volume(volume.array, volume.affine, header=header))
        assert find_part(*placed) == box
