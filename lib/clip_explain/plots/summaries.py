"""Charts and tables of a summary: the table of means with intervals that papers.summarize returns.

Above charts.py, whose `means` and `series` draw the rows. For example, of a summary by setting, method and metric:

    plots.means(summary[summary["metric"] == "pointing_game"], chance=0.1)
    plots.panels(summary, {"pointing_game": "pointing game", "average_precision": "AP"}, order=["grad_eclip", "game"])
    plots.table(summary, columns=["metric", "setting"])
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from clip_explain.errors import MethodError, TensorError, nearest
from clip_explain.metrics.intervals import Interval
from clip_explain.plots import charts
from clip_explain.plots.style import LINES, WIDTH

REFERENCES = ((1, 1), (4, 1.5))  # the dashes of references, in turn
NUMBERS = ("mean", "low", "high", "images")


def means(
    rows: Mapping[str, Interval] | pd.DataFrame,
    ax: Axes | None = None,
    chance: int | float | None = None,
    form: str = ".2f",
    names: str = "method",
    beside: bool = False,
) -> Axes:
    """Means with their intervals from top to bottom, numbers by `form`; the level of chance is dashed.

    A number stands above its mean, or, where there are many rows, `beside` its interval.
    `rows`: intervals by name, or a summary, whose column `names` names them. TensorError if two rows have one name.
    """
    return charts.means(_by_name(rows, names), ax, chance, form, beside)


def series(
    rows: Mapping[str, Mapping[str, Interval]] | pd.DataFrame,
    ax: Axes | None = None,
    chance: int | float | None = None,
    kinds: Sequence[str] = (),
    names: str = "method",
    by: str = "setting",
) -> Axes:
    """Means with their intervals, several a name, each kind in its own colour and mark; the level of chance is dashed.

    `rows`: intervals by name and then by kind, or a summary: its column `names` names the rows, its column `by` the
    kinds. A row may lack some. `kinds`: the kinds in order, so that one looks the same in several axes. The legend is
    the caller's. TensorError if two rows of a summary have the same name and kind.
    """
    if isinstance(rows, pd.DataFrame):
        kinds = kinds or list(rows[by].unique())
        rows = {name: _by_name(part, by) for name, part in rows.groupby(names, sort=False)}
    return charts.series(rows, ax, chance, kinds)


def by_layer(
    rows: Mapping[str, Sequence[Interval] | pd.DataFrame],
    ax: Axes | None = None,
    chance: Interval | None = None,
    title: str = "",
) -> Axes:
    """Means by layer, counted from 0: a line and a band for each name; the level of chance is dashed.

    `rows`: by name the intervals in the order of the layers, or a part of a summary in that order.
    """
    listed = {name: _listed(row) for name, row in rows.items()}
    return charts.by_layer(listed, ax, chance, title)


def panels(
    summary: pd.DataFrame,
    titles: Mapping[str, str],
    order: Sequence[str] = (),
    chance: Mapping[str, float] | None = None,
    columns: int = 3,
    names: str = "method",
    by: str = "setting",
) -> np.ndarray:
    """A figure with a panel for each metric of `titles` (metric -> title), all with the same rows; returns its axes.

    `order` chooses the rows, from top to bottom. `chance`: metric -> the level that is dashed. The legend of the kinds
    in the column `by` stands below, if there are several.
    """
    order = list(order) or list(summary[names].unique())
    shown = summary[summary[names].isin(order) & summary["metric"].isin(titles)]
    places = shown[names].map(order.index).to_numpy()
    shown = shown.iloc[places.argsort(kind="stable")]
    kinds, lines = list(shown[by].unique()), -(-len(titles) // columns)
    size = (WIDTH, lines * (0.9 + 0.2 * len(order)) + 0.3)
    figure, axes = plt.subplots(
        lines, min(columns, len(titles)), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    for ax in axes.flat[len(titles) :]:
        ax.set_axis_off()
    for ax, (metric, title) in zip(axes.flat, titles.items(), strict=False):
        rows = shown[shown["metric"] == metric]
        by_name = {name: _by_name(rows[rows[names] == name], by) for name in order}
        charts.series(by_name, ax, (chance or {}).get(metric), kinds)
        ax.set_title(title)
        ax.locator_params(axis="x", nbins=4 if columns < 4 else 3)
    if len(kinds) > 1:
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return axes


def lines(
    summary: pd.DataFrame,
    shown: Sequence[str],
    ax: Axes | None = None,
    references: Sequence[str] = (),
    x: str = "target",
    names: str = "method",
) -> Axes:
    """Means against the column `x`, a line for each name with the band of its interval.

    The names in `shown` have colours, the first of them black. `references`, such as a ceiling and a floor, are grey
    and dotted. All others are thin and light grey, with one entry in the legend, which the caller draws. MethodError
    for an unknown name.
    """
    ax = plt.gca() if ax is None else ax
    by_name = dict(tuple(summary.groupby(names, sort=False)))
    if missing := [name for name in (*shown, *references) if name not in by_name]:
        raise MethodError(f"no rows of {missing[0]!r}: {nearest(missing[0], by_name)}")
    for name, color in zip(shown, LINES[-1:] + LINES, strict=False):
        rows = by_name[name]
        ax.plot(rows[x], rows["mean"], color=color, label=name, linewidth=1.4, zorder=3)
        ax.fill_between(rows[x], rows["low"], rows["high"], color=color, alpha=0.12, linewidth=0)
    for number, name in enumerate(references):
        ax.plot(by_name[name][x], by_name[name]["mean"], color="0.4", dashes=REFERENCES[number % 2], label=name)
    for number, name in enumerate(name for name in by_name if name not in (*shown, *references)):
        label = None if number else "others"
        ax.plot(by_name[name][x], by_name[name]["mean"], color="0.8", linewidth=0.8, label=label, zorder=1)
    return ax


def line_panels(
    summary: pd.DataFrame,
    titles: Mapping[str, str],
    shown: Sequence[str],
    references: Sequence[str] = (),
    xlabel: str = "",
    ylabel: str = "",
    columns: int = 2,
) -> np.ndarray:
    """A figure with a panel of `lines` for each metric of `titles` (metric -> title); returns its axes.

    All panels have the same axes, y from 0 to 1; the legend stands below.
    """
    high = -(-len(titles) // columns)
    size = (WIDTH, 0.8 + 2.1 * high if high > 1 else 3.2)
    figure, axes = plt.subplots(
        high, columns, figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for ax, (metric, title) in zip(axes.flat, titles.items(), strict=False):
        lines(summary[summary["metric"] == metric], shown, ax, references)
        ax.set(title=title, ylim=(0, 1))
    layout: Any = figure.get_layout_engine()
    layout.set(wspace=0.05)  # so that the last tick's label and the next panel's first do not touch
    for ax in axes[-1]:
        ax.set_xlabel(xlabel)
    for ax in axes[:, 0]:
        ax.set_ylabel(ylabel)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return axes


def trends(
    summary: pd.DataFrame,
    titles: Mapping[str, str],
    at: Mapping[str, int | float],
    xlabel: str = "",
    columns: int = 4,
    by: str = "setting",
) -> np.ndarray:
    """A figure with a panel for each metric of `titles` (metric -> title): its means over a number; returns its axes.

    `at`: method -> its place along the number's axis, as the layers that it reads. Each kind in the column `by` has its
    own line, a band over its intervals, and is named in the legend below.
    """
    shown = summary[summary["method"].isin(at) & summary["metric"].isin(titles)]
    shown = shown.assign(place=shown["method"].map(at)).sort_values("place", kind="stable")
    kinds, high = list(dict.fromkeys(summary[by][shown.index.sort_values()])), -(-len(titles) // columns)
    places = sorted(set(at.values()))
    size = (WIDTH, 1.8 * high + 0.3)
    figure, axes = plt.subplots(high, min(columns, len(titles)), figsize=size, squeeze=False, layout="constrained")
    for ax, (metric, title) in zip(axes.flat, titles.items(), strict=False):
        for kind, mark in zip(kinds, "os^Dv<>" * len(kinds), strict=False):
            part = shown[(shown["metric"] == metric) & (shown[by] == kind)]
            (line,) = ax.plot(part["place"], part["mean"], marker=mark, markersize=4, label=kind)
            ax.fill_between(part["place"], part["low"], part["high"], color=line.get_color(), alpha=0.2, linewidth=0)
        ax.set(title=title, xlabel=xlabel, xticks=places if len(places) < 5 else places[::2])
    for ax in axes.flat[len(titles) :]:
        ax.set_axis_off()
    if len(kinds) > 1:
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return axes


def table(
    summary: pd.DataFrame, rows: str = "method", columns: Sequence[str] = ("metric",), form: str = ".3f"
) -> pd.DataFrame:
    """The summary as text, "0.512 [0.401, 0.620]", rows and columns in the order in which they appear; "-" for none.

    A number without images behind it, as a paper prints it, stands alone.
    """
    wide: dict = {}
    for row in summary.to_dict("records"):
        name = row[columns[0]] if len(columns) == 1 else tuple(row[column] for column in columns)
        cells = wide.setdefault(name, {})
        if row[rows] in cells:
            raise TensorError(f"two rows of the summary belong to {row[rows]!r}, {name!r}: add a column to columns=")
        cells[row[rows]] = _text(row, form)
    found = pd.DataFrame(wide).reindex(list(summary[rows].unique())).fillna("-")
    return found.rename_axis(index=rows, columns=list(columns) if len(columns) > 1 else columns[0])


def _text(row: Mapping, form: str) -> str:
    if not row["images"]:
        return format(row["mean"], form)
    return f"{row['mean']:{form}} [{row['low']:{form}}, {row['high']:{form}}]"


def _listed(rows: Sequence[Interval] | pd.DataFrame) -> Sequence[Interval]:
    """The rows of a summary as intervals; a list unchanged."""
    if not isinstance(rows, pd.DataFrame):
        return rows
    return [Interval(*numbers) for numbers in rows[list(NUMBERS)].itertuples(index=False)]


def _by_name(rows: Mapping[str, Interval] | pd.DataFrame, names: str) -> Mapping[str, Interval]:
    """The rows of a summary as intervals by name; a mapping unchanged."""
    if not isinstance(rows, pd.DataFrame):
        return rows
    if missing := [column for column in (names, *NUMBERS) if column not in rows]:
        raise TensorError(f"the summary lacks {', '.join(missing)}; it has {', '.join(map(str, rows.columns))}")
    if rows[names].duplicated().any():
        twice = rows.loc[rows[names].duplicated(), names].iloc[0]
        raise TensorError(f"two rows of the summary are called {twice!r}: choose one metric and one setting first")
    return {row[names]: Interval(*(row[column] for column in NUMBERS)) for row in rows.to_dict("records")}
