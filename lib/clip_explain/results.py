"""What a notebook leaves: claims of a paper held against our numbers, where the numbers come from, and its figures.

Above metrics/; the only module that notebooks write files with. Each file is complete or not there.
"""

import csv
import io
import json
import math
import os
import platform
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from clip_explain.errors import OutputError
from clip_explain.metrics.statistics import Interval
from clip_explain.model import Clip

PACKAGES = ("clip-explain", "torch", "torchvision", "openai-clip", "numpy", "pillow", "matplotlib")
ENOUGH = 10  # images; an interval of fewer decides nothing
DPI = 200
MOST_BYTES = 400_000  # of a PNG: figures are kept in git
STEPS = (1, 4, 6, 8)  # of 255, to which a colour's three parts are rounded; white stays white


@dataclass(frozen=True)
class Claim:
    """A claim of a paper, what the paper reports, and our mean, which must be `above` a number, or `below` one."""

    claim: str
    paper: str
    ours: Interval
    above: float | None = None
    below: float | None = None

    @property
    def verdict(self) -> str:
        """Holds or does not hold: where the whole interval lies on one side. Undecided: all else, and few images."""
        if self.above is not None and self.below is None:
            holds, fails = self.ours.low > self.above, self.ours.high < self.above
        elif self.below is not None and self.above is None:
            holds, fails = self.ours.high < self.below, self.ours.low > self.below
        else:
            raise ValueError(f"the claim {self.claim!r} needs either above= or below=")
        if self.ours.count < ENOUGH or not (holds or fails):
            return "undecided"
        return "holds" if holds else "does not hold"


def table(claims: Sequence[Claim]) -> pd.DataFrame:
    """The closing table of a notebook."""
    rows = [(c.claim, c.paper, str(c.ours), _bar(c), c.ours.count, c.verdict) for c in claims]
    return pd.DataFrame(rows, columns=["claim", "paper", "ours [95 %]", "holds if", "images", "here"])


def _bar(claim: Claim) -> str:
    return f"> {claim.above:.3g}" if claim.below is None else f"< {claim.below:.3g}"


def provenance(
    model: Clip, dataset: str, seed: int, n_images: int, values: dict[str, Interval | float], parameters: dict
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


def save_figure(figure: Figure, folder: str | Path, name: str) -> Path:
    """Write `name`.png, at most 400 KB, and a vector `name`.pdf beside it; returns the PNG's path.

    200 dpi; where that is too large, with rounded colours, then also with fewer dots. The same figure gives the same
    bytes.
    OutputError if a file cannot be written.
    """
    path = Path(folder) / f"{name}.png"
    vector = io.BytesIO()
    figure.savefig(vector, format="pdf", dpi=DPI, metadata={"CreationDate": None})
    write(path.with_suffix(".pdf"), vector.getvalue())
    write(path, _small_png(figure))
    return path


def _small_png(figure: Figure) -> bytes:
    for dpi in (DPI, 0.75 * DPI, 0.5 * DPI):
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=dpi)
        pixels = np.asarray(Image.open(drawn).convert("RGB"), dtype=int)
        for step in STEPS:
            packed, rounded = io.BytesIO(), ((pixels + step // 2) // step * step).clip(0, 255)
            Image.fromarray(rounded.astype(np.uint8)).save(packed, "png", dpi=(dpi, dpi))
            if packed.tell() <= MOST_BYTES:
                return packed.getvalue()
    raise OutputError(f"the figure is over {MOST_BYTES // 1000} KB at every size tried: draw fewer panels")


def write(path: Path, content: bytes) -> None:
    """Write a file beside its place and move it there when complete. OutputError if that is not possible."""
    temporary = path.with_name(f".{path.name}-{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()
