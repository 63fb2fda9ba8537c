"""What a row of the table is made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from measure import power
from suite.inputs import DISTRIBUTIONS

Setting: TypeAlias = dict[str, Any]
"""What inputs are made from; goes to another process as JSON."""


class NotRunError(Exception):
    """A peer cannot do the work here; says why, in the table."""


@dataclass(frozen=True)
class Sizes:
    """How large the inputs of the rows are.

    Attributes
    ----------
    voxels
        Of rows on scores and masks without a shape; None leaves each row its own.
    distributions
        Names in `suite.inputs.DISTRIBUTIONS`; None likewise.
    raters
        Of rows on masks of any number of raters; None likewise.
    shape
        Of a CT.
    members
        Networks whose mean the score of a CT is, of rows that evaluate it.
    cases
        In a cohort of files.
    resamples
        Of a bootstrap.
    official
        Folder of the challenge's evaluator, if it is to be timed.
    """

    voxels: tuple[int, ...] | None = None
    distributions: tuple[str, ...] | None = None
    raters: tuple[int, ...] | None = None
    shape: tuple[int, int, int] = (512, 512, 160)
    members: tuple[int, ...] = (1, 3)
    cases: int = 4
    resamples: int = 5000
    official: Path | None = None


class Row(ABC):
    """A work that both we and others do, on the same inputs.

    Attributes
    ----------
    goals : mapping
        Targets as the design states them, by the name of one of ours or of a peer; see `goal`.
    packages : tuple of str
        Distributions whose versions are printed.
    """

    goals: ClassVar[Mapping[str, str]] = {}
    packages: ClassVar[tuple[str, ...]] = ("numpy",)

    @abstractmethod
    def settings(self, sizes: Sizes) -> Iterable[Setting]:
        """What the row is measured on, each in a process of its own."""

    @abstractmethod
    def warm_up(self, setting: Setting) -> Setting:
        """Return a small setting that loads all code and starts all threads."""

    @abstractmethod
    def describe(self, setting: Setting) -> str:
        """Inputs in the words of the table."""

    @abstractmethod
    def prepare(self, setting: Setting) -> Any:
        """Inputs, made outside of what is timed."""

    @abstractmethod
    def ours(self) -> Mapping[str, Callable[[Any], Any]]:
        """TwinTrack's ways to do the work, by what they are; timed."""

    @abstractmethod
    def peers(self) -> Mapping[str, Callable[[Any], Any]]:
        """Others that do the work; timed. They raise `NotRunError` or ImportError if they can't."""

    @abstractmethod
    def difference(self, inputs: Any, ours: Any, theirs: Any) -> Mapping[str, float]:
        """How far apart both answers are, by what is compared."""

    def peer_bytes(self, setting: Setting) -> int:  # noqa: ARG002
        """Memory that a peer needs beyond the inputs at most; it is not run where there is less."""
        return 0

    def traffic(self, ours: str, inputs: Any) -> int | None:  # noqa: ARG002
        """Bytes that have to be read and written at least; None if that bounds nothing."""
        return None

    def limit(self, ours: str, inputs: Any) -> float:
        """Seconds in which this machine moves that traffic and does nothing else, measured."""
        raise NotImplementedError

    def ratio(self, ours: float, theirs: float) -> str:
        """Both times as the goal compares them."""
        ratio = theirs / ours
        return f"{ratio:.0f}×" if ratio >= 10 else f"{ratio:.2g}×"

    def goal(self, ours: str, peer: str, setting: Setting) -> str:  # noqa: ARG002
        """Target of one of ours beside a peer on inputs of a setting; empty if there is none."""
        return ", ".join(self.goals[each] for each in (peer, ours) if each in self.goals)

    def close(self, inputs: Any) -> None:  # noqa: B027
        """Remove what `prepare` left outside of memory."""


class VoxelRow(Row):
    """A row on scores, and masks, of any number of voxels and of several distributions.

    Attributes
    ----------
    voxels, distributions
        What it is measured on by default.
    peer_bytes_per_voxel : int
        See `peer_bytes`.
    """

    voxels: ClassVar[tuple[int, ...]] = (10**8,)
    distributions: ClassVar[tuple[str, ...]] = tuple(DISTRIBUTIONS)
    peer_bytes_per_voxel: ClassVar[int] = 0

    def settings(self, sizes: Sizes) -> Iterable[Setting]:
        for voxels in sizes.voxels or self.voxels:
            for distribution in sizes.distributions or self.distributions:
                yield {"voxels": voxels, "distribution": distribution}

    def warm_up(self, setting: Setting) -> Setting:
        return {**setting, "voxels": 1000}

    def describe(self, setting: Setting) -> str:
        return f"{power(setting['voxels'])} {setting['distribution']}"

    def peer_bytes(self, setting: Setting) -> int:
        return self.peer_bytes_per_voxel * int(setting["voxels"])


class CaseRow(Row):
    """A row on one CT-like case of a given shape, or on several."""

    def settings(self, sizes: Sizes) -> Iterable[Setting]:
        official = None if sizes.official is None else str(sizes.official)
        return [{"shape": sizes.shape, "official": official}]

    def warm_up(self, setting: Setting) -> Setting:
        return {**setting, "shape": tuple(min(extent, 48) for extent in setting["shape"])}

    def describe(self, setting: Setting) -> str:
        return "×".join(str(extent) for extent in setting["shape"])
