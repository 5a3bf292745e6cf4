"""`clip-explain notebook 04 -p model ViT-B/16`: run notebooks of the compendium with your own parameters.

Above notebooks/run.py, which it calls: the notebooks live in the repository, not in the package.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from clip_explain.errors import OutputError
from clip_explain.files import data_folder


def main(argv: Sequence[str]) -> None:
    """Run the chosen notebooks with notebooks/run.py, from any folder; leaves with its exit code if one fails."""
    failed = subprocess.run([sys.executable, str(runner()), *argv]).returncode
    if failed:
        raise SystemExit(failed)


def runner() -> Path:
    """The repository's notebooks/run.py, beside its data folder. OutputError where there is none."""
    path = data_folder().resolve().parent / "notebooks" / "run.py"
    if not path.is_file():
        raise OutputError(
            f"no notebooks at {path.parent}: they live in the repository; install from a clone (pip install -e .), or "
            "set CLIP_EXPLAIN_DATA to its data folder"
        )
    return path
