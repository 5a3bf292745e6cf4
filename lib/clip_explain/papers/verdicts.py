"""What a notebook leaves: claims of a paper held against our numbers, where the numbers come from, and its figures.

Above metrics/ and claims.py; the only module that notebooks write files with. Each file is complete or not there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from clip_explain.errors import MethodError, TensorError, nearest
from clip_explain.metrics.intervals import Interval, bootstrap
from clip_explain.papers.published import RELATIONS, PaperClaim, differences, in_paper

ENOUGH = 10  # images; an interval of fewer decides nothing


@dataclass(frozen=True)
class Claim:
    """A claim of a paper, what the paper reports, and our mean, which must be `above` a number, or `below` one.

    `inclusive`: it may also be equal to that number. `evaluate` makes one of a statement of claims.py and our numbers.
    """

    claim: str
    paper: str
    ours: Interval
    above: float | None = None
    below: float | None = None
    inclusive: bool = False

    @property
    def verdict(self) -> str:
        """Holds or does not hold: where the whole interval lies on one side. Undecided: all else, and few images."""
        if self.above is not None and self.below is None:
            holds, fails = self.ours.low > self.above, self.ours.high < self.above
        elif self.below is not None and self.above is None:
            holds, fails = self.ours.high < self.below, self.ours.low > self.below
        else:
            raise ValueError(f"the claim {self.claim!r} needs either above= or below=")
        if self.inclusive:
            holds = self.ours.low >= self.above if self.below is None else self.ours.high <= self.below
        if self.ours.count < ENOUGH or not (holds or fails):
            return "undecided"
        return "holds" if holds else "does not hold"


def table(claims: Sequence[Claim]) -> pd.DataFrame:
    """The closing table of a notebook."""
    rows = [(c.claim, c.paper, str(c.ours), _bar(c), c.ours.count, c.verdict) for c in claims]
    return pd.DataFrame(rows, columns=["claim", "paper", "ours [95 %]", "holds if", "images", "here"])


def _bar(claim: Claim) -> str:
    equal = "=" if claim.inclusive else ""
    return f">{equal} {claim.above:.3g}" if claim.below is None else f"<{equal} {claim.below:.3g}"


def evaluate(stated: PaperClaim, numbers: pd.DataFrame, seed: int = 0, metric: str | None = None) -> Claim:
    """What a paper states, held against our `numbers`: columns image, method, metric, value, as a sweep's table.

    Ours is the mean over images of the paired difference, the first method's value less another's (of one method
    alone, its value), with its bootstrap interval; several rows of an image are averaged first. Of several others the
    one that decides is shown: the statement holds if it does against all and fails if it does against one. Their
    intervals are widened (Bonferroni) to be right together at 95 %. `metric` is for numbers that call it otherwise.
    `image` may be any unit that was drawn, such as a class.

    A value of NaN says that the question has no answer: its image (and target, where there is such a column) is left
    out for all methods. MethodError if a method is missing; TensorError if the metric, a column or a method's row of an
    image is, or no value is left.
    """
    table = _by_method(stated, numbers, metric or stated.metric)
    found = differences(stated, table)
    intervals = {name: bootstrap(column, seed, 1 - 0.05 / len(found)) for name, column in found.items()}
    side, inclusive = RELATIONS[stated.relation]
    claims = [
        Claim(_shown(stated, other), _reported(stated, other), ours, **{side: stated.threshold}, inclusive=inclusive)
        for other, ours in intervals.items()
    ]
    fails = [claim for claim in claims if claim.verdict == "does not hold"]
    # Nearest to refuting it: where the end of the interval that must be beyond the threshold lies furthest back.
    return min(fails or claims, key=lambda claim: claim.ours.low if side == "above" else -claim.ours.high)


def _shown(stated: PaperClaim, other: str) -> str:
    """The statement, its metric, and, if there are several others, which of them is shown."""
    nearest_other = f", nearest {other}" if len(stated.methods) > 2 else ""
    return f"{stated.statement} ({stated.metric}{nearest_other})"


def _reported(stated: PaperClaim, other: str) -> str:
    """The paper's own number of what is shown, and where it stands: "-0.0071 (GE Tab 1)"."""
    alone = len(stated.methods) == 1
    number = in_paper(stated if alone else replace(stated, methods=(stated.methods[0], other)))
    if number is None:
        return stated.place
    return f"{number:{'.4g' if alone else '+.4g'}} ({stated.place})"


def _by_method(stated: PaperClaim, numbers: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Images as rows, the methods that are compared as columns."""
    if missing := {"image", "method", "metric", "value"} - set(numbers.columns):
        raise TensorError(
            f"the table lacks {', '.join(sorted(missing))}; it has {', '.join(map(str, numbers.columns))}"
        )
    rows = numbers[numbers["metric"] == metric]
    if rows.empty:
        raise TensorError(f"no numbers of {metric!r}: {nearest(metric, numbers['metric'].dropna().unique())}")
    if missing := [method for method in stated.methods if method not in set(rows["method"])]:
        raise MethodError(
            f"{stated.statement!r} ({stated.place}) compares {missing[0]!r}, which has no numbers of {metric}: "
            f"{nearest(missing[0], rows['method'].unique())}"
        )
    rows = rows[rows["method"].isin(stated.methods)]
    if np.isinf(rows["value"]).any():
        raise TensorError(f"{metric}: {int(np.isinf(rows['value']).sum())} values are infinite")
    by_method = rows.groupby([column for column in ("image", "target", "method") if column in rows])["value"]
    if lacking := int(by_method.size().unstack("method").isna().any(axis=1).sum()):
        raise TensorError(f"{metric}: {lacking} images or targets lack a row of one of {', '.join(stated.methods)}")
    return by_method.mean().unstack("method").dropna().groupby("image").mean()
