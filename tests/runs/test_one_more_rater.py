"""Each rater against the others, as `evaluate` measures any score."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import twintrack as tt
from twintrack.cohort import load_case
from twintrack.runs.evaluate import EvaluateJob, evaluate_cohort
from twintrack.runs.one_more_rater import OneMoreRaterJob
from twintrack.volumes import read_volume, write_volume


def measured(raters, vessels, **more):
    """The mean over the raters."""
    found = [
        tt.evaluate(
            (own != 0).astype(np.float32), raters[:k] + raters[k + 1 :], vessels,
            protocol="corrected", **more,
        )
        for k, own in enumerate(raters)
    ]  # fmt: skip
    means = {name: np.mean([getattr(one, name) for one in found]) for name in ("tdsc", "brier")}
    means["vi_SMV"] = np.mean([one.vascular_invasion["SMV"] for one in found])
    means["predicted_volume"] = np.mean([(own != 0).sum() for own in raters])
    return means


def test_figures_are_the_means_over_the_raters(cases, tmp_path):
    job = OneMoreRaterJob("corrected")
    found = evaluate_cohort(cases[:2], job, tmp_path / "store")
    for case in cases[:2]:
        loaded = load_case(case, "all")
        for name, value in measured(loaded.raters, loaded.vessels).items():
            assert found.rows[case.name][name] == pytest.approx(value, rel=1e-12), name
        row = found.rows[case.name]
        assert row["predicted_volume"] == pytest.approx(row["rater_volume"], rel=1e-12)
        assert not any("looked at nothing" in note for note in found.notes[case.name])
    assert found.options["one_more_rater"] is True
    assert "one_more_rater" not in EvaluateJob().options


def test_where_a_rater_did_not_look_nobody_is_asked(cases, tmp_path):
    case = cases[0]
    volume = read_volume(case.raters[0])
    skipped = volume.array.copy()
    skipped[:10] = 255
    write_volume(tmp_path / "r.nii.gz", skipped, volume)
    partly = dataclasses.replace(case, raters=(tmp_path / "r.nii.gz", *case.raters[1:]))
    job = OneMoreRaterJob("corrected", ignore_label=255, region="all")
    found = evaluate_cohort([partly], job, tmp_path / "store").rows[case.name]
    whole = load_case(case, "all").raters
    own = tt.evaluate(
        whole[0][10:].astype(np.float32), [r[10:] for r in whole[1:]], protocol="corrected",
        region=np.ones(whole[0][10:].shape, bool),
    )  # fmt: skip
    others = [
        tt.evaluate(
            whole[k].astype(np.float32), [skipped, whole[3 - k]], protocol="corrected",
            region=np.ones(skipped.shape, bool), ignore_label=255,
        )
        for k in (1, 2)
    ]  # fmt: skip
    want = np.mean([own.brier, *(one.brier for one in others)])
    assert found["brier"] == pytest.approx(want, rel=1e-12)


def test_one_rater_is_not_compared_with_nobody(cases, tmp_path):
    alone = dataclasses.replace(cases[0], raters=cases[0].raters[:1])
    found = evaluate_cohort([alone], OneMoreRaterJob(), tmp_path / "store")
    assert "has one rater alone" in found.failures[0].message


def test_the_command(pristine_cohort, tmp_path, capfd):
    from twintrack.cli import main

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return ended.value.code, capfd.readouterr()

    given = ("evaluate", "-i", pristine_cohort / "manifest.csv", "-o", tmp_path / "found")
    status, told = run(*given, "--one-more-rater")
    assert status == 0
    assert "One more rater, official protocol" in told.out
    status, told = run(*given)
    assert status == 2
    assert "one_more_rater is true, here none" in told.err
    (tmp_path / "m.json").write_text("{}")
    status, told = run(*given, "--one-more-rater", "-m", tmp_path / "m.json")
    assert status == 2
