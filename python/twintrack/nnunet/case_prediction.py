"""One case on its way through the networks: region and data, members, fused export."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from twintrack.arrays.libraries import device_kind
from twintrack.calibration.volume_interval import VolumeInterval
from twintrack.ensemble import export_score
from twintrack.errors import InputError
from twintrack.nnunet.images import Image, resample_image, spacing_note
from twintrack.nnunet.member_logits import MemberLogits, move_to_host
from twintrack.nnunet.network_axes import NetworkAxes
from twintrack.nnunet.roi import Roi, find_roi, narrowed, near_organ, whole_volume
from twintrack.runs.volume_table import PredictedVolume
from twintrack.volumes import Volume

if TYPE_CHECKING:
    from twintrack.nnunet.networks import Networks
    from twintrack.nnunet.pipeline import Pipeline

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
    predicted_volume : float
        Sum of the score, in voxels.
    interval : VolumeInterval or None
        Of the volume that raters mark on average, in voxels, with the probability of the
        calibrator's band; None where it has none.
    """

    score: Volume
    mask: Volume
    roi: Roi
    notes: tuple[str, ...]
    seconds: Mapping[str, float]
    predicted_volume: float
    interval: VolumeInterval | None

    def roi_mask(self) -> NDArray[np.uint8]:
        """Return the region as a mask of 0 and 1, of the image's shape."""
        mask = np.zeros(self.score.array.shape, np.uint8, order="F")
        mask[self.roi.box] = 1 if self.roi.inside is None else self.roi.inside
        return mask


class CasePrediction:
    """The prediction of one case; `run_members` and `export` are called in turn.

    Making one reads the image, finds the region and preprocesses what lies in it.

    Parameters
    ----------
    pipeline
        Whose rules hold.
    read
        Returns the image.
    tell
        Called with a stage, such as "member 2 of 3", when it begins.

    Attributes
    ----------
    notes
        What the user should know, so far.
    result
        What is recorded of the case: its notes and, once it is exported, its volume.
    voxels
        Of the image.

    Raises
    ------
    OSError, InputError
        The image cannot be read, has another number of channels than the networks were trained
        with, or is 0 everywhere; or no organ was found and ``roi.missing`` is "error".
    MemoryError
        A patch of the coarse network does not fit on the device.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        read: Callable[[], Image],
        tell: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._pipeline = pipeline
        self._networks: Networks = pipeline.networks
        self._tell = tell
        self._seconds: dict[str, float] = {}
        with self._stage("read"):
            image = read()
        folder = pipeline.members[0]
        if len(image.channels) != len(folder.channels):
            raise InputError(
                f"has {len(image.channels)} channels; the networks were trained "
                f"with {len(folder.channels)} ({', '.join(folder.channels)})",
                file=str(image.place),
            )
        self._place = image.place
        self.voxels: int = image.place.array.size
        self._axes = NetworkAxes(image, folder.canonical)
        note = spacing_note(image.place)
        self.notes: list[str] = [] if note is None else [note]
        self.result: dict[str, Any] = {"notes": self.notes}
        channels = [self._axes.view(channel) for channel in image.channels]
        with self._stage("coarse"):
            self._roi = self._find_region(channels)
        with self._stage("preprocess"):
            cropped = [channel[self._roi.box] for channel in channels]
            self._data: dict[str, Any] = {}
            for model in self._networks.members:
                if model.preprocessing not in self._data:
                    made = model.preprocess(cropped, self._axes.spacing)
                    self._data[model.preprocessing] = made
        self._logits = MemberLogits()
        self._geometries: list[Any] = []

    def run_members(self) -> None:
        """Let every member predict.

        Raises
        ------
        MemoryError
            A patch does not fit on the device.
        """
        with self._stage("members"):
            size = self._pipeline.size
            for model in self._networks.members:
                data, properties = self._data[model.preprocessing]
                for index in range(model.size):
                    self._tell(f"member {len(self._geometries) + 1} of {size}")
                    self._networks.add_logits(self._logits, model, data, index)
                    self._geometries.append(model.geometry(properties))
                self.notes += model.take_notes()
            self._logits.to_one_place()
        self._data.clear()

    def export(self) -> Prediction:
        """Resample, merge, calibrate and paste the members' logits, which are then let go."""
        with self._stage("export"):
            pipeline, roi, place = self._pipeline, self._roi, self._place
            score = np.zeros(place.array.shape, np.float32, order="F")
            inside = self._axes.view(score)[roi.box]
            with self._logits.taken() as members:
                self._merge(members, pipeline.tumour, pipeline.calibrator, inside)
                if pipeline.within is not None:
                    probability = np.empty(inside.shape, np.float32)
                    self._merge(members, pipeline.within, None, probability)
                    organ = probability > 0.5
                    roi = near_organ(roi, organ, WITHIN_REACH)
                    if not organ.any():
                        self.notes.append(
                            f"{place}: the members find no organ (classes {pipeline.within}); "
                            "the score is 0 everywhere"
                        )
            if roi.inside is not None:
                inside[~roi.inside] = 0
            mask = (score > pipeline.threshold).view(np.uint8)
            predicted = PredictedVolume()
            predicted.add(score)
        self.result.update(predicted.record(place.voxel_volume))
        interval, band = None, getattr(pipeline.calibrator, "band_", None)  # a bare map has none
        if band is not None and band.volumes is not None:
            interval = band.volumes.interval(predicted.voxels, band.level)
        return Prediction(
            score=Volume(score, place.affine, place.path, place.header),
            mask=Volume(mask, place.affine, place.path, place.header),
            # nnU-Net crops what is 0 at the rim of an image before its networks see it.
            roi=self._axes.back(narrowed(roi, self._geometries[0].box)),
            notes=tuple(self.notes),
            seconds=self._seconds,
            predicted_volume=predicted.voxels,
            interval=interval,
        )

    def _find_region(self, channels: list[NDArray[Any]]) -> Roi:
        shape, spacing = channels[0].shape, self._axes.spacing
        model, pipeline = self._networks.coarse, self._pipeline
        if model is None:
            return whole_volume(shape)
        target = list(spacing)
        if pipeline.coarse_spacing is not None:
            target = [pipeline.coarse_spacing[axis] for axis in self._axes.patient_axes]
            channels = [resample_image(channel, spacing, target) for channel in channels]
        data, properties = model.preprocess(channels, target)
        logits = self._networks.sum_of_logits(model, data)
        self.notes += model.take_notes()
        labels = model.predictor.label_manager.convert_logits_to_segmentation(logits)
        geometry = model.geometry(properties)
        organ = np.asarray(labels).transpose(np.argsort(geometry.transpose))
        found = organ > 0 if pipeline.organ is None else np.isin(organ, pipeline.organ)
        # Faces of voxels: the resampled image shares the centre of its first voxel with the image.
        ratio = [new / old for new, old in zip(target, spacing, strict=True)]
        steps = [
            (stop - start) / length * r
            for (start, stop), length, r in zip(geometry.box, organ.shape, ratio, strict=True)
        ]
        starts = [
            (start - 0.5) * r + 0.5 for (start, _), r in zip(geometry.box, ratio, strict=True)
        ]
        rule = pipeline.roi
        margins = [rule.margins[axis] for axis in self._axes.patient_axes]
        roi = find_roi(found, starts, steps, shape, spacing, margins, rule)
        if roi is not None:
            return roi
        wrong = f"the coarse network finds no organ of at least {rule.minimum_volume:g} ml"
        if rule.missing == "error":
            raise InputError(
                wrong,
                file=str(self._place),
                advice="roi.missing='whole' takes all of the image instead",
            )
        self.notes.append(f"{self._place}: {wrong}; the members are given all of the image")
        return whole_volume(shape)

    def _merge(
        self,
        members: list[Any],
        channels: Sequence[int],
        calibrator: Any,
        out: NDArray[np.float32],
    ) -> None:
        """Write the merged probability of channels in the region, by the device if they are there.

        If it cannot, `members` are moved to the host.
        """
        first = self._networks.members[0]
        how: dict[str, Any] = {
            "tumour": channels,
            "average": self._pipeline.average,
            "calibrator": calibrator,
            "regions": self._pipeline.regions,
            "resampling": first.resampling,
            "force_separate_z": first.force_separate_z,
        }
        if device_kind(members[0]) is not None:
            try:
                # Complete on the device whatever streams this thread and theirs work on:
                # Model.logits promises it, and export_score waits for its own.
                out[...] = export_score(members, self._geometries, **how).cpu().numpy()
                return
            except (MemoryError, RuntimeError) as error:
                # A RuntimeError is CUDA's; one from which the device does not recover is
                # raised again by what comes next.
                device = self._networks.device
                self.notes.append(f"{device} cannot export this case, the CPU does ({error})")
            move_to_host(members)
        export_score(members, self._geometries, out=out, **how)

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        """Tell of a stage that the case waits for, and take its time."""
        if name != "members":  # which are told one by one
            self._tell(name)
        start = time.perf_counter()
        yield
        self._seconds[name] = time.perf_counter() - start
