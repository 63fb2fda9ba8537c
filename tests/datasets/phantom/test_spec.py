"""What a synthetic cohort can be asked to be."""

from __future__ import annotations

import pytest

from twintrack.datasets.phantom import PhantomSpec


def test_default_spacing_fits_an_adult_or_stops_at_two_and_a_half_millimetres() -> None:
    assert PhantomSpec().voxel_size == (0.75, 0.75, 2.0)
    assert PhantomSpec(shape=(64, 256, 1)).voxel_size == (2.5, 1.5, 2.5)


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("shape", (0, 5, 5), ValueError),
        ("shape", (5, 5), ValueError),
        ("shape", 64, TypeError),
        ("shape", (5.0, 5, 5), TypeError),
        ("spacing", (1.0, 0.0, 1.0), ValueError),
        ("spacing", (1.0, 1.0, float("nan")), ValueError),
        ("spacing", "1 1 1", TypeError),
        ("raters", 0, ValueError),
        ("raters", 2.5, TypeError),
        ("raters", True, TypeError),
        ("tumour_radius", 0, ValueError),
        ("tumour_radius", "big", TypeError),
        ("disagreement", -1, ValueError),
        ("disagreement", float("inf"), ValueError),
        ("rater_bias", (1.0, 2.0), ValueError),
        ("rater_bias", float("nan"), ValueError),
        ("rater_bias", (0, 0, 0, 0, None), TypeError),
        ("smoothness", 0, ValueError),
        ("empty_raters", (5,), ValueError),
        ("empty_raters", 1, TypeError),
        ("score_bias", float("inf"), ValueError),
        ("score_sharpness", 0, ValueError),
        ("score_noise", -0.1, ValueError),
        ("roi_margin", -1, ValueError),
        ("vessels", "yes", TypeError),
        ("noise", -1, ValueError),
        ("variation", 3, ValueError),
        ("orientation", "XYZ", ValueError),
        ("orientation", "RL", ValueError),
        ("oblique", 46, ValueError),
        ("score_dtype", "int8", ValueError),
        ("seed", -1, ValueError),
    ],
)
def test_a_bad_field_is_named(field: str, value: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=rf"^{field} must be"):
        PhantomSpec(**{field: value})  # type: ignore[arg-type]
