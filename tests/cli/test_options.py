"""Options that commands share: one name, one meaning, in every command; and what is meant."""

from __future__ import annotations

import csv
import importlib
import inspect
import json
import re
import sys
import unicodedata

import pytest

from twintrack import cli, load_calibrator
from twintrack.cli.groups import spread
from twintrack.cli.spelling import as_spelled

# Names that more than one command has, and what follows them; flags are bool.
SHARED = {
    "-i": "Path",
    "-o": "Path",
    "--output": "Path",
    "-p": "Path",
    "-m": "Path",
    "--raters": "str",
    "--use-raters": "str",
    "--label": "str",
    "--tumour": "str",
    "--roi": "str",
    "--method": "str",
    "--only": "str",
    "--without": "str",
    "-num_parts": "int",
    "-part_id": "int",
    "--workers": "int",
    "--scheduler": "str",
    "--memory": "float",
    "--dry-run": "bool",
    "--force": "bool",
    "-q": "bool",
}


def options_of(name):
    """The options of a command, and as text what is read for each."""
    function = getattr(importlib.import_module(f"twintrack.cli.{name}"), name)
    found = {}
    for parameter in inspect.signature(spread(function), eval_str=True).parameters.values():
        metadata = getattr(parameter.annotation, "__metadata__", ())
        names = (metadata and metadata[0].param_decls) or (f"--{parameter.name}",)
        read = str(getattr(parameter.annotation, "__origin__", parameter.annotation))
        found |= {one.replace("_", "-") if one[1] == "-" else one: read for one in names}
    return found


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_an_option_is_of_one_kind_in_every_command(name):
    """A count under the name of a pattern, or a flag under that of a file, is another meaning."""
    for option, kind in SHARED.items():
        found = options_of(name).get(option)
        assert found is None or kind in found, (option, found)
    assert "--output" in options_of(name) or "-o" not in options_of(name)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("--dry_run", "--dry-run"),
        ("--use_raters=1,2", "--use-raters=1,2"),
        ("-num-parts", "-num_parts"),
        ("--num_parts", "-num_parts"),
        ("--file-ending", "--file_ending"),
        ("-output", "--output"),
        ("-o_x", "-o_x"),  # click takes it for -o and its value
        ("-3", "-3"),
        ("a_b", "a_b"),
    ],
)
def test_dashes_and_underscores_are_alike(given, taken):
    known = ["--dry-run", "--use-raters", "-num_parts", "--file_ending", "-o", "--output"]
    assert as_spelled([given, "x"], known) == [taken, "x"]
    assert as_spelled(["--", given], known) == ["--", given]


def test_both_spellings_of_an_option_do_the_same(twintrack, cohort, tmp_path):
    plain = ("fit", "-i", cohort / "manifest.csv", "--output", tmp_path / "a.json")
    assert "to do" in twintrack(*plain, "--dry_run", "--num-parts", 2)[1]
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (("evaluate", "--name", "X"), "--method"),
        (("merge", "--name=X"), "--method"),
        (("fit", "--tumor", "1"), "--tumour"),
        (("apply", "--calibrator", "c.json"), "-m"),
        (("fit", "--use-rater", "1"), "--use-raters"),
        (("evaluate", "--methode", "X"), "--method"),
        (("prepare", "--roi"), "--rois"),
    ],
)
def test_an_option_that_there_is_not_is_told_with_the_one_that_is_meant(
    twintrack, arguments, meant
):
    status, _, err = twintrack(*arguments)
    assert status == 2
    assert re.search(rf"{meant}\b", err)


def rows(folder):
    with (folder / "cases.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_raters_are_chosen_in_fit_and_evaluate(twintrack, cohort, tmp_path):
    """As if the others had no files: the same map and figures as of a cohort without them."""
    manifest, fewer = cohort / "manifest.csv", cohort / "fewer.csv"
    table = list(csv.reader(manifest.read_text(encoding="utf-8").splitlines()))
    at = table[0].index("rater_2")
    kept = [[cell for k, cell in enumerate(row) if k != at] for row in table]
    kept[0] = [{"rater_3": "rater_2"}.get(name, name) for name in kept[0]]
    with fewer.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(kept)
    sources = {
        "fewer": ("-i", fewer),
        "chosen": ("-i", manifest, "--use-raters", "3,1"),
        "folders": (
            *("-i", cohort / "cases", "-p", cohort / "predictions", "--use_raters", "1,3"),
        ),
    }
    maps = {}
    for name, source in sources.items():
        assert twintrack("fit", *source, "-o", tmp_path / f"{name}.json")[0] == 0
        assert twintrack("evaluate", *source, "-o", tmp_path / name)[0] == 0
        fitted = load_calibrator(tmp_path / f"{name}.json")
        maps[name] = (fitted.X_thresholds_.tobytes(), fitted.y_thresholds_.tobytes())
    assert maps["fewer"] == maps["chosen"] == maps["folders"]
    assert rows(tmp_path / "fewer") == rows(tmp_path / "chosen") == rows(tmp_path / "folders")
    summary = json.loads((tmp_path / "chosen" / "summary.json").read_text())
    assert summary["use_raters"] == [1, 3]
    assert "use_raters" not in json.loads((tmp_path / "fewer" / "summary.json").read_text())


def test_results_of_other_raters_are_not_taken_for_these(twintrack, cohort, tmp_path):
    """Neither stored tallies nor a result folder, whichever way round."""
    manifest = ("-i", cohort / "manifest.csv")
    store = ("--store", tmp_path / "store")
    alone, mixed = tmp_path / "alone.json", tmp_path / "mixed.json"
    twintrack("fit", *manifest, "--use-raters", "1,2", "-o", alone)
    twintrack("fit", *manifest, *store, "-o", mixed)
    twintrack("fit", *manifest, *store, "--use-raters", "1,2", "-o", mixed)
    assert mixed.read_bytes() == alone.read_bytes()
    results = ("evaluate", *manifest, "-o", tmp_path / "results")
    assert twintrack(*results)[0] == 0
    status, _, err = twintrack(*results, "--use-raters", "1,2")
    assert (status, "use_raters is none, here [1, 2]" in err) == (2, True)
    assert twintrack(*results, "--use-raters", "1,2", "--force")[0] == 0
    status, _, err = twintrack(*results)
    assert (status, "use_raters is [1, 2], here none" in err) == (2, True)


def test_single_rater_keeps_the_number_of_its_column(twintrack, cohort, tmp_path):
    manifest = ("-i", cohort / "manifest.csv", "--target", "single")
    for name, options in {"all": (), "some": ("--use-raters", "1,3")}.items():
        twintrack("fit", *manifest, "--rater", 3, *options, "-o", tmp_path / f"{name}.json")
    whole, some = (load_calibrator(tmp_path / f"{name}.json") for name in ("all", "some"))
    assert (whole.y_thresholds_ == some.y_thresholds_).all()
    given = (*manifest, "--rater", 2, "--use-raters", "1,3", "-o", tmp_path / "c.json")
    status, _, err = twintrack("fit", *given)
    assert (status, "--rater is 2; it is not among --use-raters" in err) == (2, True)


@pytest.mark.parametrize("command", ["fit", "evaluate"])
def test_a_case_without_a_rater_can_be_left_out_or_the_rater(twintrack, cohort, tmp_path, command):
    manifest = cohort / "manifest.csv"
    text = manifest.read_text().splitlines()
    files = text[1].split(",")
    files[text[0].split(",").index("rater_2")] = ""
    manifest.write_text("\n".join([text[0], ",".join(files), *text[2:]]) + "\n")
    given = (command, "-i", manifest, "-o", tmp_path / "out")
    status, _, err = twintrack(*given)
    assert status == 0
    assert "rater 2 is missing in 1 of 6 cases (PHANTOM_00000)" in err
    status, _, err = twintrack(*given, "--use-raters", "2", "--force")
    assert status == 2
    assert "leave out this case with --without PHANTOM_00000" in err
    assert twintrack(*given, "--force", "--without", "PHANTOM_00000")[0] == 0
    assert twintrack(*given, "--only", "*1", "--force")[0] == 0
    assert twintrack(*given, "--use-raters", "1,3", "--force")[0] == 0
    model = tmp_path / "c.json"
    twintrack("fit", "-i", manifest, "--use-raters", "1", "-o", model)
    assert twintrack("apply", "-i", manifest, "-m", model, "-o", tmp_path / "volumes")[0] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-i", "COHORT/manifest.csv", "--use-raters", "1,b"), "--use-raters is '1,b'; it must be"),
        (("-i", "COHORT/manifest.csv", "--use-raters", "9"), "use_raters is 9; raters are counted"),
        (("-i", "COHORT/cases", "-p", "COHORT/predictions", "--raters", "1,2"), "--use-raters ch"),
        (("-i", "/nowhere", "-p", "COHORT/predictions"), "/nowhere: No such file or folder"),
        (("-i", "COHORT/cases", "-p", "/nowhere"), "/nowhere: No such file or folder"),
        (("-i", "COHORT/cases", "-p", "COHORT/manifest.csv"), "is no folder; -p names folders"),
        (("-i", "COHORT/c.json"), "-i names a cohort, such as a manifest (CSV). A calibrator goes"),
        (("-i", "COHORT/cases/PHANTOM_00000/roi.nii.gz"), "is a volume; -i names a cohort"),
        (("-i", "COHORT/manifest.csv", "--only", "PH\u0410NTOM_00000"), "there is 'PHANTOM_00000'"),
    ],
)
@pytest.mark.parametrize("command", ["fit", "evaluate"])
def test_messages_name_the_option_that_is_wrong(
    twintrack, cohort, tmp_path, command, options, message
):
    (cohort / "c.json").write_text('{"format": "calibrator"}')
    given = [option.replace("COHORT", str(cohort)) for option in options]
    status, out, err = twintrack(command, "-o", tmp_path / "out", *given)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["apply", "evaluate", "predict"])
@pytest.mark.parametrize("wrong", ["manifest.csv", "cases", "cases/PHANTOM_00000/roi.nii.gz"])
def test_what_is_no_calibrator_is_told_with_the_option_that_wants_it(
    twintrack, pristine_cohort, tmp_path, command, wrong
):
    model, source = pristine_cohort / wrong, pristine_cohort / "manifest.csv"
    members = ("--members", "none") if command == "predict" else ()
    status, _, err = twintrack(command, "-i", source, "-m", model, "-o", tmp_path / "o", *members)
    assert status == 2
    assert f"{model}: is no calibrator" in err
    assert "-m names the calibrator, -i the cohort" in err


def test_tallies_and_raters_to_choose_are_refused_together(twintrack, tmp_path):
    given = ("--tallies", tmp_path, "--use-raters", "1", "-o", tmp_path / "c.json")
    status, _, err = twintrack("fit", *given)
    assert (status, "--use-raters chooses annotation files" in err) == (2, True)


@pytest.mark.parametrize("command", ["fit", "evaluate", "apply"])
@pytest.mark.parametrize("suffix", [".mha", ".MHD"])
def test_a_missing_reader_is_told_once_before_the_work(
    twintrack, cohort, tmp_path, monkeypatch, command, suffix
):
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    manifest = cohort / "manifest.csv"
    lines = manifest.read_text().splitlines()
    column = "score" if command == "apply" else "rater_2"
    at = lines[0].split(",").index(column)
    for number, line in enumerate(lines[1:], 1):
        files = line.split(",")
        files[at] = f"{number}{suffix}"
        (cohort / files[at]).touch()
        lines[number] = ",".join(files)
    model = tmp_path / "c.json"
    twintrack("fit", "-i", manifest, "-o", model)  # before the manifest is changed
    manifest.write_text("\n".join(lines) + "\n")
    given = ("-m", model) if command == "apply" else ()
    status, out, err = twintrack(command, "-i", manifest, "-o", tmp_path / "out", *given)
    assert (status, out) == (2, "")
    file = cohort / f"1{suffix}"
    assert err == f"twintrack: {file} needs SimpleITK: pip install 'twintrack[mha]'\n"
    assert not list(tmp_path.glob("out*"))


def test_a_missing_writer_is_told_once_before_the_work(twintrack, cohort, tmp_path, monkeypatch):
    model, source = tmp_path / "c.json", ("-i", cohort / "manifest.csv")
    twintrack("fit", *source, "-o", model)
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    given = ("-m", model, "-o", tmp_path / "out", "--file-ending", ".mha")
    told = "twintrack: .mha needs SimpleITK: pip install 'twintrack[mha]'\n"
    assert twintrack("apply", *source, *given) == (2, "", told)
    assert not (tmp_path / "out").exists()
    # What is in the manifest and is not read needs no reader.
    lines = (cohort / "manifest.csv").read_text().splitlines()
    at = lines[0].split(",").index("vessels")
    files = lines[1].split(",")
    files[at] = "v.mha"
    (cohort / "v.mha").touch()
    (cohort / "manifest.csv").write_text("\n".join([lines[0], ",".join(files), *lines[2:]]) + "\n")
    assert twintrack("fit", *source, "-o", tmp_path / "d.json")[0] == 0
    status, _, err = twintrack("evaluate", *source, "-o", tmp_path / "results")
    assert (status, err.count("\n"), "v.mha needs SimpleITK" in err) == (2, 1, True)


@pytest.mark.parametrize("given", ["--workers", "--scheduler"])
def test_a_missing_cluster_is_told_before_the_work(twintrack, cohort, tmp_path, monkeypatch, given):
    monkeypatch.setitem(sys.modules, "distributed", None)
    out = tmp_path / "c.json"
    status, _, err = twintrack("fit", "-i", cohort / "manifest.csv", "-o", out, given, "2")
    assert (status, err.count("\n")) == (2, 1)
    assert "distributed: pip install 'twintrack[dask]'" in err
    assert not list(tmp_path.glob("c.*"))


def test_either_spelling_of_a_name_goes_through_all_commands(twintrack, cohort, tmp_path):
    """Scores and results from Linux, annotations from a Mac, options from either."""
    nfc = unicodedata.normalize("NFC", "Fälle")
    nfd = unicodedata.normalize("NFD", nfc)
    home = (cohort / "cases").rename(tmp_path / nfd)
    (home / "PHANTOM_00001").rename(home / nfd)
    score = cohort / "predictions" / "PHANTOM_00001.nii.gz"
    score.rename(score.with_name(f"{nfc}.nii.gz"))
    source = ("-i", tmp_path / nfc, "-p", cohort / "predictions", "--only", nfd, "--only", "*2")
    model, out = tmp_path / f"{nfc}.json", tmp_path / "out"
    assert twintrack("fit", *source, "-o", model)[0] == 0
    evaluate = ("evaluate", *source, "-m", tmp_path / f"{nfd}.json", "-o", out)
    status, _, err = twintrack(
        *evaluate, "--example", nfd, "--image", f"{home}/{{case}}/image.nii.gz"
    )
    assert (status, "2 of the 2 cases" in err or "fitted" in err) == (0, True)
    assert [row["case"] for row in rows(out)] == [nfc, "PHANTOM_00002"]
    assert [path.stem for path in (out / "examples").iterdir()] == [nfc]
    assert (
        twintrack("fit", "--tallies", tmp_path / f"{nfc}.tallies", "--only", nfd, "-o", model)[0]
        == 0
    )
    assert load_calibrator(model).n_cases_ == 1
