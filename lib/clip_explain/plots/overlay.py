"""One look for every figure: overlays of maps on images, alone and in grids, shaded words, means and curves.

Arrays and an optional `ax` in, axes out; nothing here computes a map or writes a file.
"""

from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from clip_explain.errors import TensorError
from clip_explain.maps import normalize, resize
from clip_explain.plots.style import COLOURS, SIGNED, Array, as_map, as_pixels, set_title, text_lines

STRENGTH = (0.3, 0.7)  # of the colour over the image where the map is lowest and highest: the image stays legible


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


def blend_signed(image: Array, map: Array) -> Float[np.ndarray, "height width 3"]:
    """A map with a sign laid over an image in grey: orange above 0, purple below, the image bare where it is 0.

    Resized as in `blend`; the largest magnitude has the full colour, so colours compare within one map only.
    """
    pixels = as_pixels(image)
    values = resize(as_map(map), pixels.shape[:2], mode="bicubic").numpy()
    values = values / max(np.abs(values).max(), np.finfo(np.float32).tiny)
    strength = 0.9 * np.abs(values[..., None])
    grey = pixels @ np.array([0.299, 0.587, 0.114])
    below, above = to_rgb(SIGNED[0]), to_rgb(SIGNED[1])
    return (1 - strength) * grey[..., None] + strength * np.where(values[..., None] > 0, above, below)


def darkened(image: Array, map: Array) -> Float[np.ndarray, "height width 3"]:
    """An image times a map: the lower the map, the darker (EPFL Fig. 2). Resized and scaled as in `blend`."""
    pixels = as_pixels(image)
    return pixels * normalize(resize(as_map(map), pixels.shape[:2], mode="bicubic")).numpy()[..., None]


def outline(mask: Array, ax: Axes | None = None, width: float = 1.0) -> Axes:
    """The border of a mask (height, width) drawn over an image of the same size: white between two dark lines.

    `width` is the white line's, in points.
    """
    ax = plt.gca() if ax is None else ax
    for colour, thick in (("black", 2 * width), ("white", width)):
        ax.contour(np.asarray(mask, dtype=float), levels=[0.5], colors=colour, linewidths=thick)
    return ax


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
    counts = [len(text_lines(title, panel)) for title in titles]
    title_lines = sum(max(counts[start : start + columns]) for start in range(0, len(counts), columns))
    gap = 2 * plt.rcParams["figure.constrained_layout.w_pad"]  # the layout takes it off each panel's width
    size = (panel * columns, rows * ((panel - gap) * tallest + gap + 0.05) + 0.17 * title_lines)
    _, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="compressed")
    for ax in axes.flat[len(images) :]:
        ax.set_axis_off()
    for ax, image, map, title in zip(axes.flat, images, maps, titles or [""] * len(images), strict=False):
        show(image if map is None else blend(image, map), ax)
        set_title(ax, title, panel)
    for ax, title in zip(axes[:, 0], row_titles, strict=False):
        ax.set_ylabel("\n".join(text_lines(title, panel * tallest)), parse_math=False)
    return axes
