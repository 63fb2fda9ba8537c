"""Evaluating a map on cases that it was fitted on is told: before the work, and in all results."""

from __future__ import annotations

import csv
import json

import pytest
from folders import content

from twintrack import load_calibrator
from twintrack.calibration.fitted_on import NOTES
from twintrack.report import compare_methods, read_several

NAMES = [f"PHANTOM_0000{k}" for k in range(6)]


@pytest.fixture(scope="module")
def models(pristine_cohort, tmp_path_factory):
    """Calibrators of all six cases, of the first three, and of all but one each."""
    from twintrack.cli import main

    folder = tmp_path_factory.mktemp("models")
    manifest = str(pristine_cohort / "manifest.csv")
    for arguments in (
        ["-i", manifest, "-o", "all.json", "--leave-one-out", "others"],
        ["--tallies", "all.tallies", "--only", "PHANTOM_0000[0-2]", "-o", "three.json"],
    ):
        given = [str(folder / a) if "." in a or a == "others" else a for a in arguments]
        with pytest.raises(SystemExit, match="0"):
            main(["fit", "-q", *given])
    return folder


@pytest.fixture
def evaluate(twintrack, tmp_path):
    def evaluate(*arguments, name="out"):
        folder = tmp_path / name
        status, out, err = twintrack("evaluate", "-o", folder, *arguments)
        assert status == 0, err
        return out, err, folder

    return evaluate


def notes_of(folder):
    with (folder / "cases.csv").open(newline="") as file:
        return {row["case"]: row["notes"].split("; ")[0] for row in csv.DictReader(file)}


def fitted_in(folder):
    return json.loads((folder / "summary.json").read_text())["fitted_on"]


def rewritten(manifest, path, change):
    """Write a manifest whose rows were changed."""
    with manifest.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for column in row:
            if column != "case" and row[column]:
                row[column] = str(manifest.parent / row[column])
        change(row)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_the_cases_of_the_fit_are_named_before_the_work_and_in_the_results(
    evaluate, models, pristine_cohort
):
    source = ("-i", pristine_cohort / "manifest.csv", "-m", models / "three.json")
    out, err, folder = evaluate(*source)
    warned = f"{models / 'three.json'}: the map was fitted on 3 of these 6 cases " + (
        "(PHANTOM_00000, PHANTOM_00001, PHANTOM_00002). Figures on them are too good; evaluate on "
        "other cases"
    )
    assert warned in err
    assert err.index(warned) < err.index("Evaluating:")
    assert "3 of the cases, see the notes" in out
    assert fitted_in(folder) == {"same_case": NAMES[:3]}
    noted = [case for case, note in notes_of(folder).items() if note == NOTES["same_case"]]
    assert noted == NAMES[:3]
    assert "fitted_on" not in json.loads((folder / "summary.json").read_text())["calibrator"]
    _, err, _ = evaluate(*source, "--dry-run", name="none")
    assert warned in err


def test_copies_under_other_names_and_other_scores_are_told_apart(
    evaluate, models, pristine_cohort, tmp_path
):
    manifest = pristine_cohort / "manifest.csv"

    def change(row):
        if row["case"] == NAMES[1]:
            row["case"] = "COPY"
        if row["case"] == NAMES[2]:
            row["score"] = row["score"].replace(NAMES[2], NAMES[4])

    changed = rewritten(manifest, tmp_path / "changed.csv", change)
    _, err, folder = evaluate("-i", changed, "-m", models / "three.json", "--ignore-header")
    assert (
        "the map was fitted on 1 of these 6 cases (PHANTOM_00000); on the scores of 1 of these 6 "
        "cases, under other names (COPY); on cases with the names of 1 of these 6 cases and other "
        "scores, perhaps of the same patients (PHANTOM_00002). Figures on them are too good" in err
    )
    found = {"same_case": [NAMES[0]], "same_score": ["COPY"], "other_score": [NAMES[2]]}
    assert fitted_in(folder) == found
    notes = notes_of(folder)
    for kind, (name,) in found.items():
        assert notes[name] == NOTES[kind]
    assert sum(note in NOTES.values() for note in notes.values()) == 3


def test_scores_that_went_through_the_map_before_are_told_of_too(
    twintrack, evaluate, models, pristine_cohort, tmp_path
):
    manifest, folder = pristine_cohort / "manifest.csv", tmp_path / "calibrated"
    status, _, err = twintrack("apply", "-i", manifest, "-m", models / "three.json", "-o", folder)
    assert status == 0, err

    def change(row):
        row["score"] = str(folder / f"{row['case']}.nii.gz")

    changed = rewritten(manifest, tmp_path / "changed.csv", change)
    _, err, results = evaluate("-i", changed)
    assert "calibrated scores: the map was fitted on cases with the names of 3 of these 6" in err
    assert fitted_in(results) == {"other_score": NAMES[:3]}
    noted = [case for case, note in notes_of(results).items() if note == NOTES["other_score"]]
    assert noted == NAMES[:3]
    # Without that map nothing is said, nor of what the folder held before.
    _, err, _ = evaluate("-i", manifest, "--force")
    assert "fitted" not in err
    assert "fitted_on" not in json.loads((results / "summary.json").read_text())
    assert not any(note in NOTES.values() for note in notes_of(results).values())


def test_a_case_may_be_measured_with_the_map_of_all_others(evaluate, models, pristine_cohort):
    one = pristine_cohort / "manifest.csv"
    for held in (0, 3):
        model = models / "others" / f"{NAMES[held]}.json"
        assert len(load_calibrator(model).fitted_on_) == 5
        _, err, folder = evaluate("-i", one, "-m", model, name=str(held))
        assert "on 5 of these 6 cases" in err
        assert fitted_in(folder) == {"same_case": [name for name in NAMES if name != NAMES[held]]}
        assert notes_of(folder)[NAMES[held]] not in NOTES.values()


def test_nothing_is_told_where_there_is_nothing(evaluate, twintrack, models, cohort, tmp_path):
    manifest = cohort / "manifest.csv"
    twintrack("fit", "-i", manifest, "--target", "none", "-o", tmp_path / "identity.json", "-q")
    lines = manifest.read_text().splitlines()
    rest = cohort / "rest.csv"
    rest.write_text("\n".join([lines[0], *lines[4:], ""]))  # those that three.json does not know
    for number, (source, given) in enumerate(
        ((manifest, ()), (manifest, ("-m", tmp_path / "identity.json")), (rest, ("-m", models)))
    ):
        if given == ("-m", models):
            given = ("-m", models / "three.json")
        out, err, folder = evaluate("-i", source, *given, name=str(number))
        assert "fitted on" not in out + err
        assert not set(notes_of(folder).values()) & set(NOTES.values())
        summary = json.loads((folder / "summary.json").read_text())
        assert summary.get("fitted_on", "absent") == ({} if source is rest else "absent")
    status, _, err = twintrack(
        *("apply", "-i", manifest, "-m", models / "all.json", "-o", tmp_path / "applied")
    )
    assert (status, "fitted on" in err) == (0, False)


def test_files_that_do_not_say_and_stores_made_with_them_stay_good(
    evaluate, models, pristine_cohort, tmp_path
):
    """The same map is the same work, whether the file lists the cases or not."""
    source = ("-i", pristine_cohort / "manifest.csv")
    old = tmp_path / "old.json"
    said = json.loads((models / "three.json").read_text())
    del said["fitted_on"]
    old.write_text(json.dumps(said))
    assert load_calibrator(old).fitted_on_ is None
    out, err, folder = evaluate(*source, "-m", old)
    assert "fitted on" not in err
    assert "cases that its file does not name, perhaps these" in out
    assert fitted_in(folder) is None
    records = {path: path.stat().st_mtime_ns for path in folder.glob("store/*/cases/*.json")}
    assert len(records) == 6
    evaluate(*source, "-m", models / "three.json")
    assert fitted_in(folder) == {"same_case": NAMES[:3]}
    assert {p: p.stat().st_mtime_ns for p in folder.glob("store/*/cases/*.json")} == records
    _, err, _ = evaluate(*source, "-m", old)  # what was known of this very map is not forgotten
    assert "on 3 of these 6 cases" in err
    assert fitted_in(folder) == {"same_case": NAMES[:3]}


def test_parts_and_processes_give_the_same_results(
    evaluate, twintrack, models, pristine_cohort, tmp_path
):
    source = ("-i", pristine_cohort / "manifest.csv", "-m", models / "three.json")
    *_, whole = evaluate(*source, name="whole")
    expected = content(whole, "*.*")
    for part in range(2):
        evaluate(*source, "-num_parts", 2, "-part_id", part, name=f"part{part}")
        evaluate(*source, "-num_parts", 2, "-part_id", part, name="shared")
    for parts in (("part0", "part1"), ("shared",)):
        target = tmp_path / f"merged {len(parts)}"
        status, out, _ = twintrack("merge", *(tmp_path / part for part in parts), "-o", target)
        assert (status, "3 of the cases, see the notes" in out) == (0, True)
        assert content(target, "*.*") == expected
        # Merging into itself, and again, forgets nothing.
        twintrack("merge", target, "-o", target, "-q")
        assert content(target, "*.*") == expected
    (tmp_path / "shared" / "store").rename(tmp_path / "damaged")
    (record,) = (tmp_path / "damaged").glob("*/fitted_on.json")
    record.write_text('{"fitted_on": 7}')
    status, _, err = twintrack("merge", tmp_path / "damaged", "-o", tmp_path / "nowhere")
    assert (status, f"{record}: damaged; repeat the run" in err) == (2, True)


@pytest.mark.parametrize(
    "options", [("--exact",), ("--bins", "auto"), ("--bins", "auto", "--folds", "9"), ("parts",)]
)
def test_every_fit_knows_its_cases(twintrack, models, pristine_cohort, tmp_path, options):
    output = tmp_path / "c.json"
    source = ("-i", pristine_cohort / "manifest.csv", "-o", output, "-q")
    if options == ("parts",):
        for part in range(2):
            store = ("--store", tmp_path / f"{part}")
            assert twintrack("fit", *source, *store, "-num_parts", 2, "-part_id", part)[0] == 0
        twintrack("merge", tmp_path / "0", tmp_path / "1", "-o", tmp_path / "both", "-q")
        source = ("--tallies", tmp_path / "both", "-o", output)
        options = ()
    assert twintrack("fit", *source, *options)[0] == 0
    assert load_calibrator(output).fitted_on_ == load_calibrator(models / "all.json").fitted_on_


def test_broken_cases_are_not_among_them(twintrack, cohort, tmp_path):
    (cohort / "predictions" / f"{NAMES[4]}.nii.gz").write_bytes(b"")
    output = tmp_path / "c.json"
    twintrack("fit", "-i", cohort / "manifest.csv", "-o", output, "--skip-broken", "-q")
    assert len(load_calibrator(output).fitted_on_) == 5


def test_what_is_compared_is_warned_of(evaluate, models, cohort):
    manifest = cohort / "manifest.csv"
    *_, none = evaluate("-i", manifest, name="none")
    *_, ours = evaluate("-i", manifest, "-m", models / "three.json", name="ours")
    (warning,) = compare_methods(read_several([none, ours])).warnings()
    assert warning.startswith(
        "MHR (TwinTrack): the map was fitted on 3 of these 6 cases (PHANTOM_00000, "
    )
    # Cases that are not compared do not count.
    lines = manifest.read_text().splitlines()
    (cohort / "rest.csv").write_text("\n".join([lines[0], *lines[4:], ""]))
    *_, none = evaluate("-i", cohort / "rest.csv", name="rest")
    assert compare_methods(read_several([none, ours])).warnings() == []
