"""A trainer for small networks on a CPU, found by nnU-Net through ``nnUNet_extTrainer``."""

from __future__ import annotations

import os
from typing import Any

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

# In the cross-entropy, beside 1 for every other class.
TUMOUR_WEIGHT = 20.0


class TwinTrackSmallTrainer(nnUNetTrainer):  # type: ignore[misc]
    """A network that learns something in a few hundred steps on two CPU cores.

    AdamW takes the place of nnU-Net's gradient descent, whose momentum of 0.99 needs thousands of
    steps; augmentation, which would take longer than the network, mirroring (also when predicting)
    and the final validation are left out. ``TWINTRACK_EPOCHS`` and ``TWINTRACK_ITERATIONS`` (of
    each epoch) set the length.
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
        self.num_epochs: int = int(os.environ.get("TWINTRACK_EPOCHS", "4"))
        self.num_iterations_per_epoch: int = int(os.environ.get("TWINTRACK_ITERATIONS", "25"))
        self.num_val_iterations_per_epoch = 1
        self.initial_lr: float = 3e-3
        # Small batches of rare classes: with nnU-Net's third, many would show no tumour.
        self.oversample_foreground_percent: float = 0.67

    def _build_loss(self) -> Any:
        """Let the first class, the tumour, weigh more than the others in the cross-entropy.

        So early in a training a network that calls no voxel tumour is hard to improve by small
        steps: without, some seeds never leave it.
        """
        loss = super()._build_loss()
        terms = getattr(loss, "loss", loss)  # without the wrapper of deep supervision
        if hasattr(terms, "ce"):  # regions are trained one by one, with another term
            weights = torch.ones(self.label_manager.num_segmentation_heads, device=self.device)
            weights[1] = TUMOUR_WEIGHT
            terms.ce.weight = weights
        return loss

    def configure_optimizers(self) -> Any:
        """Use AdamW, with nnU-Net's decay of the learning rate."""
        optimizer = torch.optim.AdamW(
            self.network.parameters(), self.initial_lr, weight_decay=self.weight_decay
        )
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> Any:  # noqa: N802
        """Switch mirroring off, which makes prediction eight times as long, and rotation."""
        rotation, dummy, _, _ = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        self.inference_allowed_mirroring_axes: tuple[int, ...] | None = None
        return rotation, dummy, self.configuration_manager.patch_size, None

    @staticmethod
    def get_training_transforms(
        patch_size: Any,  # noqa: ARG004 - of these only the scales matter to validation
        rotation: Any,  # noqa: ARG004
        deep_supervision_scales: Any,
        *others: Any,  # noqa: ARG004
        use_mask_for_norm: Any = None,  # noqa: ARG004
        **labels: Any,
    ) -> Any:
        """Augment nothing: return the transforms of validation."""
        return nnUNetTrainer.get_validation_transforms(deep_supervision_scales, **labels)

    def plot_network_architecture(self) -> None:
        """Draw nothing."""

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Do nothing: it predicts every training case."""
