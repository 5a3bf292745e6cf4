"""Whole figures of a page's width: methods side by side, images with their shaded texts, galleries.

They follow overlay.py's rule for maps, and take its `fit` and `signed`; arrays in, the axes of a new figure out.
"""

import re
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch

from clip_explain.errors import TensorError
from clip_explain.plots.charts import bars
from clip_explain.plots.fonts import drawable, families
from clip_explain.plots.overlay import grid, overlay, show
from clip_explain.plots.style import LINE, WIDTH, WORD_LINE, Array, as_map, as_pixels, broken, text_lines, text_width
from clip_explain.plots.words import shaded, words_height

GAP = 0.04  # inches between panels
POINTS = (2.0, 16.0)  # areas of the least and the largest point

PARTS = (  # of eq. 7, the columns of `taken_apart`
    r"$w_c$, by channel",
    r"$\Sigma_c\,w_c\,v_{ic}$",
    r"$\Sigma_c\,w_c\,w_i\,v_{ic}$",
    r"$H_i$: its ReLU",
)


def comparison(
    images: Sequence[Array],
    texts: Sequence[str],
    maps: Sequence[Sequence[Array]],
    columns: Sequence[str],
    width: float = WIDTH,
    fit: str | None = None,
    signed: bool | None = None,
) -> np.ndarray:
    """Images in rows and methods in columns (GE Fig 3): each row its image and a map a column, and above it its text.

    `columns` name the maps; a name may break at its underscores. Makes a figure `width` inches wide and returns its
    axes, (rows, 1 + columns).
    """
    _check_rows(columns, images, texts, maps)
    size = plt.rcParams["font.size"] - 2
    titles = [text_lines(text, width, size) for text in texts]
    axes = _panels(images, ["", *columns], width, above=[len(lines) * LINE * size / 72 for lines in titles])
    for row, image, some, lines in zip(axes, images, maps, titles, strict=True):
        _draw(row, [image] * len(row), [None, *some], fit, signed)
        title = row[0].annotate("\n".join(lines), (0, 1), (0, 2), "axes fraction", "offset points", fontsize=size)
        title.set(va="bottom", parse_math=False, family=families())
    return axes


def pairs(
    images: Sequence[Array],
    maps: Sequence[Sequence[Array]],
    words: Sequence[Sequence[tuple[Sequence[str], Array]]],
    columns: Sequence[str],
    width: float = WIDTH,
    fit: str | None = None,
    signed: bool | None = None,
) -> np.ndarray:
    """Images and their texts in rows, methods in columns (GE Fig 4): each map, and below it the text's words shaded.

    `words`: for each row and column the words and their weights, drawn by `shaded`; the image has them bare.
    Otherwise as `comparison`.
    """
    _check_rows(columns, images, maps, words)
    texts = [[(row[0][0], np.zeros(len(row[0][0]))), *row] for row in words]
    axes = _panels(images, ["", *columns], width, words=[row[0][0] for row in texts])
    for row, image, some, said in zip(axes, images, maps, texts, strict=True):
        _draw(row, [image] * len(row), [None, *some], fit, signed)
        for ax, (spelled, weights) in zip(row, said, strict=True):
            shaded(spelled, weights, ax)
    return axes


def gallery(
    images: Sequence[Array],
    maps: Sequence[Array],
    words: Sequence[tuple[Sequence[str], Array]],
    columns: int = 3,
    width: float = WIDTH,
    fit: str | None = None,
    signed: bool | None = None,
) -> np.ndarray:
    """Pairs in reading order, `columns` to a row (GE Fig 13, 14): image, map, and below them the text's shaded words.

    Makes a figure `width` inches wide and returns its axes, (rows, 2 * columns).
    """
    if not images or not len(images) == len(maps) == len(words):
        raise TensorError(f"got {len(images)} images, {len(maps)} maps, {len(words)} texts: expected as many of each")
    columns = min(columns, len(images))
    starts = range(0, len(images), columns)
    panel, size = _panel(2 * columns, width), plt.rcParams["font.size"] - 2
    rows = [[spelled for spelled, _ in words[i : i + columns]] for i in starts]
    longest = [max(row, key=lambda spelled: words_height(spelled, 2 * panel, size)) for row in rows]
    axes = _panels([images[i] for i in starts], [""] * 2 * columns, width, words=longest, across=2)
    for pair, image, map, (spelled, weights) in zip(axes.reshape(-1, 2), images, maps, words, strict=False):
        _draw(pair, [image, image], [None, map], fit, signed)
        shaded(spelled, weights, pair[0], 2 * panel + GAP)
    for ax in axes.reshape(-1)[2 * len(images) :]:
        ax.set_axis_off()
    return axes


def word_rows(
    images: Sequence[Array],
    words: Sequence[Sequence[tuple[Sequence[str], Array]]],
    names: Sequence[str],
    panel: float = 1.1,
    width: float = WIDTH,
) -> np.ndarray:
    """Images in rows, `panel` inches wide, and beside each its text once for each name, the words shaded (GE Fig 9).

    `words`: for each row and name the words and their weights. Makes a figure `width` inches wide and returns its
    axes, (rows, 1 + names).
    """
    _check_rows(names, images, words)
    size = plt.rcParams["font.size"] - 2
    left = panel + 3 * GAP + max(text_width(name, size) for name in names) / 72 + 2 * GAP
    lines = [[words_height(spelled, width - left, size) + GAP for spelled, _ in row] for row in words]
    tall = [panel * as_pixels(image).shape[0] / as_pixels(image).shape[1] for image in images]
    ends = np.cumsum([max(height, sum(some)) + 3 * GAP for height, some in zip(tall, lines, strict=True)])
    figure, axes = plt.figure(figsize=(width, ends[-1])), np.empty((len(images), 1 + len(names)), dtype=object)
    for i, (image, row) in enumerate(zip(images, words, strict=True)):
        top = ends[-1] - (ends[i - 1] if i else 0.0) - GAP
        box = (0, (top - tall[i]) / ends[-1], panel / width, tall[i] / ends[-1])
        axes[i, 0] = show(image, figure.add_axes(box))
        for j, (name, (spelled, weights)) in enumerate(zip(names, row, strict=True)):
            at = (top - sum(lines[i][:j])) / ends[-1]
            axes[i, 1 + j] = figure.add_axes((left / width, at, 1 - left / width, 1e-6))
            axes[i, 1 + j].set_axis_off()
            shaded(spelled, weights, axes[i, 1 + j], width - left)
            place = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "right", "va": "top"}
            axes[i, 1 + j].annotate(
                drawable(name),
                (0, 0),
                (-144 * GAP, -0.15 * size * WORD_LINE),
                fontsize=size,
                family=families(),
                **place,
            )
    return axes


def word_panels(
    images: Sequence[Array | None],
    words: Sequence[tuple[Sequence[str], Array]],
    titles: Sequence[str],
    columns: int = 3,
    panel: float = 2.2,
) -> np.ndarray:
    """Images in reading order, each with its text's shaded words below it; None for a text without an image.

    Makes a figure of its own and returns its axes, (rows, columns).
    """
    if not len(images) == len(words) == len(titles):
        raise TensorError(
            f"got {len(images)} images, {len(words)} texts, {len(titles)} titles: expected as many of each"
        )
    strip = np.ones((5, 20, 3))
    shown = [strip if image is None else image for image in images]
    axes = grid(shown, [None] * len(shown), titles, columns, panel=panel)
    for ax, (spelled, weights) in zip(axes.flat, words, strict=False):
        shaded(spelled, weights, ax, panel)
    return axes


def scattered(
    images: Sequence[Array],
    points: Sequence[Sequence[tuple[Array, Array, str | np.ndarray]]],
    columns: Sequence[str],
    grid: tuple[int, int],
    width: float = WIDTH,
) -> np.ndarray:
    """Images in rows, paled, and in each column points in the patches of a grid (grid_h, grid_w) over them (IC Fig 3).

    `points`: for each row and column the patches' numbers, counted row by row; a value each, larger ones drawn larger;
    and a colour for all, or one each. In its patch each lies at random, the same again in the same figure. Makes a
    figure `width` inches wide and returns its axes, (rows, columns).
    """
    _check_rows(columns, images, points)
    axes, random = _panels(images, columns, width), np.random.default_rng(0)
    for row, image, some in zip(axes, images, points, strict=True):
        pixels = as_pixels(image)
        for ax, (places, values, colour) in zip(row, some, strict=True):
            ax.imshow(0.5 + 0.5 * pixels)
            down, across = np.divmod(np.asarray(places), grid[1])
            y, x = (part + random.uniform(0.15, 0.85, len(part)) for part in (down, across))
            x, y = x * pixels.shape[1] / grid[1] - 0.5, y * pixels.shape[0] / grid[0] - 0.5
            ax.scatter(x, y, _areas(values), colour, alpha=0.7, linewidths=0)
    return axes


def _areas(values: Array) -> np.ndarray:
    """Points' areas, in square points, rising with their values over the range of POINTS."""
    sizes = np.asarray(values, dtype=float)
    low, high = sizes.min(initial=np.inf), sizes.max(initial=-np.inf)
    return POINTS[0] + (POINTS[1] - POINTS[0]) * (sizes - low) / max(high - low, 1e-12)


def _check_rows(columns: Sequence[str], *rows: Sequence) -> None:
    counts = [len(some) for some in rows]
    if not columns or not counts[0] or len(set(counts)) > 1 or {len(row) for row in rows[-1]} != {len(columns)}:
        raise TensorError(
            f"got rows {counts} of {sorted({len(row) for row in rows[-1]})} maps or texts, expected as many of each, "
            f"with one for each of {len(columns)} columns"
        )


def _draw(
    row: np.ndarray, images: Sequence[Array], maps: Sequence[Array | None], fit: str | None, signed: bool | None
) -> None:
    for ax, image, map in zip(row, images, maps, strict=True):
        if map is None:
            show(image, ax)
        else:
            overlay(image, map, ax, fit=fit, signed=signed)


def _panel(columns: int, width: float) -> float:
    return (width - (columns - 1) * GAP) / columns


def _panels(
    images: Sequence[Array],
    names: Sequence[str],
    width: float,
    above: Sequence[float] | None = None,
    words: Sequence[Sequence[str]] | None = None,
    across: int = 1,
) -> np.ndarray:
    """Bare axes in rows, as high as each row's image, under the columns' names; a place for each is kept exactly.

    `above`: inches of room above each row. `words`: those below each row, over `across` panels.
    """
    panel, size = _panel(len(names), width), plt.rcParams["font.size"] - 2
    below = [words_height(some, across * panel, size) for some in words] if words else [0.0] * len(images)
    small, lines = _column_names(names, panel)
    head = max(map(len, lines)) * LINE * small / 72
    heights = [panel * as_pixels(image).shape[0] / as_pixels(image).shape[1] for image in images]
    rooms = zip(above or [0.0] * len(images), heights, below, strict=True)
    ends = head + np.cumsum([sum(room) + 3 * GAP for room in rooms])
    figure = plt.figure(figsize=(width, ends[-1]))
    axes = np.empty((len(images), len(names)), dtype=object)
    for i, j in np.ndindex(*axes.shape):
        bottom = (ends[-1] - ends[i] + below[i] + GAP) / ends[-1]
        box = ((panel + GAP) * j / width, bottom, panel / width, heights[i] / ends[-1])
        axes[i, j] = figure.add_axes(box, xticks=[], yticks=[])
        axes[i, j].spines[:].set_visible(False)
    for j, name in enumerate(lines):
        for number, line in enumerate(reversed(name)):  # one by one, so that all names stand on the same lines
            place = ((panel + GAP) * j + panel / 2) / width, 1 - (head - (number + 0.15) * LINE * small / 72) / ends[-1]
            figure.text(*place, drawable(line), ha="center", va="baseline", fontsize=small, family=families())
    return axes


def _column_names(names: Sequence[str], panel: float) -> tuple[float, list[list[str]]]:
    """The font's size, at which every word of every name fits a panel, and the names in lines.

    A name like grad_cam may be broken at its underscore; a symbol like w_i keeps it.
    """
    size, names = plt.rcParams["font.size"] - 2, [re.sub(r"(?<=\w\w)_", " ", name) for name in names]
    widest = max((text_width(word, size) for name in names for word in name.split()), default=0.0)
    size *= min(1.0, 0.97 * 72 * panel / max(widest, 1.0))
    return size, [broken(name, 72 * panel, size) if name else [] for name in names]


def taken_apart(
    image: Array,
    texts: Sequence[str],
    shared: Mapping[str, Array],
    channels: Array,
    unplaced: Array,
    signed: Array,
    panel: float = 1.525,
) -> np.ndarray:
    """Grad-ECLIP's factors (GE Fig 2). Above: the image, and the three maps that all texts share, `shared` by title.

    Below, a row for each text: its channel weights as bars (`channels`: texts, channels; one scale for all rows), then
    w_c v and w_c w_i v (`unplaced`, `signed`: texts, grid_h, grid_w) by the rule of `blend_signed`, and the ReLU of the
    latter by that of `blend`. Makes a figure of its own and returns its axes, (1 + texts, 4).
    """
    pixels = as_pixels(image)
    aspect = pixels.shape[0] / pixels.shape[1]
    size = (4 * panel + 0.2, (len(texts) + 1) * (0.95 * panel * aspect + 0.08) + 0.45)
    _, axes = plt.subplots(len(texts) + 1, 4, figsize=size, squeeze=False, layout="compressed")
    for ax, map in zip(axes[0], [None, *shared.values()], strict=True):
        if map is None:
            show(pixels, ax)
        else:
            overlay(pixels, map, ax, signed=False)
    limit = float(torch.as_tensor(channels).abs().max())
    for row, text, weights, before, after in zip(axes[1:], texts, channels, unplaced, signed, strict=True):
        bars(weights, row[0], limit).set_box_aspect(aspect)
        row[0].set_ylabel("\n".join(text_lines(text, panel * aspect)), parse_math=False, family=families())
        overlay(pixels, before, row[1], signed=True)
        overlay(pixels, after, row[2], signed=True)
        overlay(pixels, as_map(after).relu(), row[3], signed=False)
    for ax, title in zip([*axes[0], *axes[1]], ["image", *shared, *PARTS], strict=True):
        ax.set_title(title, parse_math=True)
    return axes
