"""Correlation: worked by hand, against scipy, and what it does where there is nothing to relate."""

import numpy as np
import pytest
import scipy.stats

from clip_explain.errors import TensorError
from clip_explain.metrics.intervals import correlation


def test_by_hand():
    # deviations (-1, 0, 1) and (-1, 1, 0): 1 / (sqrt 2 sqrt 2)
    assert correlation([1, 2, 3], [1, 3, 2], seed=0).mean == pytest.approx(0.5)
    assert correlation([1, 2, 3], [30, 20, 10], seed=0).mean == pytest.approx(-1)
    line = correlation([1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 4, 9, 16, 25, 36, 49, 64, 81], seed=0, ranks=True)
    assert (line.mean, line.low, line.high, line.count) == (pytest.approx(1), pytest.approx(1), pytest.approx(1), 9)


@pytest.mark.parametrize("ranks", [False, True])
def test_against_scipy(ranks):
    made = np.random.default_rng(0)
    x = made.integers(0, 8, 60).astype(float)  # with ties
    y = 0.5 * x + made.normal(0, 2, 60)
    found = correlation(x, y, seed=1, ranks=ranks)
    of = scipy.stats.spearmanr if ranks else scipy.stats.pearsonr
    assert found.mean == pytest.approx(of(x, y).statistic)
    again = scipy.stats.bootstrap(
        (x, y),
        lambda a, b: of(a, b).statistic,
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=500,
        rng=2,
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((again.low, again.high), abs=0.06)


def test_nothing_goes_with_a_constant():
    found = correlation([1, 1, 1], [1, 2, 3], seed=0)
    assert (found.mean, found.low, found.high) == (0, 0, 0)
    assert np.isfinite(
        [correlation([1, 2], [3, 4], seed=0).low, correlation([1, 2], [3, 4], seed=0, ranks=True).low]
    ).all()


@pytest.mark.parametrize("x, y", [([1], [2]), ([1, 2], [1, 2, 3]), ([1, float("nan")], [1, 2]), ([[1, 2]], [[1, 2]])])
def test_what_is_no_list_of_pairs(x, y):
    with pytest.raises(TensorError, match="at least two finite pairs"):
        correlation(x, y, seed=0)
