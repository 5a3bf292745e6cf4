"""What the papers state, and what we ask as a control: comparisons read from data/paper/claims.toml.

Above published.py, whose numbers some of the statements are about; verdicts.py judges them on our numbers.
"""

import functools
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from clip_explain.errors import DatasetError, nearest
from clip_explain.explainers import names_of
from clip_explain.explainers.registry import names_of_pairs
from clip_explain.files import data_folder
from clip_explain.metrics.registry import METRICS
from clip_explain.papers.published import LIBRARY_NAMES, PAPERS, published
from clip_explain.sweep.measures import METHODS

FILE = "paper/claims.toml"
KINDS = ("paper", "control")

# Relation -> on which side of the threshold the number lies if the statement is true.
RELATIONS = {"highest": "above", "greater than": "above", "lowest": "below", "less than": "below"}
NEEDED = {"id": str, "paper": str, "where": str, "kind": str, "statement": str, "method": str, "relation": str}
OPTIONAL = {"others": list, "threshold": (int, float), "setting": str}
OF_A_METRIC = {"printed": str, "margin": (int, float), "by_construction": str, "not_comparable": str, "exact": str}


@dataclass(frozen=True)
class Statement:
    """A comparison: the value of `methods[0]` minus that of each other method lies on one side of `threshold`.

    If only one method is named, its own value is compared with the threshold. "lowest" and "highest" mean "less than"
    and "greater than" each of the others. `methods` and `metric` are named as in the long table; methods need not be
    explainers (LIBRARY_NAMES translates those of the papers' tables). `where`: "table1", "figure6", "section3.2".

    `printed` names the column of the paper's table whose rows are the methods, or the row whose columns are; it is
    empty where the paper prints no numbers. A difference of less than `margin` counts as none. `by_construction` and
    `not_comparable` say why no numbers can decide; `exact` says why the numbers are all there are and no sample, so
    that they decide by themselves. `kind`: "paper", or "control" for what we ask ourselves; a control
    may have no paper, and then `where` is printed as it is. `setting`: the one setting of the long table that it is
    asked in; None means each.
    """

    paper: str
    where: str
    statement: str
    metric: str
    methods: tuple[str, ...]
    relation: str
    printed: str = ""
    threshold: int | float = 0.0
    id: str = ""
    kind: str = "paper"
    margin: int | float | None = None
    by_construction: str = ""
    not_comparable: str = ""
    exact: str = ""
    setting: str | None = None

    def __post_init__(self) -> None:
        if self.relation not in RELATIONS:
            raise DatasetError(
                f"{self.statement!r}: unknown relation {self.relation!r}, {nearest(self.relation, RELATIONS)}"
            )
        if len(self.methods) < 1 + (self.relation in ("lowest", "highest")):
            raise DatasetError(f"{self.statement!r} compares too few methods: {self.methods}")
        if self.margin is not None and not self.margin > 0:
            raise DatasetError(f"{self.statement!r}: got margin={self.margin}, expected more than 0, or none")

    @property
    def place(self) -> str:
        """The place in the paper, abbreviated: "GE Tab 1"."""
        where = self.where
        for long, short in (("table", "Tab "), ("figure", "Fig "), ("section", ""), ("appendix", "App ")):
            where = where.replace(long, short) if self.paper else where
        return f"{PAPERS[self.paper]} {where}" if self.paper else where


def control(
    statement: str,
    metric: str,
    methods: tuple[str, ...],
    relation: str = "greater than",
    threshold: int | float = 0.0,
    margin: int | float | None = None,
    setting: str | None = None,
) -> Statement:
    """One of our own statements, such as that a method beats random maps; controls are counted separately."""
    return Statement(
        paper="",
        where="our control",
        statement=statement,
        metric=metric,
        methods=methods,
        relation=relation,
        threshold=threshold,
        kind="control",
        margin=margin,
        setting=setting,
    )


def in_settings(statements: Iterable[Statement], settings: Sequence[str]) -> tuple[Statement, ...]:
    """The statements, those that name no setting once for each of these: all others of a table are not asked."""
    found = []
    for claim in statements:
        named = settings if claim.setting is None else [claim.setting]
        found += [replace(claim, setting=setting) for setting in named]
    return tuple(found)


def claims(
    paper: str | None = None, where: str | Sequence[str] | None = None, kind: str | None = "paper"
) -> tuple[Statement, ...]:
    """The statements about one table, figure or section of a paper: claims("grad_eclip", "table1"). None means all.

    `where` may be several places; their statements come in that order. `kind`: "paper", "control", or None for both.
    DatasetError if there are none in one of the places, or if the file is not as it should be.
    """
    if where is not None and not isinstance(where, str):
        return tuple(claim for place in where for claim in claims(paper, place, kind))
    if paper is not None and paper not in PAPERS:
        raise DatasetError(f"unknown paper {paper!r}: {nearest(paper, PAPERS)}")
    if kind not in (*KINDS, None):
        raise DatasetError(f"unknown kind {kind!r}: {nearest(str(kind), KINDS)}")
    of_kind = [claim for claim in read_claims(data_folder() / FILE) if kind in (None, claim.kind)]
    of_paper = [claim for claim in of_kind if paper in (None, claim.paper)]
    found = tuple(claim for claim in of_paper if where in (None, claim.where))
    if not found:
        raise DatasetError(f"no claims of {where!r}: {nearest(str(where), sorted({each.where for each in of_paper}))}")
    return found


def controls(notebook: str) -> tuple[Statement, ...]:
    """The controls that one notebook alone asks, controls("22"): those whose id begins with "nb22-".

    DatasetError if there are none.
    """
    of_all = claims(kind="control")
    found = tuple(claim for claim in of_all if claim.id.startswith(f"nb{notebook}-"))
    if not found:
        numbers = sorted({claim.id[2:4] for claim in of_all if claim.id.startswith("nb")})
        raise DatasetError(f"no controls of notebook {notebook!r}: {nearest(notebook, numbers)}")
    return found


def on_dataset(statements: Iterable[Statement], dataset: str) -> tuple[Statement, ...]:
    """Those about no dataset or about this one, with its name taken off the metric.

    "searched_iou on VOC" becomes "searched_iou" on "VOC", and is left out on any other dataset.
    """
    split = [(claim, *claim.metric.partition(" on ")[::2]) for claim in statements]
    return tuple(replace(claim, metric=metric) for claim, metric, on in split if on in ("", dataset))


def measured_in(statements: Iterable[Statement], table: pd.DataFrame) -> tuple[Statement, ...]:
    """The statements whose metric the long table has, in the statement's own setting if it names one.

    What was left out, such as a second model, is then not asked about. Those that no number can decide are kept.
    """
    anywhere, there = set(table["metric"]), set(zip(table["setting"], table["metric"], strict=True))
    found = []
    for claim in statements:
        measured = claim.metric in anywhere if claim.setting is None else (claim.setting, claim.metric) in there
        if measured or claim.not_comparable or claim.by_construction:
            found.append(claim)
    return tuple(found)


def lacking(statements: Iterable[Statement], table: pd.DataFrame, why: str) -> dict[str, str]:
    """The methods of some statements that the long table lacks, each with the reason, as `judge` takes them."""
    needed = [method for claim in statements for method in claim.methods]
    return {method: why for method in needed if method not in set(table["method"])}


# -- the file


@functools.lru_cache
def read_claims(path: Path) -> tuple[Statement, ...]:
    """All statements of a file like data/paper/claims.toml, one for each metric of an entry; each entry is checked.

    DatasetError, naming the entry, for a missing file, a key that is missing, unknown or of another type, an unknown
    paper, kind, relation, metric or method, a margin that is not above 0, and an id that two entries share.
    """
    try:
        file = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise DatasetError(f"no claims at {path}: set CLIP_EXPLAIN_DATA to the compendium's data folder") from error
    except tomllib.TOMLDecodeError as error:
        raise DatasetError(f"{path} is damaged: {error}") from error
    _check_keys(path.name, file, {"claim": list}, {"measured": dict, "compared": dict})
    metrics, methods = (
        {*METRICS, *file.get("measured", {})},
        {*METHODS, *names_of(words=True), *names_of_pairs(), *file.get("compared", {})},
    )
    seen, found = set(), []
    for number, entry in enumerate(file["claim"], 1):
        name = f"claim {number} ({entry.get('id', 'without an id')})"
        _check_entry(name, entry)
        if entry["id"] in seen:
            raise DatasetError(f"{name}: another claim has the same id")
        seen.add(entry["id"])
        found += _statements(entry)
        for claim in found[-len(entry["metrics"]) :]:
            _check_names(name, claim, metrics, methods)
    return tuple(found)


def _statements(entry: dict[str, Any]) -> list[Statement]:
    """An entry's statements, one for each metric."""
    same = {key: entry[key] for key in ("id", "paper", "where", "kind", "statement", "relation")}
    same |= {"methods": (entry["method"], *entry.get("others", [])), "threshold": float(entry.get("threshold", 0))}
    same |= {"setting": entry.get("setting")}
    return [Statement(**same, metric=metric, **about) for metric, about in entry["metrics"].items()]


def _check_entry(name: str, entry: dict[str, Any]) -> None:
    _check_keys(name, entry, NEEDED | {"metrics": dict}, OPTIONAL)
    for metric, about in entry["metrics"].items():
        if not isinstance(about, dict):
            raise DatasetError(f"{name}: got metrics.{metric} = {about!r}, expected a table, as {{}}")
        _check_keys(f"{name}, {metric}", about, {}, OF_A_METRIC)
    if not entry["metrics"]:
        raise DatasetError(f"{name}: got no metrics, expected at least one")
    of_no_paper = ("",) if entry["kind"] == "control" else ()
    for key, allowed in (("paper", (*PAPERS, *of_no_paper)), ("kind", KINDS)):
        if entry[key] not in allowed:
            raise DatasetError(f"{name}: unknown {key} {entry[key]!r}: {nearest(entry[key], allowed)}")


def _check_names(name: str, claim: Statement, metrics: Collection[str], methods: Collection[str]) -> None:
    """DatasetError for a metric or a method that neither the library nor the file knows."""
    if claim.metric not in metrics:
        raise DatasetError(f"{name}: unknown metric {claim.metric!r}: {nearest(claim.metric, metrics)}")
    for method in claim.methods:
        if method not in methods and method.split()[0] not in methods:
            raise DatasetError(f"{name}: unknown method {method!r}: {nearest(method, methods)}")


def _check_keys(name: str, given: dict[str, Any], needed: Mapping[str, Any], optional: Mapping[str, Any]) -> None:
    """DatasetError unless all needed keys are there, no unknown ones, and each value has its type."""
    if missing := sorted(needed.keys() - given.keys()):
        raise DatasetError(f"{name} lacks {', '.join(missing)}")
    known = {**needed, **optional}
    for key, value in given.items():
        if key not in known:
            raise DatasetError(f"{name}: unknown key {key!r}: {nearest(key, known)}")
        if not isinstance(value, known[key]) or isinstance(value, bool):
            raise DatasetError(f"{name}: got {key} = {value!r}, which has another type than it should")


# -- the papers' own numbers


def differences(claim: Statement, values: Mapping | pd.DataFrame) -> dict:
    """For each other method, the value of `methods[0]` minus its value; a single method gives its own value.

    `values` holds numbers or columns of numbers by method.
    """
    first, *others = claim.methods
    return {other: values[first] - values[other] for other in others} or {first: values[first]}


def in_paper(claim: Statement) -> float | None:
    """The paper's own difference that comes nearest to refuting the claim; None where the paper prints no numbers."""
    if not claim.printed:
        return None
    numbers = published(claim.paper, claim.where)
    along, across = ("column", "row") if claim.printed in set(numbers["column"]) else ("row", "column")
    numbers = numbers[numbers[along] == claim.printed]
    values = dict(zip(numbers[across].replace(LIBRARY_NAMES[claim.paper]), numbers["value"], strict=True))
    if missing := [method for method in claim.methods if method not in values]:
        raise DatasetError(f"{claim.place}, {claim.printed!r}, has no {missing[0]!r}: {nearest(missing[0], values)}")
    worst = min if RELATIONS[claim.relation] == "above" else max
    return round(worst(differences(claim, values).values()), 6)  # more digits than any of the papers prints


def true_in_paper(claim: Statement) -> bool | None:
    """Whether the statement is true of the paper's own numbers; None where the paper prints none."""
    number = in_paper(claim)
    if number is None:
        return None
    return number > claim.threshold if RELATIONS[claim.relation] == "above" else number < claim.threshold


def reported(stated: Statement, other: str) -> str:
    """The paper's own number for what is shown, with its place: "-0.0071 (GE Tab 1)"."""
    alone = len(stated.methods) == 1
    number = in_paper(stated if alone else replace(stated, methods=(stated.methods[0], other)))
    if number is None:
        return stated.place
    return f"{number:{'.4g' if alone else '+.4g'}} ({stated.place})"
