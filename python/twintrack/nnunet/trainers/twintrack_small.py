"""A trainer for small networks on a CPU, found by nnU-Net through ``nnUNet_extTrainer``."""

from __future__ import annotations

import os
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class TwinTrackSmallTrainer(nnUNetTrainer):  # type: ignore[misc]
    """Few iterations, no mirroring (also when predicting), no final validation.

    ``TWINTRACK_EPOCHS`` and ``TWINTRACK_ITERATIONS`` (of each epoch) set the length.
    """

    # nnU-Net looks up the names of the arguments: they must be these.
    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device,
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = int(os.environ.get("TWINTRACK_EPOCHS", "4"))
        self.num_iterations_per_epoch = int(os.environ.get("TWINTRACK_ITERATIONS", "25"))
        self.num_val_iterations_per_epoch = 1
        # Small batches of rare classes: with a third, many batches would show no tumour.
        self.oversample_foreground_percent = 0.67

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> Any:  # noqa: N802
        """Switch mirroring off, which makes prediction eight times as long."""
        rotation, dummy, patch, _ = (
            super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        self.inference_allowed_mirroring_axes = None
        return rotation, dummy, patch, None

    def plot_network_architecture(self) -> None:
        """Draw nothing."""

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Do nothing: it predicts every training case."""
