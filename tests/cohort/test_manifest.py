from __future__ import annotations

import dataclasses
import errno
import re
from pathlib import Path

import pytest
from folders import touch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twintrack.cohort import Case, read_manifest, write_manifest
from twintrack.cohort.case import choose_cases, missing_raters


def manifest(folder: Path, text: str) -> Path:
    """Write a manifest beside the empty files s.npz, r1.nii, r2.nii, v.nii and m.nii."""
    touch(folder, "s.npz", "r1.nii", "r2.nii", "v.nii", "m.nii")
    path = folder / "cohort.csv"
    path.write_text(text, encoding="utf-8", newline="")
    return path


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_manifest_as_spreadsheets_write_it(tmp_path, line_end, mark):
    rows = [
        "vessels,rater_2,case,score,rater_1,roi",
        "v.nii,r2.nii,b 1,s.npz,r1.nii,",
        "",
        ",,,,,",
        " , ",
    ]
    rows.append('," r2.nii ",a,s.npz,r1.nii,m.nii')
    path = manifest(tmp_path, mark + line_end.join(rows) + line_end)
    raters = (tmp_path / "r1.nii", tmp_path / "r2.nii")
    assert read_manifest(path) == [
        Case("b 1", tmp_path / "s.npz", raters, vessels=tmp_path / "v.nii"),
        Case("a", tmp_path / "s.npz", raters, roi=tmp_path / "m.nii"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no cases"),
        ("case,score,rater_1\n", "no cases"),
        ("case;score;rater_1\na;s.npz;r1.nii\n", "semicolons"),
        ("case,score,rater_1,mask\na,s.npz,r1.nii,m.nii\n", "unknown column 'mask'"),
        ("case,score,rater_1,rater_1\na,s.npz,r1.nii,r2.nii\n", "'rater_1' appears twice"),
        ("case,score\na,s.npz\n", "'rater_1' is missing"),
        ("case,rater_1\na,r1.nii\n", "'score' is missing"),
        ("case,score,rater_1,rater_3\na,s.npz,r1.nii,r2.nii\n", "'rater_2' is missing"),
        ("case,score,rater_1\na,s.npz,r1.nii\na,s.npz,r1.nii\n", "row 3: case 'a' appears twice"),
        ("case,score,rater_1\na,,r1.nii\n", "row 2, column 'score'.*'a'"),
        (
            "case,score,rater_1,rater_2\na,s.npz,,\n",
            "row 2: it has no rater in rater_1, rater_2.*leave out this case with --without a",
        ),
        ("case,score,rater_1,rater_2\n\na,s.npz,r1.nii\n", "row 3 has 3 cells, its header has 4"),
        ("case,score,rater_1,rater_2\na,s.npz,r1.nii,r1.nii\n", "same file for two raters"),
        (
            "case,score,rater_1\na,s.npz,r1.nii\nb,s.npz,r1.nii\n",
            "'b' has the same files as .* 'a'",
        ),
        ("case,score,rater_1\n,s.npz,r1.nii\n", "row 2: case name ''"),
        ("case,score,rater_1\n../a,s.npz,r1.nii\n", r"row 2: case name '\.\./a'"),
        ("case,score,rater_1\n..,s.npz,r1.nii\n", r"row 2: case name '\.\.'"),
        ('case,score,rater_1\n"a\nb",s.npz,r1.nii\n', "row 3: case name"),
    ],
)
def test_faulty_manifest_names_file_row_and_column(tmp_path, text, message):
    with pytest.raises(ValueError, match=rf"cohort\.csv: .*{message}"):
        read_manifest(manifest(tmp_path, text))


def test_raters_are_in_the_order_of_their_numbers(tmp_path):
    """10 after 9, not after 1, and wherever their columns stand: else raters change places."""
    numbers = [3, 11, 1, 10, 2, 9, 4, 8, 5, 7, 6]
    touch(tmp_path, *(f"r{k}.nii" for k in numbers))
    header = ",".join(f"rater_{k}" for k in numbers)
    row = ",".join(f"r{k}.nii" for k in numbers)
    (case,) = read_manifest(manifest(tmp_path, f"case,score,{header}\na,s.npz,{row}\n"))
    assert case.raters == tuple(tmp_path / f"r{k}.nii" for k in range(1, 12))
    write_manifest(tmp_path / "again.csv", [case])
    assert read_manifest(tmp_path / "again.csv") == [case]


def test_manifest_lists_missing_files_with_row_and_column(tmp_path):
    text = "case,score,rater_1,roi\na,s.npz,r1.nii,x.nii\nb,y.npz,r1.nii,\n"
    with pytest.raises(FileNotFoundError) as caught:
        read_manifest(manifest(tmp_path, text))
    assert caught.value.errno == errno.ENOENT
    message = str(caught.value)
    assert f"row 2, column 'roi': {tmp_path / 'x.nii'}" in message
    assert f"row 3, column 'score': {tmp_path / 'y.npz'}" in message
    with pytest.raises(FileNotFoundError, match=r"absent\.csv"):
        read_manifest(tmp_path / "absent.csv")


@given(
    st.binary(max_size=80) | st.text(max_size=80).map(lambda text: text.encode("utf-8", "replace"))
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_as_manifest_fail_cleanly(tmp_path, content):
    path = tmp_path / "cohort.csv"
    path.write_bytes(content)
    with pytest.raises((ValueError, OSError), match=r"cohort\.csv"):
        read_manifest(path)


def test_written_manifest_reads_back_and_moves_with_its_folder(tmp_path):
    home, away = tmp_path / "home", tmp_path / 'away, "quoted"'
    touch(home, "s/a.npz", "r/ä_1.nii.gz", "r/ä_2.nii.gz", "v.nii")
    touch(away, "b.npz", "1.nii", "2.nii", "roi.nii")
    cases = [
        Case("a", home / "s/a.npz", (home / "r/ä_1.nii.gz", home / "r/ä_2.nii.gz"), home / "v.nii"),
        Case("b", away / "b.npz", (away / "1.nii", away / "2.nii"), roi=away / "roi.nii"),
    ]
    write_manifest(home / "cohort.csv", cases)
    assert read_manifest(home / "cohort.csv") == cases
    moved = home.rename(tmp_path / "moved")
    assert read_manifest(moved / "cohort.csv")[0].score == moved / "s/a.npz"


def test_unwritable_cohorts_are_refused_and_leave_nothing(tmp_path):
    one = Case("a", tmp_path / "s.npz", (tmp_path / "1.nii",))
    for cases, message in [
        ([], "no cases"),
        ([one, one], "same name"),
        ([dataclasses.replace(one, name="a/b")], "'a/b'"),
    ]:
        with pytest.raises(ValueError, match=message):
            write_manifest(tmp_path / "cohort.csv", cases)
    assert list(tmp_path.iterdir()) == []


HOLES = (
    "case,patient,score,rater_1,rater_2,rater_3\n"
    "a,7,s.npz,r1.nii,r2.nii,v.nii\n"
    "b,7,m.nii,r2.nii,,v.nii\n"
    "c,8,s.npz,r2.nii,,m.nii\n"
    "../d,,,,,\n"
)


def test_cases_and_raters_are_chosen_before_a_row_is_refused(tmp_path):
    """Else a case that is left out, or a rater who does not count, cannot be had out of the way."""
    path = manifest(tmp_path, HOLES)
    s, m, r1, r2, v = (tmp_path / n for n in ("s.npz", "m.nii", "r1.nii", "r2.nii", "v.nii"))
    (case,) = read_manifest(path, select=lambda names: choose_cases(names, ["a"], []))
    assert case == Case("a", s, (r1, r2, v), patient="7")

    def all_but_d(names: list[str]) -> list[str]:
        return choose_cases(names, [], ["../d"])

    found = read_manifest(path, select=all_but_d, use_raters=(3, 1))
    assert found[:2] == [  # in the columns' order
        Case("a", s, (r1, v), patient="7"),
        Case("b", m, (r2, v), patient="7"),
    ]
    (tmp_path / "m.nii").unlink()
    (case,) = read_manifest(path, select=lambda _: ["c"], use_raters=[1])  # m.nii is rater_3's
    assert case.raters == (r2,)
    scores = read_manifest(path, select=lambda _: ["a", "c"], use_raters=())
    assert [(case.score, case.raters) for case in scores] == [(s, ()), (s, ())]
    with pytest.raises(ValueError, match=r"row 5: case name '\.\./d'"):
        read_manifest(path, use_raters=())


def test_a_case_without_any_rater_that_counts_is_named_with_the_way_out(tmp_path):
    path = manifest(tmp_path, HOLES)
    cases = read_manifest(path, select=lambda _: ["a", "b", "c"])
    assert missing_raters(cases) == {1: ["b", "c"]}
    assert cases[1].raters == (tmp_path / "r2.nii", None, tmp_path / "v.nii")
    with pytest.raises(ValueError, match="row 3: it has no rater in rater_2") as caught:
        read_manifest(path, select=lambda _: ["b"], use_raters=(2,))
    assert (caught.value.case, caught.value.file) == ("b", path)
    odd = manifest(tmp_path, "case,score,rater_1\n[it's] *,s.npz,\nb,m.nii,r1.nii\n")
    with pytest.raises(ValueError, match="--without") as caught:
        read_manifest(odd)
    given = str(caught.value).partition("--without ")[2]
    assert given == """'[[]it'"'"'s] [*]'"""  # as a shell and a pattern take it


@pytest.mark.parametrize(
    ("numbers", "message"),
    [((4,), "use_raters is 4"), ((0,), "use_raters is 0"), ((1, 2, 1), "use_raters is 1")],
)
def test_raters_that_there_are_not_are_refused_with_those_that_there_are(
    tmp_path, numbers, message
):
    with pytest.raises(ValueError, match=message + re.escape("; raters are counted from 1")) as bad:
        read_manifest(manifest(tmp_path, HOLES), select=lambda _: ["a"], use_raters=numbers)
    assert "1 (rater_1), 2 (rater_2), 3 (rater_3)" in str(bad.value)
