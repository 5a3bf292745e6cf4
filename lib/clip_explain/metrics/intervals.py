"""How sure a number is: bootstrap intervals, paired tests, Holm's correction, correlation."""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.stats
from jaxtyping import Float
from torch import Tensor

from clip_explain.errors import TensorError

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


def correlation(x, y, seed: int, ranks: bool = False, level: float = 0.95) -> Interval:
    """Pearson's correlation of pairs, or Spearman's (`ranks`), -1 to 1, and its percentile bootstrap interval.

    2000 resamples of the pairs, ranked anew in each; equal values share their mean rank. Where one of the two is
    constant, in a resample too, nothing goes with it: 0. TensorError for fewer than two pairs, NaN, or unequal lengths.
    """
    pairs = [np.asarray(values, dtype=float) for values in (x, y)]
    if pairs[0].shape != pairs[1].shape or pairs[0].ndim != 1 or pairs[0].size < 2 or not np.isfinite(pairs).all():
        raise TensorError(f"got values of {pairs[0].shape} and {pairs[1].shape}, expected at least two finite pairs")
    count = len(pairs[0])
    picks = np.random.default_rng(seed).integers(count, size=(RESAMPLES, count))
    found = _correlations(*(values[None] for values in pairs), ranks)
    low, high = np.quantile(
        _correlations(*(values[picks] for values in pairs), ranks), [(1 - level) / 2, (1 + level) / 2]
    )
    return Interval(float(found[0]), float(low), float(high), count)


def _correlations(x: np.ndarray, y: np.ndarray, ranks: bool) -> np.ndarray:
    """Of each row of x with that of y."""
    if ranks:
        x, y = scipy.stats.rankdata(x, axis=1), scipy.stats.rankdata(y, axis=1)
    constant = (np.ptp(x, axis=1) == 0) | (np.ptp(y, axis=1) == 0)
    x, y = (values - values.mean(axis=1, keepdims=True) for values in (x, y))
    spread = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    return np.where(constant, 0.0, (x * y).sum(axis=1) / np.where(constant, 1.0, spread))
