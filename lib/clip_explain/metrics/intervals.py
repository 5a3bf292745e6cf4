"""The uncertainty of numbers: bootstrap intervals, paired tests, statistics of means, correlation.

Images are resampled, or the signs of their differences flipped, by scipy.stats except where it would be slow.
"""

import functools
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.stats
from jaxtyping import Float
from torch import Tensor

from clip_explain.errors import TensorError

RESAMPLES = 2000
FLIPS = 19_999  # draws of signs in a test: p goes down to 1 in 20,000, below what hundreds of tests together ask for
DRAWS_AT_ONCE = 4_000_000  # the most random numbers in memory at a time


Labels = Iterable[Hashable]  # for each value, the name of what it belongs to


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
    """The mean of paired differences, and the two-sided p value of the test that flips their signs.

    `count` is the number of pairs (or of clusters of pairs). `exact`: all ways to flip the signs were counted.
    """

    difference: float
    p: float
    count: int
    exact: bool


def bootstrap(values, seed: int, level: float = 0.95, clusters: Labels | None = None) -> Interval:
    """The mean of `values`, one for each image, with its percentile bootstrap interval (2000 resamples of images).

    Several texts of one image are not independent. Average them first, or give each value's image in `clusters`: then
    whole images are drawn, `count` is the number of images, and every value still has the same weight in the mean. The
    interval of a single image has no width. TensorError without values, or with NaN.
    """
    sums, counts = _clustered(values, clusters)
    mean, size = float(sums.sum() / counts.sum()), len(sums)
    if size == 1:
        return Interval(mean, mean, mean, 1)
    even = (counts == counts[0]).all()
    data, statistic = ((sums / counts,), np.mean) if even else ((sums, counts), _ratio)
    again = _resampled(data, statistic, seed, level)
    return Interval(mean, float(again.low), float(again.high), size)


def _ratio(sums: np.ndarray, counts: np.ndarray, axis: int) -> np.ndarray:
    """The mean of all values, from the sums and the numbers of the values of each image."""
    return sums.sum(axis=axis) / counts.sum(axis=axis)


def _resampled(data: tuple[np.ndarray, ...], statistic, seed: int, level: float):
    """scipy's percentile interval of a statistic of one list of numbers, or of several that are drawn together."""
    return scipy.stats.bootstrap(
        data,
        statistic,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=max(1, DRAWS_AT_ONCE // len(data[0])),
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval


def class_means_by_image(values, classes: Labels, images: Labels) -> Float[np.ndarray, " images"]:
    """One number for each image, whose mean is the mean over classes of the class means, as in mMIoU and mFMB.

    `values` has one number for each map; `classes` and `images` give the class and the image of each map. The
    result is in the order in which the images appear, and `bootstrap` of it, or of its difference between two methods,
    gives the interval of the mean over classes.

    Each value contributes (its distance from its class's mean) / (size of its class): the first-order effect of
    drawing its image once more. The mean of a class lies close to its own few values, so these distances are enlarged
    by sqrt(n / (n - 1)); the only value of a class counts from the mean over classes. NaN is left out, and so is a
    class that has nothing else. TensorError if nothing is left.
    """
    table = pd.DataFrame({"value": np.asarray(values, float), "class": listed(classes), "image": listed(images)})
    found = table.groupby("class")["value"]
    if np.isnan(table["value"].to_numpy()).all():
        raise TensorError(f"got {len(table)} values, all of them NaN, expected at least one finite number")
    mean, counts = found.mean().mean(), table["class"].map(found.count()).to_numpy(float)
    away = (table["value"] - found.transform("mean")) * (counts / np.maximum(counts - 1, 1)) ** 0.5
    parts = (away.where(counts > 1, table["value"] - mean) / counts).fillna(value=0.0)
    parts = parts.groupby(table["image"], sort=False).sum()
    finite = int(found.mean().notna().sum())
    return (mean + (parts - parts.mean()) * len(parts) / finite).to_numpy()


# -- do two methods differ?


def paired_test(ours, theirs, seed: int, resamples: int = 10_000, clusters: Labels | None = None) -> Comparison:
    """The two-sided paired permutation test of the mean difference of two methods on the same images.

    If the methods did not differ, each difference would be as likely with the opposite sign. If there are at most
    `resamples` ways to flip the signs (2^count), all are counted (exact, by scipy); otherwise that many are drawn, and
    p is (1 + as large) / (1 + drawn), never 0. `clusters` as in `bootstrap`: the differences of one image change sign
    together. Equal methods have p = 1. TensorError without values, with NaN, or for lists of different lengths.
    """
    ours, theirs = np.asarray(ours, dtype=float), np.asarray(theirs, dtype=float)
    if ours.shape != theirs.shape:
        raise TensorError(f"got {ours.shape} and {theirs.shape} values, expected pairs")
    sums, counts = _clustered(ours - theirs, clusters)
    exact = len(sums) < 60 and 2 ** len(sums) <= resamples
    p = _exact_p(sums) if exact else _drawn_p(sums, seed, resamples)
    return Comparison(float(sums.sum() / counts.sum()), p, len(sums), exact)


def _exact_p(values: Float[np.ndarray, " images"]) -> float:
    """The share of all ways to flip the signs that make the sum as large in absolute value."""
    largest = np.abs(values).sum()
    if len(values) == 1 or largest == 0:
        return 1.0

    def share(a, b, axis):
        return np.round(np.abs((a - b).sum(axis=axis)) / largest, 12)  # sums that differ by rounding are equal

    pairs = (values, np.zeros_like(values))
    test = functools.partial(scipy.stats.permutation_test, permutation_type="samples", n_resamples=np.inf)
    return float(test(pairs, share, vectorized=True, alternative="greater").pvalue)


def _drawn_p(values: Float[np.ndarray, " images"], seed: int, resamples: int) -> float:
    bound = abs(values.sum()) - 1e-12 * np.abs(values).sum()  # sums that differ by rounding are equal
    hits = sum(int((np.abs(sums) >= bound).sum()) for sums in _flipped_sums(values[:, None], seed, resamples))
    return (1 + hits) / (1 + resamples)


def sign_flip_tests(
    values: Float[np.ndarray, "images comparisons"], seed: int, resamples: int = FLIPS
) -> tuple[Float[np.ndarray, " comparisons"], Float[np.ndarray, " comparisons"]]:
    """Two one-sided p values for each column: that its mean is above 0, and that it is below 0.

    p is (1 + how many of the drawn sign flips make the sum as large, or as small) / (1 + drawn). All columns share one
    draw of the signs, so that hundreds of comparisons take no longer than a few; `scipy.stats.permutation_test` draws
    for each anew. TensorError without values, or with NaN.
    """
    values = _images_first(values)
    found, slack = values.sum(axis=0), 1e-12 * np.abs(values).sum(axis=0)  # sums that differ by rounding are equal
    as_large, as_small = np.ones(len(found)), np.ones(len(found))
    for sums in _flipped_sums(values, seed, resamples):
        as_large += (sums >= found - slack).sum(axis=0)
        as_small += (sums <= found + slack).sum(axis=0)
    return as_large / (1 + resamples), as_small / (1 + resamples)


def sign_flip_test_of_any(values: Float[np.ndarray, "images comparisons"], seed: int, resamples: int = FLIPS) -> float:
    """One p value: that at least one column's mean is above 0 (Westfall and Young's single-step max T).

    Each column's sum is divided by its root sum of squares, which flips of signs leave as it is. The largest is held
    against the largest of each draw, in which an image's columns change sign together: so columns that rise and fall
    together cost less than by Bonferroni's bound, which allows for the worst case. TensorError as `sign_flip_tests`.
    """
    values = _images_first(values)
    length = np.sqrt((values**2).sum(axis=0))
    unit = values / np.where(length > 0, length, 1.0)
    found = unit.sum(axis=0).max() - 1e-12 * len(unit)  # sums that differ by rounding are equal
    hits = sum(int((sums.max(axis=1) >= found).sum()) for sums in _flipped_sums(unit, seed, resamples))
    return (1 + hits) / (1 + resamples)


def _flipped_sums(values: np.ndarray, seed: int, resamples: int) -> Iterator[np.ndarray]:
    """The columns' sums after flips of the images' signs, some draws at a time."""
    random, at_once = np.random.default_rng(seed), max(1, DRAWS_AT_ONCE // max(values.shape))
    for start in range(0, resamples, at_once):
        drawn = random.integers(0, 2, size=(min(at_once, resamples - start), len(values)), dtype=np.int8)
        yield (2.0 * drawn - 1.0) @ values


# -- statistics of means


def resampled_means(values, seed: int, resamples: int = RESAMPLES) -> Float[np.ndarray, "resamples *axes"]:
    """Means of `values` (images, *axes) over images drawn anew. Compute a statistic of each, then call `spanned`."""
    values, random = _images_first(values), np.random.default_rng(seed)
    even = np.full(len(values), 1 / len(values))
    counts = random.multinomial(len(values), even, size=resamples)
    return (counts @ values.reshape(len(values), -1) / len(values)).reshape(resamples, *values.shape[1:])


def jackknife(values, statistic: Callable[[np.ndarray], np.ndarray]) -> Float[np.ndarray, " images"]:
    """One number for each image, whose mean is a statistic of the means over images, corrected for bias.

    These are Tukey's pseudo-values, n s - (n - 1) s without the image. With them a spread of means, or a correlation of
    mean maps, enters a long table, its intervals and tests like any other number of an image. `values` (images, *axes);
    `statistic` takes means (draws, *axes) and returns one number each. TensorError for fewer than two images, or NaN.
    """
    values = _images_first(values)
    count = len(values)
    if count < 2:
        raise TensorError("got 1 image, expected at least two to leave one out")
    mean = values.mean(axis=0)
    without = (count * mean - values) / (count - 1)
    return count * statistic(mean[None]) - (count - 1) * statistic(without)


def spanned(value: float, again: Float[np.ndarray, " resamples"], count: int, level: float = 0.95) -> Interval:
    """A statistic of `count` images with its percentile interval; `again` are its values on `resampled_means`.

    Noise enlarges the spread of means, and each resample adds noise: the interval of a spread may lie above its value.
    """
    low, high = np.quantile(again, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high), count)


# -- correlation


def correlation(x, y, seed: int, ranks: bool = False, level: float = 0.95) -> Interval:
    """The correlation of pairs, -1 to 1, Pearson's or with `ranks` Spearman's, and its percentile bootstrap interval.

    The pairs are drawn anew 2000 times, and ranked in each draw; equal values share their mean rank. If one of the two
    is constant, in the data or in a draw, the correlation is 0. TensorError for fewer than two pairs, NaN, or lists of
    different lengths.
    """
    x, y = _pairs(x, y)
    statistic = _spearman if ranks else _pearson
    again = _resampled((x, y), statistic, seed, level)
    return Interval(float(statistic(x, y, axis=0)), float(again.low), float(again.high), len(x))


def correlation_by_image(x, y, ranks: bool = False) -> Float[np.ndarray, " images"]:
    """One number for each image, whose mean is the correlation of the pairs, corrected for bias; see `jackknife`.

    With them a correlation enters a long table and is judged like any mean. With `ranks` Spearman's, of the ranks that
    the pairs have together. Zeros if one of the two is constant. TensorError as `correlation`.
    """
    x, y = _pairs(x, y)
    if ranks:
        x, y = scipy.stats.rankdata(x), scipy.stats.rankdata(y)
    x, y = (values - values.mean() for values in (x, y))
    if not x.any() or not y.any():
        return np.zeros(len(x))
    return jackknife(np.stack([x, y, x * x, y * y, x * y], axis=1), _correlation_of_means)


def _correlation_of_means(means: Float[np.ndarray, "draws 5"]) -> Float[np.ndarray, " draws"]:
    """The correlation of x and y from the means of x, y, x^2, y^2 and x y; 0 where one of them is constant."""
    x, y, xx, yy, xy = means.T
    spread = (xx - x * x).clip(min=0) * (yy - y * y).clip(min=0)
    return np.where(spread > 0, (xy - x * y) / np.sqrt(np.where(spread > 0, spread, 1.0)), 0.0)


def _pairs(x, y) -> tuple[np.ndarray, np.ndarray]:
    """Two lists as arrays. TensorError for fewer than two pairs, NaN, or lists of different lengths."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x.shape != y.shape or x.ndim != 1 or x.size < 2 or not np.isfinite([x, y]).all():
        raise TensorError(f"got values of {x.shape} and {y.shape}, expected at least two finite pairs")
    return x, y


def _spearman(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
    return _pearson(scipy.stats.rankdata(x, axis=axis), scipy.stats.rankdata(y, axis=axis), axis)


def _pearson(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
    with warnings.catch_warnings(action="ignore", category=scipy.stats.ConstantInputWarning):
        return np.asarray(np.nan_to_num(scipy.stats.pearsonr(x, y, axis=axis).statistic))


# -- small steps


def listed(labels: Labels) -> list[Hashable]:
    """The names or numbers in a list, an array, a tensor or a column of a table, as a list."""
    return labels.tolist() if isinstance(labels, Tensor) else list(labels)


def _clustered(values, clusters: Labels | None) -> tuple[np.ndarray, np.ndarray]:
    """The sum and the number of the values of each cluster. Without clusters each value is a cluster of its own."""
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
