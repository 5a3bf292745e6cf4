"""Measures methods by metrics on a dataset: one table, made of shards that any machine can compute in any order.

Above shard.py and workers.py. Left in `out`: settings.json, shards/, and when all is done table.parquet,
errors.parquet, summary.csv.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import compute, parquet
from tqdm import tqdm

from clip_explain.checks import check_counts, checked
from clip_explain.errors import DatasetError
from clip_explain.metrics import registry
from clip_explain.metrics.intervals import Interval, bootstrap
from clip_explain.models import load
from clip_explain.sweep import store
from clip_explain.sweep.measures import Session
from clip_explain.sweep.plan import ERRORS, FOLDER, SUMMARY, TABLE, Asked, Plan, agree, make_plan
from clip_explain.sweep.shard import SCHEMA, read_shard, run_shard
from clip_explain.sweep.workers import in_processes, on_cluster
from clip_explain.texts import BARE, Templates

TABLE_SCHEMA = pa.schema(
    [
        SCHEMA.field("image"),
        SCHEMA.field("target"),
        SCHEMA.field("text"),
        ("setting", pa.string()),
        SCHEMA.field("method"),
        SCHEMA.field("metric"),
        SCHEMA.field("value"),
    ]
)


@checked()
def sweep(
    model: str | Path,
    dataset: str,
    methods: str | Sequence[str],
    metrics: str | Sequence[str],
    out: str | Path,
    *,
    images: int | None = None,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    fit: str | None = None,
    templates: Templates = BARE,
    shard_size: int = 16,
    device: str | None = None,
    dtype: str | None = None,
    processes: int = 1,
    scheduler: Any = None,
    progress: bool = True,
    tick: Callable[[], object] = lambda: None,
) -> pd.DataFrame:
    """Measure every method by every metric on a dataset's first images; write the table and return its summary.

    `methods`: names of explainers, "random" (noise, drawn for each image) and "constant"; `metrics`: of METRICS;
    `options`: those of a method, a metric or the dataset's reader under its name, {"rise": {"masks": 500}}.
    `templates`: what texts and classes are put into, as in `explain`. `out`: a folder or an fsspec URL. The work is cut
    into shards of `shard_size` images. It runs here, in `processes` local processes of one thread each, or on Dask
    workers (`scheduler`: an address or a `distributed.Client`), where on cuda each shard takes one "GPU" of its worker.
    A script that asks for processes must do so under `if __name__ == "__main__":`, since each of them imports it.
    `tick` is called after each image that is measured in this process; what it raises ends the sweep.

    table.parquet has a row for each image, target, method and metric. Its value is NaN where the metric is undefined;
    `target` numbers an image's texts, and `setting` is the dataset's name. Metrics of localization do not count pixels
    that a record leaves undecided (`ignore`). errors.parquet has a row for each image that could not be used. The
    summary has means over images (of the means over an image's targets) with 95 % bootstrap intervals; `left_out` is
    the number of images in errors.parquet.

    A sweep may be stopped at any moment; the same call then continues it. With the same number of threads on the same
    kind of machine the files are bit for bit those of an uninterrupted run. A later call may ask for more images.
    Raises OutputError (a folder of other settings, a damaged shard, a full disk), MethodError, DatasetError,
    ModelError, WeightsError, and WorkerError (no scheduler, lost workers).
    """
    check_counts(shard_size=shard_size, processes=processes)
    asked = Asked(
        model, dataset, methods, metrics, out, images, seed, options, fit, templates, shard_size, device, dtype
    )
    elsewhere = scheduler is not None or processes > 1
    loaded = load(model, "cpu", "fp32") if elsewhere else load(model, device, dtype)
    plan = make_plan(asked, loaded)
    agree(plan)
    todo = missing(plan)
    with _bar(plan, todo, progress) as bar:
        if scheduler is not None:
            on_cluster(plan, todo, scheduler, bar)
        elif processes > 1:
            in_processes(plan, todo, processes, bar)
        else:
            session = Session(loaded, plan.records(), plan.templates)
            for start in todo:
                run_shard(plan, start, session, lambda: (bar.update(), tick()))
    return finish(plan)


def missing(plan: Plan) -> list[int]:
    """The first images of the shards that do not exist yet."""
    done = {f"{FOLDER}/{name}" for name in store.names(plan.out, FOLDER)}
    return [start for start in plan.starts if plan.shard(start) not in done]


def _bar(plan: Plan, todo: Sequence[int], progress: bool) -> tqdm:
    """A progress bar with the rate and the time left; in a log file, a line every half minute."""
    done = plan.images - sum(len(plan.indices(start)) for start in todo)
    often = 0.1 if sys.stderr.isatty() else 30
    return tqdm(total=plan.images, initial=done, unit="image", disable=not progress, mininterval=often, smoothing=0.1)


# -- from shards to the table


def finish(plan: Plan) -> pd.DataFrame:
    """Put the shards together into the table and the errors, one shard in memory at a time; return the summary."""
    means, errors = [], []

    def fill(path: Path) -> None:
        with parquet.ParquetWriter(path, TABLE_SCHEMA) as writer:
            for start in plan.starts:
                shard = read_shard(plan, start)
                failed = shard["error"].is_valid()
                writer.write_table(_long(plan, shard.filter(compute.invert(failed))))
                errors.append(shard.filter(failed).select(["index", "image", "error"]))
                means.append(_means(plan, shard))

    store.write(plan.out, TABLE, fill)
    failed = pa.concat_tables(errors)
    store.write(plan.out, ERRORS, lambda path: parquet.write_table(failed, path))
    if len(failed) == plan.images:
        raise DatasetError(f"no image could be used; see {plan.out}/{ERRORS}. The first: {failed['error'][0]}")
    summary = summarize(plan, np.concatenate(means), len(failed))
    store.write(plan.out, SUMMARY, lambda path: summary.to_csv(path, index=False))
    store.remove_abandoned(plan.out)
    store.remove_abandoned(plan.out, FOLDER)
    return summary


def _long(plan: Plan, rows: pa.Table) -> pa.Table:
    """Rows of a shard as rows of the table."""
    setting = pa.repeat(plan.dataset, len(rows))
    return rows.append_column("setting", setting).select(TABLE_SCHEMA.names).cast(TABLE_SCHEMA)


def _pairs(plan: Plan) -> list[tuple[str, str]]:
    return [(method, metric) for metric in plan.metrics for method in plan.methods]


def _means(plan: Plan, shard: pa.Table) -> np.ndarray:
    """The mean over an image's targets, NaN left out, for every method and metric: (images, pairs)."""
    frame = shard.filter(shard["error"].is_null()).to_pandas()
    if frame.empty:
        return np.empty((0, len(_pairs(plan))))
    means = frame.groupby(["index", "method", "metric"])["value"].mean()
    return means.unstack(["method", "metric"]).reindex(columns=_pairs(plan)).to_numpy()


def summarize(plan: Plan, means: np.ndarray, left_out: int) -> pd.DataFrame:
    """A row for each metric and method: mean, interval, which way is better, images counted and images left out."""
    rows = []
    for (method, metric), values in zip(_pairs(plan), means.T, strict=True):
        values = values[~np.isnan(values)]
        found = bootstrap(values, plan.seed) if len(values) else Interval(np.nan, np.nan, np.nan, 0)
        better = registry.METRICS[metric].better
        rows.append((metric, method, found.mean, found.low, found.high, better, found.count, left_out))
    return pd.DataFrame(rows, columns=["metric", "method", "mean", "low", "high", "better", "images", "left_out"])
