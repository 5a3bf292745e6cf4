"""Charts of numbers: bars, means with intervals, curves, series over layers, confusion."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from clip_explain.errors import TensorError
from clip_explain.metrics.intervals import Interval
from clip_explain.plots.style import COLOURS, LINES, SIGNED, WIDTH, Array, as_map, set_title


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


def means(
    rows: Mapping[str, Interval],
    ax: Axes | None = None,
    chance: int | float | None = None,
    form: str = ".2f",
    beside: bool = False,
) -> Axes:
    """Means with their intervals, by name from top to bottom, numbers by `form`; the level of chance is dashed.

    A number stands above its mean, or, where there are many rows, `beside` its interval.
    """
    ax = plt.gca() if ax is None else ax
    for place, row in enumerate(rows.values()):
        ax.plot([row.low, row.high], [place, place], color=LINES[0], linewidth=2, solid_capstyle="butt")
        ax.plot(row.mean, place, "o", color=LINES[0], markersize=5)
        at, off = ((row.high, place), (7, 0)) if beside else ((row.mean, place), (0, 5))
        number = ax.annotate(format(row.mean, form), at, off, textcoords="offset points", fontsize=8)
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        number.set(ha="left" if beside else "center", va="center" if beside else "baseline", bbox=box)
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


def training(
    losses: Mapping[int, float], stages: Mapping[str, int], ax: Axes | None = None, span: int | None = None
) -> Axes:
    """The loss by step, thin, and its running mean over `span` of them (a fiftieth); stages by name and steps.

    Losses of stages with different numbers of pictures and captions in a batch are not comparable.
    """
    ax = plt.gca() if ax is None else ax
    steps, values = np.array(list(losses)), np.array(list(losses.values()), dtype=float)
    span = min(span or max(1, len(values) // 50), len(values))
    mean = np.full(span, 1 / span)
    ax.plot(steps, values, color=LINES[0], alpha=0.25, linewidth=0.5)
    ax.plot(np.convolve(steps, mean, "valid"), np.convolve(values, mean, "valid"), color=LINES[0], linewidth=1.2)
    begins = 0
    for name, count in stages.items():
        if begins:
            ax.axvline(begins, color="0.4", linestyle="--", linewidth=0.8)
        if begins <= steps[-1]:
            at = {"xy": (begins, 1), "xytext": (3, -3), "ha": "left"}
            if begins > 0.85 * steps[-1]:  # not enough space on the right
                at = {"xy": (begins, 1), "xytext": (-3, -3), "ha": "right"}
            ax.annotate(
                name, **at, xycoords=("data", "axes fraction"), textcoords="offset points", va="top", fontsize=8
            )
        begins += count
    ax.set(xlabel="step", ylabel="loss", xlim=(0, steps[-1] + 1))
    return ax


def by_layer(
    rows: Mapping[str, Sequence[Interval]], ax: Axes | None = None, chance: Interval | None = None, title: str = ""
) -> Axes:
    """Means by layer, counted from 0, by name: a line through the means, a band over the intervals; chance dashed."""
    ax = plt.gca() if ax is None else ax
    for (name, row), mark in zip(rows.items(), "os^Dv<>" * len(rows), strict=False):
        layers = range(len(row))
        (line,) = ax.plot(layers, [value.mean for value in row], marker=mark, markersize=3, label=name)
        band = [value.low for value in row], [value.high for value in row]
        ax.fill_between(layers, *band, color=line.get_color(), alpha=0.2, linewidth=0)
    if chance is not None:
        ax.axhline(chance.mean, color="0.4", linestyle="--", linewidth=1, zorder=0, label="chance")
    ax.set(xlabel="layer", title=title)
    locator: Any = ax.xaxis.get_major_locator()
    locator.set_params(integer=True)
    return ax


def series(
    rows: Mapping[str, Mapping[str, Interval]],
    ax: Axes | None = None,
    chance: int | float | None = None,
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


def heats(
    rows: Mapping[str, Mapping[str, Array]], columns: int = 4, panel: float = WIDTH / 4.7, scale: str = "shared"
) -> np.ndarray:
    """Maps without an image, by row title and then by title, all on one scale from 0 to their largest value.

    With `scale="own"` each map has its own, from its least to its largest value, which stand below its title. A row
    title's maps take as many lines of `columns` as they need. Makes a figure of its own and returns its axes.
    TensorError for another scale.
    """
    if scale not in ("shared", "own"):
        raise TensorError(f"got scale={scale!r}, expected 'shared' or 'own'")
    lines = [
        (name if start == 0 else "", list(row.items())[start : start + columns])
        for name, row in rows.items()
        for start in range(0, len(row), columns)
    ]
    top = max(float(as_map(map).max()) for _, line in lines for _, map in line)
    own = scale == "own"
    size = (panel * columns + (0.2 if own else 0.7), (panel + (0.3 if own else 0.12)) * len(lines))
    figure, axes = plt.subplots(len(lines), columns, figsize=size, squeeze=False, layout="compressed")
    for ax in axes.flat:
        ax.set_axis_off()
    for row, (name, line) in zip(axes, lines, strict=True):
        for ax, (title, map) in zip(row, line, strict=False):
            heat = as_map(map)
            low, high = (float(heat.min()), float(heat.max())) if own else (0.0, top)
            ax.imshow(heat.numpy(), cmap=COLOURS, vmin=low, vmax=high)
            ax.set(xticks=[], yticks=[])
            ax.set_axis_on()
            ax.spines[:].set_visible(False)
            set_title(ax, f"{title}\n{low:.2f} to {high:.2f}" if own else title, panel)
        row[0].set_ylabel(name)
    if not own:
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
