"""Places of methods by several metrics, with bootstrap intervals over images.

Above tables.py, whose long table it reads; a summary that plots/ draws comes out.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import rankdata

from clip_explain.errors import TensorError, nearest
from clip_explain.metrics.intervals import resampled_means, spanned
from clip_explain.papers.tables import by_method

BETTER = ("higher", "lower")
OVERALL = "mean rank"


def ranks(
    table: pd.DataFrame, better: Mapping[str, str], methods: Sequence[str], seed: int = 0, level: float = 0.95
) -> pd.DataFrame:
    """Each method's place by each metric, 1 being the best, and the mean of its places, as a summary.

    Columns: method, metric, mean, low, high, images. `better`: metric -> "higher" or "lower". Equal means share their
    places. The rows called OVERALL are the mean over the metrics, each of which counts the same. The intervals come of
    images drawn anew; metrics of the same images are drawn together, so that their mean's interval is right for metrics
    that go together. `table` has one setting. TensorError for another direction, and where `by_method` raises it.
    """
    for metric, side in better.items():
        if side not in BETTER:
            raise TensorError(f"{metric}: got {side!r}, {nearest(side, BETTER)}")
    found, drawn, counts = {}, {}, {}
    for metric, side in better.items():
        values = by_method(table, metric, methods).to_numpy()
        found[metric] = places(values.mean(axis=0), side)
        drawn[metric] = places(resampled_means(values, seed), side)
        counts[metric] = len(values)
    found[OVERALL] = np.mean(list(found.values()), axis=0)
    drawn[OVERALL] = np.mean(list(drawn.values()), axis=0)
    counts[OVERALL] = min(counts.values())
    rows = []
    for metric in found:
        for number, method in enumerate(methods):
            place = spanned(found[metric][number], drawn[metric][:, number], counts[metric], level)
            rows.append((method, metric, place.mean, place.low, place.high, place.count))
    return pd.DataFrame(rows, columns=["method", "metric", "mean", "low", "high", "images"])


def ranks_of_means(summary: pd.DataFrame, better: Mapping[str, str], methods: Sequence[str]) -> pd.DataFrame:
    """The places of numbers without images, such as a paper's, in the same columns as `ranks`.

    TensorError where a method has no number of a metric, or several.
    """
    rows = []
    for metric, side in better.items():
        means = summary.loc[summary["metric"] == metric].set_index("method")["mean"]
        if any(list(means.index).count(method) != 1 for method in methods):
            raise TensorError(
                f"{metric}: got numbers of {', '.join(means.index)}, expected one of {', '.join(methods)}"
            )
        for method, place in zip(methods, places(means[list(methods)].to_numpy(), side), strict=True):
            rows.append((method, metric, place, place, place, 0))
    return pd.DataFrame(rows, columns=["method", "metric", "mean", "low", "high", "images"])


def places(values: Float[np.ndarray, "*axes methods"], better: str) -> Float[np.ndarray, "*axes methods"]:
    """The place of each of the methods, from 1 for the best; equal values share the mean of their places."""
    return rankdata(-values if better == "higher" else values, axis=-1)
