from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from twintrack.datasets import lidc


@dataclass(frozen=True)
class Item:
    patient: str
    number: int


@given(st.lists(st.integers(0, 15), max_size=40), st.integers(0, 5))
def test_halves_share_no_patient(patients: list[int], seed: int) -> None:
    items = [Item(f"p{patient}", number) for number, patient in enumerate(patients)]
    fit, apply = lidc.split_by_patient(items, seed=seed)
    one, other = ({item.patient for item in half} for half in (fit, apply))
    assert not one & other
    assert len(one) - len(other) in (0, 1)
    assert sorted(fit + apply, key=lambda item: item.number) == items
    assert [item.number for item in fit] == sorted(item.number for item in fit)
    backwards, _ = lidc.split_by_patient(items[::-1], seed=seed)
    assert backwards == fit[::-1]


def test_seed_chooses_the_halves() -> None:
    items = [Item(f"p{patient}", 0) for patient in range(20)]
    assert lidc.split_by_patient(items, seed=0) != lidc.split_by_patient(items, seed=1)
