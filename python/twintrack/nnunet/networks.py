"""The loaded networks of a pipeline, and the one device that they share."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from twintrack.arrays.backend import computes_on_device
from twintrack.ensemble import Average
from twintrack.nnunet.checks import check_device, check_fusable
from twintrack.nnunet.member_logits import MemberLogits
from twintrack.nnunet.models import Model, load_model
from twintrack.nnunet.trained_folder import TrainedFolder
from twintrack.runs.fair_lock import FairLock


class Networks:
    """Members and, perhaps, a coarse network; the networks of several cases take turns.

    Parameters
    ----------
    members, coarse
        Folders that belong together: see `twintrack.nnunet.checks`.
    device, average
        As in `twintrack.nnunet.Pipeline`.
    settings
        Step, mirroring and on_device of `load_model`.

    Raises
    ------
    InputError
        There is no such device, a folder cannot be loaded, or the members cannot be exported
        together.
    """

    def __init__(
        self,
        members: Sequence[TrainedFolder],
        coarse: TrainedFolder | None,
        device: str,
        average: Average,
        **settings: Any,
    ) -> None:
        self.device: Any = check_device(device)
        self.members: list[Model] = [
            load_model(folder, self.device, **settings) for folder in members
        ]
        self.coarse: Model | None = (
            None if coarse is None else load_model(coarse, self.device, **settings)
        )
        check_fusable(self.members, average)
        # The members of one case and the coarse network of the next one ask by turns.
        self._lock = FairLock()
        self._exports_on_device = computes_on_device()
        self._logits: weakref.WeakSet[MemberLogits] = weakref.WeakSet()  # changed in turns

    def add_logits(self, logits: MemberLogits, model: Model, data: Any, index: int) -> None:
        """Add those of a model's fold; they stay on the device if it exports them."""
        with self._lock:
            self._logits.add(logits)
            logits.append(model.logits(data, index, self.make_room))
            if not self._exports_on_device:
                logits.to_host()

    def sum_of_logits(self, model: Model, data: Any) -> Any:
        """Return the sum over a model's folds, on the host.

        They are fetched one by one: they are small, and the device may run out of memory between
        two of them.
        """
        with self._lock:
            return sum(
                model.logits(data, index, self.make_room).cpu() for index in range(model.size)
            )

    def make_room(self) -> bool:
        """Move a case's logits to the host; False if none are on the device. Called in turns."""
        return any(logits.to_host() for logits in list(self._logits))
