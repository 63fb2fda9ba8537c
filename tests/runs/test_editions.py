"""Editions of figures, and that a changed answer asks for a new one.

``python tests/runs/test_editions.py`` records the answers of kinds whose number was raised.
"""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from twintrack import Calibrator
from twintrack.cohort import Case
from twintrack.runs import editions
from twintrack.runs.apply import ApplyJob, apply_cohort
from twintrack.runs.editions import EDITIONS
from twintrack.runs.engine import Settings
from twintrack.runs.evaluate import FIGURES, EvaluateJob, evaluate_cohort, stored_evaluation
from twintrack.runs.fit import TallyJob, fit_tallies, read_tallies, tally_cohort
from twintrack.runs.merge import merge_stores
from twintrack.runs.store import open_stores
from twintrack.runs.volume_figures import INTERVAL
from twintrack.volumes import read_volume, write_volume

GOLDEN = Path(__file__).parents[1] / "golden"
RECORD = GOLDEN / "our_answers.json"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.npz"))
MODULE = Path(editions.__file__)

KINDS = {
    "tdsc": ("tdsc",),
    "calibration": (
        *("ece", "ece_probability", "ece_mhr", "ace"),
        *("brier", "reliability", "resolution", "uncertainty", "tally"),
    ),
    "crps": ("crps",),
    "volumes": ("predicted_volume", *INTERVAL, "rater_volume"),
    "vascular_invasion": tuple(name for name in FIGURES if name.startswith("vi_")),
    "raters": ("brier_excess", "rater_brier"),
    "contested": ("disagreement", "contested_error"),
    "staple": ("dice_staple",),
}

EVALUATIONS = {
    "official": EvaluateJob(staple=True),
    "corrected": EvaluateJob("corrected", staple=True),
    "corrected, all voxels, mm3": EvaluateJob("corrected", None, "all", True, True),
}


def files_of(name, folder):
    """Files of a golden case: whatever reads files has a part in its answers."""
    with np.load(GOLDEN / f"{name}.npz") as stored:
        score, raters, vessels = (stored[part] for part in ("score", "raters", "vessels"))
    affine = np.diag([0.5, 0.8, 3.0, 1.0])
    np.save(folder / f"{name}.npy", score)
    paths = [folder / f"{name}_{k}.nii" for k in range(len(raters))]
    for path, rater in zip(paths, raters, strict=True):
        write_volume(path, rater, affine)
    write_volume(folder / f"{name}_vessels.nii", vessels, affine)
    write_volume(folder / f"{name}_roi.nii", raters.any(axis=0).astype(np.uint8), affine)
    return Case(
        name,
        folder / f"{name}.npy",
        tuple(paths),
        folder / f"{name}_vessels.nii",
        folder / f"{name}_roi.nii",
    )


def answers_of(name, folder):
    """What we make of a golden case: kind to answer to number or digest."""
    case = files_of(name, folder)
    found = {kind: {} for kind in EDITIONS}
    for title, job in EVALUATIONS.items():
        if job.millimetres and not name.startswith("typical"):
            continue
        product = job.compute(job.read(case))
        figures = {
            **product.result["figures"],
            "tally": digest(product.tally.by_set()[tuple(range(product.tally.raters))].sums),
        }
        for kind, columns in KINDS.items():
            for column in columns:
                if column in figures:
                    found[kind][f"{title}: {column}"] = figures[column]
    for region in ("box", "roi", "all"):
        job = TallyJob(region)
        try:
            product = job.compute(job.read(case))
            found["score_tally"][region] = digest(*product.tally.pooled_rows())
        except ValueError:  # nobody marks anything
            found["score_tally"][region] = "refused"
    found["calibrated"] = calibrated_answers(case, folder)
    return found


def calibrated_answers(case, folder):
    score = read_volume(case.score).array
    if score.dtype == np.float16:  # NIfTI has no such type
        score = score.astype(np.float32)
    write_volume(folder / "score.nii", score, np.diag([0.5, 0.8, 3.0, 1.0]))
    fitted = Calibrator(bins=5).fit(
        np.linspace(0, 1, 101), [np.arange(101) % 4 > 1, np.arange(101) > 60]
    )
    found = {}
    for dtype in ("float32", "uint16"):
        job = ApplyJob(fitted, folder / dtype, dtype, ".nii")
        (outcome,) = apply_cohort([dataclasses.replace(case, score=folder / "score.nii")], job)
        assert outcome.failure is None
        written = read_volume(job.place(case)).array.astype(np.float64)
        found[f"{dtype}: mean"] = float(written.mean())
        found[f"{dtype}: of squares"] = float((written**2).mean())
    return found


def digest(*arrays):
    """Digest of integers: they are the same on all machines."""
    assert all(array.dtype.kind in "ui" for array in arrays)
    return f"{zlib.crc32(b''.join(array.astype('<u8').tobytes() for array in arrays)):08x}"


def same(found, recorded):
    """Whether two answers are the same but for the last bits, which SciPy's version may decide."""
    if isinstance(found, float) and isinstance(recorded, (int, float)):
        return math.isclose(found, recorded, rel_tol=1e-9, abs_tol=1e-12)
    return found == recorded


def recorded_answers():
    return json.loads(RECORD.read_text(encoding="utf-8"))


def record():
    """Write the answers of kinds whose number is not the one that was recorded."""
    kept = recorded_answers() if RECORD.is_file() else {}
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for name in NAMES:
            place = Path(folder) / name
            place.mkdir()
            found[name] = answers_of(name, place)
    for kind, number in EDITIONS.items():
        if kept.get(kind, {}).get("edition") != number:
            answers = {name: found[name][kind] for name in NAMES}
            kept[kind] = {"edition": number, "answers": answers}
    lines = [
        f'"{kind}": {{"edition": {kept[kind]["edition"]}, "answers": {{\n'
        + ",\n".join(
            f"{json.dumps(name)}: {json.dumps(answers)}"
            for name, answers in kept[kind]["answers"].items()
        )
        + "\n}}"
        for kind in EDITIONS
    ]
    RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_answer_asks_for_a_new_edition(name, tmp_path):
    found = answers_of(name, tmp_path)
    recorded = recorded_answers()
    for kind, number in EDITIONS.items():
        if recorded[kind]["edition"] != number:
            pytest.fail(
                f"{MODULE} has number {number} of {kind}, but the answers recorded in {RECORD} are "
                f"of number {recorded[kind]['edition']}; record the new answers: python {__file__}"
            )
        answers = recorded[kind]["answers"][name]
        changed = [
            f"{answer} is {found[kind].get(answer)!r}, was {answers.get(answer)!r}"
            for answer in sorted({*answers, *found[kind]})
            if not same(found[kind].get(answer), answers.get(answer))
        ]
        if changed:
            pytest.fail(
                f"{name}: {changed[0]}, and {len(changed) - 1} more. If that is meant, raise the "
                f"number of {kind} in {MODULE}, so that figures that are stored are made anew, and "
                f"record the new answers: python {__file__}"
            )


def test_every_figure_is_of_one_kind():
    columns = [column for kind in KINDS.values() for column in kind if column != "tally"]
    assert sorted(columns) == sorted(FIGURES)
    assert set(editions.editions_of_figures(True)) == set(KINDS)
    assert set(editions.editions_of_figures(True)) - set(editions.editions_of_figures(False)) == {
        "staple"
    }


@pytest.mark.parametrize("kind", KINDS)
def test_figures_of_an_earlier_edition_are_measured_anew(cases, tmp_path, monkeypatch, kind):
    job = EvaluateJob(staple=kind == "staple")

    def states():
        found = []
        evaluate_cohort(cases[:1], job, tmp_path, settings=Settings(progress=Told(found)))
        return found

    assert (states(), states()) == (["done"], ["stored"])
    monkeypatch.setitem(EDITIONS, kind, 2)
    # The earlier figures are out of date: whoever reads the store gets the new ones.
    assert (states(), states()) == (["done"], ["stored"])
    (store,) = open_stores(tmp_path)
    assert store.options["editions"][kind] == 2
    assert merge_stores([tmp_path], tmp_path, "evaluation").options == store.options


def test_editions_of_consensus_concern_nobody_without_it(cases, tmp_path, monkeypatch):
    before = EvaluateJob().options
    monkeypatch.setitem(EDITIONS, "staple", 2)
    assert EvaluateJob().options == before


class Told:
    """Progress that keeps the states of the cases."""

    def __init__(self, states):
        self.states = states

    def start(self, work, cases, nbytes):
        pass

    def case(self, outcome):
        self.states.append(outcome.state)

    def stop(self):
        pass


def test_parts_of_different_editions_are_not_merged(cases, tmp_path, monkeypatch):
    one, two = tmp_path / "one", tmp_path / "two"
    evaluate_cohort(cases[:1], EvaluateJob(), one, cohort=cases[:2])
    monkeypatch.setitem(EDITIONS, "crps", 2)
    evaluate_cohort(cases[1:2], EvaluateJob(), two, cohort=cases[:2])
    for parts, older in (([one, two], one), ([two, one], one)):
        with pytest.raises(ValueError, match=rf"{older}: its figures are of an earlier edition"):
            merge_stores(parts, tmp_path / "merged", "evaluation")


def test_tallies_of_before_there_were_editions_stay_valid(cases, tmp_path, monkeypatch):
    job = TallyJob("roi")
    with monkeypatch.context() as before:
        before.setitem(EDITIONS, "score_tally", 1)
        assert "edition" not in job.options
        tally_cohort(cases[:2], job, tmp_path, Settings())
        assert "edition" not in read_tallies(tmp_path)[0]
    assert job.options["edition"] == 2
    outcomes, _ = tally_cohort(cases[:2], job, tmp_path, Settings())
    assert {outcome.state for outcome in outcomes} == {"done"}
    options, tallies = read_tallies(tmp_path)  # else: holds 2 sets of tallies
    assert options["edition"] == 2
    assert fit_tallies(Calibrator(bins=4), tallies, "roi").n_cases_ == 2


def test_calibrated_volumes_of_an_earlier_edition_are_ours_to_replace(cases, tmp_path, monkeypatch):
    fitted = Calibrator(bins=5).fit(np.linspace(0, 1, 99), [np.arange(99) > 60])
    job = ApplyJob(fitted, tmp_path / "out")
    with monkeypatch.context() as before:
        before.setitem(EDITIONS, "calibrated", 1)
        assert "edition" not in job.options
        apply_cohort(cases[:2], job)
    assert job.options["edition"] == 2
    for state in ("done", "stored"):
        assert {outcome.state for outcome in apply_cohort(cases[:2], job)} == {state}


def test_evaluations_that_name_a_version_instead_are_older_than_any(tmp_path, cases):
    found = evaluate_cohort(cases[:1], EvaluateJob(), tmp_path)
    (store,) = open_stores(tmp_path)
    options = {**store.options, "twintrack": "0.1.0"}
    del options["editions"]
    old = type(store)(tmp_path, store.kind, options)
    with old.writing([cases[0].name]):
        old.copy_from(store, cases[0].name)
    assert len(list(tmp_path.glob("*/options.json"))) == 2
    (newest,) = open_stores(tmp_path)
    assert newest.options == store.options
    assert stored_evaluation(newest).rows == found.rows
    assert stored_evaluation(open_stores(old.folder)[0]).rows == found.rows


if __name__ == "__main__":
    record()
