"""From a CT to the calibrated score: coarse region, members, fused export."""

from __future__ import annotations

import functools
import math
import os
import time
import traceback
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from twintrack.arrays.backend import computes_on_device
from twintrack.arrays.libraries import device_kind
from twintrack.calibration.calibrator_file import read_calibrator
from twintrack.ensemble import (
    Average,
    check_ensemble,
    core_map,
    ensemble_record,
    export_score,
)
from twintrack.errors import InputError
from twintrack.nnunet.checks import (
    check_alike,
    check_channels,
    check_coarse,
    check_device,
    check_fusable,
    list_channels,
)
from twintrack.nnunet.fair_lock import Turns
from twintrack.nnunet.images import Image, as_image, read_image, resample_image, spacing_note
from twintrack.nnunet.member_logits import MemberLogits, move_to_host
from twintrack.nnunet.models import Model, inspect_folder, load_model
from twintrack.nnunet.network_axes import Frame
from twintrack.nnunet.roi import Roi, RoiRule, find_roi, narrowed, near_organ, whole_volume
from twintrack.volumes import Volume

PathLike = str | os.PathLike[str]
Result = TypeVar("Result")

COARSE_SPACING = (4.5, 4.5, 9.0)
"""Voxel size in mm at which PANORAMA's baseline looks for the pancreas: x, y, z."""

WITHIN_REACH = 2
"""Voxels by which `within` grows, along each axis: PANORAMA's baseline dilates by 5 x 5 x 5."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the pipeline says of a case. Arrays have the axes (x, y, z) of the image.

    Attributes
    ----------
    score : Volume
        float32: the calibrated score, or the ensemble's own if there is no calibrator. Exactly 0
        outside the region.
    mask : Volume
        uint8: 1 where the score is above the threshold.
    roi : Roi
        What the members were asked about: every score in it is the map's, none outside of it is.
    notes : tuple of str
        What the user should know, such as that no organ was found.
    seconds : dict
        Time by stage: "read", "coarse", "preprocess", "members", "export".
    """

    score: Volume
    mask: Volume
    roi: Roi
    notes: tuple[str, ...]
    seconds: Mapping[str, float]


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
    threshold : float
        The mask is 1 where the score is above it.
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
    ValueError
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
        threshold: float = 0.5,
        roi: RoiRule | None = None,
        coarse_spacing: tuple[float, float, float] | None = COARSE_SPACING,
        organ: Sequence[int] | None = None,
        within: int | Sequence[int] | None = None,
        step: float = 0.5,
        mirroring: bool = True,
        on_device: bool = True,
    ) -> None:
        if isinstance(members, (str, os.PathLike)):
            members = [members]
        if not members:
            raise InputError("members is empty; at least one trained folder is needed")
        if not 0 <= threshold <= 1:
            raise InputError(f"threshold is {threshold}; a score lies in [0, 1]")
        if not 0 < step <= 1:
            raise InputError(f"step is {step}; it is a part of a patch, above 0 and at most 1")
        for name, value in (("mirroring", mirroring), ("on_device", on_device)):
            if not isinstance(value, bool):
                raise InputError("it is True or False", argument=name, value=value)
        if coarse_spacing is not None and not (
            len(coarse_spacing) == 3 and all(0 < length < math.inf for length in coarse_spacing)
        ):
            raise InputError(f"coarse_spacing is {coarse_spacing}; three lengths in mm are needed")
        if average not in ("probabilities", "logits"):
            raise InputError("it is 'probabilities' or 'logits'", argument="average", value=average)
        folders = [inspect_folder(path, folds, checkpoint) for path in members]
        check_alike(folders)
        self.tumour = check_channels("tumour", tumour, folders[0])
        self.within = None if within is None else check_channels("within", within, folders[0])
        if self.within is not None and not set(self.tumour) <= set(self.within):
            raise InputError(
                f"within is {self.within} without all of tumour, {self.tumour}; tumour would be 0 "
                "where it lies outside of them"
            )
        self.average = average
        self.regions = folders[0].regions
        self.threshold = float(threshold)
        self.roi = roi or RoiRule()
        self.coarse_spacing = coarse_spacing
        self.organ = None if organ is None else tuple(organ)
        coarse_folder = None
        if coarse is not None:
            coarse_folder = inspect_folder(coarse, coarse_folds, coarse_checkpoint or checkpoint)
            check_coarse(coarse_folder, folders[0], self.organ)
        self.size = sum(len(folder.folds) for folder in folders)
        self.calibrator = (
            read_calibrator(Path(calibrator))
            if isinstance(calibrator, (str, os.PathLike))
            else calibrator
        )
        check_ensemble(self.calibrator, self.ensemble)
        core_map(self.calibrator)  # one that cannot be used is found now
        self.device = check_device(device)
        settings: dict[str, Any] = {"step": step, "mirroring": mirroring, "on_device": on_device}
        self._members = [load_model(folder, self.device, **settings) for folder in folders]
        self._coarse = load_model(coarse_folder, self.device, **settings) if coarse_folder else None
        check_fusable(self._members, average)
        self._turns = Turns()
        self._exports_on_device = computes_on_device()
        self._logits: weakref.WeakSet[MemberLogits] = weakref.WeakSet()  # changed in turns

    @property
    def ensemble(self) -> dict[str, Any]:
        """How the score is made: for ``Calibrator(ensemble=...)``, and compared with it."""
        return ensemble_record(self.size, self.tumour, self.average, self.regions)

    @property
    def tumour_names(self) -> str:
        """Numbers and names of the classes or regions that are tumour: ``1 = tumour``."""
        return list_channels(self._members[0].folder, self.tumour)

    def describe(self) -> dict[str, Any]:
        """Return what decides the score, the calibrator aside, in plain values for a record."""

        def of(model: Model) -> dict[str, Any]:
            folder = model.folder
            return {
                "folder": "/".join(folder.path.absolute().parts[-2:]),
                "folds": list(folder.folds),
                "checkpoint": folder.checkpoint,
                "digests": dict(model.digests),
            }

        return {
            "ensemble": self.ensemble,
            "tumour_names": self.tumour_names,
            "members": [of(model) for model in self._members],
            "coarse": None if self._coarse is None else of(self._coarse),
            "coarse_spacing": None if self.coarse_spacing is None else list(self.coarse_spacing),
            "organ": None if self.organ is None else list(self.organ),
            "within": None if self.within is None else list(self.within),
            "roi": {**asdict(self.roi), "margins": list(self.roi.margins)},
            "threshold": self.threshold,
            "step": self._members[0].predictor.tile_step_size,
            "mirroring": self._members[0].predictor.use_mirroring,
        }

    @property
    def folders(self) -> list[Path]:
        """Trained folders: the members', then the coarse network's if there is one."""
        models = [*self._members, *([self._coarse] if self._coarse else [])]
        return [model.folder.path for model in models]

    @property
    def channels(self) -> int:
        """Number of images (nnU-Net's channels) that a case consists of."""
        return len(self._members[0].folder.channels)

    def predict(
        self,
        image: PathLike | Sequence[PathLike] | Image | NDArray[Any],
        affine: NDArray[np.float64] | None = None,
    ) -> Prediction:
        """Predict one case.

        Parameters
        ----------
        image
            A file, one file for each channel, an `Image`, or an array (x, y, z) or (C, x, y, z).
        affine : (4, 4) float64
            For an array: voxel index to mm, RAS+ (as nibabel has it).

        Raises
        ------
        FileNotFoundError, OSError, ValueError
            The image cannot be read, or has another number of channels or axes than the networks
            were trained with; or no organ was found and ``roi.missing`` is "error".
        MemoryError
            A patch does not fit on the device.

        Warns
        -----
        UserWarning
            For each of the prediction's `notes`.
        """
        prediction = self._export(self._run(self._prepare(image, affine)))
        for note in prediction.notes:
            warnings.warn(note, stacklevel=2)
        return prediction

    def predict_many(
        self,
        cases: Iterable[tuple[str, Any]],
        finish: Callable[[str, Prediction], Result],
        tell: Callable[[str, str], None] = lambda *_: None,
    ) -> Iterator[tuple[str, Result | Exception]]:
        """Predict case after case; yield each with what `finish` returns of it, or its error.

        While the members run on a case, the next one is read, its region found and its data
        preprocessed, and the one before is exported and given to `finish` (which writes it), each
        in a thread of its own: at most three cases are in memory. A case that fails does not
        keep the others from being done.

        Parameters
        ----------
        cases
            Names and images, the latter as `predict` takes them (arrays with their affine, as
            `twintrack.nnunet.images.as_image` joins them), or a function that reads one;
            it is called in the thread that reads ahead.
        finish
            Called with name and prediction, for one case at a time, in order.
        tell
            Called with name and stage, such as "member 2 of 3", of the case that the others wait
            for, when the stage begins; in the thread that iterates.
        """
        ahead = ThreadPoolExecutor(1, "twintrack-prepare")
        behind = ThreadPoolExecutor(1, "twintrack-finish")
        todo = iter(cases)

        def prefetch() -> tuple[str, Future[_Prepared]] | None:
            following = next(todo, None)
            if following is None:
                return None
            return following[0], ahead.submit(self._prepare, following[1])

        def end(name: str, predicted: _Predicted) -> Result:
            return finish(name, self._export(predicted))

        leaving: tuple[str, Future[Result]] | None = None
        try:
            coming = prefetch()
            while coming is not None:
                name, preparing = coming
                tell(name, "coarse" if self._coarse else "preprocess")
                preparing.exception()  # waits; only then is the next case begun
                coming = prefetch()
                done: Future[Result] = Future()
                predicted = None
                try:
                    predicted = self._run(preparing.result(), functools.partial(tell, name))
                except Exception as error:
                    done.set_exception(error)  # which _outcome lets go of the case
                del preparing
                if leaving is not None:
                    yield _outcome(*leaving)
                leaving = name, (behind.submit(end, name, predicted) if predicted else done)
            if leaving is not None:
                tell(leaving[0], "export")
                yield _outcome(*leaving)
        finally:
            # An interrupted run does not wait for what it will not use.
            for pool in (ahead, behind):
                pool.shutdown(wait=False, cancel_futures=True)

    # --- stages -------------------------------------------------------------------------------

    def _prepare(self, image: Any, affine: NDArray[np.float64] | None = None) -> _Prepared:
        """Read a case, find its region, and preprocess what lies in it."""
        seconds: dict[str, float] = {}
        with _timed(seconds, "read"):
            case = _as_case(image, affine)
            if len(case.channels) != self.channels:
                names = ", ".join(self._members[0].folder.channels)
                raise InputError(
                    f"has {len(case.channels)} channels; the networks were trained "
                    f"with {self.channels} ({names})",
                    file=str(case.place),
                )
        frame = Frame(case, self._members[0].folder.canonical)
        channels = [frame.view(channel) for channel in case.channels]
        note = spacing_note(case.place)
        notes = [] if note is None else [note]
        with _timed(seconds, "coarse"):
            roi = self._find_region(channels, frame, case, notes)
        with _timed(seconds, "preprocess"):
            cropped = [channel[roi.box] for channel in channels]
            data: dict[str, Any] = {}
            for model in self._members:
                if model.preprocessing not in data:
                    data[model.preprocessing] = model.preprocess(cropped, frame.spacing)
        return _Prepared(case.place, frame, roi, data, notes, seconds)

    def _find_region(
        self, channels: list[NDArray[Any]], frame: Frame, case: Image, notes: list[str]
    ) -> Roi:
        shape = channels[0].shape
        if self._coarse is None:
            return whole_volume(shape)
        model = self._coarse
        spacing = frame.spacing
        if self.coarse_spacing is not None:
            target = [self.coarse_spacing[axis] for axis in frame.patient_axes]
            channels = [resample_image(channel, spacing, target) for channel in channels]
        else:
            target = list(spacing)
        data, properties = model.preprocess(channels, target)
        with self._turns:
            # Fetched one by one: they are small, the region is found on the host, and the device
            # may run out of memory between two of them.
            logits = sum(
                model.logits(data, index, self._make_room).cpu()
                for index in range(len(model.weights))
            )
        notes += model.take_notes()
        labels = model.predictor.label_manager.convert_logits_to_segmentation(logits)
        geometry = model.geometry(properties)
        organ = np.asarray(labels).transpose(np.argsort(geometry.transpose))
        found = organ > 0 if self.organ is None else np.isin(organ, self.organ)
        # Faces of voxels: the resampled image shares the centre of its first voxel with the image.
        ratio = [new / old for new, old in zip(target, spacing, strict=True)]
        steps = [
            (stop - start) / length * r
            for (start, stop), length, r in zip(geometry.box, organ.shape, ratio, strict=True)
        ]
        starts = [
            (start - 0.5) * r + 0.5 for (start, _), r in zip(geometry.box, ratio, strict=True)
        ]
        margins = [self.roi.margins[axis] for axis in frame.patient_axes]
        roi = find_roi(found, starts, steps, shape, spacing, margins, self.roi)
        if roi is not None:
            return roi
        message = (
            f"{case.place}: the coarse network finds no organ of at least "
            f"{self.roi.minimum_volume:g} ml"
        )
        if self.roi.missing == "error":
            raise InputError(f"{message}; roi.missing='whole' takes all of the image instead")
        notes.append(f"{message}; the members are given all of the image")
        return whole_volume(shape)

    def _run(self, case: _Prepared, tell: Callable[[str], None] = lambda _: None) -> _Predicted:
        """Let every member predict."""
        logits, geometries = MemberLogits(), list[Any]()
        with _timed(case.seconds, "members"):
            for model in self._members:
                data, properties = case.data[model.preprocessing]
                for index in range(len(model.weights)):
                    tell(f"member {len(geometries) + 1} of {self.size}")
                    with self._turns:
                        self._logits.add(logits)
                        logits.append(model.logits(data, index, self._make_room))
                        if not self._exports_on_device:
                            logits.to_host()
                    geometries.append(model.geometry(properties))
                case.notes.extend(model.take_notes())
            logits.to_one_place()
        return _Predicted(
            case.place, case.frame, case.roi, logits, geometries, case.notes, case.seconds
        )

    def _make_room(self) -> bool:
        """Move a case's logits to the host; False if none are on the device. Called in turns."""
        return any(logits.to_host() for logits in list(self._logits))

    def _export(self, case: _Predicted) -> Prediction:
        """Resample, merge, calibrate and paste the members' logits, which are then let go."""
        with _timed(case.seconds, "export"):
            score = np.zeros(case.place.array.shape, np.float32, order="F")
            inside = case.frame.view(score)[case.roi.box]
            roi = case.roi
            with case.logits.taken() as members:
                self._merge(case, members, self.tumour, self.calibrator, inside)
                if self.within is not None:
                    probability = np.empty(inside.shape, np.float32)
                    self._merge(case, members, self.within, None, probability)
                    organ = probability > 0.5
                    roi = near_organ(roi, organ, WITHIN_REACH)
                    if not organ.any():
                        case.notes.append(
                            f"{case.place}: the members find no organ (classes {self.within}); "
                            "the score is 0 everywhere"
                        )
            if roi.inside is not None:
                inside[~roi.inside] = 0
            mask = (score > self.threshold).view(np.uint8)
        place = case.place
        return Prediction(
            score=Volume(score, place.affine, place.path, place.header),
            mask=Volume(mask, place.affine, place.path, place.header),
            # nnU-Net crops what is 0 at the rim of an image before its networks see it.
            roi=case.frame.back(narrowed(roi, case.geometries[0].box)),
            notes=tuple(case.notes),
            seconds=case.seconds,
        )

    def _merge(
        self,
        case: _Predicted,
        members: list[Any],
        channels: Sequence[int],
        calibrator: Any,
        out: NDArray[np.float32],
    ) -> None:
        """Write the merged probability of channels in the region, by the device if they are there.

        If it cannot, `members` are moved to the host.
        """
        how: dict[str, Any] = {
            "tumour": channels,
            "average": self.average,
            "calibrator": calibrator,
            "regions": self.regions,
            "resampling": self._members[0].resampling,
            "force_separate_z": self._members[0].force_separate_z,
        }
        if device_kind(members[0]) is not None:
            try:
                # Complete on the device whatever streams this thread and theirs work on:
                # Model.logits promises it, and export_score waits for its own.
                out[...] = export_score(members, case.geometries, **how).cpu().numpy()
                return
            except (MemoryError, RuntimeError) as error:
                # A RuntimeError is CUDA's; one from which the device does not recover is
                # raised again by what comes next.
                case.notes.append(f"{self.device} cannot export this case, the CPU does ({error})")
            move_to_host(members)
        export_score(members, case.geometries, out=out, **how)


# --- what is handed from stage to stage -------------------------------------------------------


@dataclass(eq=False)
class _Prepared:
    place: Volume
    frame: Frame
    roi: Roi  # in the frame
    data: dict[str, Any]  # tensor and properties by Model.preprocessing
    notes: list[str]
    seconds: dict[str, float]


@dataclass(eq=False)
class _Predicted:
    place: Volume
    frame: Frame
    roi: Roi
    logits: MemberLogits
    geometries: list[Any]
    notes: list[str]
    seconds: dict[str, float] = field(default_factory=dict)


class _timed:  # noqa: N801 - used like a function
    def __init__(self, seconds: dict[str, float], stage: str) -> None:
        self._seconds, self._stage = seconds, stage

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self._seconds[self._stage] = time.perf_counter() - self._start


def _outcome(name: str, result: Future[Any]) -> tuple[str, Any]:
    """Wait for a result; an exception of the thread is one, too.

    Whoever keeps it does not keep what its frames hold: images, and logits on the device.
    """
    try:
        return name, result.result()
    except Exception as error:
        held: BaseException | None = error
        while held is not None:
            traceback.clear_frames(held.__traceback__)
            held = held.__cause__ or held.__context__
        return name, error


def _as_case(image: Any, affine: NDArray[np.float64] | None) -> Image:
    if callable(image):
        image = image()
    if isinstance(image, Image):
        return image
    if isinstance(image, (str, os.PathLike)):
        return read_image(image)
    if isinstance(image, Sequence) and all(isinstance(x, (str, os.PathLike)) for x in image):
        return read_image(image)
    return as_image(image, affine)
