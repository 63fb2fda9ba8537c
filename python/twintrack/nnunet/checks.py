"""What must hold of trained folders and loaded models for them to be one ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from twintrack.ensemble import Average
from twintrack.nnunet.models import Folder, Model

__all__ = ["check_alike", "check_channels", "check_coarse", "check_device", "check_fusable"]

_NAMES = {
    "labels": "labels",
    "channels": "channels",
    "canonical": "images turned to RAS:",
}


def check_alike(folders: Sequence[Folder]) -> None:
    """Refuse a fold that is named twice, and members of other labels or channels."""
    seen: set[tuple[Path, int | str]] = set()
    for folder in folders:
        for fold in folder.folds:
            if (folder.path.resolve(), fold) in seen:
                raise ValueError(
                    f"{folder.path}: fold {fold} is named twice; a member counts once, or it would "
                    "weigh as much as two"
                )
            seen.add((folder.path.resolve(), fold))
    first = folders[0]
    for folder in folders[1:]:
        for name in ("labels", "channels", "canonical"):
            mine, theirs = getattr(first, name), getattr(folder, name)
            if mine != theirs:
                raise ValueError(
                    f"{folder.path}: {_NAMES[name]} {theirs} differ from {mine} of {first.path}; "
                    "members of an ensemble must have the same"
                )


def check_coarse(coarse: Folder, member: Folder, organ: tuple[int, ...] | None) -> None:
    """Refuse a coarse network for other images than the members', or without the organ's labels."""
    for name in ("channels", "canonical"):
        if getattr(coarse, name) != getattr(member, name):
            raise ValueError(
                f"{coarse.path}: {_NAMES[name]} {getattr(coarse, name)} differ from "
                f"{getattr(member, name)} of the members ({member.path})"
            )
    values: set[int] = set()
    for label in coarse.labels.values():
        values.update(label if isinstance(label, list) else [label])
    wrong = [label for label in organ or () if label not in values or label == 0]
    if wrong or organ == ():
        raise ValueError(f"organ is {organ}; the labels of {coarse.path} are {dict(coarse.labels)}")


def check_channels(name: str, given: int | Sequence[int], folder: Folder) -> tuple[int, ...]:
    """Return channels of the members' output, none of which is background.

    Parameters
    ----------
    name
        What they are called in an error.
    given
        One or several.
    folder
        Of a member.
    """
    channels = (int(given),) if isinstance(given, (int, np.integer)) else tuple(given)
    lowest = 0 if folder.regions else 1  # channel 0 is background
    if not channels or not all(lowest <= channel < folder.heads for channel in channels):
        raise ValueError(
            f"{name} is {channels}; the members' channels are {lowest} to {folder.heads - 1} "
            f"({dict(folder.labels)})"
        )
    return channels


def check_fusable(models: Sequence[Model], average: Average) -> None:
    """Refuse members whose logits cannot be exported, or averaged, together."""
    first = models[0]
    for model in models[1:]:
        mine = (first.resampling, first.force_separate_z)
        theirs = (model.resampling, model.force_separate_z)
        if mine != theirs:
            raise ValueError(
                f"{model.folder.path}: resamples probabilities by {theirs}, {first.folder.path} by "
                f"{mine}; members of an ensemble must do it in the same way"
            )
        if average == "logits" and model.preprocessing != first.preprocessing:
            raise ValueError(
                f"{model.folder.path}: preprocesses images otherwise than {first.folder.path}; the "
                "mean of logits needs members on one grid: use average='probabilities'"
            )


def check_device(name: str) -> Any:
    """Return the torch device of a name, if it can be used here."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device is {name!r}; it is auto, cpu, cuda, cuda:N or mps") from error
    usable = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not usable.get(device.type, False):
        raise ValueError(f"device is {name!r}, which is not available here; use cpu")
    if device.type == "cuda" and device.index is None:
        # By number: "the current device" is another one in other threads.
        device = torch.device("cuda", torch.cuda.current_device())
    return device
