"""The files of a sweep, in a folder or under any fsspec URL (s3://..., gs://...): each is whole or not there.

Above files.py, below plan.py. fsspec is imported for a URL only.
"""

import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from clip_explain import files as folders
from clip_explain.checks import import_extra
from clip_explain.errors import OutputError

ABANDONED = 3600  # seconds after which a temporary file counts as abandoned


def place(out: str | Path) -> str:
    """A folder's absolute path, so that it means the same to other processes, or the URL as it is."""
    out = str(out).removeprefix("file://")
    return out.rstrip("/") if _is_url(out) else str(Path(out).expanduser().absolute())


def exists(out: str, name: str) -> bool:
    with _refusing("look for", out, name):
        if not _is_url(out):
            return os.path.exists(Path(out) / name)
        files, root = _remote(out)
        return files.exists(f"{root}/{name}")


def names(out: str, folder: str = "") -> set[str]:
    """The names of the files in `out` or in a folder of it, without unfinished ones; none if it does not exist."""
    with _refusing("list", out, folder):
        if not _is_url(out):
            path = Path(out) / folder
            found = os.listdir(path) if os.path.exists(path) else []
        else:
            files, root = _remote(out)
            path = f"{root}/{folder}".rstrip("/")
            found = [item.rsplit("/", 1)[-1] for item in files.ls(path, detail=False)] if files.exists(path) else []
    return {name for name in found if not name.startswith(".")}


def read(out: str, name: str) -> bytes:
    with _refusing("read", out, name):
        if not _is_url(out):
            return (Path(out) / name).read_bytes()
        files, root = _remote(out)
        return files.cat_file(f"{root}/{name}")


def write(out: str, name: str, fill: Callable[[Path], Any]) -> None:
    """Let `fill` write a file to the path it is given, then put it in its place in one step.

    In a folder by files.py. Elsewhere: one object put whole.
    OutputError, and nothing left behind, if that is not possible (a full disk, a read-only folder).
    """
    if not _is_url(out):
        return folders.write(Path(out) / name, fill)
    with _refusing("write", out, name):
        _put(out, name, fill)


def create(out: str, name: str, content: bytes) -> None:
    """Write a new file, unless it exists; only one of two simultaneous writers succeeds. OutputError as in `write`."""
    with _refusing("write", out, name), suppress(FileExistsError):
        if _is_url(out):
            files, root = _remote(out)
            files.pipe_file(f"{root}/{name}", content, mode="create")
        else:
            _create(Path(out) / name, content)


def remove_abandoned(out: str, folder: str = "") -> None:
    """Remove temporary files that killed writers left in a local folder; files that are being written stay."""
    if not _is_url(out):
        for path in (Path(out) / folder).glob(".*.tmp"):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > ABANDONED:
                    path.unlink()


def _create(path: Path, content: bytes) -> None:
    """Write a new local file; FileExistsError if the name is taken. A hard link names the file once it is complete."""
    folders.make_folder(path.parent)
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(content)
        _name_new(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _name_new(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        with path.open("xb") as file:
            file.write(temporary.read_bytes())


def _put(out: str, name: str, fill: Callable[[Path], Any]) -> None:
    files, root = _remote(out)
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "file"
        fill(local)
        files.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
        files.put_file(str(local), f"{root}/{name}")


def _is_url(out: str) -> bool:
    return "://" in out


def _remote(out: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it."""
    fsspec = import_extra("fsspec.core", "cluster", out, OutputError)
    try:
        files, root = fsspec.url_to_fs(out)
    except (ImportError, ValueError) as error:  # a protocol unknown, or whose package is not installed
        raise OutputError(f"cannot use {out}: {error}") from error
    return files, root.rstrip("/")


@contextmanager
def _refusing(action: str, out: str, name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot {action} {out}/{name}: {error.strerror or error}") from error
