"""Figures and tables written to a folder, each complete or not there."""

import io
import os
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from clip_explain import files

DPI = 200


def save_figure(figure: Figure | Axes | np.ndarray, folder: str | Path, name: str) -> Path:
    """Write `name`.png at 200 dpi, without loss, and a vector `name`.pdf beside it; returns the PNG's path.

    Instead of the figure its axes will do, one or an array as the functions of plots/ return them. The same figure
    gives the same bytes. OutputError if a file cannot be written.
    """
    if not isinstance(figure, Figure):
        figure = np.atleast_1d(np.asarray(figure, dtype=object)).flat[0].figure
    path = Path(folder) / f"{name}.png"
    vector = io.BytesIO()
    figure.savefig(vector, format="pdf", dpi=DPI, metadata={"CreationDate": None})
    write(path.with_suffix(".pdf"), vector.getvalue())
    write(path, png(figure))
    return path


def png(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG file, compressed as much as possible without loss."""
    drawn, packed = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI)
    Image.open(drawn).convert("RGB").save(packed, "png", dpi=(DPI, DPI), optimize=True)
    return packed.getvalue()


def write(path: Path, content: bytes) -> None:
    """Write a file, complete or not at all. OutputError if that is not possible.

    A file that already holds these bytes stays, and only its time becomes that of now.
    """
    if not holds(path, content):
        files.write(path, lambda place: place.write_bytes(content))


def holds(path: Path, content: bytes) -> bool:
    """Whether a file has these bytes; its time is then set to now, as if it had been written."""
    try:
        if path.read_bytes() != content:
            return False
        os.utime(path)
    except (OSError, ValueError):  # it is not there, or is not ours: writing will say so
        return False
    return True
