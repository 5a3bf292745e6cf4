"""The first edition's verdicts: one interval a claim, which decides by itself.

Below verdicts.py, which replaces it. It stays until every notebook measures into the long table of tables.py; nothing
new should be written with it.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from clip_explain.errors import MethodError, TensorError
from clip_explain.metrics.intervals import Interval, bootstrap
from clip_explain.papers.claims import RELATIONS, Statement, differences, reported
from clip_explain.papers.tables import by_method

ENOUGH = 10  # images; an interval of fewer decides nothing


@dataclass(frozen=True)
class Claim:
    """A claim of a paper, what the paper reports, and our mean, which must be `above` a number, or `below` one.

    `inclusive`: it may also be equal to that number. `evaluate` makes one of a statement and our numbers.
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
    """The closing table of a notebook, of the first edition's claims."""
    rows = [(c.claim, c.paper, str(c.ours), _bar(c), c.ours.count, c.verdict) for c in claims]
    return pd.DataFrame(rows, columns=["claim", "paper", "ours [95 %]", "holds if", "images", "here"])


def _bar(claim: Claim) -> str:
    equal = "=" if claim.inclusive else ""
    return f">{equal} {claim.above:.3g}" if claim.below is None else f"<{equal} {claim.below:.3g}"


def as_csv(claims: Sequence[Claim]) -> bytes:
    """The claims as claims.csv."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["claim", "paper", "ours", "low", "high", "needed", "images", "holds"])
    for claim in claims:
        numbers = (f"{number:.4g}" for number in (claim.ours.mean, claim.ours.low, claim.ours.high))
        writer.writerow([claim.claim, claim.paper, *numbers, _bar(claim), claim.ours.count, claim.verdict])
    return text.getvalue().encode()


def evaluate(stated: Statement, numbers: pd.DataFrame, seed: int = 0, metric: str | None = None) -> Claim:
    """A statement held against our `numbers` (columns image, method, metric, value, perhaps target).

    Ours is the mean over images of the paired difference, the first method's value less another's (of one method
    alone, its value), with its bootstrap interval; the rows of an image are averaged first. Of several others the one
    that decides is shown: the statement holds if it does against all, and fails if it does against one. Their intervals
    are widened (Bonferroni) to be right together at 95 %. `metric` is for numbers that call it otherwise.

    NaN says that the question has no answer: its image (and target, where there is such a column) is left out for all
    methods. MethodError if a method is missing; TensorError if the metric, a column or a method's row of an image is
    missing, or no value is left.
    """
    metric = metric or stated.metric
    if missing := {"image", "method", "metric", "value"} - set(numbers.columns):
        raise TensorError(
            f"the table lacks {', '.join(sorted(missing))}; it has {', '.join(map(str, numbers.columns))}"
        )
    try:
        table = by_method(numbers, metric, stated.methods)
    except MethodError as error:
        raise MethodError(f"{stated.statement!r} ({stated.place}) compares a missing method: {error}") from error
    found = differences(stated, table)
    intervals = {name: bootstrap(column, seed, 1 - 0.05 / len(found)) for name, column in found.items()}
    side = RELATIONS[stated.relation]
    claims = [
        Claim(_shown(stated, other), reported(stated, other), ours, **{side: stated.threshold})
        for other, ours in intervals.items()
    ]
    fails = [claim for claim in claims if claim.verdict == "does not hold"]
    # Nearest to refuting it: where the end of the interval that must be beyond the threshold lies furthest back.
    return min(fails or claims, key=lambda claim: claim.ours.low if side == "above" else -claim.ours.high)


def _shown(stated: Statement, other: str) -> str:
    """The statement, its metric, and, if there are several others, which of them is shown."""
    nearest_other = f", nearest {other}" if len(stated.methods) > 2 else ""
    return f"{stated.statement} ({stated.metric}{nearest_other})"
