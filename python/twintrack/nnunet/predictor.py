"""nnU-Net's predictor, changed where it moves results and decides what a lack of memory means.

Imported when networks are loaded: it needs nnunetv2 and torch.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from nnunetv2.configuration import default_num_processes
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch._dynamo import OptimizedModule

from twintrack.nnunet.patches import Patches


class _DeviceFull(Exception):  # noqa: N818 - never leaves the class below
    """The device's memory; no RuntimeError, all of which nnU-Net takes for a lack of memory."""


class Predictor(nnUNetPredictor):  # type: ignore[misc]
    """One fold's logits, where they were added up; and who decides what a lack of memory means.

    nnU-Net moves every result to the CPU and, if the device is full, tries each image there again.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.perform_everything_on_device: bool
        self.notes: list[str] = []

    def logits(self, parameters: Any, data: Any) -> Any:
        """As predict_logits_from_preprocessed_data does it for one fold.

        Raises torch.cuda.OutOfMemoryError.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(min(default_num_processes, threads))
        try:
            with torch.inference_mode(), _on_default_stream(self.device):
                network = self.network
                if isinstance(network, OptimizedModule):
                    network = network._orig_mod
                network.load_state_dict(parameters)
                found = self.predict_sliding_window_return_logits(data)
                if self.device.type == "cuda":
                    # Current streams are a thread's own, and another one exports. nnU-Net has
                    # looked at the result for infinities and so has waited; this makes it ours to
                    # promise.
                    torch.cuda.current_stream(self.device).synchronize()
                return found
        except _DeviceFull as error:
            raise torch.cuda.OutOfMemoryError(str(error)) from error
        finally:
            torch.set_num_threads(threads)

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
            raise _DeviceFull(str(error)) from error
        finally:
            patches.stop()
        if patches.failed:
            raise _DeviceFull("a patch could not be copied")
        return found


def _on_default_stream(device: Any) -> contextlib.AbstractContextManager[Any]:
    """Make the device's default stream the current one.

    nnU-Net cuts its patches in a thread of its own, whose current stream is that one: on another,
    the network could read a patch before it is there.
    """
    if device.type != "cuda":
        return contextlib.nullcontext()
    stream: contextlib.AbstractContextManager[Any] = torch.cuda.stream(
        torch.cuda.default_stream(device)
    )
    return stream
