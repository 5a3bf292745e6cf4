"""From what a figure was made: model, data, seed, versions; and the folder's tables written."""

import csv
import io
import json
import math
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from clip_explain.errors import OutputError
from clip_explain.metrics.intervals import Interval
from clip_explain.models.model import Model
from clip_explain.papers.saving import write
from clip_explain.papers.verdicts import Claim, _bar

PACKAGES = ("clip-explain", "torch", "torchvision", "openai-clip", "numpy", "pillow", "matplotlib")


def provenance(
    model: Model, dataset: str, seed: int, n_images: int, values: dict[str, Interval | float], parameters: dict
) -> dict:
    """Where numbers come from, as JSON takes it. An interval becomes three values: its mean, " low" and " high".

    OutputError if no image was processed or a value is not finite.
    """
    if n_images < 1:
        raise OutputError("no image was processed, so there are no results to write")
    numbers = {}
    for name, value in values.items():
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


def save_results(folder: str | Path, claims: Sequence[Claim], record: dict) -> None:
    """Write claims.csv and provenance.json (of `provenance`) into a folder. OutputError if they cannot be written."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["claim", "paper", "ours", "low", "high", "needed", "images", "holds"])
    for claim in claims:
        numbers = (f"{number:.4g}" for number in (claim.ours.mean, claim.ours.low, claim.ours.high))
        writer.writerow([claim.claim, claim.paper, *numbers, _bar(claim), claim.ours.count, claim.verdict])
    write(Path(folder) / "claims.csv", text.getvalue().encode())
    write(Path(folder) / "provenance.json", (json.dumps(record, indent=1, allow_nan=False) + "\n").encode())
