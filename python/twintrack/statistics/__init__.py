"""Statistics over cases and their groups: intervals, paired differences, tests, effect sizes."""

from twintrack.statistics.effect_size import effect_size
from twintrack.statistics.holm import holm
from twintrack.statistics.resampling import (
    BootstrapResult,
    IntervalMethod,
    PairedBootstrapResult,
    bootstrap,
    paired_bootstrap,
    resampled_means,
)
from twintrack.statistics.sign_flip import SignFlipResult, sign_flip_test

__all__ = [
    "BootstrapResult",
    "IntervalMethod",
    "PairedBootstrapResult",
    "SignFlipResult",
    "bootstrap",
    "effect_size",
    "holm",
    "paired_bootstrap",
    "resampled_means",
    "sign_flip_test",
]
