"""Images for the networks: what their headers say is what nnU-Net's readers make of them."""

from __future__ import annotations

import numpy as np
import pytest

from twintrack.nnunet.images import read_image
from twintrack.volumes import write_volume

sitk = pytest.importorskip("SimpleITK")


def oblique_affine(spacing, rng):
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = turn * spacing
    affine[:3, 3] = rng.uniform(-300, 300, 3)
    return affine


@pytest.mark.parametrize("ending", [".nii.gz", ".mha"])
def test_spacing_of_oblique_images_is_simpleitks_to_the_last_bit(tmp_path, ending):
    # 14 slices of 2.5 mm are 17.5 of 2 mm: a bit less gives 17 of them, a bit more 18.
    rng = np.random.default_rng(5)
    gaps = []
    for number in range(20):
        spacing = (0.7, round(float(rng.uniform(0.5, 3)), 3), 2.5)
        path = tmp_path / f"{number}{ending}"
        affine = oblique_affine(spacing, rng)
        write_volume(path, np.zeros((4, 5, 6), np.int16), affine)
        gaps.append(np.abs(np.linalg.norm(affine[:3, :3], axis=0) - spacing).max())
        image = sitk.ReadImage(str(path))
        assert read_image(path).spacing == pytest.approx(image.GetSpacing(), rel=1e-12, abs=0)
        if ending == ".nii.gz":
            assert read_image(path).spacing == image.GetSpacing()
            assert read_image(path).spacing[2] == 2.5
    assert max(gaps) > 0  # the affine alone does not tell
