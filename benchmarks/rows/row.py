"""What a row of the table is made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar


class Row(ABC):
    """A work that both we and others do, on inputs of a given size and distribution.

    Attributes
    ----------
    work : str
        What is done.
    goal : str
        The target, as the design states it.
    packages : tuple of str
        Distributions whose versions are printed.
    peer_bytes_per_voxel : int
        What a peer needs beyond the inputs at most; where that is not there it is not run.
    """

    work: ClassVar[str]
    goal: ClassVar[str] = ""
    packages: ClassVar[tuple[str, ...]] = ("numpy",)
    peer_bytes_per_voxel: ClassVar[int] = 0

    @abstractmethod
    def prepare(self, voxels: int, distribution: str) -> Any:
        """Inputs, made outside of what is timed."""

    @abstractmethod
    def ours(self, inputs: Any) -> Any:
        """Do the work with TwinTrack; timed."""

    @abstractmethod
    def peers(self) -> Mapping[str, Callable[[Any], Any]]:
        """Others that do the work, by what they are; timed. ImportError: they are not installed."""

    @abstractmethod
    def traffic(self, inputs: Any) -> int:
        """Bytes that have to be read and written at least."""

    @abstractmethod
    def limit(self, inputs: Any) -> float:
        """Seconds in which this machine moves that traffic and does nothing else, measured."""

    @abstractmethod
    def difference(self, inputs: Any, ours: Any, theirs: Any) -> float:
        """Largest absolute difference between both answers."""
