"""``twintrack info``: what this installation is and what it can use, or what a calibrator is."""

from __future__ import annotations

import importlib
import importlib.util
import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

from twintrack.cli.calibrators import TARGETS, calibrator_rows, map_warnings, show_choice
from twintrack.cli.extras import EXTRAS
from twintrack.cli.reporting import Report

_PACKAGES = ("numpy", "scipy", "nibabel", "isal", "msgspec")


def info(
    calibrator: Annotated[Path | None, typer.Option("-m")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Show versions, processor and GPU support, for a bug report; or what a calibrator is.

    Parameters
    ----------
    calibrator
        Calibrator file to show instead: what it was fitted to, its map, and warnings about its
        bins. Files of earlier versions do not have all of it.
    as_json
        As one JSON object.
    """
    if calibrator is not None:
        _show_calibrator(calibrator, as_json)
        return
    from twintrack import _core
    from twintrack.arrays.backend import forced_backend
    from twintrack.arrays.limits import available_cores, available_memory
    from twintrack.arrays.threads import max_threads
    from twintrack.runs.progress import scaled
    from twintrack.version import __version__

    built, kernels, devices = _cuda()
    facts = {
        "twintrack": __version__,
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "instruction_set": _core.instruction_set(),
        "threads": min(max_threads(), available_cores()),
        "memory_available": available_memory(),
        "backend": forced_backend() or "auto",
        "cuda_built": built,
        "cuda_kernels": kernels,
        "cuda_devices": devices,
        "extras": {
            extra: all(importlib.util.find_spec(name) for name in names)
            for extra, names in EXTRAS.items()
        },
    }
    if as_json:
        print(json.dumps(facts, indent=1))
        return
    print(f"twintrack {facts['twintrack']}")
    print(f"  Python {facts['python']}, " + ", ".join(f"{n} {facts[n]}" for n in _PACKAGES))
    print(f"  {facts['platform']}")
    print(f"  processor: {facts['instruction_set']} instructions, {facts['threads']} threads")
    print(f"  memory: {scaled(available_memory())}B available")
    print(f"  CUDA: {_cuda_line(built, kernels, devices)}")
    if forced_backend():
        print(f"  TWINTRACK_BACKEND allows {forced_backend()} only")
    for extra, names in EXTRAS.items():
        missing = [name for name in names if not importlib.util.find_spec(name)]
        found = ", ".join(f"{name} {_version(name)}" for name in names if name not in missing)
        hint = f"pip install 'twintrack[{extra}]'" if missing else ""
        print(f"  {extra}: " + ("; ".join(text for text in (found, hint) if text)))


def _show_calibrator(file: Path, as_json: bool) -> None:
    from twintrack.calibration.calibrator import Calibrator

    fitted = Calibrator.load(file)
    made_of = fitted.provenance_
    if as_json:
        print(json.dumps({"knots": len(fitted.X_thresholds_), **made_of}, indent=1))
        return
    report = Report()
    title = f"Calibrator for {TARGETS[made_of['target']]}"
    report.result(title, [*calibrator_rows(fitted).items(), ("read from", file)])
    if made_of.get("cross_validation") is not None:
        show_choice(report, made_of["cross_validation"])
    for warning in map_warnings(fitted):
        report.warn(warning)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _cuda() -> tuple[bool, str, list[str]]:
    """Return whether the CUDA module was built, for what, and the devices that it sees."""
    if importlib.util.find_spec("twintrack._cuda") is None:
        return False, "", []
    try:
        module = importlib.import_module("twintrack._cuda")
    except ImportError:
        return True, "", []
    version = module.runtime_version()
    kernels = f"CUDA {version // 1000}.{version % 1000 // 10}, architectures {module.ARCHITECTURES}"
    try:
        return True, kernels, list(module.devices())
    except RuntimeError:  # no driver, or no device
        return True, kernels, []


def _cuda_line(built: bool, kernels: str, devices: list[str]) -> str:
    if not built:
        return "not built (needs nvcc when TwinTrack is built)"
    return f"built ({kernels}); " + (", ".join(devices) or "no device is available")
