"""Trained nnU-Net folders: what they are, checked before they are loaded, and their logits."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from twintrack.ensemble import ANISOTROPY_LIMIT, ExportGeometry
from twintrack.errors import InputError
from twintrack.files import natural_order, read_record
from twintrack.nnunet.patches import Patches
from twintrack.runs.stamps import read_stamp
from twintrack.volumes.nnunet_files import READERS

_RESAMPLING: dict[str, Literal["nnunet", "torch"]] = {
    "resample_data_or_seg_to_shape": "nnunet",
    "resample_torch_fornnunet": "torch",
}
_USUAL: dict[str, dict[str, Any]] = {
    "resample_data_or_seg_to_shape": {"is_seg": False, "order": 1, "order_z": 0},
    "resample_torch_fornnunet": {
        "is_seg": False,
        "mode": "linear",
        "aniso_axis_mode": "nearest-exact",
    },
}


@dataclass(frozen=True)
class Folder:
    """A trained model's folder, read without torch.

    Attributes
    ----------
    path
        The folder with ``dataset.json``, ``plans.json`` and ``fold_*``.
    folds
        Its folds that are used: numbers, or "all".
    checkpoint
        File name in each fold.
    labels, channels
        Of ``dataset.json``; of the channels the names.
    regions
        Whether labels are regions that may overlap (nnU-Net's region-based training).
    outputs
        Names of the channels that a network returns: classes from background on, or regions.
    canonical
        Whether images are turned to RAS before the network sees them.
    """

    path: Path
    folds: tuple[int | str, ...]
    checkpoint: str
    labels: Mapping[str, Any]
    channels: tuple[str, ...]
    regions: bool
    outputs: tuple[str, ...]
    canonical: bool


def inspect_folder(
    path: str | os.PathLike[str],
    folds: Sequence[int | str] | None = None,
    checkpoint: str = "checkpoint_final.pth",
) -> Folder:
    """Check that a folder holds a trained model and say what it is.

    Parameters
    ----------
    path
        nnU-Net's ``DatasetNNN_NAME/TRAINER__PLANS__CONFIGURATION``.
    folds
        Folds to use; by default every numbered one with the checkpoint, or else ``fold_all``.
    checkpoint
        File name of the weights.

    Raises
    ------
    FileNotFoundError
        The folder, a JSON file of it, a fold or the checkpoint does not exist.
    ValueError
        A JSON file is broken or lacks what is needed, images are read in an unknown way, or `folds`
        is no sequence.
    """
    if isinstance(folds, (str, int)):
        raise InputError(f"it is a sequence, such as [{folds!r}]", argument="folds", value=folds)
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(2, "no such folder; a trained nnU-Net model is needed", str(path))
    dataset, plans = (_read_json(path / name) for name in ("dataset.json", "plans.json"))
    labels = _entry(dataset, "labels", path / "dataset.json")
    # Older data sets say "modality", which nnU-Net prefers where both are there.
    key = "modality" if "modality" in dataset else "channel_names"
    channels = _entry(dataset, key, path / "dataset.json")
    reader = plans.get("image_reader_writer", "SimpleITKIO")
    if not isinstance(reader, str) or reader not in READERS:
        raise InputError(
            f"images are read by {reader!r}; supported are {', '.join(READERS)}",
            file=path / "plans.json",
        )
    regions = any(isinstance(label, list) and len(label) > 1 for label in labels.values())
    return Folder(
        path=path,
        folds=_folds(path, folds, checkpoint),
        checkpoint=checkpoint,
        labels=labels,
        channels=tuple(str(channels[number]) for number in sorted(channels, key=natural_order)),
        regions=regions,
        outputs=_outputs(labels, regions, path / "dataset.json"),
        canonical=READERS[reader],
    )


@dataclass(eq=False)
class Model:
    """A loaded folder.

    Attributes
    ----------
    folder
        What it was loaded from.
    predictor
        nnU-Net's own.
    weights
        Of each fold.
    digests
        Digest of every file that it was loaded from, by its path in the folder.
    resampling, force_separate_z
        How its logits go to the image's grid, as `twintrack.export_score` takes it.
    """

    folder: Folder
    predictor: Any
    weights: list[Any]
    digests: Mapping[str, str]
    resampling: Literal["nnunet", "torch"]
    force_separate_z: bool | None

    @property
    def preprocessing(self) -> str:
        """Everything that decides what the network gets of an image; equal text, equal data."""
        plans, configuration = self.predictor.plans_manager, self.predictor.configuration_manager
        keys = ("preprocessor_name", "spacing", "normalization_schemes", "use_mask_for_norm")
        return json.dumps(
            [
                {key: configuration.configuration.get(key) for key in keys},
                {
                    key: value
                    for key, value in configuration.configuration.items()
                    if key.startswith("resampling_fn_data")
                },
                plans.foreground_intensity_properties_per_channel,
                list(plans.transpose_forward),
            ],
            sort_keys=True,
        )

    @property
    def spacing(self) -> tuple[float, ...]:
        """The network's voxel size in mm, in the plans' order of axes."""
        return tuple(self.predictor.configuration_manager.spacing)

    def preprocess(
        self, channels: Sequence[NDArray[Any]], spacing: Sequence[float]
    ) -> tuple[Any, dict[str, Any]]:
        """Return the tensor that the network gets, and nnU-Net's properties of the case.

        `channels` are arrays (z, y, x), `spacing` is in the same order.
        """
        import torch

        plans, configuration = self.predictor.plans_manager, self.predictor.configuration_manager
        data = np.stack([np.asarray(channel, np.float32) for channel in channels])
        if not data.any():
            raise InputError("the image is 0 everywhere; there is nothing to segment")
        properties: dict[str, Any] = {"spacing": [float(value) for value in spacing]}
        preprocessor = configuration.preprocessor_class(verbose=False)
        data, _, properties = preprocessor.run_case_npy(
            data, None, properties, plans, configuration, self.predictor.dataset_json
        )
        return torch.from_numpy(np.ascontiguousarray(data, np.float32)), properties

    def geometry(self, properties: Mapping[str, Any]) -> ExportGeometry:
        """Return where the logits lie in the image that was preprocessed."""
        return ExportGeometry.from_nnunet(
            properties, self.spacing, self.predictor.plans_manager.transpose_forward
        )

    def take_notes(self) -> list[str]:
        """Return what the user should know of the predictions since the last call."""
        notes: list[str] = self.predictor.notes
        self.predictor.notes = []
        return notes

    def logits(self, data: Any, index: int, make_room: Callable[[], bool] = lambda: False) -> Any:
        """Return the logits (C, *grid) of fold number `index` of this model.

        They lie where the sliding window added them up, the device or the CPU, and are complete:
        any thread may read them on any stream.

        Parameters
        ----------
        data
            Of `preprocess`.
        index
            Of the fold.
        make_room
            Called when the device has no memory left; True if it has freed some, so that another
            try may succeed. If not, results are added up on the CPU from then on, with a note.

        Raises
        ------
        MemoryError
            The device has no room for a patch.
        """
        import torch

        predictor = self.predictor
        while True:
            try:
                with _on_default_stream(predictor.device):
                    return predictor.logits(self.weights[index], data)
            except torch.cuda.OutOfMemoryError as error:
                if not make_room() and not predictor.fall_back(data):
                    patch = tuple(predictor.configuration_manager.patch_size)
                    raise MemoryError(
                        f"{self.folder.path}: a patch of {patch} voxels does not fit on "
                        f"{predictor.device} even with the results on the CPU; free the device or "
                        "use -device cpu"
                    ) from error
            # Tried again out here: the exception holds what the attempt had on the device.


def load_model(
    folder: Folder, device: Any, *, step: float, mirroring: bool, on_device: bool
) -> Model:
    """Load a folder's networks with nnU-Net's own classes.

    Parameters
    ----------
    folder
        Of `inspect_folder`.
    device : torch.device
        Where the networks run.
    step
        Step of the sliding window in patches (nnU-Net's ``tile_step_size``).
    mirroring
        Average over mirrored images, along the axes that the training allows.
    on_device
        Add up the sliding window's results on the device.

    Raises
    ------
    ValueError
        A checkpoint is corrupt or does not belong to the plans, its trainer is not found, the model
        is the second stage of a cascade, its resampling is not one that can be fused, or the plans
        lack what nnU-Net needs to preprocess an image.
    """
    names = [f"fold_{fold}/{folder.checkpoint}" for fold in folder.folds]
    # By content: a copied folder is the same, one that was trained again is not.
    digests = {
        name: read_stamp(folder.path / name).digest
        for name in ("dataset.json", "plans.json", *names)
    }
    with own_trainers(), _quietly(), warnings.catch_warnings():
        expect_import_warning()
        predictor = _predictor_class()(
            tile_step_size=step,
            use_gaussian=True,
            use_mirroring=mirroring,
            perform_everything_on_device=on_device and device.type == "cuda",
            device=device,
            verbose=False,
            verbose_preprocessing=False,
            allow_tqdm=False,
        )
        try:
            predictor.initialize_from_trained_model_folder(
                str(folder.path), folder.folds, folder.checkpoint
            )
        except Exception as error:
            raise InputError(
                f"the model cannot be loaded: {type(error).__name__}: {error}", file=folder.path
            ) from error
    weights = list(predictor.list_of_parameters)
    configuration = predictor.configuration_manager
    if configuration.previous_stage_name is not None:
        raise InputError(
            "the second stage of a cascade, which needs the first one's "
            "segmentation; use 3d_fullres or 3d_lowres",
            file=folder.path,
        )
    try:
        _ = predictor.plans_manager.foreground_intensity_properties_per_channel
    except KeyError as error:
        raise InputError(
            f"has no {error}, without which nnU-Net preprocesses no "
            "image; take the plans that the model was trained with",
            file=folder.path / "plans.json",
        ) from error
    return Model(folder, predictor, weights, digests, *_resampling(folder.path, configuration))


def _resampling(path: Path, configuration: Any) -> tuple[Literal["nnunet", "torch"], bool | None]:
    """Return which function takes logits to the image's grid, and its ``force_separate_z``."""
    name, keywords = (
        configuration.configuration.get(f"resampling_fn_probabilities{end}")
        for end in ("", "_kwargs")
    )
    if name in _RESAMPLING and isinstance(keywords, dict):
        try:
            # With the defaults of nnU-Net's own functions, which differ between the two.
            resampling = inspect.signature(configuration.resampling_fn_probabilities)
            given = {key: value.default for key, value in resampling.parameters.items()}
        except ValueError:  # an argument that it does not take
            given = {}
        force = given.get("force_separate_z")
        usual = _USUAL[name].items() <= given.items() and (
            # Only where it is not forced does the threshold decide.
            force is not None or given.get("separate_z_anisotropy_threshold") == ANISOTROPY_LIMIT
        )
        if usual and (force is None or isinstance(force, bool)):
            return _RESAMPLING[name], force
    raise InputError(
        f"probabilities are resampled by {name} with {keywords}; supported "
        "are resample_data_or_seg_to_shape with order 1 and order_z 0, and "
        "resample_torch_fornnunet with its default modes, both with a "
        f"separate_z_anisotropy_threshold of {ANISOTROPY_LIMIT:g}",
        file=path / "plans.json",
    )


_EXTERNAL = "nnUNet_extTrainer"


@contextlib.contextmanager
def own_trainers() -> Iterator[None]:
    """Let nnU-Net find this package's trainers too, after those of ``nnUNet_extTrainer``."""
    before = os.environ.get(_EXTERNAL)
    own = str(Path(__file__).parent / "trainers")
    os.environ[_EXTERNAL] = own if not before else os.pathsep.join([before, own])
    try:
        yield
    finally:
        if before is None:
            del os.environ[_EXTERNAL]
        else:
            os.environ[_EXTERNAL] = before


def expect_import_warning() -> None:
    """Ignore the one warning that comes of nnU-Net's search for a trainer, and no other.

    It imports every trainer that it has until it finds the one of that name, and so timm, which
    uses a part of torch that torch 2.15 calls deprecated.
    """
    warnings.filterwarnings("ignore", r"`torch\.jit\.interface` is deprecated", FutureWarning)


def _predictor_class() -> Any:
    import torch
    from nnunetv2.configuration import default_num_processes
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from torch._dynamo import OptimizedModule

    class DeviceFull(Exception):  # noqa: N818 - never leaves the class below
        """The device's memory; no RuntimeError, all of which nnU-Net takes for a lack of memory."""

    class Predictor(nnUNetPredictor):  # type: ignore[misc]
        """One fold's logits, where they were added up; and who decides what a lack of memory means.

        nnU-Net moves every result to the CPU and, if the device is full, tries each image there
        again.
        """

        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.perform_everything_on_device: bool
            self.notes: list[str] = []

        def logits(self, parameters: Any, data: Any) -> Any:
            """As predict_logits_from_preprocessed_data does it for one fold.

            Raises torch.cuda.OutOfMemoryError.
            """
            network = self.network
            if isinstance(network, OptimizedModule):
                network = network._orig_mod
            network.load_state_dict(parameters)
            threads = torch.get_num_threads()
            torch.set_num_threads(min(default_num_processes, threads))
            try:
                with torch.inference_mode():
                    found = self.predict_sliding_window_return_logits(data)
            except DeviceFull as error:
                raise torch.cuda.OutOfMemoryError(str(error)) from error
            finally:
                torch.set_num_threads(threads)
            if self.device.type == "cuda":
                # Current streams are a thread's own, and another one exports. nnU-Net has looked
                # at the result for infinities and so has waited; this makes it ours to promise.
                torch.cuda.current_stream(self.device).synchronize()
            return found

        def fall_back(self, data: Any) -> bool:
            """Add up on the CPU for good, and say so; False if that is so already."""
            if not self.perform_everything_on_device:
                return False
            self.perform_everything_on_device = False
            self.notes.append(
                f"{self.device} has too little memory to add up the predictions of an image of "
                f"{tuple(data.shape[1:])} voxels; they are added up on the CPU from now on"
            )
            return True

        def _internal_predict_sliding_window_return_logits(
            self, data: Any, slicers: Any, do_on_device: bool = True
        ) -> Any:
            run = super()._internal_predict_sliding_window_return_logits
            patches = Patches(slicers)
            try:
                found = run(data, patches, do_on_device)
            except torch.cuda.OutOfMemoryError as error:
                raise DeviceFull(str(error)) from error
            finally:
                patches.stop()
            if patches.failed:
                raise DeviceFull("a patch could not be copied")
            return found

    return Predictor


def _on_default_stream(device: Any) -> contextlib.AbstractContextManager[Any]:
    """Make the device's default stream the current one.

    nnU-Net cuts its patches in a thread of its own, whose current stream is that one: on another,
    the network could read a patch before it is there.
    """
    if device.type != "cuda":
        return contextlib.nullcontext()
    import torch

    stream: contextlib.AbstractContextManager[Any] = torch.cuda.stream(
        torch.cuda.default_stream(device)
    )
    return stream


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep nnU-Net's remarks from standard output, which is for results."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(
            2,
            "missing; a trained nnU-Net model (…/TRAINER__PLANS__CONFIGURATION) holds "
            "dataset.json, plans.json and fold_*",
            str(path),
        )
    content: dict[str, Any] = read_record(path, dict)
    return content


def _entry(content: Mapping[str, Any], key: str, path: Path) -> Mapping[str, Any]:
    value = content.get(key)
    if not isinstance(value, dict) or not value:
        raise InputError(f"{key!r} is {value!r}; it must be an object with entries", file=path)
    return value


def _outputs(labels: Mapping[str, Any], regions: bool, path: Path) -> tuple[str, ...]:
    """Return the names of what a network tells apart, in the order of its channels."""
    try:
        values = {
            name: {int(value) for value in (label if isinstance(label, list) else [label])}
            for name, label in labels.items()
            if name != "ignore"
        }
    except (TypeError, ValueError) as error:
        raise InputError(
            f"'labels' is {labels!r}; a label is a whole number or a list of them", file=path
        ) from error
    if regions:  # in the order of the file; the background has no channel
        return tuple(name for name, value in values.items() if value != {0})
    classes = {value: name for name, several in values.items() for value in several}
    return tuple(classes[value] for value in sorted(classes))


def _folds(path: Path, folds: Sequence[int | str] | None, checkpoint: str) -> tuple[int | str, ...]:
    if folds is None:
        numbered = [
            int(match[1])
            for entry in path.iterdir()
            if (match := re.fullmatch(r"fold_(\d+)", entry.name)) and (entry / checkpoint).is_file()
        ]
        found: list[int | str] = [*sorted(numbered)]
        if not found and (path / "fold_all" / checkpoint).is_file():
            found = ["all"]
        if not found:
            there = sorted(entry.name for entry in path.glob("fold_*/*.pth"))
            hint = f"there are {', '.join(dict.fromkeys(there))} (-chk)" if there else "none at all"
            raise FileNotFoundError(2, f"no fold has {checkpoint}: {hint}", str(path))
        return tuple(found)
    if not folds:
        raise InputError("folds is empty; name at least one, or none to use all that there are")
    for fold in folds:
        weights = path / f"fold_{fold}" / checkpoint
        if not weights.is_file():
            raise FileNotFoundError(2, "no such checkpoint; train the fold first", str(weights))
    return tuple(folds)
