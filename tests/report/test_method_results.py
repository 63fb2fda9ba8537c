"""Reading result folders, and the checks on results from memory."""

from __future__ import annotations

import json

import numpy as np
import pytest

from twintrack.report import MethodResults, Reliability, read_results, read_several, write_example


def write_folder(folder, cases="case,tdsc\na,0.5\nb,0.25\n", summary=None, failures=None):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cases.csv").write_text(cases, encoding="utf-8")
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    if failures is not None:
        (folder / "failures.csv").write_text(failures, encoding="utf-8")
    return folder


def test_everything_in_a_folder_is_read(tmp_path, example):
    folder = write_folder(
        tmp_path / "run",
        'case,tdsc,vi_CELIAC TRUNK,dice_staple,notes\na,0.5,,nan,\n"b, c",1,2.5,,"σ is 0"\n',
        {
            "method": "MHR",
            "protocol": "corrected",
            "means": {"tdsc": 0.75},
            "calibrator": {"target": "mhr"},
            "reliability": {"bin_count": [3, 0], "mean_score": [0.2, None], "mean_mhr": [0, None]},
        },
        "case,reason\nd,truncated\n",
    )
    (folder / "examples").mkdir()
    write_example(folder / "examples" / "case_03.npz", example)
    name, results = read_results(folder)
    assert name == "MHR"
    assert results.cases == ("a", "b, c")
    # A column without any value (LIDC has no vessels) is absent, not zero.
    assert list(results.values) == ["tdsc", "vi_CELIAC TRUNK"]
    np.testing.assert_array_equal(results.values["vi_CELIAC TRUNK"], [np.nan, 2.5])
    assert results.notes == {"b, c": "σ is 0"}
    assert results.failures == {"d": "truncated"}
    assert results.provenance == {"protocol": "corrected", "calibrator": {"target": "mhr"}}
    assert results.reliability is not None
    np.testing.assert_array_equal(results.reliability.mean_score, [0.2, np.nan])
    assert [found.case for found in results.examples] == ["case_03"]


def test_a_folder_without_summary_is_called_by_its_name(tmp_path):
    name, results = read_results(write_folder(tmp_path / "hard"))
    assert name == "hard"
    assert results.reliability is None
    assert results.provenance == {}


def test_equal_names_are_told_apart_by_folder(tmp_path):
    folders = [write_folder(tmp_path / run, summary={"method": "MHR"}) for run in ("one", "two")]
    assert list(read_several(folders)) == ["MHR (one)", "MHR (two)"]
    with pytest.raises(ValueError, match=r"a second method called 'MHR \(one\)'") as caught:
        read_several([folders[0], folders[0]])
    assert "--method NAME_1 --method NAME_2" in str(caught.value)
    again = [folders[0], folders[0], folders[1]]
    assert list(read_several(again, ["a", "MHR", "c"])) == ["a", "MHR", "c"]
    with pytest.raises(ValueError, match="a second method called 'a'"):
        read_several(folders, ["a", "a"])
    with pytest.raises(ValueError, match=r"1 names \(bca\) for 2 folders.*--interval"):
        read_several(folders, ["bca"])


def test_cases_in_either_spelling_of_unicode_are_the_same(tmp_path):
    """Results of a Mac and of Linux can be compared, and of one run in which they are mixed not."""
    fitted = {"fitted_on": {"same_case": ["Mu\u0308"]}}
    results = read_results(write_folder(tmp_path / "a", "case,tdsc\nMu\u0308,1\n", fitted))[1]
    assert results.cases == ("Mü",)
    assert results.fitted_on == {"same_case": ("Mü",)}
    with pytest.raises(ValueError, match="'Mü' occurs twice"):
        read_results(write_folder(tmp_path / "b", "case,tdsc\nMu\u0308,1\nMü,2\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column 'case'"),
        ("name,tdsc\na,1\n", "no column 'case'"),
        ("case,tdsc\n", "no cases"),
        ("case,tdsc\na,1\na,2\n", "case 'a' occurs twice"),
        ("case,tdsc,tdsc\na,1,2\n", "column 'tdsc' appears twice"),
        ("case,tdsc\na\n", "row 2 has 1 cells, its header has 2"),
        ("case,tdsc\na,high\n", "tdsc of case 'a' is 'high'; need a finite number"),
        ("case,tdsc\na,inf\n", "tdsc of case 'a' is 'inf'; need a finite number"),
        ('case,tdsc\n"a,1\n', "row 2: unexpected end of data"),
    ],
)
def test_a_bad_table_is_refused_by_name(tmp_path, text, message):
    with pytest.raises(ValueError, match=rf"cases\.csv: .*{message}"):
        read_results(write_folder(tmp_path, text))


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "cases.csv").write_bytes(b"case,tdsc\n\xff\xfe,1\n")
    with pytest.raises(ValueError, match=r"cases\.csv: not UTF-8 text .* in position 10"):
        read_results(tmp_path)


@pytest.mark.parametrize(
    ("summary", "message"),
    [
        ([], "it must be an object"),
        ({"method": 3}, "method is 3; it must be a text"),
        ({"reliability": {"bin_count": [1]}}, "hold the lists bin_count, mean_score and mean_mhr"),
        (
            {"reliability": {"bin_count": [-1], "mean_score": [0.1], "mean_mhr": [0.1]}},
            "reliability must",
        ),
        (
            {"reliability": {"bin_count": [1], "mean_score": [0.1, 0.2], "mean_mhr": [0.1]}},
            "must be equally long",
        ),
        (
            {"reliability": {"bin_count": [1], "mean_score": [1.5], "mean_mhr": [0.1]}},
            "mean_score is 1.5 in bin 0",
        ),
    ],
)
def test_a_bad_summary_is_refused_by_name(tmp_path, summary, message):
    with pytest.raises(ValueError, match=rf"summary\.json: .*{message}"):
        read_results(write_folder(tmp_path, summary=summary))


def test_a_broken_summary_is_refused_by_name(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "summary.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"summary\.json: not a JSON file"):
        read_results(tmp_path)


def test_a_missing_folder_says_what_it_should_be(tmp_path):
    with pytest.raises(FileNotFoundError, match="written by twintrack evaluate"):
        read_results(tmp_path / "nowhere")


def test_results_from_memory_are_checked():
    with pytest.raises(ValueError, match="'a' occurs twice"):
        MethodResults(("a", "a"), {})
    with pytest.raises(ValueError, match=r"values\['tdsc'\]: shape \(3,\) for 2 cases"):
        MethodResults(("a", "b"), {"tdsc": np.zeros(3)})
    with pytest.raises(ValueError, match="infinite in case 'b'"):
        MethodResults(("a", "b"), {"tdsc": np.array([0, np.inf])})


def test_calibration_errors_weigh_voxels_or_bins():
    curve = Reliability(
        np.array([90, 10, 0]), np.array([0.0, 0.5, np.nan]), np.array([0.1, 0.9, np.nan])
    )
    assert curve.calibration_error == pytest.approx(0.9 * 0.1 + 0.1 * 0.4)
    assert curve.average_error == pytest.approx((0.1 + 0.4) / 2)
    empty = Reliability(np.zeros(2, np.int64), np.full(2, np.nan), np.full(2, np.nan))
    assert np.isnan([empty.calibration_error, empty.average_error]).all()
