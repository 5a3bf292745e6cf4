"""Writes files that are always complete, `write`, and texts between marks of a page, `between_marks`.

Above errors.py; sweep/store.py does the same for a sweep's folder or URL.
"""

import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from clip_explain.errors import OutputError


def write(path: Path, fill: Callable[[Path], Any]) -> None:
    """Let `fill` write a temporary file beside `path`, flush it to the disk, and rename it to `path`.

    Missing folders are made. If writing fails (a full disk, a read-only folder), OutputError is raised and nothing is
    left behind. A process that is killed while writing leaves a hidden file, .NAME-....tmp.
    """
    if "\0" in str(path):
        raise OutputError(f"cannot write {str(path)!r}: no file can have this name")
    temporary = path.with_name(f".{path.name}-{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fill(temporary)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def make_folder(path: Path) -> Path:
    """The folder, created with its parents if it does not exist. OutputError if that is not possible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise OutputError(f"cannot make the folder {str(path)!r}: {error}") from error
    return path


def between_marks(page: str, start: str, end: str, text: str) -> str:
    """The page with `text` in place of what stands between its marks. ValueError unless both stand in it once."""
    if page.count(start) != 1 or page.count(end) != 1:
        raise ValueError(f"expected {start} and {end} once each in the page")
    before, rest = page.split(start)
    return f"{before}{start}\n{text}\n{end}{rest.split(end)[1]}"


def data_folder() -> Path:
    """The compendium's data folder: CLIP_EXPLAIN_DATA, or data/ beside the source tree."""
    return Path(os.environ.get("CLIP_EXPLAIN_DATA") or Path(__file__).resolve().parents[2] / "data")
