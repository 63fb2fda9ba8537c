"""Settings of hypothesis for the whole suite."""

from __future__ import annotations

from hypothesis import settings

# The same examples in every run, and no deadlines: machines are shared, sanitizers are slow.
settings.register_profile("twintrack", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("twintrack")
