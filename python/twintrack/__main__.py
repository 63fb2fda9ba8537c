"""``python -m twintrack``: the command line, and where a C++ build finds the core.

``--cmake-dir`` prints the folder of twintrack-config.cmake, ``--include-dir`` that of the headers.
"""

from __future__ import annotations

import sys
from pathlib import Path

FOLDERS = {"--cmake-dir": "share/cmake/twintrack", "--include-dir": "include"}


def folder(option: str) -> Path:
    """Return a folder of the installed package; FileNotFoundError if this is no installed one."""
    found = Path(__file__).resolve().parent / FOLDERS[option]
    if not found.is_dir():
        raise FileNotFoundError(
            f"{found} does not exist: this is a source tree; pip install it, or install the core "
            "with cmake --install"
        )
    return found


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1] in FOLDERS:
        try:
            print(folder(sys.argv[1]))
        except FileNotFoundError as _error:
            sys.exit(str(_error))
    else:
        from twintrack.cli import main

        main()
