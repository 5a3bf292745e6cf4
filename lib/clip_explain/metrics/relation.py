"""How one number of each class, image or map goes with another: correlation, with its interval.

Beside statistics.py, whose `Interval` it returns.
"""

import numpy as np
import scipy.stats

from clip_explain.errors import TensorError
from clip_explain.metrics.statistics import RESAMPLES, Interval


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
