"""Model x dataset x methods x metrics -> a table, in shards that can be made anywhere and stopped at any moment.

Above shards.py. Left in `out`: settings.json, shards/, and when all is done table.parquet, errors.parquet, summary.csv.
"""

import importlib
import io
import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from pyarrow import compute, parquet
from tqdm import tqdm

from clip_explain import datasets
from clip_explain.errors import DatasetError, MethodError, OutputError, WorkerError, nearest
from clip_explain.explainers import FOR_RESNETS, options_of
from clip_explain.images import FITS
from clip_explain.metrics import registry
from clip_explain.metrics.intervals import Interval, bootstrap
from clip_explain.models import load
from clip_explain.models.model import Model
from clip_explain.sweep import store as storage
from clip_explain.sweep.shard import (
    BASELINES,
    FOLDER,
    METHODS,
    METRICS,
    SCHEMA,
    Plan,
    Session,
    library_versions,
    run_shard,
)
from clip_explain.texts import BARE, TEMPLATE_SETS, Templates, template_list

SETTINGS, TABLE, ERRORS, SUMMARY = "settings.json", "table.parquet", "errors.parquet", "summary.csv"
FILES = {SETTINGS, TABLE, ERRORS, SUMMARY, FOLDER}
TABLE_COLUMNS = ["image", "target", "text", "method", "metric", "value"]
START = "spawn"  # how a process begins: clean, and safe beside CUDA
SECONDS = 5  # that a scheduler has to answer


def sweep(
    model: str | Path,
    dataset: str,
    methods: Sequence[str],
    metrics: Sequence[str],
    out: str | Path,
    *,
    images: int | None = None,
    seed: int = 0,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    fit: str = "crop",
    templates: Templates = BARE,
    shard_size: int = 16,
    device: str | None = None,
    dtype: str | None = None,
    processes: int = 1,
    scheduler: Any = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Measure every method by every metric on a dataset's first images; write the table and return its summary.

    `methods`: names of EXPLAINERS, "random" (noise, drawn for each image) and "constant"; `metrics`: of METRICS;
    `options`: those of a method, a metric or the dataset's reader under its name, {"rise": {"masks": 500}}.
    `templates`: what texts and classes are put into, as in `explain`. `out`: a folder or an fsspec URL. The work is cut
    into shards of `shard_size` images. It runs here, in `processes` local processes of one thread each, or on Dask
    workers (`scheduler`: an address or a `distributed.Client`), where on cuda each shard takes one "GPU" of its worker.

    table.parquet has a row for each image, target, method and metric: its value, NaN where the question has no answer.
    Pixels that a record leaves undecided (`ignore`) are not counted by metrics of localization.
    errors.parquet has a row for each image that could not be used. The summary has means over images (of the means
    over an image's targets) with 95 % bootstrap intervals; `left_out` counts the images of errors.parquet.

    Stopped at any moment and called again, it goes on; the files are then the same, to the bit, as of a run that was
    not stopped, with the same number of threads on the same kind of machine. More images may be asked for later.
    Raises OutputError (a folder of other settings, a full disk), MethodError, DatasetError, ModelError, WeightsError,
    and WorkerError (no scheduler, lost workers).
    """
    if shard_size < 1 or processes < 1:
        raise MethodError(f"got shard_size={shard_size} and processes={processes}, expected at least 1 of each")
    elsewhere = scheduler is not None or processes > 1
    clip = load(model, "cpu", "fp32") if elsewhere else load(model, device, dtype)
    what = (model, clip, dataset, methods, metrics, out, images, seed, options, fit, templates)
    plan = make_plan(*what, shard_size, device, dtype)
    agree(plan)
    done = storage.names(plan.out, FOLDER)
    todo = [start for start in plan.starts if plan.shard(start) not in done]
    left = sum(plan.size(start) for start in todo)
    with _bar(plan.images, plan.images - left, progress) as bar:
        if scheduler is not None:
            _on_cluster(plan, todo, scheduler, bar)
        elif processes > 1:
            _in_processes(plan, todo, processes, bar)
        else:
            session = Session(clip, plan.records(), plan.templates)
            for start in todo:
                run_shard(plan, start, session, bar.update)
    return finish(plan)


# -- what is to be done


def make_plan(
    model, clip: Model, dataset, methods, metrics, out, images, seed, options, fit, templates, shard_size, device, dtype
) -> Plan:
    """The checked plan. Methods and metrics are put into the order of their registries, so theirs does not matter."""
    if fit not in FITS:
        raise MethodError(f"unknown fit {fit!r}: {nearest(fit, FITS)}")
    options = options or {}
    reader = dict(options.get(dataset, {}))
    count = len(datasets.load(dataset, images, seed, **reader))
    methods = _chosen("method", methods, METHODS, options)
    named = [metrics] if isinstance(metrics, str) else metrics
    metrics = _chosen("metric", [registry.current_name(name) for name in named], METRICS, options)
    if unused := options.keys() - methods.keys() - metrics.keys() - {dataset}:
        raise MethodError(f"got options of {min(unused)!r}, which is no method, metric or dataset of this sweep")
    unfit = [name for name in methods if not clip.is_vit and name not in FOR_RESNETS | BASELINES.keys()]
    if unfit:
        raise MethodError(f"{unfit[0]} needs a vision transformer; a ResNet takes {', '.join(sorted(FOR_RESNETS))}")
    device = str(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = dtype or ("fp16" if device.startswith("cuda") else "fp32")
    path = str(Path(model).absolute()) if Path(model).is_file() else str(model)
    return Plan(
        model=path,
        sha256=clip.sha256,
        device=device,
        dtype=dtype,
        dataset=dataset,
        reader=reader,
        images=count,
        seed=seed,
        fit=fit,
        templates=templates if isinstance(templates, str) and templates in TEMPLATE_SETS else template_list(templates),
        methods=methods,
        metrics=metrics,
        shard_size=shard_size,
        out=storage.place(out),
        versions=library_versions(),
    )


def _chosen(kind: str, names: Sequence[str], registry: Mapping[str, Callable], options) -> dict[str, dict[str, Any]]:
    """The options of each name, in the registry's order, checked by name and for being plain values."""
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise MethodError(f"got no {kind}s, expected at least one. {nearest('', registry)}")
    for name in names:
        if name not in registry:
            raise MethodError(f"unknown {kind} {name!r}: {nearest(name, registry)}")
        for option, value in options.get(name, {}).items():
            if option not in (known := options_of(registry[name])):
                raise MethodError(f"{name} has no option {option!r}: {nearest(option, known)}")
            if not isinstance(value, int | float | str | None):
                raise MethodError(f"got {name}.{option} of {type(value).__name__}, expected a number, a word or None")
    return {name: dict(options.get(name, {})) for name in registry if name in names}


def settings_of(plan: Plan) -> dict[str, Any]:
    """What the numbers depend on and so must not change; more images may follow, and files may move."""
    kept = {key: value for key, value in vars(plan).items() if key not in ("model", "images", "out")}
    return json.loads(json.dumps({**kept, "device": plan.device.partition(":")[0]}))


def agree(plan: Plan) -> None:
    """Write the settings into a new folder, or make sure that an old one has the same. OutputError if not."""
    there = storage.names(plan.out)
    if SETTINGS not in there:
        if strange := sorted(there - FILES):
            raise OutputError(f"{plan.out} is not a sweep's folder: it holds {strange[0]} but no {SETTINGS}")
        content = json.dumps(settings_of(plan), indent=1) + "\n"
        storage.write(plan.out, SETTINGS, lambda path: path.write_text(content))
    try:
        old = json.loads(storage.read(plan.out, SETTINGS))
    except ValueError as error:
        raise OutputError(f"{plan.out}/{SETTINGS} is damaged: {error}") from error
    if differing := _differences(old, settings_of(plan)):
        raise OutputError(
            f"{plan.out} holds a sweep with other settings: {'; '.join(differing)}. Take another folder, or delete it."
        )


def _differences(old: dict, new: dict, prefix: str = "") -> list[str]:
    """What differs, named down to the single option."""
    found = []
    for key in {**old, **new}:
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key} was {_shown(before)}, is {_shown(after)}")
    return found


def _shown(value: Any) -> str:
    return "absent" if value is None else json.dumps(value)


# -- where it is done


def _bar(total: int, done: int, progress: bool) -> tqdm:
    """Images done, rate and time left; in a log file a line every half minute."""
    often = 0.1 if sys.stderr.isatty() else 30
    return tqdm(total=total, initial=done, unit="image", disable=not progress, mininterval=often, smoothing=0.1)


def _in_processes(plan: Plan, todo: Sequence[int], processes: int, bar: tqdm) -> None:
    """Shards in new local processes; WorkerError if one of them is killed."""
    context = multiprocessing.get_context(START)
    pool = ProcessPoolExecutor(min(processes, len(todo)) or 1, context, _begin_process)
    try:
        for future in as_completed([pool.submit(run_shard, plan, start) for start in todo]):
            bar.update(future.result())
    except BrokenProcessPool as error:
        raise WorkerError(
            "a process was killed, perhaps for want of memory. Finished shards are kept: run again, with fewer "
            "processes if need be."
        ) from error
    except BaseException:
        for process in list((pool._processes or {}).values()):  # unfinished shards are worth nothing: do not wait
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin_process() -> None:
    """One thread; Ctrl-C is the parent's to handle; and no process outlives its parent."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _on_cluster(plan: Plan, todo: Sequence[int], scheduler: Any, bar: tqdm) -> None:
    """Shards on Dask workers; those of lost workers are done again by others."""
    distributed = _distributed()
    client = _connect(distributed, scheduler) if isinstance(scheduler, str) else scheduler
    futures = []
    try:
        resources = _resources(plan, client)
        futures = [client.submit(run_shard, plan, start, pure=False, resources=resources) for start in todo]
        with client.as_current():
            for future in distributed.as_completed(futures):
                bar.update(future.result())
                bar.set_postfix(workers=len(client.nthreads()), refresh=False)
    except (distributed.KilledWorker, distributed.CancelledError, OSError) as error:
        raise WorkerError(
            f"the cluster lost the sweep ({type(error).__name__}: {error}). Finished shards are kept: run again."
        ) from error
    finally:
        client.cancel(futures)
        if client is not scheduler:
            client.close()


def _distributed() -> Any:
    try:
        return importlib.import_module("distributed")
    except ImportError as error:
        raise WorkerError("a cluster needs the package distributed: pip install 'clip-explain[cluster]'") from error


def _connect(distributed: Any, address: str) -> Any:
    try:
        return distributed.Client(address, timeout=SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:  # nobody listens, or it is no address
        raise WorkerError(f"no Dask scheduler answers at {address}: {error}") from error


def _resources(plan: Plan, client: Any) -> dict[str, int] | None:
    """On cuda a shard takes one of a worker's GPUs, so that no two share one."""
    if not plan.device.startswith("cuda"):
        return None
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    if workers and not any("GPU" in worker.get("resources", {}) for worker in workers):
        raise WorkerError(f'none of the {len(workers)} workers offers a GPU: start them with --resources "GPU=1"')
    return {"GPU": 1}


# -- what comes of it


def finish(plan: Plan) -> pd.DataFrame:
    """Put the shards together into the table and the errors, one shard in memory at a time; return the summary."""
    means, errors = [], []

    def fill(path: Path) -> None:
        with parquet.ParquetWriter(path, pa.schema([SCHEMA.field(name) for name in TABLE_COLUMNS])) as writer:
            for start in plan.starts:
                shard = _read_shard(plan, start)
                failed = shard["error"].is_valid()
                writer.write_table(shard.filter(compute.invert(failed)).select(TABLE_COLUMNS))
                errors.append(shard.filter(failed).select(["index", "image", "error"]))
                means.append(_means(plan, shard))

    storage.write(plan.out, TABLE, fill)
    failed = pa.concat_tables(errors)
    storage.write(plan.out, ERRORS, lambda path: parquet.write_table(failed, path))
    if len(failed) == plan.images:
        raise DatasetError(f"no image could be used; see {plan.out}/{ERRORS}. The first: {failed['error'][0]}")
    summary = summarize(plan, np.concatenate(means), len(failed))
    storage.write(plan.out, SUMMARY, lambda path: summary.to_csv(path, index=False))
    storage.sweep_up(plan.out)
    storage.sweep_up(plan.out, FOLDER)
    return summary


def _read_shard(plan: Plan, start: int) -> pa.Table:
    name = f"{FOLDER}/{plan.shard(start)}"
    try:
        return parquet.read_table(io.BytesIO(storage.read(plan.out, name)), use_threads=False)
    except OutputError as error:
        raise OutputError(f"{error}. Workers need a folder that all machines share, or a URL") from error
    except pa.ArrowInvalid as error:
        raise OutputError(f"{plan.out}/{name} is damaged: {error}. Delete it and run again.") from error


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
