"""From a CT to the calibrated score: coarse region, members, fused export."""

from __future__ import annotations

import hashlib
import math
import os
import pickle
import threading
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twintrack.calibration.calibrator_file import read_calibrator
from twintrack.calibration.thresholds import Threshold, mask_threshold
from twintrack.ensemble import Average, check_ensemble, core_map, ensemble_record
from twintrack.errors import InputError
from twintrack.nnunet.case_prediction import CasePrediction, Prediction
from twintrack.nnunet.checks import check_alike, check_channels, check_coarse, list_channels
from twintrack.nnunet.images import Image, as_image, read_image
from twintrack.nnunet.networks import Networks
from twintrack.nnunet.roi import RoiRule
from twintrack.nnunet.trained_folder import PathLike, TrainedFolder, inspect_folder

COARSE_SPACING = (4.5, 4.5, 9.0)
"""Voxel size in mm at which PANORAMA's baseline looks for the pancreas: x, y, z."""


class Pipeline:
    """A coarse nnU-Net, an ensemble of K nnU-Nets inside the region it finds, and a calibrator.

    Parameters
    ----------
    members : list of paths
        Trained nnU-Net v2 folders (``DatasetNNN_NAME/TRAINER__PLANS__CONFIGURATION``). Every fold
        of every folder is a member: K folders with one fold each, or one folder with K folds.
    coarse : path, optional
        Trained folder of the network that finds the organ; without it the members see all of the
        image. Its folds are averaged as nnU-Net does.
    calibrator : path or Calibrator, optional
        Without it the score is the ensemble's.
    device : str
        "cuda", "cuda:1", "mps", "cpu"; "auto" takes a GPU if there is one.
    tumour : int or sequence of int, optional
        Channels of the members' output that are tumour: their probabilities are added. Classes
        count from 1, the first after the background, which is the default. Regions count from 0 in
        the order of ``dataset.json``; of several the highest probability counts, and there is no
        default.
    average : {"probabilities", "logits"}
        Mean over the members; see `twintrack.ensemble_score`.
    folds, coarse_folds : sequence, optional
        Which folds to use; by default all numbered ones with the checkpoint, or ``fold_all``.
    checkpoint : str
        File name of the weights in each fold.
    threshold : float, "majority" or "dice"
        The mask is 1 where the score is above it; the words are thresholds that the calibrator has
        (`Thresholds`).
    roi : RoiRule
        How the region follows from the coarse segmentation.
    coarse_spacing : (3,) float or None
        The image is resampled to this voxel size (mm; left-right, front-back, head-feet) before the
        coarse network sees it, as in training (``twintrack prepare``). None leaves it to nnU-Net.
    organ : sequence of int, optional
        Labels of the coarse segmentation that are the organ; all but background by default.
    within : int or sequence of int, optional
        Channels of the members' output that together are the organ, those of `tumour` among them;
        1, 4 and 5 in PANORAMA's baseline. The region is narrowed to where their merged probability
        is above 1/2, and two voxels further. By default it is not, as in the paper.
    step, mirroring, on_device
        nnU-Net's ``tile_step_size``, ``use_mirroring`` and ``perform_everything_on_device``. A
        device without memory for the last falls back to the CPU once and for all, with a note.
    load : bool
        Load the networks now; if not, `networks` does, or the first case. A pipeline that is sent
        to another process is loaded there.

    Notes
    -----
    Where the sliding windows are added up on a CUDA device and this TwinTrack has its CUDA module,
    the members' logits stay there until they are exported there, and the calibrated region comes
    to the host once. The logits of at most two cases (one that is predicted, one that is exported)
    are on the device. If it runs out of memory they are moved to the host first, and what a case
    cannot be exported with is done on the CPU, with a note. Without the module, or with
    ``TWINTRACK_BACKEND=cpu``, each member's logits are moved to the host at once.

    Raises
    ------
    FileNotFoundError
        A folder, plans, fold or checkpoint does not exist.
    InputError
        Folders differ in labels or in the number or order of channels or cannot be loaded, a fold
        is named twice, the calibrator was fitted on scores made in another way, `tumour` is missing
        for regions, or an argument is out of range.
    TypeError
        The calibrator is not fitted, or none at all.

    All of it is found before a network runs.
    """

    def __init__(
        self,
        members: Sequence[PathLike],
        coarse: PathLike | None = None,
        calibrator: Any = None,
        *,
        device: str = "auto",
        tumour: int | Sequence[int] | None = None,
        average: Average = "probabilities",
        folds: Sequence[int | str] | None = None,
        coarse_folds: Sequence[int | str] | None = None,
        checkpoint: str = "checkpoint_final.pth",
        coarse_checkpoint: str | None = None,
        threshold: Threshold = 0.5,
        roi: RoiRule | None = None,
        coarse_spacing: tuple[float, float, float] | None = COARSE_SPACING,
        organ: Sequence[int] | None = None,
        within: int | Sequence[int] | None = None,
        step: float = 0.5,
        mirroring: bool = True,
        on_device: bool = True,
        load: bool = True,
    ) -> None:
        self._given = {name: value for name, value in locals().items() if name != "self"}
        if isinstance(members, (str, os.PathLike)):
            members = [members]
        if not members:
            raise InputError("members is empty; at least one trained folder is needed")
        if not 0 < step <= 1:
            raise InputError(f"step is {step}; it is a part of a patch, above 0 and at most 1")
        for name, value in (("mirroring", mirroring), ("on_device", on_device)):
            if not isinstance(value, bool):
                raise InputError("it is True or False", argument=name, value=value)
        if coarse_spacing is not None:
            check_spacing(coarse_spacing)
        if average not in ("probabilities", "logits"):
            raise InputError("it is 'probabilities' or 'logits'", argument="average", value=average)
        self.members: list[TrainedFolder] = [
            inspect_folder(path, folds, checkpoint) for path in members
        ]
        first = self.members[0]
        check_alike(self.members)
        self.tumour: tuple[int, ...] = check_channels("tumour", tumour, first)
        self.within: tuple[int, ...] | None = (
            None if within is None else check_channels("within", within, first)
        )
        if self.within is not None and not set(self.tumour) <= set(self.within):
            raise InputError(
                f"within is {self.within} without all of tumour, {self.tumour}; tumour would be 0 "
                "where it lies outside of them"
            )
        self.average = average
        self.regions: bool = first.regions
        self.roi: RoiRule = roi or RoiRule()
        self.coarse_spacing = coarse_spacing
        self.organ: tuple[int, ...] | None = None if organ is None else tuple(organ)
        self.coarse: TrainedFolder | None = None
        if coarse is not None:
            self.coarse = inspect_folder(coarse, coarse_folds, coarse_checkpoint or checkpoint)
            check_coarse(self.coarse, first, self.organ)
        self.size: int = sum(len(folder.folds) for folder in self.members)
        self.calibrator: object = (
            read_calibrator(Path(calibrator))
            if isinstance(calibrator, (str, os.PathLike))
            else calibrator
        )
        check_ensemble(self.calibrator, self.ensemble)
        core_map(self.calibrator)  # one that cannot be used is found now
        self.threshold: float = mask_threshold(self.calibrator, threshold)
        self._device = device
        self._settings = {"step": step, "mirroring": mirroring, "on_device": on_device}
        self._loading = threading.Lock()
        self._loaded: Networks | None = None
        if load:
            _ = self.networks

    @property
    def networks(self) -> Networks:
        """The networks, which are loaded when they are not."""
        with self._loading:
            if self._loaded is None:
                self._loaded = Networks(
                    self.members, self.coarse, self._device, self.average, **self._settings
                )
            return self._loaded

    @property
    def device(self) -> Any:
        """The torch device of the networks."""
        return self.networks.device

    @property
    def ensemble(self) -> dict[str, Any]:
        """How the score is made: for ``Calibrator(ensemble=...)``, and compared with it."""
        return ensemble_record(self.size, self.tumour, self.average, self.regions)

    @property
    def tumour_names(self) -> str:
        """Numbers and names of the classes or regions that are tumour: ``1 = tumour``."""
        return list_channels(self.members[0], self.tumour)

    @property
    def channels(self) -> int:
        """Number of images (nnU-Net's channels) that a case consists of."""
        return len(self.members[0].channels)

    @property
    def folders(self) -> list[Path]:
        """Trained folders: the members', then the coarse network's if there is one."""
        return [folder.path for folder in (*self.members, self.coarse) if folder is not None]

    def describe(self) -> dict[str, Any]:
        """Return what decides the score, the calibrator aside, in plain values for a record."""
        return {
            "ensemble": self.ensemble,
            "tumour_names": self.tumour_names,
            "members": [folder.describe() for folder in self.members],
            "coarse": None if self.coarse is None else self.coarse.describe(),
            "coarse_spacing": None if self.coarse_spacing is None else list(self.coarse_spacing),
            "organ": None if self.organ is None else list(self.organ),
            "within": None if self.within is None else list(self.within),
            "roi": {**asdict(self.roi), "margins": list(self.roi.margins)},
            "threshold": self.threshold,
            "step": self._settings["step"],
            "mirroring": self._settings["mirroring"],
        }

    def predict(
        self,
        image: PathLike | Sequence[PathLike] | Image | NDArray[Any],
        affine: NDArray[np.float64] | None = None,
    ) -> Prediction:
        """Predict one case.

        Of many `twintrack.nnunet.predict_job` reads the next and writes the last meanwhile.

        Parameters
        ----------
        image
            A file, one file for each channel, an `Image`, or an array (x, y, z) or (C, x, y, z).
        affine : (4, 4) float64
            For an array: voxel index to mm, RAS+ (as nibabel has it).

        Raises
        ------
        FileNotFoundError, OSError, InputError
            The image cannot be read, or has another number of channels or axes than the networks
            were trained with; or no organ was found and ``roi.missing`` is "error".
        MemoryError
            A patch does not fit on the device.

        Warns
        -----
        UserWarning
            For each of the prediction's `notes`.
        """
        case = CasePrediction(self, lambda: _as_image(image, affine))
        case.run_members()
        prediction = case.export()
        for note in prediction.notes:
            warnings.warn(note, stacklevel=2)
        return prediction

    def __reduce__(self) -> tuple[Any, ...]:
        given = {**self._given, "calibrator": self.calibrator, "load": False}
        content = pickle.dumps([given, self.describe()])
        return _in_this_process, (hashlib.sha256(content).hexdigest(), given)


_kept: dict[str, Pipeline] = {}


def _in_this_process(key: str, given: dict[str, Any]) -> Pipeline:
    """Return the pipeline that was sent to this process before, with its networks, if it is that.

    Of several pipelines only the last is kept.
    """
    if key not in _kept:
        _kept.clear()
        _kept[key] = Pipeline(**given)
    return _kept[key]


def check_spacing(spacing: Sequence[float]) -> None:
    """Refuse voxel sizes for the coarse network that are no three lengths."""
    if len(spacing) != 3 or not all(0 < length < math.inf for length in spacing):
        raise InputError(f"coarse_spacing is {spacing}; three lengths in mm are needed")


def _as_image(image: Any, affine: NDArray[np.float64] | None) -> Image:
    if isinstance(image, Image):
        return image
    files = [image] if isinstance(image, (str, os.PathLike)) else image
    if isinstance(files, Sequence) and all(isinstance(x, (str, os.PathLike)) for x in files):
        return read_image(files)
    return as_image(image, affine)
