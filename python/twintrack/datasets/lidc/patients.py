"""Halves of the patients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np


class HasPatient(Protocol):
    """Anything that belongs to a patient."""

    @property
    def patient(self) -> str:
        """The patient's identifier."""


PatientItem = TypeVar("PatientItem", bound=HasPatient)


def split_by_patient(
    items: Sequence[PatientItem], *, seed: int = 0
) -> tuple[list[PatientItem], list[PatientItem]]:
    """Two halves without a patient in common: to fit on, and to apply to.

    The patients are halved at random (the first half has one more if their number is odd), so the
    numbers of items may differ. Items keep their order; which half a patient falls in does not
    depend on it.

    Parameters
    ----------
    items : sequence
        Nodules, cases or anything else with an attribute ``patient``.
    seed : int
        At least 0.
    """
    patients = sorted({item.patient for item in items})
    order = np.random.default_rng(seed).permutation(len(patients))
    fit = {patients[i] for i in order[: (len(patients) + 1) // 2]}
    return (
        [item for item in items if item.patient in fit],
        [item for item in items if item.patient not in fit],
    )
