"""The networks of a trained folder: loaded by nnU-Net's own classes, and what they make of a case.

What imports nnunetv2 and torch is imported when it is used.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from twintrack.ensemble import ANISOTROPY_LIMIT, ExportGeometry
from twintrack.errors import InputError
from twintrack.nnunet.trained_folder import TrainedFolder
from twintrack.nnunet.trainer_search import quiet_search

_RESAMPLING: dict[str, Literal["nnunet", "torch"]] = {
    "resample_data_or_seg_to_shape": "nnunet",
    "resample_torch_fornnunet": "torch",
}
_USUAL: dict[str, dict[str, Any]] = {
    "nnunet": {"is_seg": False, "order": 1, "order_z": 0},
    "torch": {"is_seg": False, "mode": "linear", "aniso_axis_mode": "nearest-exact"},
}


class DeviceMemoryError(MemoryError):
    """A device has no room for a patch; says what to do."""


@dataclass(eq=False)
class Model:
    """A loaded folder.

    Attributes
    ----------
    folder
        What it was loaded from.
    predictor
        nnU-Net's own.
    resampling, force_separate_z
        How its logits go to the image's grid, as `twintrack.export_score` takes it.
    """

    folder: TrainedFolder
    predictor: Any
    resampling: Literal["nnunet", "torch"]
    force_separate_z: bool | None

    @property
    def size(self) -> int:
        """Number of folds."""
        return len(self.folder.folds)

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
        spacing = tuple(self.predictor.configuration_manager.spacing)
        order = self.predictor.plans_manager.transpose_forward
        return ExportGeometry.from_nnunet(properties, spacing, order)

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
        DeviceMemoryError
            The device has no room for a patch.
        """
        import torch

        predictor = self.predictor
        while True:
            try:
                return predictor.logits(predictor.list_of_parameters[index], data)
            except torch.cuda.OutOfMemoryError as error:
                if not make_room() and not predictor.fall_back(data):
                    patch = tuple(predictor.configuration_manager.patch_size)
                    raise DeviceMemoryError(
                        f"{self.folder.path}: a patch of {patch} voxels does not fit on "
                        f"{predictor.device} even with the results on the CPU; free the device or "
                        "use -device cpu"
                    ) from error
            # Tried again out here: the exception holds what the attempt had on the device.


def load_model(
    folder: TrainedFolder, device: Any, *, step: float, mirroring: bool, on_device: bool
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
    InputError
        A checkpoint is corrupt or does not belong to the plans, its trainer is not found, the model
        is the second stage of a cascade, its resampling is not one that can be fused, or the plans
        lack what nnU-Net needs to preprocess an image.
    """
    with quiet_search():
        from twintrack.nnunet.predictor import Predictor

        predictor = Predictor(
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
    predictor.list_of_parameters = list(predictor.list_of_parameters)
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
    return Model(folder, predictor, *_resampling(folder, configuration))


def _resampling(
    folder: TrainedFolder, configuration: Any
) -> tuple[Literal["nnunet", "torch"], bool | None]:
    """Return which function takes logits to the image's grid, and its ``force_separate_z``."""
    name, keywords = (
        configuration.configuration.get(f"resampling_fn_probabilities{end}")
        for end in ("", "_kwargs")
    )
    if name in _RESAMPLING and isinstance(keywords, dict):
        kind = _RESAMPLING[name]
        try:
            # With the defaults of nnU-Net's own functions, which differ between the two.
            resampling = inspect.signature(configuration.resampling_fn_probabilities)
            given = {key: value.default for key, value in resampling.parameters.items()}
        except ValueError:  # an argument that it does not take
            given = {}
        force = given.get("force_separate_z")
        usual = _USUAL[kind].items() <= given.items() and (
            # Only where it is not forced does the threshold decide.
            force is not None or given.get("separate_z_anisotropy_threshold") == ANISOTROPY_LIMIT
        )
        if usual and (force is None or isinstance(force, bool)):
            return kind, force
    raise InputError(
        f"probabilities are resampled by {name} with {keywords}; supported "
        "are resample_data_or_seg_to_shape with order 1 and order_z 0, and "
        "resample_torch_fornnunet with its default modes, both with a "
        f"separate_z_anisotropy_threshold of {ANISOTROPY_LIMIT:g}",
        file=folder.path / "plans.json",
    )
