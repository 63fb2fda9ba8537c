"""What must hold of trained folders and loaded models for them to be one ensemble."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from twintrack.ensemble import Average
from twintrack.errors import InputError
from twintrack.nnunet.models import Model
from twintrack.nnunet.trained_folder import TrainedFolder, values_of


def check_alike(folders: Sequence[TrainedFolder]) -> None:
    """Refuse a fold that is named twice, and members of other labels or images."""
    seen: set[tuple[Path, int | str]] = set()
    for folder in folders:
        for fold in folder.folds:
            if (folder.path.resolve(), fold) in seen:
                raise InputError(
                    f"fold {fold} is named twice; a member counts once, or it would "
                    "weigh as much as two",
                    file=folder.path,
                )
            seen.add((folder.path.resolve(), fold))
    first = folders[0]
    for folder in folders[1:]:
        # Of regions the order counts, too: it is that of the channels.
        for name, mine, theirs in (
            ("labels", first.labels, folder.labels),
            ("regions", first.outputs, folder.outputs),
        ):
            if mine != theirs:
                raise InputError(
                    f"{name} {theirs} differ from {mine} of {first.path}; members "
                    "of an ensemble must have the same",
                    file=folder.path,
                )
        _check_images(folder, first)


def _check_images(folder: TrainedFolder, member: TrainedFolder) -> None:
    """Refuse a network that cannot be given the images of another one.

    Names of channels may differ, as they decide the normalisation, which is each network's own. The
    same names in another order are other images.
    """
    mine, theirs = folder.channels, member.channels
    if len(mine) != len(theirs) or (mine != theirs and sorted(mine) == sorted(theirs)):
        raise InputError(
            f"channels {mine} differ from {theirs} of {member.path}; all networks "
            "are given the same images",
            file=folder.path,
        )
    if folder.canonical != member.canonical:
        turned = [f"{one.path} turns" for one in (folder, member) if one.canonical]
        raise InputError(
            f"reads images otherwise than {member.path}; of the two only {turned[0]} them to RAS",
            file=folder.path,
        )


def check_coarse(
    coarse: TrainedFolder, member: TrainedFolder, organ: tuple[int, ...] | None
) -> None:
    """Refuse a coarse network for other images than the members', or without the organ's labels."""
    _check_images(coarse, member)
    values = set[int]().union(*map(values_of, coarse.labels.values()))
    wrong = [label for label in organ or () if label not in values or label == 0]
    if wrong or organ == ():
        raise InputError(f"organ is {organ}; the labels of {coarse.path} are {dict(coarse.labels)}")


def check_channels(
    name: str, given: int | Sequence[int] | None, folder: TrainedFolder
) -> tuple[int, ...]:
    """Return channels of the members' output, none of which is background.

    Parameters
    ----------
    name
        What they are called in an error.
    given
        One or several; None is the first class, and nothing where there are regions.
    folder
        Of a member.

    Raises
    ------
    ValueError
        A number is none of a channel, or there twice, or none is given where none is usual; lists
        all.
    """
    lowest = 0 if folder.regions else 1  # channel 0 is background
    known = list_channels(folder, range(lowest, len(folder.outputs)))
    if given is None:
        if folder.regions:
            raise InputError(
                f"{name} (--{name}) is not given, and {folder.path} was trained with regions: name "
                f"the number of one or several of {known}"
            )
        given = 1
    channels = (int(given),) if isinstance(given, (int, np.integer)) else tuple(given)
    if not channels or not all(lowest <= channel < len(folder.outputs) for channel in channels):
        raise InputError(
            f"{name} is {channels}; the members' channels are {lowest} to "
            f"{len(folder.outputs) - 1}: {known}"
        )
    if len(set(channels)) != len(channels):
        raise InputError(f"{name} is {channels}; it names a channel twice")
    return channels


def list_channels(folder: TrainedFolder, channels: Iterable[int]) -> str:
    """Return numbers and names of channels of the output, such as ``1 = tumour, 2 = pancreas``."""
    return ", ".join(f"{channel} = {folder.outputs[channel]}" for channel in channels)


def check_fusable(models: Sequence[Model], average: Average) -> None:
    """Refuse members whose logits cannot be exported, or averaged, together."""
    first = models[0]
    for model in models[1:]:
        mine = (first.resampling, first.force_separate_z)
        theirs = (model.resampling, model.force_separate_z)
        if mine != theirs:
            raise InputError(
                f"resamples probabilities by {theirs}, {first.folder.path} by "
                f"{mine}; members of an ensemble must do it in the same way",
                file=model.folder.path,
            )
        if average == "logits" and model.preprocessing != first.preprocessing:
            raise InputError(
                f"preprocesses images otherwise than {first.folder.path}; the "
                "mean of logits needs members on one grid: use average='probabilities'",
                file=model.folder.path,
            )


def check_device(name: str) -> Any:
    """Return the torch device of a name, if it can be used here."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(
            "it is auto, cpu, cuda, cuda:N or mps", argument="device", value=name
        ) from error
    usable = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not usable.get(device.type, False):
        raise InputError(f"device is {name!r}, which is not available here; use cpu")
    if device.type == "cuda" and device.index is None:
        # By number: "the current device" is another one in other threads.
        device = torch.device("cuda", torch.cuda.current_device())
    return device
