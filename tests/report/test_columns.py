"""Names and directions of metrics."""

from __future__ import annotations

import pytest

from twintrack.report.columns import describe, in_order


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
        ("predicted_volume", "predicted_volume", None, False),
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
