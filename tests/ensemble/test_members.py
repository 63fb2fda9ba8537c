"""Members and arguments that cannot be merged."""

from __future__ import annotations

import numpy as np
import pytest
from ensemble_members import WHOLE, geometry_for, logits

from twintrack import CalibrationMap
from twintrack.ensemble import (
    ExportGeometry,
    ensemble_score,
    export_score,
)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_logits_that_are_not_finite_are_named(value, dtype):
    rng = np.random.default_rng(18)
    members = logits(rng, (3, 6, 5, 4), dtype=dtype)
    members[1][2, 3, 4, 1] = value
    for average in ("probabilities", "logits"):
        with pytest.raises(ValueError, match=r"members\[1\]\[2, 3, 4, 1\] is .*must be finite"):
            ensemble_score(members, average=average)
        with pytest.raises(ValueError, match=r"members\[1\]\[2, 3, 4, 1\] is .*must be finite"):
            export_score(members, geometry_for((9, 9, 9)), average=average)
    turned = [m.transpose(0, 2, 3, 1) for m in members]
    geometry = ExportGeometry((9, 9, 9), ((0, 9),) * 3, (1, 1, 1), (1, 1, 1), (1, 2, 0))
    with pytest.raises(ValueError, match=r"members\[1\]\[2, 4, 1, 3\]"):
        export_score(turned, geometry)


def test_logits_that_arithmetic_could_overflow_are_named():
    # The mean of two, or a value between a high and a low one, would be infinite, and where it is
    # looked up in the map anything.
    a_map = CalibrationMap([0.0, 1.0], [0.0, 0.5])
    for value in (2.0**100, -3e38):
        members = [np.zeros((2, 6, 5, 4), np.float32) for _ in range(2)]
        for member in members:
            member[1, 3] = value
        with pytest.raises(ValueError, match=r"members\[0\]\[1, 3, 0, 0\] is .*below 2\^100"):
            ensemble_score(members, average="logits", calibrator=a_map)
        with pytest.raises(ValueError, match=r"members\[0\]\[1, 3, 0, 0\] is .*below 2\^100"):
            export_score(members, geometry_for((9, 9, 9)), calibrator=a_map)
    largest = np.float32(np.nextafter(np.float32(2.0**100), 0, dtype=np.float32))
    member = np.zeros((2, 6, 5, 4), np.float32)
    member[1, ::2], member[1, 1::2] = largest, -largest
    for average in ("probabilities", "logits"):
        members = [member] * 50
        score = ensemble_score(members, average=average)
        np.testing.assert_array_equal(score[::2], 1)
        np.testing.assert_array_equal(score[1::2], 0)
        exported = export_score(members, geometry_for((9, 9, 9)), average=average)
        assert ((exported >= 0) & (exported <= 1)).all()


@pytest.mark.parametrize("value", [-1e-6, 1.001, np.nan])
def test_probabilities_outside_the_unit_interval_are_named(value):
    member = np.full((2, 6, 5, 4), 0.5, np.float32)
    member[1, 5, 0, 2] = value
    for score in (ensemble_score, lambda *a, **k: export_score(a[0], WHOLE, **k)):
        with pytest.raises(ValueError, match=r"members\[0\]\[1, 5, 0, 2\] is .*in \[0, 1\]"):
            score([member], inputs="probabilities")


@pytest.mark.parametrize("over", [0, 2.0**-9, 2.0**-7, 2.0**-7 + 2.0**-20, 0.01, 0.02, 0.1])
def test_classes_add_up_to_one_within_the_rounding_of_bfloat16(over):
    member = np.full((3, 4, 5), 0.25, np.float32)
    member[1:, 2, 3] = 0.5, 0.5 + over
    export = ExportGeometry((1, 4, 5), ((0, 1), (0, 4), (0, 5)), (1, 1, 1), (1, 1, 1))
    for score in (
        lambda: ensemble_score([member], (1, 2), "probabilities"),
        lambda: export_score([member[:, np.newaxis]], export, (1, 2), "probabilities")[0],
    ):
        if over <= 2.0**-7:
            expected = np.full((4, 5), 0.5, np.float32)
            expected[2, 3] = 1
            np.testing.assert_array_equal(score(), expected)
        else:
            with pytest.raises(
                ValueError, match=r"2, 3\] has tumour channels that add up to 1\.[01]"
            ):
                score()


def test_arguments_that_do_not_fit():
    box = ((0, 4),) * 3
    ones = (1, 1, 1)
    half = np.zeros((3, 6, 5, 4), np.float16)
    rng = np.random.default_rng(19)
    members = logits(rng, (3, 6, 5, 4))
    a, b, _ = members
    fails = [
        (ValueError, "members is empty", lambda: ensemble_score([])),
        (ValueError, r"channel 3 but members have 3", lambda: ensemble_score(members, 3)),
        (ValueError, r"tumour\[0\] is -1", lambda: ensemble_score(members, -1)),
        (ValueError, "names a channel twice", lambda: ensemble_score(members, (1, 1))),
        (ValueError, "names no channel", lambda: ensemble_score(members, ())),
        (ValueError, "inputs is 'softmax'", lambda: ensemble_score(members, inputs="softmax")),
        (ValueError, "average is 'mean'", lambda: ensemble_score(members, average="mean")),
        (ValueError, "needs logits", lambda: ensemble_score(members, 1, "probabilities", "logits")),
        (ValueError, "softmax needs two", lambda: ensemble_score([members[0][:1]], 0)),
        (TypeError, "int64", lambda: ensemble_score([members[0].astype(int)])),
        (ValueError, "different dtypes", lambda: ensemble_score([*members, half])),
        (ValueError, r"members\[1\] has 2 channels", lambda: ensemble_score([a, b[:2]])),
        (ValueError, r"members\[1\] has shape", lambda: ensemble_score([a, b[:, 1:]])),
        (ValueError, "overlaps", lambda: ensemble_score(members, out=members[0][0])),
        (
            ValueError,
            "out must be float32",
            lambda: ensemble_score(members, out=np.zeros((6, 5, 4))),
        ),
        (
            ValueError,
            "out has shape",
            lambda: export_score(members, WHOLE, out=np.zeros((6, 5, 3), "f")),
        ),
        (ValueError, "spatial axes", lambda: export_score([m[0] for m in members], WHOLE)),
        (
            ValueError,
            "resampling is 'cubic'",
            lambda: export_score(members, WHOLE, resampling="cubic"),
        ),
        (ValueError, "3 members but 2 geom", lambda: export_score(members, [WHOLE, WHOLE])),
        (
            ValueError,
            r"box\[1\]",
            lambda: ExportGeometry((4, 4, 4), ((0, 4), (2, 5), (0, 4)), ones, ones),
        ),
        (ValueError, "transpose", lambda: ExportGeometry((4, 4, 4), box, ones, ones, (0, 0, 1))),
        (
            ValueError,
            "spacings are positive",
            lambda: ExportGeometry((4, 4, 4), box, (1, 0, 1), ones),
        ),
    ]
    for error, match, call in fails:
        with pytest.raises(error, match=match):
            call()
    locked = np.zeros((6, 5, 4), np.float32)
    locked.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        ensemble_score(members, out=locked)
