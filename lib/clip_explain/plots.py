"""One look for every figure: overlays of maps on images, alone and in grids, shaded words, means and curves.

Arrays and an optional `ax` in, axes out; nothing here computes a map or writes a file.
"""

import html
import textwrap
from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from cycler import cycler
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from PIL import Image

from clip_explain.errors import TensorError
from clip_explain.maps import normalize, resize
from clip_explain.metrics.statistics import Interval

Array = np.ndarray | torch.Tensor | Image.Image

COLOURS = "inferno"  # rises in lightness all the way: safe for the colour-blind, legible printed in grey
WIDTH = 6.3  # inches, 16 cm: the width of a printed page's text
LINE, WORD_LINE = 1.25, 1.4  # height of a line of text, and of shaded words, in its font's size
SIGNED = ("#5E3C99", "#E66101")  # below and above zero in maps with a sign; safe for the colour-blind
STRENGTH = (0.3, 0.7)  # of the colour over the image where the map is lowest and highest: the image stays legible
WORDS = 0.65  # of the colour behind the word with the largest weight: black stays legible on it
PARTS = (  # of eq. 7, the columns of `taken_apart`
    r"$w_c$, by channel",
    r"$\Sigma_c\,w_c\,v_{ic}$",
    r"$\Sigma_c\,w_c\,w_i\,v_{ic}$",
    r"$H_i$: its ReLU",
)
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


def shaded(
    words: Sequence[str], weights: Array, ax: Axes | None = None, inches: float | None = None, size: float | None = None
) -> Axes:
    """A text below an axes, each word on a ground coloured by `shades`, broken into lines no longer than `inches`.

    `inches` defaults to the axes' width; `size` is the font's. The figure needs room below the axes.
    """
    ax = plt.gca() if ax is None else ax
    size = plt.rcParams["font.size"] - 2 if size is None else size
    inches = ax.get_position().width * ax.figure.get_figwidth() if inches is None else inches
    space, colours, place = text_width("i", size), shades(weights), 0
    for number, line in enumerate(_word_lines(words, inches, size)):
        x = 0.0
        for word in line:
            ground = {"facecolor": colours[place], "edgecolor": "none", "pad": 0.12 * size}
            at = (x + 0.5, -(number + 0.15) * WORD_LINE * size)
            mark = ax.annotate(word, (0, 0), at, xycoords="axes fraction", textcoords="offset points", fontsize=size)
            mark.set(va="top", bbox=ground, parse_math=False)
            x, place = x + text_width(word, size) + space, place + 1
    return ax


def shades(weights: Array) -> Float[np.ndarray, "words 3"]:
    """Colours behind words: white at 0, orange above and purple below, the strongest at the largest magnitude."""
    values = np.asarray(weights, dtype=float)
    strength = WORDS * values[:, None] / max(np.abs(values).max(initial=0.0), np.finfo(np.float32).tiny)
    below, above = to_rgb(SIGNED[0]), to_rgb(SIGNED[1])
    return 1 - np.abs(strength) * (1 - np.where(strength > 0, above, below))


def shaded_html(words: Sequence[str], weights: Array) -> str:
    """The same as HTML, for a notebook."""
    spans = [
        f'<span style="background: {to_hex(colour)}; color: black; padding: 2px">{html.escape(word)}</span>'
        for word, colour in zip(words, shades(weights), strict=True)
    ]
    return " ".join(spans)


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
        show(pixels if map is None else blend(pixels, map), ax)
    limit = float(torch.as_tensor(channels).abs().max())
    for row, text, weights, before, after in zip(axes[1:], texts, channels, unplaced, signed, strict=True):
        bars(weights, row[0], limit).set_box_aspect(aspect)
        row[0].set_ylabel("\n".join(text_lines(text, panel * aspect)), parse_math=False)
        show(blend_signed(pixels, before), row[1])
        show(blend_signed(pixels, after), row[2])
        show(blend(pixels, as_map(after).relu()), row[3])
    for ax, title in zip([*axes[0], *axes[1]], ["image", *shared, *PARTS], strict=True):
        ax.set_title(title, parse_math=True)
    return axes


def bars(values: Array, ax: Axes | None = None, limit: float | None = None) -> Axes:
    """Numbers with a sign as thin bars from a middle line, in the colours of `blend_signed`; no ticks."""
    ax = plt.gca() if ax is None else ax
    heights = np.asarray(values, dtype=float)
    limit = max(float(np.abs(heights).max()), 1e-12) if limit is None else limit
    ax.bar(np.arange(len(heights)), heights, 1.0, color=np.where(heights > 0, SIGNED[1], SIGNED[0]))
    ax.axhline(0, color="0.4", linewidth=0.5)
    ax.set(xticks=[], yticks=[], xlim=(-1, len(heights)), ylim=(-1.05 * limit, 1.05 * limit))
    ax.spines[:].set_visible(False)
    return ax


def means(rows: Mapping[str, Interval], ax: Axes | None = None, chance: float | None = None, form: str = ".2f") -> Axes:
    """Means with their intervals, by name from top to bottom, numbers by `form`; the level of chance is dashed."""
    ax = plt.gca() if ax is None else ax
    for place, row in enumerate(rows.values()):
        ax.plot([row.low, row.high], [place, place], color=LINES[0], linewidth=2, solid_capstyle="butt")
        ax.plot(row.mean, place, "o", color=LINES[0], markersize=5)
        number = ax.annotate(format(row.mean, form), (row.mean, place), (0, 5), textcoords="offset points", fontsize=8)
        number.set(ha="center", bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})
    if chance is not None:
        ax.axvline(chance, color="0.4", linestyle="--", linewidth=1, zorder=0)
        ax.annotate("chance", (chance, len(rows) - 0.5), (3, 3), textcoords="offset points", color="0.4", fontsize=8)
    ax.set_yticks(range(len(rows)), list(rows))
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(rows) - 0.4, -0.7)
    return ax


def curves(rows: Mapping[str, Array | Sequence], ax: Axes | None = None) -> Axes:
    """Curves by name over [0, 1] with a band: each (images, points), the line the mean, the band 10 to 90 % of them."""
    ax = plt.gca() if ax is None else ax
    for name, values in rows.items():
        values = np.asarray(values, dtype=float)
        x = (1 + np.arange(values.shape[1])) / values.shape[1]
        (line,) = ax.plot(x, values.mean(axis=0), label=name)
        ax.fill_between(x, *np.quantile(values, [0.1, 0.9], axis=0), color=line.get_color(), alpha=0.2, linewidth=0)
    ax.legend(loc="lower right", fontsize=8)
    ax.set(xlim=(0, 1), ylim=(0, 1.01))
    return ax


def by_layer(
    rows: Mapping[str, Sequence[Interval]], ax: Axes | None = None, chance: Interval | None = None, title: str = ""
) -> Axes:
    """Means by layer, counted from 1, by name: a line through the means, a band over the intervals; chance dashed."""
    ax = plt.gca() if ax is None else ax
    for (name, row), mark in zip(rows.items(), "os^Dv<>" * len(rows), strict=False):
        layers = range(1, len(row) + 1)
        (line,) = ax.plot(layers, [value.mean for value in row], marker=mark, markersize=3, label=name)
        band = [value.low for value in row], [value.high for value in row]
        ax.fill_between(layers, *band, color=line.get_color(), alpha=0.2, linewidth=0)
    if chance is not None:
        ax.axhline(chance.mean, color="0.4", linestyle="--", linewidth=1, zorder=0, label="chance")
    ax.set(xlabel="layer", title=title)
    ax.xaxis.get_major_locator().set_params(integer=True)
    return ax


def set_title(ax: Axes, title: str, inches: float) -> None:
    """A title broken into lines no longer than `inches`. A user's text may hold dollar signs: it is no mathematics."""
    ax.set_title("\n".join(text_lines(title, inches)), parse_math=False)


def text_lines(title: str, inches: float, size: float | None = None) -> list[str]:
    """A text in lines no longer than 0.9 of `inches`, its own line breaks kept; the font is a title's by default."""
    return [line for part in title.splitlines() for line in broken(part, 72 * 0.9 * inches, size)]


def broken(text: str, points: float, size: float | None = None) -> list[str]:
    """A text in lines of as many letters as fit, by the letters' true widths."""
    average = text_width(text, size) / max(len(text), 1)
    most = min(len(text), int(1.5 * points / max(average, 1.0)))
    for letters in range(most, 1, -1):
        lines = textwrap.wrap(text, letters)
        if max((text_width(line, size) for line in lines), default=0) <= points:
            return lines
    return [text]


def words_height(words: Sequence[str], inches: float, size: float) -> float:
    """The room in inches that `shaded` takes below an axes."""
    return len(_word_lines(words, inches, size)) * WORD_LINE * size / 72


def _word_lines(words: Sequence[str], inches: float, size: float) -> list[list[str]]:
    """Words in lines: as many to a line as fit, at least one."""
    lines, room = [[]], 72 * inches
    for word in words:
        line = [*lines[-1], word]
        if lines[-1] and sum(text_width(each, size) + text_width("i", size) for each in line) > room:
            lines.append([word])
        else:
            lines[-1] = line
    return lines


def text_width(line: str, size: float | None = None) -> float:
    """A line's width in points, by the letters' true widths; the font is a title's by default."""
    font = FontProperties(size=plt.rcParams["axes.titlesize"] if size is None else size)
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


def series(
    rows: Mapping[str, Mapping[str, Interval]],
    ax: Axes | None = None,
    chance: float | None = None,
    kinds: Sequence[str] = (),
) -> Axes:
    """Means with their intervals, several a name, each series in its own colour and mark; the level of chance dashed.

    `rows`: by name from top to bottom, and in each by series; a row may lack some. `kinds`: the series in order, so
    that a series looks the same in several axes. The legend is the caller's.
    """
    ax = plt.gca() if ax is None else ax
    kinds = kinds or list(dict.fromkeys(kind for row in rows.values() for kind in row))
    for number, kind in enumerate(kinds):
        mark = {"color": LINES[number % len(LINES)], "marker": "osD^v<>"[number % 7], "markersize": 4, "linewidth": 0}
        places = [place + 0.6 * ((number + 0.5) / len(kinds) - 0.5) for place in range(len(rows))]
        found = [(place, row[kind]) for place, row in zip(places, rows.values(), strict=True) if kind in row]
        low, high = [x.low for _, x in found], [x.high for _, x in found]
        ax.hlines([y for y, _ in found], low, high, color=mark["color"])
        ax.plot([x.mean for _, x in found], [y for y, _ in found], label=kind, **mark)
    if chance is not None:
        ax.axvline(chance, color="0.4", linestyle="--", linewidth=1, zorder=0)
    ax.set_yticks(range(len(rows)), list(rows))
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    return ax


def heats(rows: Mapping[str, Mapping[str, Array]], columns: int = 4, panel: float = WIDTH / 4.7) -> np.ndarray:
    """Maps without an image, by row title and then by title, all on one scale from 0 to their largest value.

    A row title's maps take as many lines of `columns` as they need. Makes a figure of its own and returns its axes.
    """
    lines = [
        (name if start == 0 else "", list(row.items())[start : start + columns])
        for name, row in rows.items()
        for start in range(0, len(row), columns)
    ]
    top = max(float(as_map(map).max()) for _, line in lines for _, map in line)
    size = (panel * columns + 0.7, (panel + 0.12) * len(lines))
    figure, axes = plt.subplots(len(lines), columns, figsize=size, squeeze=False, layout="compressed")
    for ax in axes.flat:
        ax.set_axis_off()
    for row, (name, line) in zip(axes, lines, strict=True):
        for ax, (title, map) in zip(row, line, strict=False):
            ax.imshow(as_map(map).numpy(), cmap=COLOURS, vmin=0, vmax=top)
            ax.set(xticks=[], yticks=[])
            ax.set_axis_on()
            ax.spines[:].set_visible(False)
            set_title(ax, title, panel)
        row[0].set_ylabel(name)
    figure.colorbar(axes[0, 0].images[0], ax=axes, shrink=0.5, aspect=30)
    return axes


def confusion(counts: Array | Sequence, names: Sequence[str], ax: Axes | None = None) -> Axes:
    """A confusion matrix, truth in rows and guesses in columns: each row's shares in percent."""
    ax = plt.gca() if ax is None else ax
    table = np.asarray(counts, dtype=float)
    shares = 100 * table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    ax.imshow(shares, cmap=COLOURS, vmin=0, vmax=100)
    for (row, column), share in np.ndenumerate(shares):
        colour = "black" if share > 60 else "white"
        ax.text(column, row, f"{share:.0f}", ha="center", va="center", color=colour, fontsize=7)
    ax.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set(xlabel="guessed", ylabel="drawn from")
    return ax
