"""From what a figure was made: model, data, seed, versions; and the folder's tables written."""

import json
import math
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import pandas as pd

from clip_explain.errors import OutputError
from clip_explain.metrics.intervals import Interval
from clip_explain.models.model import Model
from clip_explain.papers.saving import write

PACKAGES = ("clip-explain", "torch", "torchvision", "openai-clip", "numpy", "pillow", "matplotlib")


def provenance(
    model: Model,
    dataset: str,
    seed: int,
    n_images: int,
    values: Mapping[str, Interval | float] | pd.DataFrame,
    parameters: dict,
) -> dict:
    """Where numbers come from, as JSON takes it.

    `values`: numbers or intervals by name, or the table that `summarize` returns, whose rows are then named by their
    method, metric and setting. An interval becomes three values: its mean, " low" and " high". OutputError if no image
    was processed, or a value is not finite.
    """
    if n_images < 1:
        raise OutputError("no image was processed, so there are no results to write")
    numbers = {}
    for name, value in named(values).items():
        parts = {"": value.mean, " low": value.low, " high": value.high} if isinstance(value, Interval) else {"": value}
        numbers.update({name + end: float(number) for end, number in parts.items()})
    if bad := [name for name, number in numbers.items() if not math.isfinite(number)]:
        raise OutputError(f"these values are not finite: {', '.join(bad)}")
    return {
        "model": model.name,
        "weights_sha256": model.sha256,
        "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "dataset": dataset,
        "n_images": n_images,
        "seed": seed,
        "parameters": parameters,
        "values": numbers,
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}},
    }


def weights_of(models: Mapping[str, Model]) -> dict[str, dict[str, str]]:
    """The name and the checksum of each model's weights, for the parameters of a `provenance`."""
    return {label: {"weights": model.name, "sha256": model.sha256} for label, model in models.items()}


def named(values: Mapping[str, Interval | float] | pd.DataFrame) -> Mapping[str, Interval | float]:
    """The rows of a summary as intervals by name, "game: pointing_game, equal footing"; a mapping as it is."""
    if not isinstance(values, pd.DataFrame):
        return values
    found = {}
    for row in values.to_dict("records"):
        keys = {key: str(value) for key, value in row.items() if key not in ("mean", "low", "high", "images")}
        first = keys.pop("method", "")
        parts = [text for text in (keys.pop("metric", ""), *keys.values()) if text]
        name = ": ".join(part for part in (first, ", ".join(parts)) if part)
        found[name] = Interval(row["mean"], row["low"], row["high"], row["images"])
    return found


def save(folder: str | Path, tables: Mapping[str, pd.DataFrame], verdicts: pd.DataFrame, record: dict) -> None:
    """Write what a notebook found: each table as NAME.csv, the verdicts as claims.csv, and provenance.json.

    `verdicts` is of `judge`, `record` of `provenance`. A table's index is written where it has a name. Numbers have
    four digits. OutputError if a file cannot be written.
    """
    for name, table in tables.items():
        write(Path(folder) / f"{name}.csv", _csv(table, index=any(table.index.names)))
    write(Path(folder) / "claims.csv", _csv(verdicts, index=False))
    write(Path(folder) / "provenance.json", (json.dumps(record, indent=1, allow_nan=False) + "\n").encode())


def _csv(table: pd.DataFrame, index: bool) -> bytes:
    return table.to_csv(index=index, float_format="%.4g", lineterminator="\n").encode()
