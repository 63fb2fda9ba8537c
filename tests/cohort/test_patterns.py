"""Patterns of files: each case gets its own, or the pattern is refused; ordinary ones never are."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from folders import touch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from twintrack.cohort import Case, read_folders


def cohort(folder: Path, files: list[str], predicted: list[str], raters: str, **more) -> list[Case]:
    """Read the cohort of these files, relative to the folder of annotations."""
    for place in ("in", "out"):
        shutil.rmtree(folder / place, ignore_errors=True)
        (folder / place).mkdir()
    touch(folder / "in", *files)
    touch(folder / "out", *(f"{name}.npz" for name in predicted))
    return read_folders(folder / "in", folder / "out", raters, **more)


def names(case: Case, folder: Path) -> list[str]:
    return [file.relative_to(folder / "in").as_posix() for file in case.raters]


OTHERS = {
    # pattern, files, predicted, the file that is named, the other case
    "predicted": ("{case}_*.gz", "P1_a P1_b P1_2_a P1_2_b", "P1 P1_2", "P1_2_a", "P1_2"),
    "predicted, not chosen": ("{case}_*.gz", "P1_a P1_old_c", "P1 P1_old", "P1_old_c", "P1_old"),
    "no files of its own": ("{case}_*.gz", "P1_2_a P3_a", "P1 P1_2 P3", "P1_2_a", "P1_2"),
    "a number of two digits": ("{case}*.gz", "P1_a P10_a", "P1 P10", "P10_a", "P10"),
    "names in front": ("*{case}.gz", "a_1 a_x1", "1 x1", "a_x1", "x1"),
    "folders": ("{case}*/{k}.gz", "P1/1 P1/2 P1_2/1 P1_2/2", "P1 P1_2", "P1_2/1", "P1_2"),
    "numbers": ("{case}{k}.gz", "P11 P12 P111 P112", "P1 P11", "P111", "P11"),
    "not predicted": ("{case}_*.gz", "P1_a P1_b P1_2_a P1_2_b", "P1", "P1_2_a", "P1_2"),
    "not predicted, every case": (
        "{case}_*.gz",
        "P1_a P1_2_a P3_a P3_2_a P5_a P5_2_a",
        "P1 P3 P5",
        "P1_2_a",
        "P1_2",
    ),
    "not predicted, numbers": ("{case}_*.gz", "P1_1 P1_2 P1_2_1 P1_2_2", "P1", "P1_2_1", "P1_2"),
    "not predicted, one number": ("{case}_*.gz", "P1_1 P1_2 P1_3 P1_2_1", "P1", "P1_2_1", "P1_2"),
    "not predicted, one rater": ("{case}_*.gz", "P1_a P1_b P1_c P1_2_b", "P1", "P1_2_b", "P1_2"),
    "not predicted, words": ("{case}_*.gz", "P1_a P1_b P1_old_a", "P1", "P1_old_a", "P1_old"),
    "not predicted, rater's word": (
        "{case}_*.gz",
        "P1_a P1_b P1_a_a P1_a_b P1_b_a P1_b_b",
        "P1",
        "P1_a_a",
        "P1_a",
    ),
    "not predicted, two of them": (
        "{case}_*.gz",
        "P1_2_a P1_2_b P1_3_a P1_3_b",
        "P1",
        "P1_2_a",
        "P1_2",
    ),
    "not predicted, nothing else": ("{case}_*.gz", "P1_2_a P1_2_b", "P1", "P1_2_a", "P1_2"),
    "not predicted, known elsewhere": (
        "{case}_*.gz",
        "P1_post_a P1_post_b P3_a P3_b",
        "P1 P3",
        "P1_post_a",
        "P1_post",
    ),
    "not predicted, folders": (
        "{case}*/{k}.gz",
        "P1/1 P1/2 P1_2/1 P1_2/2",
        "P1",
        "P1_2/1",
        "P1_2",
    ),
    "not predicted, a number of two digits": ("{case}*.gz", "P12_a", "P1", "P12_a", "P12"),
    "not predicted, a number in front": ("*{case}.gz", "a_21", "1", "a_21", "21"),
    "not predicted, numbers beside": (
        "{case}{k}.gz",
        "P11 P12 P111 P112",
        "P1",
        "P111",
        "P11",
    ),
    "not predicted, identifiers": (
        "{case}.*.gz",
        "1.2.a 1.2.b 1.2.3.a 1.2.3.b",
        "1.2",
        "1.2.3.a",
        "1.2.3",
    ),
}


@pytest.mark.parametrize("layout", OTHERS)
def test_a_file_of_a_longer_case_name_is_refused(tmp_path, layout):
    pattern, files, predicted, file, other = OTHERS[layout]
    more = {"select": lambda _: ["P1"]} if "not chosen" in layout else {}
    path = (tmp_path / "in" / file).as_posix()
    case = predicted.split()[0]
    message = f"case '{case}': .* finds {path}.gz, which fits (a )?case '{other}' as well"
    with pytest.raises(ValueError, match=message) as refused:
        cohort(tmp_path, [f"{f}.gz" for f in files.split()], predicted.split(), pattern, **more)
    assert "{k}, which stands for a number alone, or name the files in a manifest" in str(
        refused.value
    )


def test_the_pattern_that_a_refusal_advises_is_read(tmp_path):
    files = ["P1_0000_a.gz", "P1_0000_b.gz", "P3_0000_a.gz", "P3_0000_b.gz"]
    with pytest.raises(ValueError, match=r"'{case}_0000_\*\.gz' if it is of 'P1'"):
        cohort(tmp_path, files, ["P1", "P3"], "{case}_*.gz")
    found = cohort(tmp_path, files, ["P1", "P3"], "{case}_0000_*.gz")
    assert [names(case, tmp_path) for case in found] == [files[:2], files[2:]]


ORDINARY = {
    "CURVAS": ("{case}/annotation_{k}.gz", "{}/annotation_{}", "C_1 C_1_2 C_10", "1 2 10"),
    "CURVAS, any": ("annotation_*.gz", "{}/annotation_{}", "C_1 C_1_2 C_10", "1 2 10"),
    "a folder each": ("*.gz", "{}/{}", "C_1 C_1_2 C_10", "a b 2_a 2_b"),
    "numbers": ("{case}_{k}.gz", "{}_{}", "P1 P1_2 P10 P1_10", "1 2 3 10"),
    "numbers with zeros": ("{case}_{k:02d}.gz", "{}_{}", "P1 P1_02 P10", "01 02 10"),
    "numbers of words": ("l/{case}_ann{k}.gz", "l/{}_ann{}", "P1 P1_2 P10", "1 2 10"),
    "a folder of each rater": ("rater_*/{case}.gz", "rater_{1}/{0}", "P1 P1_2 P10", "a b"),
    "people": ("{case}_*.gz", "{}_{}", "P1 P2 P10", "smith jones"),
    "people and STAPLE": ("{case}_*.gz", "{}_{}", "P1 P2 P10", "smith jones STAPLE 2_staple"),
    "people, numbered": ("{case}_*.gz", "{}_{}", "P1 P2 P10", "rater_1 rater_2 rater_10"),
    "twelve": ("{case}_*.gz", "{}_{}", "P1 P2 P10", " ".join(map(str, range(1, 13)))),
    "twelve, nothing between": ("{case}*.gz", "{}_{}", "P1 P2 P10"[:5], "1 2 3 10 11 12"),
    "a remark": ("{case}_*.gz", "{}_{}", "P1 P2 P10", "1_final 2_final 3_final"),
    "a consensus": ("{case}_*.gz", "{}_{}", "P1 P2 P10", "reader1 reader2 both_reader1_reader2"),
    "pairs": ("{case}_*.gz", "{}_{}", "P1 P2 P10", "a b c a_b a_c b_c"),
    "LIDC": ("{case}_*.gz", "{}_{}", "LIDC-IDRI-0001 LIDC-IDRI-0010", "1 2 3 4"),
    "nodules": ("{case}_*.gz", "{}_{}", "LIDC-IDRI-0001", "nodule_0_a nodule_0_b nodule_1_a"),
    "QUBIQ": ("{case}/task01_seg*.gz", "{}/task01_seg{}", "case01 case02 case10", "01 02 03"),
    "QUBIQ, all tasks": (
        "{case}_*.gz",
        "{}_{}",
        "case01 case02",
        "task01_seg01 task01_seg02 task02_seg01 task02_seg02",
    ),
    "identifiers": ("{case}.*.gz", "{}.{}", "1.2.3 1.2.30 1.2.4", "a b"),
    "identifiers, numbers": ("{case}_{k}.gz", "{}_{}", "1.2 1.2.3 1.2.30", "1 2"),
    "BIDS": ("{case}/anat/{case}_*_mask.gz", "{0}/anat/{0}_{1}_mask", "s-1 s-1_2 s-10", "a 2_a"),
    "folder and file": ("{case}_*/{case}_*.gz", "{0}_012_ct/{0}_seg_{1}", "s1 s2 s10", "a b"),
    "name twice": ("{case}_{case}_*.gz", "{0}_{0}_{1}", "P1 P2", "a b"),
}


@pytest.mark.parametrize("layout", ORDINARY)
def test_ordinary_layouts_are_read(tmp_path, layout):
    pattern, written, cases, raters = ORDINARY[layout]
    files = {c: [f"{written.format(c, r)}.gz" for r in raters.split()] for c in cases.split()}
    everything = [file for several in files.values() for file in several]
    wanted = {c: [f for f in several if "staple" not in f.lower()] for c, several in files.items()}
    for predicted in (list(files), list(files)[:1]):
        found = cohort(tmp_path, everything, predicted, pattern)
        assert {case.name: sorted(names(case, tmp_path)) for case in found} == {
            case: sorted(wanted[case]) for case in predicted
        }


def test_the_files_of_a_case_whose_name_is_longer_are_its_own(tmp_path):
    """P1 is no case of this cohort, so what its pattern would take matters to nobody."""
    files = ["P1_a.gz", "P1_2_a.gz", "P1_vessels.gz", "P1_2_vessels.gz"]
    for predicted in (["P1", "P1_2"], ["P1_2"]):
        (found,) = cohort(
            tmp_path, files, predicted, "{case}_a.gz", select=lambda _: ["P1_2"], vessels=None
        )
        assert names(found, tmp_path) == ["P1_2_a.gz"]
        (found,) = cohort(
            tmp_path,
            files,
            predicted,
            "{case}_*a.gz",
            vessels="{case}_*vessels.gz",
            select=lambda _: ["P1_2"],
        )
        assert names(found, tmp_path) == ["P1_2_a.gz"]
        assert found.vessels == tmp_path / "in/P1_2_vessels.gz"


def test_two_wildcards_are_two_texts(tmp_path):
    """1 and 11 are not 11 and 1, though they read the same when put together."""
    files = ["r1/A_11.gz", "r11/A_1.gz", "r2/A_1.gz"]
    (found,) = cohort(tmp_path, files, ["A"], "r{k}/{case}_{k}.gz")
    assert names(found, tmp_path) == ["r1/A_11.gz", "r2/A_1.gz", "r11/A_1.gz"]


MASKS = {
    "predicted": ("{case}*vessels.gz", "P1_2_vessels", "P1 P1_2", "{case}_ann{k}.gz"),
    "annotated": ("{case}_*vessels.gz", "P1_2_vessels", "P1", "{case}_ann{k}.gz"),
    "annotated, a word": ("{case}_*vessels.gz", "P1_old_vessels", "P1", "{case}_ann{k}.gz"),
    "as of another case": ("{case}_*.gz", "P1_7_v P3_v", "P1 P3", "{case}_ann{k}.gz"),
    "beside its own": ("{case}*vessels.gz", "P1_vessels P1_7_vessels", "P1", "{case}_ann{k}.gz"),
    "a number of two digits": ("{case}*vessels.gz", "P12_vessels", "P1", "{case}_ann{k}.gz"),
}


@pytest.mark.parametrize("which", ["vessels", "roi"])
@pytest.mark.parametrize("layout", MASKS)
def test_a_mask_of_a_longer_case_name_is_refused(tmp_path, layout, which):
    pattern, masks, predicted, raters = MASKS[layout]
    annotated = [f"{case}_ann1.gz" for case in ("P1", "P1_2", "P1_old", "P3")]
    files = annotated + [f"masks/{mask}.gz" for mask in masks.split()]
    with pytest.raises(ValueError, match=r"case 'P1': 'masks/.* fits (a )?case 'P1\w+' as well"):
        cohort(tmp_path, files, predicted.split(), raters, **{which: f"masks/{pattern}"})


@pytest.mark.parametrize(
    ("pattern", "masks"),
    [
        ("{case}_*vessels.gz", "P1_20240131_vessels P3_20240229_vessels"),
        ("{case}_*vessels.gz", "P1_left_vessels P3_vessels"),
        ("{case}*vessels.gz", "P1_vessels P3_vessels P1_2_veins"),
        ("{case}/*vessel*.gz", "P1/vessels P1_2/vessels P3/2_vessels"),
        ("{case}.gz", "P1 P1_2 P3"),
        ("*_{case}.gz", "vessels_P1 vessels_P3"),
    ],
)
def test_ordinary_masks_are_read(tmp_path, pattern, masks):
    files = [f"{case}_ann1.gz" for case in ("P1", "P1_2", "P3")]
    files += [f"masks/{mask}.gz" for mask in masks.split()]
    raters = "{case}_ann{k}.gz"
    found = cohort(tmp_path, files, ["P1", "P3"], raters, vessels=f"masks/{pattern}", roi=None)
    first, second = (case.vessels for case in found)
    assert first is not None
    assert second is not None
    assert "P1" in first.as_posix()
    assert "P3" in second.as_posix()


PATTERNS = [
    ("{case}_*.gz", "{}_{}.gz"),
    ("{case}*.gz", "{}_{}.gz"),
    ("{case}*.gz", "{}-{}.gz"),
    ("{case}.*.gz", "{}.{}.gz"),
    ("{case}*/m_*.gz", "{}/m_{}.gz"),
    ("{case}/*.gz", "{}/{}.gz"),
    ("r_*/{case}*.gz", "r_{1}/{0}.gz"),
    ("{case}/{case}_*.gz", "{0}/{0}_{1}.gz"),
]
NUMBERED = [
    ("{case}_{k}.gz", "{}_{}.gz"),
    ("{case}{k}.gz", "{}{}.gz"),
    ("m{k}/{case}.gz", "m{1}/{0}.gz"),
]
few = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
case_names = st.from_regex(r"[aP][12]{0,2}([_.-]?[ab12]{1,2}){0,2}", fullmatch=True)
words = st.from_regex(r"[ab][12]?(_[ab12])?", fullmatch=True)


@few
@given(st.data())
def test_no_file_of_another_case_is_taken(tmp_path, data):
    """Whatever the names are, annotated cases with and without a score."""
    pattern, written = data.draw(st.sampled_from(PATTERNS + NUMBERED))
    cases = data.draw(st.lists(case_names, min_size=1, max_size=5, unique=True))
    count = data.draw(st.integers(1, 4))
    raters = [str(k + 1) for k in range(count)]
    if (pattern, written) in PATTERNS and data.draw(st.booleans()):
        raters = data.draw(st.lists(words, min_size=count, max_size=count, unique=True))
    files = {case: [written.format(case, rater) for rater in raters] for case in cases}
    everything = [file for several in files.values() for file in several]
    assume(len(set(everything)) == len(everything))
    predicted = cases[: data.draw(st.integers(1, len(cases)))]
    try:
        found = cohort(tmp_path, everything, predicted, pattern)
    except ValueError as error:
        if "as well" not in str(error):
            raise
        return
    for case in found:
        assert sorted(names(case, tmp_path)) == sorted(files[case.name])


@few
@given(st.data())
def test_names_of_one_length_are_never_refused(tmp_path, data):
    pattern, written = data.draw(st.sampled_from(PATTERNS + NUMBERED))
    length = data.draw(st.integers(1, 3))
    alphabet = st.text("ab12_.", min_size=length, max_size=length)
    cases = data.draw(st.lists(alphabet.map("P{}".format), min_size=1, max_size=6, unique=True))
    count = data.draw(st.integers(1, 12))
    raters = [str(k + 1) for k in range(count)]
    if (pattern, written) in PATTERNS:
        prefix = data.draw(st.sampled_from(["", "r", "rater_", "by-", "v1_r"]))
        raters = [prefix + rater for rater in raters]
    files = {case: [written.format(case, rater) for rater in raters] for case in cases}
    everything = [file for several in files.values() for file in several]
    predicted = cases[: data.draw(st.integers(1, len(cases)))]
    found = cohort(tmp_path, everything, predicted, pattern)
    for case in found:
        assert sorted(names(case, tmp_path)) == sorted(files[case.name])
