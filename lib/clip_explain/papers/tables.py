"""The long table: all that a notebook or a sweep measures, one number a row; and means of it with intervals.

A notebook measures into it, then asks `summarize`, `judge` (verdicts.py) and the charts of plots/:

    rows = []
    for record in data:
        maps = cx.explain(model, record.image, record.texts, "game")[0]
        rows += papers.measured(record.id, "game", {"pointing_game": pointing_game(maps, record.masks)})
    table = papers.long_table(rows)
    papers.summarize(table)  # one row a setting, method and metric: mean, low, high, images
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from clip_explain.errors import MethodError, TensorError, nearest
from clip_explain.explainers.registry import title_of
from clip_explain.metrics.intervals import bootstrap, class_means_by_image

COLUMNS = ("image", "target", "setting", "method", "metric", "value")
KEYS = list(COLUMNS[:-1])  # what tells one row from another
BY = ("setting", "method", "metric")


def measured(
    image: str, method: str, values: Mapping[str, Any], setting: str = "", targets: Sequence | None = None
) -> list[dict[str, Any]]:
    """Rows of the long table for one image and one method.

    `values` has for each metric one number, or one for each target (a tensor, an array or a list); NaN says that the
    question has no answer there. `targets` names the targets; by default they are counted from 0.

        measured("image 1", "game", {"pointing_game": torch.tensor([1.0, 0.0])})  # two rows, of targets 0 and 1
    """
    rows = []
    for metric, numbers in values.items():
        numbers = np.atleast_1d(np.asarray(numbers, dtype=float))
        names = range(len(numbers)) if targets is None else targets
        if len(names) != len(numbers):
            raise TensorError(f"{metric}: got {len(numbers)} values for {len(names)} targets, expected one each")
        row = {"image": image, "setting": setting, "method": method, "metric": metric}
        rows += [{**row, "target": name, "value": float(value)} for name, value in zip(names, numbers, strict=True)]
    return rows


def measured_each(
    images: Sequence[str], method: str, values: Mapping[str, Any], setting: str = ""
) -> list[dict[str, Any]]:
    """Rows of the long table for many images and one method; `values` has for each metric one number an image."""
    rows = []
    for metric, numbers in values.items():
        if len(numbers) != len(images):
            raise TensorError(f"{metric}: got {len(numbers)} values for {len(images)} images, expected one each")
        for image, number in zip(images, numbers, strict=True):
            rows += measured(image, method, {metric: number}, setting)
    return rows


def measured_by_class(
    images: Sequence[str], classes: Sequence, method: str, values: Mapping[str, Any], setting: str = ""
) -> list[dict[str, Any]]:
    """Rows of the long table whose mean over images is the mean over classes of the class means: mMIoU, mFMB.

    `values` has for each metric one number a map; `images` and `classes` say to which image and class each map belongs.
    An image's row is what it adds to that mean (`intervals.class_means_by_image`), and may lie outside the metric's
    range. TensorError for lists of different lengths, or a metric that is NaN for all maps.
    """
    rows = []
    for metric, numbers in values.items():
        if not len(numbers) == len(images) == len(classes):
            raise TensorError(f"{metric}: got {len(numbers)} values for {len(images)} images, {len(classes)} classes")
        parts = class_means_by_image(numbers, classes, images)
        for image, part in zip(dict.fromkeys(images), parts, strict=True):
            rows += measured(image, method, {metric: part}, setting)
    return rows


def long_table(rows: pd.DataFrame | Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """A checked table with the columns image, target, setting, method, metric, value, of rows or of a sweep's table.

    `target` is 0 and `setting` empty where the rows have none; other columns are left out. TensorError for a missing
    column, no rows, an empty cell in a key, values that are infinite or no numbers, and two rows with the same keys.
    """
    table = rows.copy() if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    if missing := [name for name in ("image", "method", "metric", "value") if name not in table]:
        raise TensorError(f"the table lacks {', '.join(missing)}; it has {', '.join(map(str, table.columns))}")
    table = table.assign(**{name: empty for name, empty in (("target", 0), ("setting", "")) if name not in table})
    table = table[list(COLUMNS)].reset_index(drop=True)
    if empty := [name for name in KEYS if bool(table[name].isna().any())]:
        raise TensorError(f"{int(table[empty[0]].isna().sum())} rows have no {empty[0]}")
    if not len(table) or not pd.api.types.is_numeric_dtype(table["value"]):
        raise TensorError(f"got {len(table)} rows with values of {table['value'].dtype}, expected numbers")
    if np.isinf(table["value"]).any():
        raise TensorError(f"{int(np.isinf(table['value']).sum())} values are infinite")
    twice = table[table.duplicated(KEYS)]
    if len(twice):
        raise TensorError(f"{len(twice)} rows have the keys of another, as {twice.iloc[0][KEYS].to_dict()}")
    found: pd.DataFrame = table.astype({"value": float})
    return found


def completed(table: pd.DataFrame, setting: str | Sequence[str], other: str) -> pd.DataFrame:
    """The table with the rows of methods that `setting` (or each of several) lacks taken from the setting `other`.

    Methods whose released code follows their paper need not be measured a second time in the setting "as released".
    """
    if not isinstance(setting, str):
        for each in setting:
            table = completed(table, each, other)
        return table
    for name in (setting, other):
        if name not in set(table["setting"]):
            raise TensorError(f"no rows of setting {name!r}: {nearest(name, table['setting'].unique())}")
    there = set(table.loc[table["setting"] == setting, "method"])
    lacking = table[(table["setting"] == other) & ~table["method"].isin(there)]
    return pd.concat([table, lacking.assign(setting=setting)], ignore_index=True)


def with_unasked(table: pd.DataFrame) -> pd.DataFrame:
    """The table with NaN where an image has no number of a method's metric; an image's targets are averaged.

    So every image has a row of every question, and `judge` can pair the images of two methods. It has one setting.
    """
    wide = table.pivot_table(index="image", columns=["metric", "method"], values="value")
    return long_table(wide.melt(ignore_index=False).reset_index())


def also_called(table: pd.DataFrame, names: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """The table, and the rows of some methods once more under each of their other names.

    This serves two tables of a paper that call one method by two names. MethodError for a method that has no rows.
    """
    parts = [table]
    for method, others in names.items():
        rows = table[table["method"] == method]
        if rows.empty:
            raise MethodError(f"{method!r} has no rows: {nearest(method, table['method'].unique())}")
        parts += [rows.assign(method=other) for other in others]
    return pd.concat(parts, ignore_index=True)


def titled(table: pd.DataFrame) -> pd.DataFrame:
    """A table or a summary with its methods called as in the papers, to be drawn: "game" becomes "GAME"."""
    return table.assign(method=table["method"].map(title_of))


def mean_of(summary: pd.DataFrame, method: str, metric: str) -> float:
    """One mean of a summary, such as the level of chance. TensorError unless exactly one row has it."""
    rows = summary[(summary["method"] == method) & (summary["metric"] == metric)]
    if len(rows) != 1:
        raise TensorError(f"{len(rows)} rows are of {method!r} and {metric!r}, expected one")
    return float(rows["mean"].iloc[0])


def by_ending(summary: pd.DataFrame, ending: str, settings: tuple[str, str]) -> pd.DataFrame:
    """A table or a summary whose methods "ICLIP" and "ICLIP untrained" become one method in two settings.

    The names that have the `ending` lose it, and their rows get the second of `settings`, all others the first.
    """
    marked = summary["method"].str.endswith(ending)
    names = summary["method"].str.removesuffix(ending)
    return summary.assign(method=names, setting=np.where(marked, settings[1], settings[0]))


def averaged(table: pd.DataFrame, methods: Sequence[str], name: str) -> pd.DataFrame:
    """The table with rows of one more method, `name`: for each image, target, setting and metric the mean of `methods`.

    A statement can then be about several methods together, such as all layers. MethodError for one without rows.
    """
    if missing := [method for method in methods if method not in set(table["method"])]:
        raise MethodError(f"{missing[0]!r} has no rows: {nearest(missing[0], table['method'].unique())}")
    some = table[table["method"].isin(methods)]
    found = some.groupby(["image", "target", "setting", "metric"], sort=False)["value"].mean().reset_index()
    both: pd.DataFrame = pd.concat([table, found.assign(method=name)[list(COLUMNS)]], ignore_index=True)
    return both


def within_images(table: pd.DataFrame) -> pd.DataFrame:
    """The table with each value less its image's own level, plus the level of all: for intervals of paired numbers.

    An image's targets are averaged first. The level is the mean over all methods and settings, by metric and image: so
    means over images stay as they are, and the intervals that `summarize` gives leave out by how much images differ
    (Cousineau 2005). Every image must have been measured with all methods: TensorError if not.
    """
    table = long_table(table).groupby(["image", *BY], sort=False)["value"].mean().reset_index()
    by_image = table.groupby(["metric", "image"])["value"]
    counts = by_image.transform("size").groupby(table["metric"])
    if bool((counts.min() != counts.max()).any()):
        metric = (counts.min() != counts.max()).idxmax()
        raise TensorError(f"{metric}: some images have fewer rows than others, expected every method for each image")
    level = by_image.transform("mean")
    return table.assign(value=table["value"] - level + level.groupby(table["metric"]).transform("mean"))


def summarize(table: pd.DataFrame, by: Sequence[str] = BY, seed: int = 0, level: float = 0.95) -> pd.DataFrame:
    """The mean of each group of rows with its bootstrap interval: columns `by`, mean, low, high and images.

    The values of one image within a group are averaged first, so that each image counts the same and the interval is
    that of drawing the images anew. NaN is left out, and so is a group in which all values are NaN. Groups keep the
    order in which they appear. TensorError if `by` would average different metrics.
    """
    table, by = long_table(table), list(by)
    if "metric" not in by and int(table["metric"].nunique()) > 1:
        raise TensorError(f"by={by} would average {table['metric'].nunique()} metrics: add 'metric', or choose one")
    by_image = table.dropna(subset="value").groupby([*by, "image"], sort=False)["value"].mean()
    rows = []
    for names, values in by_image.groupby(level=by, sort=False):
        found = bootstrap(values, seed, level)
        names = names if isinstance(names, tuple) else (names,)
        rows.append((*names, found.mean, found.low, found.high, found.count))
    return pd.DataFrame(rows, columns=[*by, "mean", "low", "high", "images"])


def furthest_apart(
    table: pd.DataFrame, metric: str, methods: tuple[str, str], count: int, setting: str = ""
) -> list[tuple[str, Any]]:
    """The images, each with one of its targets, in which two methods' values of a metric differ most: cases to draw.

    The furthest first; of each image the target that it differs most in. Fewer than `count` if there are no more.
    MethodError for a method without numbers of the metric in this setting.
    """
    rows = table[(table["metric"] == metric) & (table["setting"] == setting)]
    wide = rows.pivot(index=["image", "target"], columns="method", values="value")
    for method in methods:
        if method not in wide:
            raise MethodError(f"{method!r} has no numbers of {metric}: {nearest(method, wide.columns)}")
    differences: pd.Series = wide[methods[0]] - wide[methods[1]]
    gap = differences.abs().dropna().sort_values(ascending=False, kind="stable")
    by_image = gap[~gap.index.get_level_values("image").duplicated()]
    return list(by_image.index[:count])


def by_method(table: pd.DataFrame, metric: str, methods: Sequence[str]) -> pd.DataFrame:
    """Images as rows and the methods as columns: each image's mean over its targets, on the same targets for all.

    A target where one method has NaN is left out for all methods. TensorError without numbers of the metric, or where
    an image or a target lacks the row of a method; MethodError for a method that has no numbers.
    """
    rows = table[table["metric"] == metric]
    if rows.empty:
        raise TensorError(f"no numbers of {metric!r}: {nearest(metric, table['metric'].dropna().unique())}")
    for method in methods:
        if method not in set(rows["method"]):
            raise MethodError(f"{method!r} has no numbers of {metric}: {nearest(method, rows['method'].unique())}")
    rows = rows[rows["method"].isin(methods)]
    if np.isinf(rows["value"]).any():
        raise TensorError(f"{metric}: {int(np.isinf(rows['value']).sum())} values are infinite")
    keys = [column for column in ("image", "target", "method") if column in rows]
    wide = rows.groupby(keys)["value"]
    if lacking := int(wide.size().unstack("method").isna().any(axis=1).sum()):
        raise TensorError(f"{metric}: {lacking} images or targets lack a row of one of {', '.join(methods)}")
    complete = wide.mean().unstack("method").dropna()
    found: pd.DataFrame = complete.groupby("image").mean().loc[:, list(methods)]
    return found
