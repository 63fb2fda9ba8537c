from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from twintrack.datasets import lidc


@pytest.fixture
def case() -> lidc.LidcCase:
    """Boxes of different sizes, one per reader; the last reader's is empty."""
    masks = np.zeros((4, 24, 20, 9), dtype=np.uint8)
    masks[0, 8:15, 7:13, 3:6] = 1
    masks[1, 9:15, 8:13, 3:5] = 1
    masks[2, 8:17, 7:14, 2:6] = 1
    return lidc.LidcCase("a_nodule-1", "a", masks, (0.7, 0.7, 1.5), (0, 0, 0), np.eye(4))


@pytest.mark.parametrize("reader", [0, 1, 2])
def test_others_are_the_raters(case: lidc.LidcCase, reader: int) -> None:
    score, raters = lidc.simulate_score(case, reader=reader)
    assert score.dtype == np.float32
    assert score.shape == case.masks.shape[1:]
    assert score.min() >= 0
    assert score.max() <= 1
    np.testing.assert_array_equal(raters, np.delete(case.masks, reader, axis=0))


def test_members_are_logistic_in_the_distance_to_the_grown_outline(case: lidc.LidcCase) -> None:
    growths, temperature = (-0.5, 0.0, 1.25), 0.4
    score, _ = lidc.simulate_score(
        case, reader=2, growths=growths, temperature=temperature, roughness=0
    )
    # Distances from every voxel to every voxel of the other kind, no transform involved.
    position = np.argwhere(np.ones(score.shape)) * case.spacing
    mask = case.masks[2].ravel().astype(bool)
    distance = np.empty(mask.size)
    for kind, sign in ((True, 1), (False, -1)):
        apart = np.linalg.norm(position[mask == kind][:, None] - position[mask != kind], axis=2)
        distance[mask == kind] = sign * (apart.min(axis=1) - 0.35)
    members = [1 / (1 + np.exp(-(distance + g) / temperature)) for g in growths]
    np.testing.assert_allclose(score.ravel(), np.mean(members, axis=0), atol=2e-6)


def test_growth_over_segments_and_no_growth_follows_the_outline(case: lidc.LidcCase) -> None:
    exact, _ = lidc.simulate_score(case, reader=0, growths=(0,), roughness=0)
    np.testing.assert_array_equal(exact > 0.5, case.masks[0] == 1)
    grown, _ = lidc.simulate_score(case, reader=0)
    assert grown.sum() > 1.3 * case.masks[0].sum()


def test_mask_up_to_the_side_of_the_box_has_its_border_there(case: lidc.LidcCase) -> None:
    full = replace(case, masks=np.ones((4, 7, 7, 7), dtype=np.uint8))
    score, _ = lidc.simulate_score(full, growths=(0,), temperature=1, roughness=0)
    logit = np.log(score / (1 - score))
    assert logit[3, 3, 3] == pytest.approx(4 * 0.7 - 0.35, abs=1e-4)
    assert logit[0, 3, 3] == pytest.approx(0.7 - 0.35, abs=1e-4)


def test_roughness_is_the_root_mean_square_of_the_field(case: lidc.LidcCase) -> None:
    options: dict[str, Any] = {"reader": 0, "growths": (0.0,), "temperature": 10.0}
    smooth, _ = lidc.simulate_score(case, **options, roughness=0)
    rough, _ = lidc.simulate_score(case, **options, roughness=0.5)
    field = 10 * (np.log(rough / (1 - rough)) - np.log(smooth / (1 - smooth)))
    assert np.sqrt(np.mean(field**2)) == pytest.approx(0.5, rel=1e-3)
    # Smoothed over 3 mm: neighbours 0.7 mm apart hardly differ.
    assert np.abs(np.diff(field, axis=0)).max() < 0.5


def test_score_depends_on_seed_and_case_alone(case: lidc.LidcCase) -> None:
    score, raters = lidc.simulate_score(case, seed=3)
    again, raters_again = lidc.simulate_score(case, seed=3)
    np.testing.assert_array_equal(score, again)
    np.testing.assert_array_equal(raters, raters_again)
    assert not np.array_equal(score, lidc.simulate_score(case, seed=4)[0])
    other = replace(case, case="a_nodule-2")
    assert not np.array_equal(
        lidc.simulate_score(case, reader=0)[0], lidc.simulate_score(other, reader=0)[0]
    )


def test_any_reader_with_a_voxel_may_be_drawn_and_no_other(case: lidc.LidcCase) -> None:
    drawn = set()
    for seed in range(40):
        score, _ = lidc.simulate_score(case, seed=seed, growths=(0,), roughness=0)
        drawn |= {i for i in range(4) if np.array_equal(score > 0.5, case.masks[i] == 1)}
    assert drawn == {0, 1, 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"growths": ()}, "growths must name at least one member"),
        ({"temperature": 0.0}, "temperature must be finite and above 0 mm, got 0.0"),
        ({"temperature": np.nan}, "temperature must be finite and above 0 mm, got nan"),
        ({"roughness": -1.0}, "roughness must be finite and at least 0 mm, got -1.0"),
        ({"correlation": np.inf}, "correlation must be finite and above 0 mm, got inf"),
        ({"reader": 3}, r"a_nodule-1': reader must be one of \[0, 1, 2\]"),
        ({"reader": -1}, r"a_nodule-1': reader must be one of \[0, 1, 2\]"),
    ],
)
def test_impossible_parameters_are_refused(
    case: lidc.LidcCase, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        lidc.simulate_score(case, **options)


def test_case_without_a_voxel_is_refused(case: lidc.LidcCase) -> None:
    with pytest.raises(ValueError, match="a_nodule-1': no reader has a voxel"):
        lidc.simulate_score(replace(case, masks=np.zeros_like(case.masks)))
