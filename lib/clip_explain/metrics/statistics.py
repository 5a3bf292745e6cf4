"""Numbers of maps in themselves (where and how concentrated they are), and how sure a mean or a difference is.

Above maps.py. What counts for a degenerate map stands with each function.
"""

import math
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from clip_explain.errors import MethodError, TensorError
from clip_explain.maps import normalize, resize

RESAMPLES = 2000
DRAWS_AT_ONCE = 4_000_000  # numbers drawn and held at a time


Labels = Iterable[Hashable]  # of what each value belongs to, one a value


@dataclass(frozen=True)
class Interval:
    """A mean over `count` images and the bounds of its interval."""

    mean: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Comparison:
    """The mean of paired differences, and the two-sided p that signs given at random make it as large.

    `count` is the number of pairs (or clusters of them); `exact` says that every way to give signs was counted.
    """

    difference: float
    p: float
    count: int
    exact: bool


def bootstrap(values, seed: int, level: float = 0.95, clusters: Labels | None = None) -> Interval:
    """The mean of `values`, one number an image, and its percentile bootstrap interval (2000 resamples of the images).

    Several texts of one image are not independent: average them first, or name each value's image in `clusters`, which
    are then what is resampled, and counted; every value keeps its weight in the mean. TensorError without values, or
    with NaN.
    """
    sums, counts = _clustered(values, clusters)
    random, means = np.random.default_rng(seed), []
    at_once = max(1, DRAWS_AT_ONCE // len(sums))
    for start in range(0, RESAMPLES, at_once):
        picks = random.integers(len(sums), size=(min(at_once, RESAMPLES - start), len(sums)))
        means.append(sums[picks].sum(axis=1) / counts[picks].sum(axis=1))
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(sums.sum() / counts.sum()), float(low), float(high), len(sums))


def class_means_by_image(values, classes: Labels, images: Labels) -> Float[np.ndarray, " images"]:
    """One number an image, whose mean is the mean over classes of each class's mean value: mMIoU or mFMB for intervals.

    `values`, one a map, with its class and its image; images in the order in which they appear. A value's part is how
    far it lies from its class's mean, over the class's count: the linear term of how the result changes with the images
    drawn. So `bootstrap` of these numbers, or of their differences between methods, gives its interval. As a class's
    own mean is the nearer the fewer its values, these are moved away by sqrt(n / (n - 1)), and a single one counts from
    the mean over classes. NaN is left out, a class of NaN alone too; TensorError if nothing is left.
    """
    table = pd.DataFrame({"value": np.asarray(values, float), "class": listed(classes), "image": listed(images)})
    found = table.groupby("class")["value"]
    if np.isnan(table["value"].to_numpy()).all():
        raise TensorError(f"got {len(table)} values, all of them NaN, expected at least one finite number")
    mean, counts = found.mean().mean(), found.transform("count")
    away = (table["value"] - found.transform("mean")) * (counts / (counts - 1).clip(lower=1)) ** 0.5
    parts = (away.where(counts > 1, table["value"] - mean) / counts).fillna(0.0)
    parts = parts.groupby(table["image"], sort=False).sum()
    return (mean + (parts - parts.mean()) * len(parts) / found.mean().count()).to_numpy()


def paired_test(ours, theirs, seed: int, resamples: int = 10_000, clusters: Labels | None = None) -> Comparison:
    """Do two methods differ on the same images? The paired permutation (sign-flip) test of the mean difference.

    If they did not, each difference might as well have the other sign. All 2^count ways to give signs are counted if
    they are at most `resamples` (exact); else that many are drawn, and p is (1 + as large) / (1 + drawn), never 0.
    `clusters` as in `bootstrap`: the differences of one image change sign together. Equal methods have p = 1.
    TensorError without values, with NaN, or for lists of different lengths.
    """
    ours, theirs = np.asarray(ours, dtype=float), np.asarray(theirs, dtype=float)
    if ours.shape != theirs.shape:
        raise TensorError(f"got {ours.shape} and {theirs.shape} values, expected pairs")
    sums, counts = _clustered(ours - theirs, clusters)
    exact = 2 ** min(len(sums), 60) <= resamples
    bound = abs(sums.sum()) - 1e-12 * np.abs(sums).sum()  # sums that are equal but for rounding are as large
    rows = 2 ** len(sums) if exact else resamples
    hits = sum(int((np.abs(signs @ sums) >= bound).sum()) for signs in _signs(len(sums), rows, exact, seed))
    p = hits / rows if exact else (1 + hits) / (1 + rows)
    return Comparison(float(sums.sum() / counts.sum()), p, len(sums), exact)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: p values of several tests, so adjusted that the chance of any false one is bounded.

    In the given order. The smallest of m is multiplied by m, the next by m - 1, ...; none falls below one before it,
    nor rises above 1. TensorError for values outside 0 to 1, and NaN.
    """
    values = np.asarray(p_values, dtype=float)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise TensorError(f"got p values {p_values!r}, expected a list of numbers from 0 to 1")
    order = values.argsort(kind="stable")
    raised = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = raised.clip(max=1)
    return adjusted.tolist()


@dataclass(frozen=True)
class Spread:
    """How far the means of several conditions lie apart, and how often exchanged conditions lie as far: p."""

    spread: float
    p: float
    count: int


def exchange_test(values, seed: int, resamples: int = 1000) -> Spread:
    """Does it matter which of several conditions is asked of the same images? A permutation test within images.

    `values` (images, conditions) or (images, conditions, *cells): a number, or a map, for each. The spread is the
    standard deviation over conditions of the means over images; of maps its root mean square over cells. If conditions
    did not matter, each image's values might as well be exchanged among them; p is (1 + as far) / (1 + drawn).
    TensorError without values, or with NaN.
    """
    values = _images_first(values)
    if values.ndim < 2:
        raise TensorError(f"got values of shape {values.shape}, expected (images, conditions) or more")
    rows = values.reshape(*values.shape[:2], -1)
    random, found, hits = np.random.default_rng(seed), _spread(rows), 0
    for _ in range(resamples):
        order = random.random(rows.shape[:2]).argsort(axis=1)
        hits += _spread(np.take_along_axis(rows, order[..., None], axis=1)) >= found * (1 - 1e-12)
    return Spread(found, (1 + hits) / (1 + resamples), len(rows))


def resampled_means(values, seed: int, resamples: int = RESAMPLES) -> Float[np.ndarray, "resamples *axes"]:
    """Means of `values` (images, *axes) over images drawn anew: what `spanned` takes, for any statistic of means."""
    values, random = _images_first(values), np.random.default_rng(seed)
    even = np.full(len(values), 1 / len(values))
    counts = random.multinomial(len(values), even, size=resamples)
    return (counts @ values.reshape(len(values), -1) / len(values)).reshape(resamples, *values.shape[1:])


def spanned(value: float, again: Float[np.ndarray, " resamples"], count: int, level: float = 0.95) -> Interval:
    """A statistic with the percentile interval of the same on `resampled_means` of `count` images.

    A spread of means is pushed up by noise, in the resamples once more, so an interval may lie above its value.
    """
    low, high = np.quantile(again, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high), count)


def mean_map(
    maps: Float[Tensor, "images *axes grid_h grid_w"], size: tuple[int, int] | None = None
) -> Float[Tensor, "*axes height width"]:
    """The mean over images of maps scaled to [0, 1] each: where saliency lies on average (EPFL IV-B, Fig. 6 and 12).

    `size` (height, width) resizes them bilinearly first. A degenerate map counts as zeros.
    """
    if not len(maps):
        raise TensorError("got no maps, expected at least one to average")
    return normalize(maps if size is None else resize(maps, size)).mean(dim=0)


def variance(maps: Float[Tensor, "*axes grid_h grid_w"]) -> Float[Tensor, "*axes"]:
    """Variance over the cells of a map scaled to [0, 1]: 0 for an even one, at most 0.25 (EPFL Tab. III and IV).

    Divided by the number of cells. The report gives no formula; it averages this over images, and its 0.02 to 0.04
    need maps scaled to [0, 1]. A degenerate map has 0.
    """
    return normalize(maps).flatten(-2).var(dim=-1, correction=0)


def value_entropy(maps: Float[Tensor, "*axes grid_h grid_w"], bins: int | None = None) -> Float[Tensor, "*axes"]:
    """Entropy in bits of how a map's values are distributed: 0 if all are the same (EPFL Tab. III and IV).

    -sum p log2 p over the distinct values, p the share of cells that has one; with `bins`, over so many equal bins of
    the map scaled to [0, 1]. At most log2 of the cells, or of the bins; a degenerate map has 0.

    The report gives no formula. It reads high entropy as large differences between regions, which fits this and not
    `entropy`, where high means even. Its numbers, up to 13.5, are above 8 bits, the most of 256 bins, and within the
    15.6 bits of 224 x 224 distinct values, so it takes maps resized to the image. Its ViT's, all near 10.9, fit maps of
    7 x 7 so resized and then in half precision, which has few distinct values; its ResNet's, 5.8 to 13.5, fit float32
    with a share of zeros, Grad-CAM's ReLU. Notebook 18 tries both.
    """
    scaled = normalize(maps)
    if bins is not None and bins < 1:
        raise MethodError(f"got bins={bins}, expected at least 1, or None for distinct values")
    levels = scaled if bins is None else (scaled * bins).floor().clamp_max(bins - 1)
    rows = levels.reshape(-1, maps.shape[-2] * maps.shape[-1]).to(torch.promote_types(maps.dtype, torch.float32)).cpu()
    bits = [_bits(np.unique(row, return_counts=True)[1]) for row in rows.numpy()]  # ten times as fast as torch's
    return torch.tensor(bits, dtype=scaled.dtype, device=scaled.device).reshape(maps.shape[:-2])


def corner_bias(maps: Float[Tensor, "*axes grid_h grid_w"], part: float = 1 / 7) -> Float[Tensor, "*axes"]:
    """How much denser a map's positive mass is in its four corners than over all of it: 1 even, 0 none (EPFL Fig. 6).

    A corner is `part` of each side, up to a half, rounded to cells and at least one: one cell of 7, two of 14. The
    report shows the bias but does not measure it. A map without positive mass counts as even. The mean over images of
    maps scaled alike weighs each the same; take this of `mean_map` for the bias of an average map.
    """
    if not 0 < part <= 0.5:
        raise MethodError(f"got part={part}, expected more than 0 and at most a half of each side")
    heat = maps.relu()
    inside = torch.zeros_like(heat, dtype=torch.bool)
    height, width = (max(1, min(round(side * part), side // 2)) for side in maps.shape[-2:])
    for rows in (slice(None, height), slice(-height, None)):
        for columns in (slice(None, width), slice(-width, None)):
            inside[..., rows, columns] = True
    mean, corners = heat.mean(dim=(-2, -1)), (heat * inside).sum(dim=(-2, -1)) / inside.sum(dim=(-2, -1))
    return torch.where(mean > 0, corners / torch.where(mean > 0, mean, 1.0), 1.0)


def overlap(maps: Float[Tensor, "*axes grid_h grid_w"], others: Float[Tensor, "..."]) -> Float[Tensor, "*axes"]:
    """The positive mass that two maps share, each scaled to a sum of 1: the sum of the lesser, 0 disjoint, 1 the same.

    NaN where one of the two has no positive mass: there is nothing to share. Compare maps of one grid only: resize
    them to the same size first. TensorError for different shapes.
    """
    if maps.shape != others.shape:
        raise TensorError(f"got maps of {tuple(maps.shape)} and {tuple(others.shape)}, expected the same shape")
    ours, theirs = (each.relu().flatten(-2) for each in (maps, others))
    shares = (each / each.sum(dim=-1, keepdim=True) for each in (ours, theirs))  # 0 / 0 is NaN, as wanted
    return torch.minimum(*shares).sum(dim=-1)


def mass_curve(maps: Float[Tensor, "*axes grid_h grid_w"]) -> Float[Tensor, "*axes cells"]:
    """Share of a map's mass in its 1, 2, ... heaviest cells, rising to 1. Maps are >= 0; one of zeros is even."""
    cells = maps.flatten(-2)
    empty = cells.sum(dim=-1, keepdim=True) <= 0
    cells = torch.where(empty, 1.0, cells).sort(dim=-1, descending=True).values.cumsum(dim=-1)
    return cells / cells[..., -1:]


def cells_for(maps: Float[Tensor, "*axes grid_h grid_w"], mass: float = 0.9) -> Float[Tensor, "*axes"]:
    """The smallest share of a map's cells, 0 to 1, that carries `mass` of it. Rules as in `mass_curve`."""
    curve = mass_curve(maps)
    return ((curve < mass - 1e-6).sum(dim=-1) + 1) / curve.shape[-1]


def entropy(maps: Float[Tensor, "*axes grid_h grid_w"], unit: str = "share") -> Float[Tensor, "*axes"]:
    """Entropy of a map's mass over its cells: 0 all in one cell, the most if even. `value_entropy` is another thing.

    `unit`: "share" of the most there can be (0 to 1), "bits" or "nats". Maps are >= 0; one of zeros counts as even,
    and as a share so does one of a single cell.
    """
    if unit not in ("share", "bits", "nats"):
        raise MethodError(f"got unit={unit!r}, expected 'share', 'bits' or 'nats'")
    cells = maps.flatten(-2)
    empty = cells.sum(dim=-1, keepdim=True) <= 0
    cells = torch.where(empty, 1.0, cells)
    shares = cells / cells.sum(dim=-1, keepdim=True)
    nats = -torch.special.xlogy(shares, shares).sum(dim=-1)
    if unit == "share" and shares.shape[-1] == 1:
        return torch.ones_like(nats)
    return nats / {"share": math.log(shares.shape[-1]), "bits": math.log(2), "nats": 1.0}[unit]


def listed(labels: Labels) -> list[Hashable]:
    """Names or numbers from a list, an array, a tensor or a column of a table."""
    return labels.tolist() if isinstance(labels, Tensor) else list(labels)


def _clustered(values, clusters: Labels | None) -> tuple[np.ndarray, np.ndarray]:
    """The sum and the number of each cluster's values; without clusters each value is its own."""
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise TensorError(f"got values of shape {values.shape}, expected at least one finite number, one an image")
    if clusters is None:
        return values, np.ones(len(values))
    labels = listed(clusters)
    if len(labels) != len(values):
        raise TensorError(f"got {len(labels)} clusters for {len(values)} values, expected one a value")
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    rows = np.array([numbers[label] for label in labels])
    return np.bincount(rows, weights=values), np.bincount(rows).astype(float)


def _images_first(values) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if not values.size or not np.isfinite(values).all():
        raise TensorError(f"got values of shape {values.shape}, expected finite numbers for at least one image")
    return values


def _spread(rows: Float[np.ndarray, "images conditions cells"]) -> float:
    return float(np.sqrt(rows.mean(axis=0).var(axis=0).mean()))


def _signs(count: int, rows: int, exact: bool, seed: int) -> Iterator[np.ndarray]:
    """Rows of +1 and -1, a part at a time: all there are (the bits of 0, 1, 2, ...) or drawn."""
    random, at_once = np.random.default_rng(seed), max(1, DRAWS_AT_ONCE // count)
    for start in range(0, rows, at_once):
        numbers = np.arange(start, min(start + at_once, rows))
        bits = numbers[:, None] >> np.arange(count) if exact else random.integers(2, size=(len(numbers), count))
        yield 1.0 - 2.0 * (bits & 1)


def _bits(counts: np.ndarray) -> float:
    shares = counts / counts.sum()
    return float(abs((shares * np.log2(shares)).sum()))
