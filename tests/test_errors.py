"""InputError: its parts and its one wording, and that the core raises it with the same ones."""

from __future__ import annotations

import copy
import math
import pickle
from pathlib import Path

import numpy as np
import pytest

import twintrack as tt
from twintrack.errors import InputError

VOXEL = InputError(
    "labels must be 0 or 1",
    argument="raters[1]",
    file=Path("A/reader.nii.gz"),
    case="A",
    voxel=np.array([3, 4, 5]),
    value=2.0,
    advice="choose a label",
)


RULE = "is 2; labels must be 0 or 1; choose a label"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (VOXEL, f"case 'A': A/reader.nii.gz: voxel (3, 4, 5) {RULE}"),
        (VOXEL.replaced(file=None, case=0), f"case 0: raters[1][3, 4, 5] {RULE}"),
        (InputError("has 3 axes", argument="score"), "score has 3 axes"),
        (InputError("truncated", file="a.nii"), "a.nii: truncated"),
        (
            InputError("it must be mhr", argument="target", value="x"),
            "target is 'x'; it must be mhr",
        ),
        (InputError("there is none"), "there is none"),
    ],
)
def test_text_names_the_place_first(error, text):
    assert str(error) == text
    assert isinstance(error, ValueError)


@pytest.mark.parametrize("copied", [copy.copy(VOXEL), pickle.loads(pickle.dumps(VOXEL))])
def test_parts_outlive_copies_and_other_processes(copied):
    assert str(copied) == str(VOXEL)
    assert copied._parts() == VOXEL._parts()


def test_parts_nearer_to_the_cause_stay():
    assert InputError.of(VOXEL, file="B.nii", case="B").file == Path("A/reader.nii.gz")
    assert str(InputError.of(VOXEL.replaced(file=None), file="B.nii")).startswith("case 'A': B.nii")
    assert str(InputError.of(KeyError("x"), file="B.nii")) == "B.nii: 'x'"
    assert str(InputError.of(ValueError(), file="B.nii")) == "B.nii: ValueError"


def test_voxel_of_a_part_is_found_in_the_whole():
    assert VOXEL.moved((10, 0, -1)).voxel == (13, 4, 4)
    whole = InputError("has 3 axes", argument="score")
    assert whole.moved((1, 1, 1)) is whole


@pytest.mark.parametrize("value", [1.5, math.nan, -math.inf])
def test_core_raises_parts(value):
    score = np.zeros((2, 3, 4), np.float32)
    score[1, 2, 3] = value
    with pytest.raises(tt.InputError) as caught:
        tt.evaluate(score, np.zeros((1, 2, 3, 4), np.uint8))
    error = caught.value
    assert (error.argument, error.voxel) == ("score", (1, 2, 3))
    assert error.value == value or math.isnan(value)
    assert error.wrong == "scores must be probabilities in [0, 1]"
    assert str(error) == f"score[1, 2, 3] is {value:.9g}; {error.wrong}"
