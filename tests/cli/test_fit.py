from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from twintrack import Calibrator, MapBand, ScoreTally, load_calibrator
from twintrack.calibration.map_band import band_scores
from twintrack.calibration.volume_interval import VolumeSpread
from twintrack.cli.map_band import tell_band
from twintrack.cli.reporting import Report
from twintrack.cohort import Case, read_manifest, write_manifest
from twintrack.runs.case_band import band_over_cases
from twintrack.runs.fit import read_tallies
from twintrack.volumes import read_volume, write_volume


def test_manifest(fit, pristine_cohort):
    status, out, err, output = fit("-i", pristine_cohort / "manifest.csv")
    assert status == 0
    made_of = load_calibrator(output).provenance_
    assert (made_of["cases"], made_of["raters"], made_of["region"]) == (6, 3, "roi")
    assert made_of["bins"]["asked"] == 250
    assert made_of["ensemble"] is None  # single volumes: nothing tells how they were made
    assert "of 250 asked for" in out
    assert f"{made_of['voxels']:,} inside the roi masks" in out
    assert "6/6 cases" in err


def test_patients_of_equal_weight(fit, pristine_cohort, tmp_path):
    manifest = tmp_path / "patients.csv"
    visits = read_manifest(pristine_cohort / "manifest.csv")
    patients = ["P", "P", "P", "P", "Q", "Q"]
    write_manifest(manifest, [replace(c, patient=p) for c, p in zip(visits, patients, strict=True)])
    status, out, _, output = fit("-i", manifest, "--case-weight", "cases")
    assert status == 0
    assert "every patient counts the same" in out
    made = load_calibrator(output)
    tallies = dict(read_tallies(output.with_name("c.tallies"))[1])
    want = Calibrator(case_weight="cases")
    for (case, tally), patient in zip(tallies.items(), patients, strict=True):
        want.add_tally(tally, case, group=patient)
    assert made.map_ == want.map_
    assert made.map_ != Calibrator().add_tally(ScoreTally.of_all([*tallies.values()])).map_
    again = fit("--tallies", output.with_name("c.tallies"), "--case-weight", "cases", name="d.json")
    assert again[0] == 0
    assert again[-1].read_bytes() == output.read_bytes()


def test_folders_give_the_same_file_as_the_manifest(fit, pristine_cohort):
    *_, by_manifest = fit("-i", pristine_cohort / "manifest.csv")
    folders = ("-i", pristine_cohort / "cases", "-p", pristine_cohort / "predictions")
    status, *_, by_folders = fit(*folders, name="f.json")
    assert status == 0
    assert by_folders.read_bytes() == by_manifest.read_bytes()


def test_without_masks_the_box_is_taken_and_said(fit, pristine_cohort):
    folders = ("-i", pristine_cohort / "cases", "-p", pristine_cohort / "predictions")
    _, out, _, output = fit(*folders, "--roi", "{case}/none.nii.gz")
    assert load_calibrator(output).provenance_["region"] == "box"
    assert "inside the boxes around all annotations" in out


@pytest.mark.parametrize(
    ("options", "target", "rater"),
    [
        (["--target", "single", "--rater", "2"], "single", 1),
        (["--target", "hard"], "hard", None),
        (["--target", "none"], "none", None),
    ],
)
def test_targets_and_refit_from_tallies(fit, pristine_cohort, tmp_path, options, target, rater):
    source = ("-i", pristine_cohort / "manifest.csv", "--bins", "30")
    *_, fitted = fit(*source, *options)
    made_of = json.loads(fitted.read_text())
    assert (made_of["target"], made_of["rater"]) == (target, rater)
    fit(*source, name="mhr.json")
    status, _, err, again = fit(
        *("--tallies", tmp_path / "mhr.tallies", "--bins", "30"), *options, name="again.json"
    )
    assert (status, [line for line in err.splitlines() if "bins may be too few" not in line]) == (
        0,
        [],
    )
    assert again.read_bytes() == fitted.read_bytes()


def test_floor_and_ceiling_of_a_cohort(fit, pristine_cohort):
    """From the files, from the stored tallies and with cuts placed exactly: half a vote a case."""
    source = ("-i", pristine_cohort / "manifest.csv", "--bins", "30", "--floor", "auto")
    _, out, _, output = fit(*source, "--ceiling", "0.7")
    bounds = json.loads(output.read_text())["bounds"]
    assert bounds["auto"] == ["floor"]
    assert bounds["ceiling"] == 0.7
    assert f"{bounds['floor']:.7g} (auto)" in out
    fitted = load_calibrator(output)
    assert (fitted.floor, fitted.ceiling, fitted.floor_) == ("auto", 0.7, bounds["floor"])
    assert fitted.y_thresholds_[0] == fitted.floor_ > 0
    assert fitted.y_thresholds_[-1] == 0.7
    tallies = ("--tallies", output.with_name("c.tallies"), *source[2:])
    loo = output.with_name("loo")
    *_, again = fit(*tallies, "--ceiling", "0.7", "--leave-one-out", loo, name="again.json")
    assert again.read_bytes() == output.read_bytes()
    one = "PHANTOM_00001"
    *_, without = fit(*tallies, "--ceiling", "0.7", "--without", one, name="without.json")
    assert _but_facts(loo / f"{one}.json") == _but_facts(without)
    *_, exact = fit(*source, "--exact", name="exact.json")
    assert load_calibrator(exact).floor_ == pytest.approx(bounds["floor"], rel=0.2)


def _but_facts(path):
    return {**json.loads(path.read_text()), "facts": None, "thresholds": None}


def test_subsets(fit, pristine_cohort):
    source = ("-i", pristine_cohort / "manifest.csv")
    *_, output = fit(*source, "--only", "PHANTOM_*[0-3]", "--without", "PHANTOM_00001")
    assert load_calibrator(output).n_cases_ == 3
    status, _, err, _ = fit(*source, "--without", "PHANTOM_9*")
    assert status == 2
    assert "no case matches 'PHANTOM_9*'" in err


def test_left_out_cases_and_band(fit, pristine_cohort, tmp_path):
    source = ("-i", pristine_cohort / "manifest.csv", "--bins", "30")
    extras = ("--leave-one-out", tmp_path / "loo", "--band", tmp_path / "band.csv")
    status, *_, output = fit(*source, *extras)
    assert status == 0
    assert sorted(path.name for path in (tmp_path / "loo").iterdir()) == [
        f"PHANTOM_0000{k}.json" for k in range(6)
    ]
    *_, without = fit(*source, "--without", "PHANTOM_00002", name="without.json")
    assert _but_facts(tmp_path / "loo" / "PHANTOM_00002.json") == _but_facts(without)
    band = np.genfromtxt(tmp_path / "band.csv", delimiter=",", names=True)
    assert np.array_equal(band["map"], load_calibrator(output).transform(band["score"]))
    assert np.all(band["low"] <= band["high"])
    again = ("--tallies", tmp_path / "c.tallies", "--leave-one-out", tmp_path / "loo2")
    fit(*again, "--bins", "30", name="again.json")
    for path in (tmp_path / "loo").iterdir():
        assert (tmp_path / "loo2" / path.name).read_bytes() == path.read_bytes()


def test_band_is_told_with_what_it_rests_on(fit, pristine_cohort, tmp_path):
    source = ("-i", pristine_cohort / "manifest.csv", "--bins", "30", "--band", tmp_path / "b.csv")
    status, out, err, output = fit(*source)
    assert status == 0
    assert "Band of the map, pointwise: 0.95 at each score by itself" in out
    found = re.search(r"^patients +6\nn_eff +([\d.]+), as the votes", out, re.MULTILINE)
    tallies = read_tallies(tmp_path / "c.tallies")[1]
    calibrator = load_calibrator(output)
    band = band_over_cases(calibrator, tallies, band_scores(calibrator.map_))
    assert found[1] == f"{band.effective_groups:.1f}"
    assert "next to nothing" not in err
    np.testing.assert_array_equal(
        np.loadtxt(tmp_path / "b.csv", delimiter=",", skiprows=1),
        np.stack([band.score, band.value, band.low, band.high], axis=1)[
            np.isin(band.score, np.linspace(0, 1, 1001))
        ],
    )
    assert calibrator.band_ == band.at_corners()
    low, high = re.search(
        r"^volumes +([\d.]+) to ([\d.]+) times a large predicted one", out, re.MULTILINE
    ).groups()
    limits = calibrator.volume_interval(1e7)
    assert (low, high) == (f"{limits.low / 1e7:.2g}", f"{limits.high / 1e7:.2g}")


def test_kind_and_level_of_the_band(fit, twintrack, pristine_cohort, tmp_path):
    source = ("-i", pristine_cohort / "manifest.csv", "--bins", "30")
    asked = ("--band", tmp_path / "b.csv", "--band-kind", "simultaneous", "--band-level", "0.8")
    status, out, _, output = fit(*source, *asked)
    assert status == 0
    assert "Band of the map, simultaneous: 0.8 at all scores at once" in out
    band = load_calibrator(output).band_
    assert (band.kind, band.level) == ("simultaneous", 0.8)
    told = r"^band +0.8 simultaneous band of 6 patients$"
    assert re.search(told, twintrack("info", "-m", output)[1], re.MULTILINE)
    for wrong, told in (
        (asked[2:], "--band-kind is that of a band: give --band FILE.csv, too"),
        ((*asked[:2], "--band-level", "95"), "--band-level is 95; it must be above 0 and below"),
    ):
        status, _, err, _ = fit(*source, *wrong, name="d.json")
        assert status == 2
        assert told in err
    assert not (tmp_path / "d.tallies").exists()


@pytest.mark.parametrize("region", ["box", "roi"])
def test_volumes_that_were_compared_in_boxes_are_warned_of(fit, pristine_cohort, tmp_path, region):
    source = ("-i", pristine_cohort / "manifest.csv", "--region", region)
    _, _, err, _ = fit(*source, "--band", tmp_path / "b.csv")
    assert ("say nothing of what is predicted outside of such boxes" in err) is (region == "box")


@pytest.mark.parametrize(("effective", "warned"), [(1.2, True), (1.8, False)])
def test_a_band_of_hardly_more_than_one_patient_is_warned_of(capsys, effective, warned):
    some = np.zeros(2)
    volumes = VolumeSpread(1.0, 0.0, 1.0, 1.000001, 40, 40)
    band = MapBand(some, some, some, some + 1, 0.95, "pointwise", 40, effective, volumes)
    tell_band(Report(), band, Path("band.csv"))
    out, err = capsys.readouterr()
    assert "0 to inf times a large predicted one" in out
    assert re.search(rf"^n_eff +{effective},", out, re.MULTILINE)
    assert (f"n_eff is {effective}: nearly all votes are of one patient" in err) is warned


def test_seed_decides_the_folds(fit, pristine_cohort, tmp_path):
    fit("-i", pristine_cohort / "manifest.csv")
    scores = []
    for seed in (0, 1, 1):
        chosen = ("--tallies", tmp_path / "c.tallies", "--bins", "auto", "--folds", 2)
        *_, output = fit(*chosen, "--seed", seed, name="auto.json")
        scores.append(json.loads(output.read_text())["cross_validation"]["scores"])
    assert scores[0] != scores[1] == scores[2]


@pytest.mark.parametrize("option", ["--band", "--leave-one-out"])
def test_nothing_is_written_if_too_few_cases_turn_out_to_be_whole(fit, cohort, tmp_path, option):
    """Known only when all have been read; the tallies are kept."""
    for score in sorted((cohort / "predictions").glob("*.nii.gz"))[1:]:
        score.write_bytes(score.read_bytes()[:100])
    more = ("--skip-broken", option, tmp_path / "more")
    status, _, err, output = fit("-i", cohort / "manifest.csv", *more, "-q")
    assert (status, err.count("needs at least two, here 1")) == (2, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.tallies", "cohort"]
    again = fit("--tallies", tmp_path / "c.tallies", option, tmp_path / "more")
    assert (again[0], again[2].count(f"leave out {option}")) == (2, 1)
    assert not output.exists()


def test_identity_has_no_bins_to_choose(fit, pristine_cohort, tmp_path):
    extras = ("--leave-one-out", tmp_path / "loo", "--band", tmp_path / "band.csv")
    source = ("-i", pristine_cohort / "manifest.csv", "--target", "none", "--bins", "auto")
    status, *_, output = fit(*source, *extras)
    assert status == 0
    assert len(list((tmp_path / "loo").iterdir())) == 6
    band = np.genfromtxt(tmp_path / "band.csv", delimiter=",", names=True)
    assert np.array_equal(band["low"], band["score"])
    assert load_calibrator(output).provenance_["bins"] is None


def test_broken_case(fit, cohort):
    score = next((cohort / "predictions").glob("*3.nii.gz"))
    score.write_bytes(score.read_bytes()[:100])
    status, _, err, output = fit("-i", cohort / "manifest.csv")
    assert status == 2
    assert (
        "1 of 6 cases could not be used; mend them, or leave them out, by name with --without"
        in err
    )
    assert "PHANTOM_00003.nii.gz: truncated" in err
    assert not output.exists()
    status, out, _, output = fit("-i", cohort / "manifest.csv", "--skip-broken")
    assert status == 1
    assert "5 (1 broken)" in out
    assert load_calibrator(output).n_cases_ == 5


def test_parts_end_in_the_same_file(fit, pristine_cohort, twintrack, tmp_path):
    """Two machines with stores of their own, merged on a third."""
    source = ("-i", pristine_cohort / "manifest.csv")
    *_, whole = fit(*source)
    for part in range(2):
        status, out, _, output = fit(
            *source, "-num_parts", 2, "-part_id", part, name=f"part{part}.json"
        )
        assert status == 0
        assert f"twintrack fit --tallies {tmp_path / f'part{part}.tallies'} -o {output}" in out
        assert not output.exists()
    incomplete = fit("--tallies", tmp_path / "part0.tallies", name="x.json")
    assert incomplete[0] == 2
    assert "3 of 6 cases are missing" in incomplete[2]
    parts = (tmp_path / "part0.tallies", tmp_path / "part1.tallies")
    status, out, _ = twintrack("merge", *parts, "-o", tmp_path / "merged")
    assert status == 0
    assert "Tallies of 6 cases" in out
    *_, output = fit("--tallies", tmp_path / "merged", name="merged.json")
    assert output.read_bytes() == whole.read_bytes()


def test_dry_run_writes_nothing(fit, pristine_cohort, tmp_path):
    fit("-i", pristine_cohort / "manifest.csv", "--only", "PHANTOM_00000", name="c.json")
    (tmp_path / "c.json").unlink()
    before = sorted(tmp_path.rglob("*"))
    status, out, _, _ = fit("-i", pristine_cohort / "manifest.csv", "--dry-run")
    assert status == 0
    assert sorted(tmp_path.rglob("*")) == before
    assert out.count("to do") == 6  # five cases and the sum
    assert out.count("stored") == 1
    assert "5 of 6 cases" in out


def test_quiet_and_json(fit, pristine_cohort):
    source = ("-i", pristine_cohort / "manifest.csv")
    assert fit(*source, "-q")[:3] == (0, "", "")
    _, out, err, _ = fit(*source, "--log-json")
    events = [json.loads(line) for line in err.splitlines()]
    assert out == ""
    assert [event["event"] for event in events] == ["start", *["case"] * 6, "end", "result"]
    assert events[-1]["bins"]["asked"] == 250
    assert {event["state"] for event in events[1:7]} == {"stored"}


_ONE = ("--only", "PHANTOM_00000")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give either -i (a cohort) or --tallies"),
        (["-i", "COHORT/cases"], "is a folder of annotations; -p must name"),
        (["-i", "COHORT/manifest.csv", "-p", "COHORT"], "is a manifest, which names the scores"),
        (["-i", "COHORT/nothing.csv"], "COHORT/nothing.csv: No such file"),
        (["-i", "COHORT/manifest.csv", "--bins", "few"], "--bins is 'few'"),
        (["-i", "COHORT/manifest.csv", "--bins", "0"], "bins is 0"),
        (
            ["-i", "COHORT/manifest.csv", "--rater", "4", "--target", "single"],
            "--rater is 4; there are",
        ),
        (["-i", "COHORT/manifest.csv", "--tumour", "one"], "--tumour is 'one'"),
        (["-i", "COHORT/manifest.csv", "--average", "max"], "--average is 'max'"),
        (["-i", "COHORT/manifest.csv", "-num_parts", "2", "-part_id", "2"], "-part_id is 2"),
        (["-i", "COHORT/manifest.csv", "-num_parts", "2", "--band", "OUT/b.csv"], "only tallies"),
        (["-i", "COHORT/manifest.csv", "-num_parts", "2", "--leave-one-out", "OUT/l"], "only tal"),
        (["-i", "COHORT/manifest.csv", "--bins", "auto", "--exact"], "give a number with exact"),
        (
            ["-i", "COHORT/manifest.csv", *_ONE, "--band", "OUT/b.csv"],
            "--band compares patients, so",
        ),
        (["-i", "COHORT/manifest.csv", *_ONE, "--leave-one-out", "OUT/l"], "--leave-one-out comp"),
        (
            ["-i", "COHORT/manifest.csv", *_ONE, "--bins", "auto"],
            "--bins auto compares patients, so",
        ),
        (["--tallies", "COHORT"], "holds no finished work"),
        (["--tallies", "COHORT/none"], "COHORT/none: no such folder"),
        (["--tallies", "COHORT", "--exact"], "--exact reads the voxels again"),
    ],
)
def test_bad_input_gets_one_line_and_status_2_before_any_case_is_read(
    fit, pristine_cohort, tmp_path, options, message
):
    filled = [
        option.replace("COHORT", str(pristine_cohort)).replace("OUT", str(tmp_path))
        for option in options
    ]
    status, out, err, _ = fit(*filled, "-q")
    assert (status, out) == (2, "")
    assert message.replace("COHORT", str(pristine_cohort)) in err
    assert err.startswith("twintrack: ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_missing_file_of_a_rater_is_named_and_a_missing_rater_told(fit, cohort):
    manifest = cohort / "manifest.csv"
    lost = cohort / "cases" / "PHANTOM_00002" / "annotation_2.nii.gz"
    lost.unlink()
    status, _, err, _ = fit("-i", manifest)
    assert status == 2
    assert err.startswith("twintrack: 1 missing:")
    assert str(lost) in err
    status, _, err, _ = fit("-i", cohort / "cases", "-p", cohort / "predictions")
    assert status == 0
    assert "rater 2 is missing in 1 of" in err
    assert "(PHANTOM_00002)" in err


def out_of_fold(cohort: Path, folder: Path) -> tuple[Path, Path]:
    """A trained nnU-Net folder that saw crops, and a manifest of files cropped by hand."""
    model, cut = folder / "model", folder / "cut"
    cut.mkdir()
    cases = []
    for number, case in enumerate(read_manifest(cohort / "manifest.csv")):
        validation = model / f"fold_{number % 2}" / "validation"
        validation.mkdir(parents=True, exist_ok=True)
        score = read_volume(case.score)
        box = (slice(3, 22), slice(number, 20), slice(2, 20 - number))
        affine = score.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ [side.start for side in box]
        inside = score.array[box]
        probabilities = np.stack([1 - inside.T, inside.T])
        np.savez_compressed(validation / f"{case.name}.npz", probabilities=probabilities)
        write_volume(validation / f"{case.name}.nii.gz", (inside > 0.5).astype("u1"), affine)
        files = []
        for path in (case.score, *case.raters, case.roi):
            files.append(cut / f"{case.name}_{path.name}")
            write_volume(files[-1], read_volume(path).array[box], affine)
        cases.append(Case(case.name, files[0], tuple(files[1:-1]), roi=files[-1]))
    write_manifest(folder / "cut.csv", cases)
    in_sample = model / "fold_all" / "validation"
    shutil.copytree(model / "fold_0" / "validation", in_sample)
    for fold in (model / "fold_0" / "validation", model / "fold_1" / "validation"):
        for k in range(5):  # of the training set, with one rater
            (fold / f"PANORAMA_{fold.parent.name}_{k}.npz").write_bytes(b"never read")
    return model, folder / "cut.csv"


@pytest.mark.parametrize("region", ["roi", "box", "all"])
def test_out_of_fold_predictions_of_crops(fit, pristine_cohort, tmp_path, region):
    """Networks trained on crops, raters who mark the whole CT, and few cases with raters at all."""
    model, cut = out_of_fold(pristine_cohort, tmp_path)
    options = ("--bins", "40", "--region", region)
    given = ("-i", pristine_cohort / "cases", "-p", model, *options)
    status, _, err, output = fit(*given)
    assert status == 0
    assert err.count("10 predictions have no annotations in ") == 1
    assert "left out: PANORAMA_fold_0_0, PANORAMA_fold_0_1, PANORAMA_fold_0_2, …" in err
    assert fit("-i", cut, *options, name="cut.json")[0] == 0
    fitted, expected = load_calibrator(output), load_calibrator(tmp_path / "cut.json")
    assert np.array_equal(fitted.X_thresholds_, expected.X_thresholds_)
    assert np.array_equal(fitted.y_thresholds_, expected.y_thresholds_)
    assert fitted.n_cases_ == 6
    # Marks that are lost are told, also when the tallies are there already.
    for told in (err, fit(*given)[2]):
        assert "raters mark voxels outside of what the score covers in " in told


def test_chosen_cases_alone_need_annotations(fit, twintrack, cohort, tmp_path):
    shutil.rmtree(cohort / "cases" / "PHANTOM_00004")
    folders = ("-i", cohort / "cases", "-p", cohort / "predictions")
    *_, err, output = fit(*folders)
    assert "1 predictions have no annotations" in err
    assert load_calibrator(output).n_cases_ == 5
    for chosen in (("--only", "PHANTOM_*[0-3]"), ("--without", "*4", "--without", "*5")):
        status, _, err, output = fit(*folders, *chosen)
        assert (status, "no annotations" in err) == (0, False)
        assert load_calibrator(output).n_cases_ == 4
    status, _, err, _ = fit(*folders, "--only", "*4")
    assert status == 2
    assert "1 missing:" in err
    # What is not measured would be missing from every mean.
    status, _, err = twintrack("evaluate", *folders, "-o", tmp_path / "results")
    assert status == 2
    assert "PHANTOM_00004" in err


@pytest.mark.parametrize("option", ["-o", "--band", "--leave-one-out", "--store"])
def test_places_that_cannot_be_written_are_found_before_any_case_is_read(
    twintrack, pristine_cohort, tmp_path, option
):
    """Found out before hours of work rather than after."""
    (tmp_path / "file").touch()
    taken = tmp_path if option in ("-o", "--band") else tmp_path / "file"
    given = {"-o": tmp_path / "c.json", option: taken}
    arguments = [part for pair in given.items() for part in pair]
    status, _, err = twintrack("fit", "-i", pristine_cohort / "manifest.csv", *arguments)
    kind = "folder; name a file in it" if taken is tmp_path else "file; name a folder"
    assert (status, err) == (2, f"twintrack: {taken}: is a {kind}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("-o", "m.csv"), "-o is m.csv, which -i is too"),
        (("-o", "./c.json", "--band", "n/../c.json"), "--band is n/../c.json, which -o is too"),
        (("-o", "c.json", "--band", "m.csv"), "--band is m.csv, which -i is too"),
        (("-o", "c.tallies"), "-o is c.tallies, which --store is too"),
        (("-o", "c", "--leave-one-out", "c"), "-o is c, which --leave-one-out is too"),
        (("-o", "c.json", "--band", "c.tallies"), "--band is c.tallies, which --store is too"),
    ],
)
def test_no_file_takes_the_place_of_another(
    twintrack, pristine_cohort, tmp_path, monkeypatch, given, message
):
    """Else the manifest would be lost, or the work of hours could not be written in the end."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "n").mkdir()
    manifest = (pristine_cohort / "manifest.csv").read_text()
    (tmp_path / "m.csv").write_text(manifest)
    status, _, err = twintrack("fit", "-i", tmp_path / "m.csv", *given)
    assert (status, err) == (2, f"twintrack: {message}; choose another name\n")
    assert (tmp_path / "m.csv").read_text() == manifest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.csv", "n"]


def test_output_folder_must_exist(twintrack, pristine_cohort, tmp_path):
    output = tmp_path / "none" / "c.json"
    status, _, err = twintrack("fit", "-i", pristine_cohort / "manifest.csv", "-o", output)
    assert (status, err) == (
        2,
        f"twintrack: {output}: its folder does not exist; create it first\n",
    )
    assert not Path(tmp_path / "none").exists()
