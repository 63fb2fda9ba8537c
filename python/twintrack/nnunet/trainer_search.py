"""nnU-Net's search for trainer classes, which finds this package's own, too, and says nothing."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

EXTERNAL = "nnUNet_extTrainer"


@contextlib.contextmanager
def own_trainers() -> Iterator[str]:
    """Let nnU-Net find this package's trainers too, after those of ``nnUNet_extTrainer``.

    Gives the value that the variable has inside of the block.
    """
    before = os.environ.get(EXTERNAL)
    own = str(Path(__file__).parent / "trainers")
    os.environ[EXTERNAL] = own if not before else os.pathsep.join([before, own])
    try:
        yield os.environ[EXTERNAL]
    finally:
        if before is None:
            del os.environ[EXTERNAL]
        else:
            os.environ[EXTERNAL] = before


@contextlib.contextmanager
def quiet_search() -> Iterator[None]:
    """As `own_trainers`; and keep nnU-Net's remarks from standard output, which is for results."""
    with (
        own_trainers(),
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(),
    ):
        expect_import_warning()
        yield


def expect_import_warning() -> None:
    """Ignore the one warning that comes of the search, and no other.

    nnU-Net imports every trainer that it has until it finds the one of that name, and so timm,
    which uses a part of torch that torch 2.15 calls deprecated.
    """
    warnings.filterwarnings("ignore", r"`torch\.jit\.interface` is deprecated", FutureWarning)
