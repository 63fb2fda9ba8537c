"""How far is the fused export from nnU-Net's own export of each member, mean and merge?

Runs both on every kind of case of tests/export_parity.py, the same that the tests hold to 1e-3 at
worst and 1e-5 on average. Prints a Markdown table. Needs nnunetv2 and torch.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from export_parity import KINDS, Kind, differences


def numbers(values: tuple[float, ...], separator: str) -> str:
    return separator.join(f"{value:g}" for value in values)


def row(kind: Kind, seeds: int) -> str:
    found = [differences(kind, seed) for seed in range(seeds)]
    cells = [
        kind.name,
        f"{kind.members} × {kind.channels}" + (" regions" if kind.regions else ""),
        numbers(kind.shape, "×"),
        numbers(kind.network_spacing, "×") + " → " + numbers(kind.spacing, "×"),
        f"{max(worst for worst, _ in found):.1e}",
        f"{max(mean for _, mean in found):.1e}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1, help="cases of each kind")
    options = parser.parse_args()
    print("| case | members × channels | voxels | spacing, mm | worst | mean |")
    print("| --- | --- | --- | --- | ---: | ---: |")
    for kind in KINDS:
        print(row(kind, options.seeds), flush=True)


if __name__ == "__main__":
    main()
