"""Maps laid over their images: the one overlay rule, alone and in grids.

Arrays and an optional `ax` in, axes out; nothing here computes a map or writes a file. Every function that takes a map
takes `fit`, under which the map was made, so that it lies where it belongs on the whole image (`maps.on_source`).
"""

from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import ListedColormap, to_rgb

from clip_explain.errors import TensorError
from clip_explain.maps import has_sign, on_source
from clip_explain.plots.fonts import families
from clip_explain.plots.style import COLOURS, SIGNED, Array, as_map, as_pixels, set_title, text_lines

STRENGTH = 0.7  # the colour's opacity where the map is largest; it is 0 where the map is 0, so that the image shows
SIGNED_STRENGTH = 0.9
DIMMED = 0.4  # the brightness that is left outside the part that a map covers
BAR = 0.6  # inches for a colour bar and its labels
NOTHING = "no positive evidence"


def blend(
    image: Array, map: Array, fit: str | None = None, signed: bool | None = None
) -> Float[np.ndarray, "height width 3"]:
    """A map laid over its image, colours in [0, 1].

    The one overlay rule. The raw map (grid_h, grid_w) is resized bilinearly to the part of the image that it covers
    under `fit`; the rest of the image is dimmed. Values below 0 count as 0, the others are divided by the map's own
    maximum, coloured, and mixed in by their value times `STRENGTH`: where the map is 0 the image is bare. Colours
    compare within one map, never between two.

    `signed` maps are drawn by `blend_signed`; by default those that have values below 0. `image` is (height, width, 3)
    in 0..255 integers or [0, 1] floats, or a PIL image. Raises TensorError, also for a map that is not finite.
    """
    if has_sign(as_map(map)) if signed is None else signed:
        return blend_signed(image, map, fit)
    pixels = as_pixels(image)
    values = _placed(pixels, map, fit)
    heat = _scaled(np.clip(values, 0, None))
    return _mixed(pixels, plt.get_cmap(COLOURS)(heat)[..., :3], STRENGTH * heat, values)


def blend_signed(image: Array, map: Array, fit: str | None = None) -> Float[np.ndarray, "height width 3"]:
    """A map with a sign laid over an image in grey: orange above 0, purple below, the grey image bare where it is 0.

    Placed as in `blend`; the largest magnitude has the full colour, so colours compare within one map only.
    """
    pixels = as_pixels(image)
    values = _placed(pixels, map, fit)
    heat = _scaled(values)
    grey = (pixels @ np.array([0.299, 0.587, 0.114]))[..., None].repeat(3, axis=-1)
    colours = np.where(heat[..., None] > 0, to_rgb(SIGNED[1]), to_rgb(SIGNED[0]))
    return _mixed(grey, colours, SIGNED_STRENGTH * np.abs(heat), values)


def darkened(
    image: Array, map: Array, fit: str | None = None, darkest: int | float = 0.0, bare: int | float = 1.0
) -> Float[np.ndarray, "height width 3"]:
    """An image times a map: darkest where the map is lowest, bare where it is highest (EPFL Fig. 2).

    Placed as in `blend`, but scaled from its least value, where `darkest` of the light is left, to its quantile `bare`,
    above which the image is bare. With the defaults, the report's, a map with one peak leaves the rest black. The image
    is black where the map does not cover it. TensorError unless both are from 0 to 1.
    """
    if not (0 <= darkest <= 1 and 0 <= bare <= 1):
        raise TensorError(f"got darkest={darkest} and bare={bare}, expected numbers from 0 to 1")
    pixels = as_pixels(image)
    values = _placed(pixels, map, fit)
    low, high = np.nanmin(values), np.nanquantile(values, bare)
    light = np.clip((values - low) / max(high - low, np.finfo(np.float32).tiny), 0, 1)
    return pixels * np.nan_to_num(darkest + (1 - darkest) * light)[..., None]


def _placed(pixels: np.ndarray, map: Array, fit: str | None) -> Float[np.ndarray, "height width"]:
    """The map on the whole image; NaN where it does not cover it."""
    heat = as_map(map)
    if not heat.isfinite().all():
        raise TensorError("got a map with NaN or infinite values, expected finite ones")
    return on_source(heat, pixels.shape[:2], fit).numpy()


def _scaled(values: np.ndarray) -> np.ndarray:
    """Values divided by their largest magnitude; zeros, and what is not covered, stay 0."""
    covered = np.nan_to_num(values)
    return covered / max(np.abs(covered).max(), np.finfo(np.float32).tiny)


def _mixed(ground: np.ndarray, colours: np.ndarray, strength: np.ndarray, values: np.ndarray) -> np.ndarray:
    mixed = (1 - strength[..., None]) * ground + strength[..., None] * colours
    return np.where(np.isnan(values)[..., None], DIMMED * ground, mixed)


def outline(mask: Array, ax: Axes | None = None, width: float = 1.0) -> Axes:
    """The border of a mask (height, width) drawn over an image of the same size: white between two dark lines.

    `width` is the white line's, in points.
    """
    ax = plt.gca() if ax is None else ax
    for colour, thick in (("black", 2 * width), ("white", width)):
        ax.contour(np.asarray(mask, dtype=float), levels=[0.5], colors=colour, linewidths=thick)
    return ax


def outline_rows(axes: np.ndarray, masks: Sequence[Array | None], width: float = 0.5) -> None:
    """The `outline` of each row's own mask over all of its panels; none where the mask is None.

    Rows beyond the masks stay as they are. Columns are outlined by their own masks in `axes.T`.
    """
    for row, mask in zip(axes, masks, strict=False):
        for ax in row if mask is not None else ():
            outline(mask, ax, width)


def show(image: Array, ax: Axes | None = None, title: str = "") -> Axes:
    """An image without axes; the title is wrapped to the panel's width."""
    ax = plt.gca() if ax is None else ax
    ax.imshow(as_pixels(image))
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    set_title(ax, title, ax.get_position().width * ax.figure.get_figwidth())
    return ax


def overlay(
    image: Array,
    map: Array,
    ax: Axes | None = None,
    title: str = "",
    fit: str | None = None,
    signed: bool | None = None,
) -> Axes:
    """A map over its image by the rule of `blend`, without axes; a note marks a map without positive values."""
    ax = show(blend(image, map, fit, signed), ax, title)
    if float(as_map(map).max()) <= 0:
        size, inches = plt.rcParams["font.size"] - 3, ax.get_position().width * ax.figure.get_figwidth()
        lines = "\n".join(text_lines(NOTHING, inches, size))
        note = ax.annotate(lines, (0.5, 0.03), xycoords="axes fraction", ha="center", va="bottom")
        note.set(fontsize=size, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})
    return ax


def colour_bar(axes: Axes | np.ndarray, signed: bool = False) -> Colorbar:
    """A colour bar beside some axes for the colours of `blend`, from 0 to a map's own largest value."""
    heat = np.linspace(-1.0 if signed else 0.0, 1.0, 256)
    colours, strength = plt.get_cmap(COLOURS)(heat)[:, :3], STRENGTH * heat
    if signed:
        colours = np.where(heat[:, None] > 0, to_rgb(SIGNED[1]), to_rgb(SIGNED[0]))
        strength = SIGNED_STRENGTH * np.abs(heat)
    on_white = 1 - strength[:, None] * (1 - colours)
    axes = np.atleast_1d(np.asarray(axes, dtype=object))
    bar = axes.flat[0].figure.colorbar(ScalarMappable(cmap=ListedColormap(on_white)), ax=axes, aspect=30, pad=0.02)
    bar.set_ticks([0, 0.5, 1] if signed else [0, 1], labels=["against", "0", "for"] if signed else ["0", "most"])
    bar.outline.set_visible(False)
    return bar


def any_sign(maps: Iterable[Array | None]) -> bool:
    """Whether one of several maps has values below 0; None stands for a picture without a map."""
    return any(has_sign(as_map(each)) for each in maps if each is not None)


def grid(
    images: Iterable[Array],
    maps: Iterable[Array | None],
    titles: Sequence[str] = (),
    columns: int = 4,
    row_titles: Sequence[str] = (),
    panel: float = 2.2,
    fit: str | None = None,
    signed: bool | None = None,
    bar: bool = False,
) -> np.ndarray:
    """Overlays in reading order, `columns` to a row; a map of None leaves its image bare.

    `titles` has one text for every panel or none, `row_titles` one for every row or none; `panel` is a panel's width
    in inches; `fit` and `signed` as in `blend`; `bar` adds a `colour_bar`. Makes a figure of its own and returns its
    axes, (rows, columns); `axes[0, 0].figure` is the figure.
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
    size = (panel * columns + BAR * bar, rows * ((panel - gap) * tallest + gap + 0.05) + 0.17 * title_lines)
    _, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="compressed")
    for ax in axes.flat[len(images) :]:
        ax.set_axis_off()
    for ax, image, map, title in zip(axes.flat, images, maps, titles or [""] * len(images), strict=False):
        if map is None:
            show(image, ax)
        else:
            overlay(image, map, ax, fit=fit, signed=signed)
        set_title(ax, title, panel)
    if bar:
        colour_bar(axes, signed=any_sign(maps) if signed is None else signed)
    for ax, title in zip(axes[:, 0], row_titles, strict=False):
        ax.set_ylabel("\n".join(text_lines(title, panel * tallest)), parse_math=False, family=families())
    return axes
