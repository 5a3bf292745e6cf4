"""Figures and tables written to a folder, each complete or not there."""

import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from clip_explain import files
from clip_explain.errors import OutputError

DPI = 200
MOST_BYTES = 400_000  # of a PNG: figures are kept in git
STEPS = (1, 4, 6, 8)  # of 255, to which a colour's three parts are rounded; white stays white


def save_figure(figure: Figure, folder: str | Path, name: str) -> Path:
    """Write `name`.png, at most 400 KB, and a vector `name`.pdf beside it; returns the PNG's path.

    200 dpi; where that is too large, with rounded colours, then also with fewer dots. The same figure gives the same
    bytes.
    OutputError if a file cannot be written.
    """
    path = Path(folder) / f"{name}.png"
    vector = io.BytesIO()
    figure.savefig(vector, format="pdf", dpi=DPI, metadata={"CreationDate": None})
    write(path.with_suffix(".pdf"), vector.getvalue())
    write(path, _small_png(figure))
    return path


def _small_png(figure: Figure) -> bytes:
    for dpi in (DPI, 0.75 * DPI, 0.5 * DPI):
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=dpi)
        pixels = np.asarray(Image.open(drawn).convert("RGB"), dtype=int)
        for step in STEPS:
            packed, rounded = io.BytesIO(), ((pixels + step // 2) // step * step).clip(0, 255)
            Image.fromarray(rounded.astype(np.uint8)).save(packed, "png", dpi=(dpi, dpi))
            if packed.tell() <= MOST_BYTES:
                return packed.getvalue()
    raise OutputError(f"the figure is over {MOST_BYTES // 1000} KB at every size tried: draw fewer panels")


def write(path: Path, content: bytes) -> None:
    """Write a file, complete or not at all. OutputError if that is not possible."""
    files.write(path, lambda place: place.write_bytes(content))
