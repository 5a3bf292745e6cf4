"""The common style of all figures: fonts and sizes, titles wrapped to their width, checked arrays."""

import textwrap
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float
from matplotlib import cycler
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from PIL import Image

from clip_explain.errors import TensorError
from clip_explain.plots.fonts import drawable, families

Array = np.ndarray | torch.Tensor | Image.Image

COLOURS = "inferno"  # rises in lightness all the way: safe for the colour-blind, legible printed in grey
LINE, WORD_LINE = 1.25, 1.4  # height of a line of text, and of shaded words, in its font's size
SIGNED = ("#5E3C99", "#E66101")  # below and above zero in maps with a sign; safe for the colour-blind
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito's palette
WIDTH = 6.3  # inches, 16 cm: the width of a printed page's text
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=LINES),
    "legend.frameon": False,
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,  # text stays text in vector files
    "svg.fonttype": "none",
}


def use_style() -> None:
    """Set the compendium's look for all figures made from now on."""
    settings: Any = STYLE
    plt.rcParams.update(settings)


def set_title(ax: Axes, title: str, inches: float) -> None:
    """A title broken into lines no longer than `inches`. Dollar signs in a user's text are not mathematics."""
    ax.set_title("\n".join(text_lines(title, inches)), parse_math=False, family=families())


def text_lines(title: str, inches: float, size: float | None = None) -> list[str]:
    """A text, as it can be drawn, in lines no longer than 0.9 of `inches`; the font is a title's by default.

    Its own line breaks are kept.
    """
    return [line for part in drawable(title).split("\n") for line in broken(part, 72 * 0.9 * inches, size) if part]


def broken(text: str, points: float, size: float | None = None) -> list[str]:
    """A text in lines that fit, by the letters' true widths."""
    average = text_width(text, size) / max(len(text), 1)
    most = min(len(text), int(1.5 * points / max(average, 1.0)))
    for letters in range(most, 1, -1):
        lines = textwrap.wrap(text, letters)
        if max((text_width(line, size) for line in lines), default=0) <= points:
            return lines
    return [text]


def text_width(line: str, size: float | None = None) -> float:
    """A line's width in points, by the letters' true widths; the font is a title's by default."""
    font = FontProperties(family=families(), size=plt.rcParams["axes.titlesize"] if size is None else size)
    return text_to_path.get_text_width_height_descent(drawable(line), font, ismath=False)[0]


def as_pixels(image: Array) -> Float[np.ndarray, "height width 3"]:
    """An image's colours in [0, 1]."""
    pixels = np.asarray(image.detach().cpu() if isinstance(image, torch.Tensor) else image)
    pixels = pixels / 255 if np.issubdtype(pixels.dtype, np.integer) else pixels
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise TensorError(f"expected an image (height, width, 3), got shape {pixels.shape}")
    return np.clip(pixels, 0, 1)


def as_map(map: Array) -> Float[torch.Tensor, "grid_h grid_w"]:
    """One raw map as a float32 tensor on the CPU."""
    heat = torch.as_tensor(map).detach().cpu().float()
    if heat.ndim != 2 or not heat.numel():
        raise TensorError(f"expected one map (grid_h, grid_w), got shape {tuple(heat.shape)}")
    return heat
