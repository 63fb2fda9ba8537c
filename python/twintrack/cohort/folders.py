"""A cohort in a folder of annotations and a folder of predictions."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from twintrack.cohort.case import Case, choose_raters, not_found
from twintrack.cohort.case import left_out as left_out_by
from twintrack.cohort.names import clash, composed, escaped, names_in, skeleton
from twintrack.cohort.patients import with_patients
from twintrack.cohort.patterns import (
    Found,
    Pattern,
    check_other_cases,
    check_suggested,
    check_suggested_raters,
)
from twintrack.errors import InputError
from twintrack.files import SUFFIXES, natural_order, split_suffix

_IN_SAMPLE = ("fold_all", "validation")


def read_folders(
    cases_dir: str | os.PathLike[str],
    predictions_dir: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    raters: str = "{case}/annotation_{k}.nii.gz",
    vessels: str | None = "{case}/*vessel*.nii.gz",
    roi: str | None = "{case}/roi.nii.gz",
    *,
    select: Callable[[list[str]], Iterable[str]] = iter,
    left_out: Callable[[list[str]], object] | None = None,
    use_raters: Sequence[int] | None = None,
    group: str | None = None,
) -> list[Case]:
    """Find a cohort in a folder of annotations and folders of predictions.

    The predictions decide which cases there are: every ``CASE.npz`` (nnU-Net's probabilities) or,
    where there is none, ``CASE.nii.gz`` or another volume is one. So a validation fold is a cohort
    of its own, and all of them are the cohort of a trained model. Annotated cases without a
    prediction are left out. Spellings of one name in Unicode (NFC, NFD) match each other; names of
    cases are NFC.

    Parameters
    ----------
    cases_dir
        Folder that holds the annotations, CURVAS layout by default.
    predictions_dir
        Folder that holds the scores, or several; see `find_scores`.
    raters, vessels, roi
        Where to look, relative to `cases_dir`. ``{case}`` is the case's name; ``{k}`` the rater's
        number, ``{k:02d}`` with leading zeros; ``*`` any text. A pattern without ``{case}`` is
        meant inside the case's own folder. Raters are ordered naturally (2 before 10), and a
        STAPLE consensus is no rater. `vessels` and `roi` may find no file. For example
        ``"labelsTr/{case}_ann{k}.nii.gz"`` or ``"{case}_{k:02d}.nii.gz"``. A file that fits a
        longer case name as well, such as P1_2_a.nii.gz for P1 and ``"{case}_*.nii.gz"``, is an
        error, where there is a prediction of P1_2 or the names of the files suggest such a case.
    select
        Gets the names of all predictions, and returns those to be used, before any annotation is
        looked for.
    left_out
        Gets the names of the predictions that have no annotations and so are left out, if there
        are any: of the cases that a network was trained on, few may have several raters. Without,
        such a prediction is an error.
    use_raters
        Numbers of the raters that count, from 1 in the order of the raters of all predictions. None
        is all of them. A case need not have all of them, but one.
    group
        Where the name of a case has its patient, such as ``"{patient}_visit-*"``
        (`PatientPattern`). By default each case is a patient of its own.

    Raises
    ------
    FileNotFoundError
        One of the folders does not exist, or a prediction has no annotations; with `left_out`, if
        none has any.
    ValueError
        No predictions, or in-sample ones (see `find_scores`), a case without a rater that
        counts, several files where one is meant, a file that may be of another case, two files
        whose names are spellings of one, or a name that does not fit `group`.
    """
    cases_dir = Path(cases_dir)
    if isinstance(predictions_dir, (str, os.PathLike)):
        predictions_dir = [predictions_dir]
    for folder in predictions_dir:
        if Path(folder).absolute().parts[-2:] == _IN_SAMPLE:
            raise _in_sample(Path(folder))
    known = find_scores(*predictions_dir)
    scores = {name: known[name] for name in select(list(known))}

    listing = functools.cache(names_in)

    def find(text: str) -> tuple[Pattern, dict[str, list[Found]]]:
        """Find the files of every prediction, also of those that are not selected."""
        pattern = Pattern(text, cases_dir, listing)
        found = {name: pattern.find(name) for name in known}
        check_other_cases(pattern, found, scores)
        return pattern, found

    annotations, annotated = find(raters)
    for name, files in annotated.items():
        annotated[name] = [one for one in files if "staple" not in "".join(one.texts).lower()]
    check_suggested_raters(annotations, annotated, scores)
    found_raters = {name: annotated[name] for name in scores}
    missing = [name for name, files in found_raters.items() if not files]
    if missing and (left_out is None or len(missing) == len(scores)):
        places = [
            f"case {n!r}: {cases_dir / raters.replace('{case}', n)}"
            + (_look_alike(raters, cases_dir, n) if number < 10 else "")
            for number, n in enumerate(missing)
        ]
        raise not_found(places, "a prediction needs annotations; name the cases in a manifest")
    if missing:
        assert left_out is not None  # noqa: S101 - asked for above
        left_out(missing)
        for name in missing:
            del scores[name], found_raters[name]
    everyone = sorted(
        {rater for files in annotated.values() for rater in map(_called, files)}, key=natural_order
    )
    wanted = choose_raters(everyone, use_raters)
    present = {name: list(map(_called, files)) for name, files in found_raters.items()}
    if use_raters is None:  # those of other cases do not matter
        wanted = [rater for rater in everyone if any(rater in had for had in present.values())]
    without = [name for name, had in present.items() if not set(had) & set(wanted)]
    if without:
        raise InputError(
            f"it has none of the raters {', '.join(wanted)}; leave it out with "
            f"{left_out_by(without[0])}",
            case=without[0],
        )
    called = {one.texts for files in found_raters.values() for one in files}

    @functools.cache
    def is_annotated(case: str) -> bool:
        return not called.isdisjoint(one.texts for one in annotations.find(case))

    def find_one(text: str | None) -> dict[str, Path]:
        """Return the one file of each case that has one."""
        if not text:
            return {}
        pattern, found = find(text)
        check_suggested(pattern, found, scores, is_annotated)
        for name in scores:
            if len(found[name]) > 1:
                names = ", ".join(one.path.name for one in found[name])
                raise InputError(f"{text!r} finds several files: {names}", case=name)
        return {name: found[name][0].path for name in scores if found[name]}

    found_vessels, found_rois = find_one(vessels), find_one(roi)
    by_rater = {
        name: {_called(one): one.path for one in files} for name, files in found_raters.items()
    }
    cases = [
        Case(
            name,
            score,
            tuple(by_rater[name].get(rater) for rater in wanted),
            found_vessels.get(name),
            found_rois.get(name),
        )
        for name, score in scores.items()
    ]
    return with_patients(cases, group)


def find_scores(*folders: str | os.PathLike[str]) -> dict[str, Path]:
    """Return the score file of each case in folders of predictions, in natural order of the names.

    Where a case has several, ``CASE.npz`` (nnU-Net's probabilities, beside which lies its
    segmentation, ``CASE.nii.gz``) comes first, and then the others in the order of
    `twintrack.files.SUFFIXES`. A folder of a trained model stands for its ``fold_k/validation``, k
    a number: fold ``all`` is validated on the cases that it was trained on.

    Raises
    ------
    FileNotFoundError
        A folder does not exist.
    ValueError
        There is no score in one, a trained model has no fold but ``all``, or a case is in two.
    """
    scores: dict[str, Path] = {}
    for folder in map(Path, folders):
        found = _scores_in(folder)
        for validation in [] if found else sorted(folder.glob("fold_*/validation")):
            if re.fullmatch(r"fold_\d+", validation.parent.name):
                found += _scores_in(validation)
        if not found:
            if folder.joinpath(*_IN_SAMPLE).is_dir():
                raise _in_sample(folder.joinpath(*_IN_SAMPLE))
            raise InputError(f"no predictions ({', '.join(SUFFIXES)}) here", file=folder)
        for case, score in found:
            other = scores.setdefault(case, score)
            if other != score:
                raise InputError(
                    f"is of the same case as {other}; leave one of them out", file=score
                )
    return {case: scores[case] for case in sorted(scores, key=natural_order)}


def _look_alike(pattern: str, folder: Path, case: str) -> str:
    """Return where a pattern finds a file of a name that looks like that of a case, if it does."""

    def names(folder: Path) -> list[tuple[str, str]]:
        return sorted({skeleton(own): own for _, own in names_in(folder)}.items())

    found = Pattern(skeleton(pattern), folder, names).find(skeleton(case))
    if not found:
        return ""
    there = found[0].path.relative_to(folder)
    return f" (there is {escaped(str(there))}, whose name only looks like that of {escaped(case)})"


def _called(found: Found) -> str:
    """Return what a rater is called: what the wildcards of the pattern stand for."""
    return "/".join(found.texts)


def _in_sample(validation: Path) -> ValueError:
    return InputError(
        "nnU-Net validates fold 'all' on the very cases that it was trained on, so "
        "these are no out-of-fold predictions, and a map fitted to them would be wrong for new "
        "cases; train numbered folds (twintrack train -f 0 --npz)",
        file=validation,
    )


def _scores_in(folder: Path) -> list[tuple[str, Path]]:
    found: dict[str, dict[str, Path]] = {}
    spelled: dict[str, str] = {}
    for file in folder.iterdir():
        stem, suffix = split_suffix(file.name)
        if suffix in SUFFIXES and not stem.startswith("."):
            case = composed(stem)
            if spelled.setdefault(case, stem) != stem:
                raise clash((spelled[case], stem), folder)
            found.setdefault(case, {})[suffix] = file
    return [
        (case, next(files[suffix] for suffix in SUFFIXES if suffix in files))
        for case, files in found.items()
    ]
