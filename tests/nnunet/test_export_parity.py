"""The fused export against nnU-Net's own: export of each member with probabilities, mean, merge."""

from __future__ import annotations

import numpy as np
import pytest

from twintrack.ensemble import ExportGeometry, export_score

pytest.importorskip("nnunetv2")

from export_parity import KINDS, Kind, differences

pytestmark = pytest.mark.nnunet


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_fused_export_agrees_with_nnunet(kind: Kind) -> None:
    # To float32's rounding: a single float16 logit other than nnU-Net's would be 1e-4 and more.
    worst, mean = differences(kind)
    assert worst <= 2e-6
    assert mean <= 1e-7


THIN = (1, 1, 2, 3, 6, 9, 10, 11, 40)
THICK = (2, 7, 3, 2, 4, 7, 4, 33, 8)


def test_nearest_agrees_at_every_factor() -> None:
    # Which slice a voxel takes is decided by the rounding of a coordinate where it lies on a half;
    # a neighbour taken wrongly changes scores by tenths.
    for resampling in ("nnunet", "torch"):
        for thin, thick in zip(THIN, THICK, strict=True):
            kind = Kind(
                f"{thin} to {thick}",
                (thick, 9, 8),
                None,
                (9.0 * thin / thick, 1.0, 1.0),
                (9.0, 1.0, 1.0),
                resampling=resampling,
                force_separate_z=True,
            )
            worst, _ = differences(kind, seed=thin)
            assert worst < 1e-5, (resampling, kind.name)


def test_probabilities_are_resampled_like_any_array() -> None:
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

    rng = np.random.default_rng(3)
    members = [rng.dirichlet(np.ones(4), size=(11, 20, 18)).transpose(3, 0, 1, 2) for _ in range(3)]
    members = [member.astype(np.float32) for member in members]
    shape = (30, 41, 33)
    expected = np.mean(
        [
            resample_data_or_seg_to_shape(
                member, shape, (4, 1, 1), (1.4, 0.5, 0.5), False, 1, 0, None
            )
            for member in members
        ],
        axis=0,
    )[[1, 3]].sum(0)
    geometry = ExportGeometry(shape, ((0, 30), (0, 41), (0, 33)), (1.4, 0.5, 0.5), (4, 1, 1))
    score = export_score(members, geometry, tumour=(1, 3), inputs="probabilities")
    assert np.abs(score - expected).max() < 1e-6
