"""Synthetic cases: what a control is said to do, it does; what is seeded, repeats."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from twintrack.datasets.panorama import ANATOMY_LABELS
from twintrack.datasets.phantom import VESSEL_LABELS, PhantomCase, PhantomSpec, phantom_case

SMALL = PhantomSpec(shape=(48, 44, 40))
TINY = PhantomSpec(shape=(12, 10, 8), spacing=(5.0, 5.0, 5.0), raters=3)


def arrays(case: PhantomCase) -> dict[str, NDArray[np.generic]]:
    return {
        name: getattr(case, name)
        for name in ("image", "raters", "vessels", "anatomy", "score", "affine")
    }


def pairwise_dice(raters: NDArray[np.uint8]) -> float:
    masks = raters.reshape(len(raters), -1).astype(np.float64)
    overlap = masks @ masks.T
    size = np.diag(overlap)
    dice = 2 * overlap / (size[:, None] + size)
    return float(dice[np.triu_indices(len(masks), 1)].mean())


# Seeding


def test_a_case_has_the_same_bits_whatever_was_generated_before() -> None:
    first = arrays(phantom_case(SMALL, 3))
    phantom_case(replace(SMALL, seed=9), 0)
    again = arrays(phantom_case(SMALL, 3))
    for name, array in first.items():
        assert array.dtype == again[name].dtype
        assert array.tobytes() == again[name].tobytes(), name


@pytest.mark.parametrize("other", [(SMALL, 1), (replace(SMALL, seed=1), 0)])
def test_another_index_or_seed_is_another_patient(other: tuple[PhantomSpec, int]) -> None:
    here, there = phantom_case(SMALL, 0), phantom_case(*other)
    for name in ("image", "raters", "vessels", "anatomy", "score"):
        assert not np.array_equal(getattr(here, name), getattr(there, name)), name


def test_ingredients_draw_from_streams_of_their_own() -> None:
    few = phantom_case(replace(SMALL, raters=2, rater_bias=0.0), 0)
    many = phantom_case(replace(SMALL, raters=6, rater_bias=0.0, score_bias=-1.0), 0)
    np.testing.assert_array_equal(few.raters, many.raters[:2])
    np.testing.assert_array_equal(few.image, many.image)
    np.testing.assert_array_equal(few.anatomy, many.anatomy)


# Tumour and raters


def test_raters_without_disagreement_or_bias_mark_the_true_tumour() -> None:
    case = phantom_case(replace(SMALL, disagreement=0.0, rater_bias=0.0), 2)
    tumour = case.anatomy == ANATOMY_LABELS["PDAC"]
    assert tumour.any()
    for mask in case.raters:
        np.testing.assert_array_equal(mask, tumour)


@pytest.mark.parametrize("radius", [8.0, 16.0])
def test_tumour_has_the_volume_of_its_sphere_less_the_vessels(radius: float) -> None:
    spec = replace(SMALL, spacing=(1.5, 1.5, 1.5), tumour_radius=radius, variation=0.0)
    case = phantom_case(spec, 0)
    volume = np.count_nonzero(case.anatomy == ANATOMY_LABELS["PDAC"]) * 1.5**3
    assert 0.7 < volume / (4 / 3 * np.pi * radius**3) < 1.02


def test_bias_draws_tumours_larger_by_as_many_millimetres() -> None:
    spec = replace(
        SMALL, raters=3, spacing=(1.0, 1.0, 1.0), shape=(80, 80, 80),
        rater_bias=(-2.0, 0.0, 2.0), disagreement=0.0, variation=0.0, tumour_radius=12.0,
    )  # fmt: skip
    small, true, large = phantom_case(spec, 0).raters
    assert not (small & ~true & 1).any()
    assert not (true & ~large & 1).any()
    # Half the extent along x is the radius on the side away from the vessels.
    extents = [np.ptp(np.flatnonzero(mask.any(axis=(1, 2)))) for mask in (small, true, large)]
    assert np.diff(extents) == pytest.approx([4, 4], abs=1)


def test_habits_are_evenly_spaced_and_show_in_the_mean_volumes() -> None:
    assert PhantomSpec(raters=5, rater_bias=1.0).rater_biases == (-1.0, -0.5, 0.0, 0.5, 1.0)
    assert PhantomSpec(raters=1, rater_bias=1.0).rater_biases == (0.0,)
    spec = replace(SMALL, rater_bias=2.0, disagreement=1.0)
    cases = [phantom_case(spec, k) for k in range(6)]
    volumes = sum(case.raters.sum(axis=(1, 2, 3), dtype=np.int64) for case in cases)
    assert (np.diff(volumes) > 0).all()


def test_raters_disagree_more_with_more_disagreement() -> None:
    dice = [
        np.mean([
            pairwise_dice(phantom_case(replace(SMALL, disagreement=mm, rater_bias=0.0), k).raters)
            for k in range(3)
        ])
        for mm in (0.0, 1.0, 2.0, 4.0)
    ]  # fmt: skip
    assert dice[0] == 1.0
    assert (np.diff(dice) < -0.02).all()


def test_small_smoothness_gives_ragged_outlines() -> None:
    def surface_per_voxel(smoothness: float) -> float:
        spec = replace(SMALL, smoothness=smoothness, disagreement=3.0)
        masks = phantom_case(spec, 0).raters.astype(np.int8)
        faces = sum(np.abs(np.diff(masks, axis=axis)).sum() for axis in (1, 2, 3))
        return float(faces / masks.sum())

    assert surface_per_voxel(0.5) > 1.5 * surface_per_voxel(20.0)


def test_empty_raters_mark_nothing_and_leave_the_others_alone() -> None:
    full = phantom_case(SMALL, 0)
    holed = phantom_case(replace(SMALL, empty_raters=(1, 4)), 0)
    assert full.raters.any(axis=(1, 2, 3)).all()
    assert not holed.raters[[1, 4]].any()
    np.testing.assert_array_equal(holed.raters[[0, 2, 3]], full.raters[[0, 2, 3]])


def test_mean_human_response_is_the_fraction_of_raters() -> None:
    case = phantom_case(SMALL, 0)
    np.testing.assert_array_equal(case.mean_human_response(), case.raters.mean(axis=0))


# Score


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_score_is_a_probability_and_exactly_zero_outside_the_roi(dtype: str) -> None:
    case = phantom_case(replace(SMALL, shape=(96, 80, 56), score_dtype=dtype), 0)
    assert case.score.dtype == dtype
    assert case.score.min() >= 0
    assert case.score.max() <= 1
    inside = case.roi_mask().astype(bool)
    assert 0.02 < inside.mean() < 0.5
    assert not case.score[~inside].any()
    assert (case.score[inside] > 0).mean() > 0.99
    assert not case.raters[:, ~inside].any()


def margin(case: PhantomCase, millimetres: float = 5.0) -> NDArray[np.bool_]:
    """The shell outside every rater's mask, where over-segmentation shows."""
    union = case.raters.any(axis=0)
    distance = ndimage.distance_transform_edt(~union, case.spacing)
    return (distance > 0) & (distance < millimetres)


def test_score_errs_in_the_direction_asked_for() -> None:
    for index in range(3):
        over = phantom_case(replace(SMALL, score_bias=3.0, score_noise=0.0), index)
        under = phantom_case(replace(SMALL, score_bias=-3.0, score_noise=0.0), index)
        response = over.mean_human_response()
        assert over.score[margin(over)].mean() > 0.05  # where no rater marks anything
        assert under.score[margin(under)].mean() < 0.01
        ambiguous = (response > 0) & (response < 1)
        assert over.score[ambiguous].mean() > response[ambiguous].mean() + 0.1
        assert under.score[ambiguous].mean() < response[ambiguous].mean() - 0.1


def reliability(spec: PhantomSpec, cases: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean score and mean human response in ten bins of the score, over a cohort's ROIs."""
    score, response = [], []
    for index in range(cases):
        case = phantom_case(spec, index)
        score.append(case.score[case.roi].ravel())
        response.append(case.mean_human_response()[case.roi].ravel())
    p, mhr = np.concatenate(score).astype(np.float64), np.concatenate(response)
    bins = np.minimum((p * 10).astype(int), 9)
    count = np.bincount(bins, minlength=10)
    return np.bincount(bins, p) / count, np.bincount(bins, mhr) / count


def test_sharpness_one_without_bias_is_calibrated() -> None:
    spec = replace(SMALL, score_sharpness=1.0, score_bias=0.0, score_noise=0.0)
    score, response = reliability(spec, 8)
    assert np.abs(score - response).max() < 0.1


def test_sharpness_above_one_is_over_confident_below_one_under_confident() -> None:
    sharp = replace(SMALL, score_sharpness=4.0, score_bias=0.0, score_noise=0.0)
    score, response = reliability(sharp, 8)
    assert response[1] > score[1] + 0.1
    assert response[8] < score[8] - 0.1
    score, response = reliability(replace(sharp, score_sharpness=0.4), 8)
    assert response[1] < score[1] - 0.05
    assert response[8] > score[8] + 0.05


# Anatomy and CT


def test_all_five_vessels_are_whole_and_agree_with_the_anatomy() -> None:
    for index in range(4):
        case = phantom_case(replace(SMALL, shape=(64, 64, 64)), index)
        assert case.vessels is not None
        assert set(np.unique(case.vessels)) == {0, *VESSEL_LABELS.values()}
        for name in ("PORTA", "SMV", "AORTA", "SMA"):
            lumen = case.vessels == VESSEL_LABELS[name]
            assert ndimage.label(lumen, np.ones((3, 3, 3)))[1] == 1, (index, name)
        arteries = np.isin(
            case.vessels, [VESSEL_LABELS[n] for n in ("AORTA", "CELIAC TRUNK", "SMA")]
        )
        veins = np.isin(case.vessels, [VESSEL_LABELS[n] for n in ("PORTA", "SMV")])
        assert (case.anatomy[arteries] == ANATOMY_LABELS["arteries"]).all()
        assert (case.anatomy[veins] == ANATOMY_LABELS["veins"]).all()


def test_vessels_are_as_wide_as_an_adults() -> None:
    case = phantom_case(replace(SMALL, shape=(160, 160, 60), spacing=(0.75, 0.75, 1.5)), 0)
    for name, low, high in (("AORTA", 7, 12), ("SMV", 4, 8), ("SMA", 2.5, 5.5)):
        slices = (case.vessels == VESSEL_LABELS[name]).sum(axis=(0, 1)) * 0.75**2
        radius = np.sqrt(np.median(slices[slices > 0]) / np.pi)
        assert low < radius < high, name


def test_many_tumours_touch_a_vessel_and_some_touch_none() -> None:
    spec = replace(SMALL, raters=1)
    touching = 0
    for index in range(24):
        case = phantom_case(spec, index)
        assert case.vessels is not None
        tumour = ndimage.binary_dilation(case.anatomy == ANATOMY_LABELS["PDAC"])
        touching += bool(case.vessels[tumour].any())
    assert 12 <= touching <= 23


def test_anatomy_has_every_panorama_label_and_its_tumour_is_what_raters_mark() -> None:
    for index in range(4):
        case = phantom_case(replace(SMALL, shape=(64, 64, 64)), index)
        assert set(np.unique(case.anatomy)) == set(ANATOMY_LABELS.values())
        tumour = case.anatomy == ANATOMY_LABELS["PDAC"]
        response = case.mean_human_response()
        assert response[tumour].mean() > 0.7
        overlap = 2 * (tumour & (response > 0.5)).sum() / (tumour.sum() + (response > 0.5).sum())
        assert overlap > 0.75


def test_attenuation_is_that_of_a_portal_venous_ct() -> None:
    case = phantom_case(PhantomSpec(shape=(128, 128, 64), spacing=(3.0, 3.0, 5.0)), 0)
    assert case.image.dtype == np.int16
    assert case.image[0, 0].max() < -900  # air in the corner
    # Mid-body percentiles of a real scan: fat in the lower quartile, soft tissue above.
    body = case.image[case.image > -300]
    assert np.percentile(body, 25) < -80
    assert 20 < np.percentile(body, 75) < 130
    for name, low, high in (("veins", 130, 190), ("arteries", 130, 200), ("parenchyma", 80, 125)):
        assert low < np.median(case.image[case.anatomy == ANATOMY_LABELS[name]]) < high, name
    tumour = ndimage.binary_erosion(case.anatomy == ANATOMY_LABELS["PDAC"])
    assert np.median(case.image[tumour]) == pytest.approx(60, abs=12)


def test_noise_has_the_standard_deviation_asked_for() -> None:
    spec = replace(SMALL, shape=(60, 60, 60), spacing=(1.5, 1.5, 1.5))
    quiet, noisy = (phantom_case(replace(spec, noise=sd), 0).image for sd in (0.0, 20.0))
    assert np.std(noisy.astype(np.float64) - quiet) == pytest.approx(20, rel=0.05)


# Geometry


def world_centroid(case: PhantomCase, label: int) -> NDArray[np.float64]:
    assert case.vessels is not None
    index = np.argwhere(case.vessels == label).mean(axis=0)
    return np.asarray(case.affine[:3, :3] @ index + case.affine[:3, 3])


def test_orientation_changes_the_array_but_not_the_place_in_the_scanner() -> None:
    spec = replace(SMALL, shape=(60, 52, 56), spacing=(2.0, 2.2, 2.4), variation=0.0)
    reference = phantom_case(replace(spec, orientation="RAS"), 0)
    assert reference.vessels is not None
    for codes in ("LPS", "RPI", "LAS"):
        case = phantom_case(replace(spec, orientation=codes), 0)
        assert "".join(nib.aff2axcodes(case.affine)) == codes
        assert case.vessels is not None
        flips = tuple(k for k in range(3) if codes[k] != "RAS"[k])
        assert (np.flip(case.vessels, flips) != reference.vessels).mean() < 1e-3
        for label in VESSEL_LABELS.values():
            difference = world_centroid(case, label) - world_centroid(reference, label)
            assert np.abs(difference).max() < 0.3


def test_the_aorta_lies_behind_and_left_of_the_portal_vein() -> None:
    case = phantom_case(replace(SMALL, shape=(64, 64, 64)), 0)
    right, front, up = world_centroid(case, 1) - world_centroid(case, 3)
    assert right > 10
    assert front > 15
    assert up > 0


def test_random_orientations_and_oblique_affines_keep_the_voxel_size() -> None:
    spec = replace(TINY, orientation="random", oblique=20.0, spacing=(1.0, 2.0, 3.0))
    codes = set()
    for index in range(12):
        case = phantom_case(spec, index)
        columns = case.affine[:3, :3]
        np.testing.assert_allclose(np.linalg.norm(columns, axis=0), (1, 2, 3))
        assert np.abs((columns / (1, 2, 3)).T @ (columns / (1, 2, 3)) - np.eye(3)).max() < 1e-12
        codes.add(nib.aff2axcodes(case.affine))
    assert len(codes) > 2
    straight = phantom_case(replace(spec, oblique=0.0), 0)
    turned = phantom_case(spec, 0)
    np.testing.assert_array_equal(straight.image, turned.image)
    assert np.abs(turned.affine - straight.affine)[:3, :3].max() > 0.01


@settings(max_examples=20)
@given(
    shape=st.tuples(*[st.integers(1, 14)] * 3),
    raters=st.integers(1, 4),
    spacing=st.one_of(st.none(), st.tuples(*[st.floats(0.3, 30)] * 3)),
    radius=st.floats(0.5, 40),
    amounts=st.tuples(*[st.floats(0, 6)] * 3),
    index=st.integers(0, 2**40),
)
def test_no_shape_is_too_small(
    shape: tuple[int, int, int],
    raters: int,
    spacing: tuple[float, float, float] | None,
    radius: float,
    amounts: tuple[float, float, float],
    index: int,
) -> None:
    spec = PhantomSpec(
        shape=shape, spacing=spacing, raters=raters, tumour_radius=radius,
        disagreement=amounts[0], rater_bias=amounts[1], score_noise=amounts[2],
    )  # fmt: skip
    case = phantom_case(spec, index)
    assert case.image.shape == case.score.shape == case.anatomy.shape == shape
    assert case.raters.shape == (raters, *shape)
    assert case.raters.max() <= 1
    assert np.isfinite(case.score).all()
    assert case.image.flags.f_contiguous


@pytest.mark.parametrize("shape", [(1, 1, 1), (512, 1, 1), (1, 300, 2), (1, 1, 400)])
def test_degenerate_shapes(shape: tuple[int, int, int]) -> None:
    case = phantom_case(PhantomSpec(shape=shape), 0)
    assert case.image.shape == shape
    assert case.raters.any()


def test_memory_stays_near_that_of_the_result() -> None:
    spec = PhantomSpec(shape=(256, 256, 64))
    phantom_case(SMALL, 0)
    tracemalloc.start()
    case = phantom_case(spec, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * sum(array.nbytes for array in arrays(case).values())


@pytest.mark.parametrize(("index", "error"), [(-1, ValueError), (1.0, TypeError)])
def test_a_bad_index_is_named(index: int, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^index must be"):
        phantom_case(TINY, index)
