"""Verdicts: the statements of claims.py judged on the numbers of a long table, with false verdicts held at 5 %.

A notebook's last step:

    table = papers.long_table(rows)
    verdicts = papers.judge(table, papers.claims("grad_eclip", "table3"))
    papers.save(folder, {"table3": papers.summarize(table)}, verdicts, papers.provenance(...))
    papers.closing_table(verdicts)

| verdict | when |
|---|---|
| reproduced | the difference lies on the statement's side, against each of the others |
| not reproduced | it lies on the other side, against one of the others |
| no difference | it is smaller than the statement's margin |
| undecided | none of these can be told from so many images |
| not comparable | a part of the paper's setting is missing; `why` says which |
| true by construction | every possible outcome would agree with it; `why` gives the reason |

A statement that is `exact` is about numbers that are complete, not a sample: it is reproduced or not reproduced.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from clip_explain.errors import DatasetError, MethodError, TensorError, nearest
from clip_explain.metrics.intervals import Interval, bootstrap, sign_flip_test_of_any, sign_flip_tests
from clip_explain.papers.claims import KINDS, RELATIONS, Statement, reported
from clip_explain.papers.tables import by_method, long_table

VERDICTS = (
    "reproduced",
    "not reproduced",
    "no difference",
    "undecided",
    "not comparable",
    "true by construction",
)
LEVEL = 0.05  # the largest expected share of false verdicts among a notebook's verdicts other than "undecided"
ENOUGH = 10  # images; with fewer, no verdict is given

# The words of the first edition's claims.csv, for folders that were made before.
OLD_VERDICTS = {"holds": "reproduced", "does not hold": "not reproduced"}


@dataclass(frozen=True)
class Evidence:
    """What the numbers of one setting say about a statement.

    `sided`: images as rows, the other methods as columns; the paired difference to each, turned so that it is above 0
    where the statement is true. `why`: why the statement cannot be reproduced with these numbers, "" if it can.
    """

    statement: Statement
    setting: str
    sided: pd.DataFrame
    why: str
    seed: int

    @property
    def decides(self) -> bool:
        """Whether a statistical test on these numbers can give the verdict."""
        known = self.statement.by_construction or self.statement.not_comparable or self.statement.exact
        return not known and len(self.sided) >= ENOUGH and len(self.sided.columns) > 0

    @cached_property
    def p_true(self) -> float:
        """p for "the statement is true against each other method": the largest p (an intersection-union test)."""
        return self._p_all_above(0.0)

    @cached_property
    def p_false(self) -> float:
        """p for "the statement is false against some other method" (a max T test over the others)."""
        return self._p_any_below(0.0)

    @property
    def p_sided(self) -> float:
        """p for the one of the two that is likelier."""
        p_true = 1.0 if self.why else self.p_true  # a method that was not measured might refute it
        return min(1.0, 2 * min(p_true, self.p_false))

    @cached_property
    def p_equal(self) -> float:
        """p for "the first method equals the best of the others within the margin": two one-sided tests (TOST).

        The first method is not worse than any other by the margin, and not better than one of them by the margin. 1 if
        the statement has no margin, or a method is missing.
        """
        margin = self.statement.margin
        if margin is None or self.why:
            return 1.0
        return max(self._p_all_above(-margin), self._p_any_below(margin))

    def _p_all_above(self, bound: float) -> float:
        return float(sign_flip_tests(self.sided.to_numpy() - bound, self.seed)[0].max())

    def _p_any_below(self, bound: float) -> float:
        return sign_flip_test_of_any(bound - self.sided.to_numpy(), self.seed)

    @property
    def decider(self) -> str:
        """The other method against which the statement comes nearest to being refuted; it decides."""
        spread = self.sided.std(ddof=0) + 1e-12
        return str((self.sided.mean() / spread).idxmin())

    @property
    def ours(self) -> Interval | None:
        """The first method minus the deciding one (or its own value if it is alone); None if nothing was measured."""
        if self.sided.empty:
            return None
        sign = 1.0 if RELATIONS[self.statement.relation] == "above" else -1.0
        return bootstrap(sign * self.sided[self.decider] + self.statement.threshold, self.seed)


def judge(
    table: pd.DataFrame,
    claims: Iterable[Statement],
    seed: int = 0,
    without: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """The verdict on each statement, in each setting of the table in which its metric is measured.

    What is tested is the mean over images of the paired difference between the first method and each other one (of one
    method alone, its own value), after averaging an image's targets. p values come from flips of the images' signs;
    those of all statements together are corrected by Benjamini and Hochberg, so that at most 5 % of the verdicts other
    than "undecided" are expected to be false. The interval that is shown is the bootstrap's, 95 %, of the difference to
    the method `against` which the statement is nearest to being refuted.

    `without` names methods that were not measured, and why: a statement about "all" can then be refuted, but not
    reproduced. Any other missing method is a MethodError, a missing metric a TensorError.

    Columns: id, kind, claim, paper (its number and place), setting, metric, against, ours, low, high, needed, images, p
    (corrected), verdict, why.
    """
    table, without = long_table(table), dict(without or {})
    found = [each for claim in claims for each in _evidence(claim, table, without, seed)]
    ps = corrected(found)
    return pd.DataFrame([_row(each, *of_each) for each, of_each in zip(found, ps, strict=True)])


# -- from numbers to p values


def _evidence(claim: Statement, table: pd.DataFrame, without: Mapping[str, str], seed: int) -> list[Evidence]:
    """The evidence of each setting in which the claim's first method has numbers of its metric."""
    rows = table[(table["metric"] == claim.metric) & (table["method"] == claim.methods[0])]
    settings = [name for name in rows["setting"].unique() if claim.setting in (None, name)]
    if settings:
        return [_of_setting(claim, name, table[table["setting"] == name], without, seed) for name in settings]
    reason = claim.not_comparable or without.get(claim.methods[0], "")
    if reason or claim.by_construction:
        return [Evidence(claim, "", pd.DataFrame(), reason, seed)]
    if claim.metric not in set(table["metric"]):
        raise TensorError(
            f"{claim.statement!r} ({claim.place}): no numbers of {claim.metric!r}: "
            f"{nearest(claim.metric, table['metric'].unique())}"
        )
    raise MethodError(
        f"{claim.statement!r} ({claim.place}) is about {claim.methods[0]!r}, which has no numbers of {claim.metric}: "
        f"{nearest(claim.methods[0], table['method'].unique())}"
    )


def _of_setting(claim: Statement, setting: str, table: pd.DataFrame, without: Mapping[str, str], seed: int) -> Evidence:
    there = set(table.loc[table["metric"] == claim.metric, "method"])
    missing = [method for method in claim.methods[1:] if method not in there and method in without]
    kept = [method for method in claim.methods if method not in missing]
    try:
        wide = by_method(table, claim.metric, kept)
    except MethodError as error:
        raise MethodError(f"{claim.statement!r} ({claim.place}), setting {setting!r}: {error}") from error
    first, others = claim.methods[0], kept[1:]
    if others:
        differences = pd.DataFrame({other: wide[first] - wide[other] for other in others})
    else:
        differences = wide[[first]] if len(claim.methods) == 1 else pd.DataFrame(index=wide.index)
    sign = 1.0 if RELATIONS[claim.relation] == "above" else -1.0
    why = "; ".join(f"{method} was not measured: {without[method]}" for method in missing)
    return Evidence(claim, setting, sign * (differences - claim.threshold), why, seed)


def corrected(found: Sequence[Evidence]) -> list[tuple[float, float]]:
    """Two p values of each, corrected after Benjamini and Hochberg: it lies on one side; it is within the margin.

    A statement counts once, with the smaller p, and its verdict is false with a chance of at most that p. If the true
    difference is beyond the margin, "no difference" is false and so is the other side; but whatever is taken for the
    other side is taken for less than the margin as well, by the same one-sided test at a nearer bound: the chances do
    not add.
    """
    family = np.array([min(each.p_sided, each.p_equal) for each in found if each.decides])
    return [
        (_adjusted(each.p_sided, family), _adjusted(each.p_equal, family)) if each.decides else (1.0, 1.0)
        for each in found
    ]


def _adjusted(p: float, family: Float[np.ndarray, " statements"]) -> float:
    """The least expected share of false verdicts at which a p value decides, among a family of p values.

    At a level t it is (statements x t) / (statements with a p of at most t); levels from p on are open.
    """
    levels = np.append(family[family >= p], p)
    decided = (family <= levels[:, None]).sum(axis=1)
    return float(min(1.0, (len(family) * levels / np.maximum(decided, 1)).min()))


# -- from p values to verdicts


def _verdict(each: Evidence, ours: Interval | None, p_sided: float, p_equal: float) -> tuple[str, str]:
    """The verdict, and the reason if it is not one of the first three. `ours` is the difference that decides."""
    if each.statement.by_construction:
        return "true by construction", each.statement.by_construction
    if each.statement.not_comparable:
        return "not comparable", each.statement.not_comparable
    if each.statement.exact and ours is not None:
        return ("reproduced" if bool((each.sided.mean() > 0).all()) else "not reproduced"), each.statement.exact
    if each.decides and p_equal <= LEVEL:
        return "no difference", ""
    if ours is not None and each.decides and p_sided <= LEVEL and not ours.low <= each.statement.threshold <= ours.high:
        refuted = each.why or each.p_false < each.p_true
        return ("not reproduced" if refuted else "reproduced"), ""
    if each.why:
        return "not comparable", each.why
    if len(each.sided) < ENOUGH:
        return "undecided", f"{len(each.sided)} images, fewer than {ENOUGH}"
    return "undecided", ""


def _row(each: Evidence, p_sided: float, p_equal: float) -> dict:
    """One row of the table of verdicts; its numbers are NaN where nothing was measured."""
    claim, ours = each.statement, each.ours
    verdict, why = _verdict(each, ours, p_sided, p_equal)
    p = p_equal if verdict == "no difference" else p_sided
    alone = len(claim.methods) == 1
    return {
        "id": claim.id,
        "kind": claim.kind,
        "claim": claim.statement,
        "paper": reported(claim, each.decider) if ours else claim.place,
        "setting": each.setting,
        "metric": claim.metric,
        "against": "" if alone or ours is None else each.decider,
        "ours": ours.mean if ours else np.nan,
        "low": ours.low if ours else np.nan,
        "high": ours.high if ours else np.nan,
        "needed": f"{'>' if RELATIONS[claim.relation] == 'above' else '<'} {claim.threshold:.3g}",
        "images": len(each.sided),
        "p": np.nan if claim.exact else p,
        "verdict": verdict,
        "why": why,
    }


# -- verdicts shown and counted


def closing_table(verdicts: pd.DataFrame) -> pd.DataFrame:
    """The verdicts as a notebook shows them last: what is stated, the paper's number, ours, the verdict."""
    numbers = verdicts[["ours", "low", "high"]].itertuples(index=False)
    ours = ["-" if np.isnan(row.ours) else f"{row.ours:.3f} [{row.low:.3f}, {row.high:.3f}]" for row in numbers]
    shown = verdicts[["claim", "setting", "metric", "against", "paper"]].assign(**{"ours [95 %]": ours})
    shown = shown.assign(images=verdicts["images"], verdict=verdicts["verdict"], why=verdicts["why"])
    filled = [name for name in shown if name == "claim" or bool((shown[name] != "").any())]
    found: pd.DataFrame = shown[filled]
    return found


def by_setting(verdicts: pd.DataFrame) -> pd.DataFrame:
    """The verdicts of each statement side by side, a column for each setting; `turns` says whether they differ."""
    wide = verdicts.pivot(index=["claim", "metric"], columns="setting", values="verdict")
    return wide.assign(turns=wide.nunique(axis=1) > 1)


def read_verdicts(path: str | Path) -> pd.DataFrame:
    """A claims.csv, also one of the first edition, with at least the columns claim, paper, kind and verdict.

    DatasetError for a file without verdicts.
    """
    table = pd.read_csv(path, keep_default_na=False)
    if "holds" in table:
        table = table.assign(verdict=table["holds"].replace(OLD_VERDICTS))
    if "verdict" not in table:
        raise DatasetError(f"{path} has no column of verdicts, but {', '.join(table.columns)}")
    if "kind" not in table:
        of_a_paper = table["paper"].astype(str).str.contains(r"\b(?:GE|EP|IC)\b")
        table = table.assign(kind=np.where(of_a_paper, "paper", "control"))
    return table


def tally(verdicts: pd.DataFrame) -> dict[str, str]:
    """For each kind of statement that occurs, "reproduced / neither / not reproduced", such as "12 / 3 / 5"."""
    counts = totals(verdicts)
    shown = {}
    for kind, row in counts[counts.sum(axis=1) > 0].iterrows():
        yes, no = row["reproduced"], row["not reproduced"]
        shown[str(kind)] = f"{yes} / {row.sum() - yes - no} / {no}"
    return shown


def tally_of(folder: Path) -> list[str]:
    """The `tally` of a folder's claims.csv in the order of KINDS, "none" for an absent kind; empty without the file.

    README's table and the gallery both show it.
    """
    path = folder / "claims.csv"
    if not path.is_file():
        return []
    counts = tally(read_verdicts(path))
    return [counts.get(kind, "none") for kind in KINDS]


def totals(verdicts: pd.DataFrame) -> pd.DataFrame:
    """How often each verdict was given: a row for the papers' statements, one for our controls.

    papers.totals(papers.read_verdicts("figures/07_localization/claims.csv")).loc["paper", "reproduced"]
    """
    counts = pd.crosstab(verdicts["kind"], verdicts["verdict"])
    return counts.reindex(index=list(KINDS), columns=list(VERDICTS), fill_value=0)
