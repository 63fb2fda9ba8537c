"""Options as they are given: with - or _ between words, and by names that others have for them."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from twintrack.errors import InputError

# What a word that is no option of ours is likely to mean.
_MEANT = {
    "name": "--method",
    "input": "-i",
    "prediction": "-p",
    "predictions": "-p",
    "score": "-p",
    "scores": "-p",
    "model": "-m",
    "calibrator": "-m",
    "annotation": "--raters",
    "annotations": "--raters",
    "mask": "--roi",
    "masks": "--roi",
    "labels": "--label",
    "tumor": "--tumour",
    "exclude": "--without",
    "include": "--only",
    "jobs": "-npp",
    "threads": "-npp",
    "processes": "-npp",
}


def as_spelled(arguments: Iterable[str], options: Collection[str]) -> list[str]:
    """Return the arguments with every option as the command spells it.

    ``--dry_run`` is ``--dry-run``, and ``--num-parts`` is ``-num_parts``.

    Raises
    ------
    InputError
        An option that no command has; says which one is meant.
    """
    known = {_words(option): option for option in options if len(_words(option)) > 1}
    spelled: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        given, equals, value = argument.partition("=")
        words = _words(given)
        if argument == "--":
            return [*spelled, argument, *rest]
        if given.startswith("-") and given not in options:
            meant = _MEANT.get(words)
            if words in known:
                spelled.append(known[words] + equals + value)
                continue
            if given.startswith("--") and meant in options:
                raise InputError(f"there is no option {given}; {meant} is what you mean")
        spelled.append(argument)
    return spelled


def _words(option: str) -> str:
    return option.lstrip("-").replace("_", "-")
