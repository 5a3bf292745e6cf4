"""One look for every figure: overlays of maps on images, alone and in grids.

Arrays and an optional `ax` in, axes out; nothing here computes a map or writes a file.
"""

import textwrap
from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from cycler import cycler
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from PIL import Image

from clip_explain.errors import TensorError
from clip_explain.maps import normalize, resize

Array = np.ndarray | torch.Tensor | Image.Image

COLOURS = "inferno"  # rises in lightness all the way: safe for the colour-blind, legible printed in grey
STRENGTH = (0.3, 0.7)  # of the colour over the image where the map is lowest and highest: the image stays legible
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito's palette
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
    plt.rcParams.update(STYLE)


def blend(image: Array, map: Array) -> Float[np.ndarray, "height width 3"]:
    """A map laid over an image, colours in [0, 1].

    The one overlay rule: the raw map (grid_h, grid_w) is resized to the image bicubically, min-max normalised (a
    constant map to zeros), coloured, and mixed in by `STRENGTH`. `image` is (height, width, 3) in 0..255 integers or
    [0, 1] floats, or a PIL image. Colours compare within one map, never between two. Raises TensorError.
    """
    pixels = as_pixels(image)
    heat = normalize(resize(as_map(map), pixels.shape[:2], mode="bicubic")).numpy()
    low, high = STRENGTH
    strength = low + (high - low) * heat[..., None]
    return (1 - strength) * pixels + strength * plt.get_cmap(COLOURS)(heat)[..., :3]


def show(image: Array, ax: Axes | None = None, title: str = "") -> Axes:
    """An image without axes; the title is wrapped to the panel's width."""
    ax = plt.gca() if ax is None else ax
    ax.imshow(as_pixels(image))
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    set_title(ax, title, ax.get_position().width * ax.figure.get_figwidth())
    return ax


def overlay(image: Array, map: Array, ax: Axes | None = None, title: str = "") -> Axes:
    """A map over its image by the rule of `blend`, without axes."""
    return show(blend(image, map), ax, title)


def grid(
    images: Iterable[Array],
    maps: Iterable[Array | None],
    titles: Sequence[str] = (),
    columns: int = 4,
    row_titles: Sequence[str] = (),
    panel: float = 2.2,
) -> np.ndarray:
    """Overlays in reading order, `columns` to a row; a map of None leaves its image bare.

    `titles` has one text for every panel or none, `row_titles` one for every row or none; `panel` is a panel's width
    in inches. Makes a figure of its own and returns its axes, (rows, columns); `axes[0, 0].figure` is the figure.
    """
    images, maps = list(images), list(maps)
    if not images or len(images) != len(maps) or len(titles) not in (0, len(images)):
        raise TensorError(f"got {len(images)} images, {len(maps)} maps, {len(titles)} titles: expected as many of each")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    tallest = max(as_pixels(image).shape[0] / as_pixels(image).shape[1] for image in images)
    title_lines = max((len(_lines(title, panel)) for title in titles), default=0)
    size = (panel * columns, rows * (panel * tallest + 0.17 * title_lines + 0.15))
    _, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="compressed")
    for ax in axes.flat[len(images) :]:
        ax.set_axis_off()
    for ax, image, map, title in zip(axes.flat, images, maps, titles or [""] * len(images), strict=False):
        show(image if map is None else blend(image, map), ax)
        set_title(ax, title, panel)
    for ax, title in zip(axes[:, 0], row_titles, strict=False):
        ax.set_ylabel("\n".join(_lines(title, panel * tallest)), parse_math=False)
    return axes


def set_title(ax: Axes, title: str, inches: float) -> None:
    """A title broken into lines no longer than `inches`. A user's text may hold dollar signs: it is no mathematics."""
    ax.set_title("\n".join(_lines(title, inches)), parse_math=False)


def _lines(title: str, inches: float) -> list[str]:
    return [line for part in title.splitlines() for line in _broken(part, 72 * 0.9 * inches)]


def _broken(text: str, points: float) -> list[str]:
    """A text in lines of as many letters as fit, by the letters' true widths."""
    average = _width(text) / max(len(text), 1)
    most = min(len(text), int(1.5 * points / max(average, 1.0)))
    for letters in range(most, 1, -1):
        lines = textwrap.wrap(text, letters)
        if max(map(_width, lines), default=0) <= points:
            return lines
    return [text]


def _width(line: str) -> float:
    font = FontProperties(size=plt.rcParams["axes.titlesize"])
    return text_to_path.get_text_width_height_descent(line, font, ismath=False)[0]


def as_pixels(image: Array) -> Float[np.ndarray, "height width 3"]:
    """An image's colours in [0, 1]."""
    pixels = np.asarray(image)
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
