"""Names and directions of metrics."""

from __future__ import annotations

import numpy as np
import pytest

from twintrack.report.columns import describe, in_order, with_derived


@pytest.mark.parametrize(
    ("key", "label", "better", "benchmark"),
    [
        ("tdsc", "TDSC", "higher", True),
        ("ece", "ECE", "lower", True),
        ("crps", "CRPS", "lower", True),
        ("vi_CELIAC TRUNK", "CELIAC TRUNK", "lower", True),
        ("vi_hepatic_artery", "hepatic_artery", "lower", True),
        ("ece_probability", "ECE probability", "lower", False),
        ("dice_staple", "Dice STAPLE", "higher", False),
        ("brier", "Brier", "lower", False),
        ("resolution", "Resolution", "higher", False),
        ("uncertainty", "Uncertainty", None, False),
        ("predicted_volume", "Predicted volume", None, False),
        ("predicted_something", "predicted_something", None, False),
    ],
)
def test_directions(key, label, better, benchmark):
    metric = describe(key)
    assert (metric.label, metric.better, metric.benchmark) == (label, better, benchmark)
    assert metric.arrow == {"higher": "↑", "lower": "↓", None: ""}[better]


def test_order_is_the_papers_then_as_they_come():
    keys = ["brier", "vi_SMA", "vi_HEPATIC", "ece", "vi_PORTA", "tdsc", "ace", "ece"]
    assert [metric.key for metric in in_order(keys)] == [
        "tdsc", "ece", "vi_PORTA", "vi_SMA", "vi_HEPATIC", "brier", "ace",
    ]  # fmt: skip


def test_the_bias_of_the_volume_follows_from_the_volumes():
    values = {
        "predicted_volume": np.array([12.0, 5.0, 3.0, np.nan]),
        "rater_volume": np.array([10.0, 10.0, 0.0, 4.0]),
    }
    found = with_derived(values)
    np.testing.assert_array_equal(found["volume_bias"], [2, -5, 3, np.nan])
    np.testing.assert_array_equal(found["relative_volume_bias"], [0.2, -0.5, np.nan, np.nan])
    assert list(found)[:2] == list(values)
    given = {**values, "volume_bias": np.zeros(4)}
    assert with_derived(given)["volume_bias"] is given["volume_bias"]
    assert with_derived({"rater_volume": values["rater_volume"]}).keys() == {"rater_volume"}
    nothing = with_derived({**values, "rater_volume": np.zeros(4)})
    assert "relative_volume_bias" not in nothing
    assert describe("relative_volume_bias").label == "Relative volume bias"
    assert describe("volume_bias").better is None
    assert describe("contested_error").better == "lower"
