"""The numbers that the three papers print, and their statements as comparisons that can be held against any numbers.

Below results.py, which evaluates the comparisons. data/paper/README.md describes the CSV files.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from clip_explain.errors import DatasetError, nearest
from clip_explain.files import data_folder

PAPERS = {"grad_eclip": "GE", "epfl": "EP", "iclip": "IC"}

# Rows and columns of the papers' tables -> what the library calls them. All others keep the paper's name.
LIBRARY_NAMES: dict[str, dict[str, str]] = {
    "grad_eclip": {
        "raw attention": "self_attention",
        "Rollout": "rollout",
        "Grad-CAM": "grad_cam",
        "GAME": "game",
        "MaskCLIP": "maskclip",
        "CLIPSurgery": "clip_surgery",
        "M2IB": "m2ib",
        "RISE": "rise",
        "Ours w/o w_i": "grad_eclip spatial=none",
        "Ours": "grad_eclip",
        "Grad-ECLIP(Ours)": "grad_eclip",
        **{str(layers): f"grad_eclip layers={layers}" for layers in (1, 2, 4, 6, 8, 10, 12)},
        "Deletion Ground-truth @1": "grad_eclip for the true class",
        "Deletion Prediction @1": "grad_eclip for the predicted class",
    },
    "epfl": {},
    "iclip": {
        "CLIP": "itsm",
        "CLIP (400M)": "itsm",
        "RITSM": "reversed_itsm",
        "Reversed CLIP (400M)": "reversed_itsm",
        "Bi-Model": "game",
        "ICLIP": "iclip",
        "ICLIP (3M)": "iclip",
        "Ours": "iclip",
    },
}


def published(paper: str, table: str) -> pd.DataFrame:
    """A table of "grad_eclip", "epfl" or "iclip", as published("grad_eclip", "table1"): one row a number.

    Columns: paper, table, row and column (as printed), value (float), direction (of better: "lower", "higher" or
    "neither"), setting. DatasetError if there is no such table.
    """
    folder = data_folder() / "paper"
    names = sorted(path.stem for path in folder.glob("*_table*.csv"))
    if not names:
        raise DatasetError(f"no published numbers in {folder}: set CLIP_EXPLAIN_DATA to the compendium's data folder")
    if paper not in PAPERS:
        raise DatasetError(f"unknown paper {paper!r}: {nearest(paper, PAPERS)}")
    if f"{paper}_{table}" not in names:
        tables = [name.removeprefix(f"{paper}_") for name in names if name.startswith(f"{paper}_")]
        raise DatasetError(f"no numbers of {table!r} of {paper}: {nearest(table, tables)}")
    types = dict.fromkeys(("paper", "table", "row", "column", "direction", "setting"), str) | {"value": float}
    return pd.read_csv(folder / f"{paper}_{table}.csv", dtype=types, keep_default_na=False)


# How a number must lie to the threshold: on which side, and whether it may be equal to it.
RELATIONS: dict[str, tuple[str, bool]] = {
    "highest": ("above", False),
    "greater than": ("above", False),
    "at least": ("above", True),
    "lowest": ("below", False),
    "less than": ("below", False),
    "at most": ("below", True),
}


@dataclass(frozen=True)
class PaperClaim:
    """A statement of a paper as a comparison: `methods[0]`, less each of the other methods, against `threshold`.

    With one method alone its own value is compared. "lowest" and "highest" are "less than" and "greater than" each of
    the others. `methods` are any things compared and `metric` what is measured, named as in the tables that
    `results.evaluate` takes (methods of the papers' tables: LIBRARY_NAMES). `where`: "table1", "figure6", "section3.2".
    `printed` names the column of the paper's table whose rows are the methods, or the row whose columns they are; empty
    where the paper prints no numbers.
    """

    paper: str
    where: str
    statement: str
    metric: str
    methods: tuple[str, ...]
    relation: str
    printed: str = ""
    threshold: float = 0.0

    def __post_init__(self) -> None:
        if self.relation not in RELATIONS:
            raise ValueError(
                f"{self.statement!r}: unknown relation {self.relation!r}, {nearest(self.relation, RELATIONS)}"
            )
        if len(self.methods) < 1 + (self.relation in ("lowest", "highest")):
            raise ValueError(f"{self.statement!r} compares too few methods: {self.methods}")

    @property
    def place(self) -> str:
        """Where the paper says it, in short: "GE Tab 1"."""
        where = self.where
        for long, short in (("table", "Tab "), ("figure", "Fig "), ("section", "")):
            where = where.replace(long, short)
        return f"{PAPERS[self.paper]} {where}"


def differences(claim: PaperClaim, values: Mapping | pd.DataFrame) -> dict:
    """Other method -> `methods[0]` less it, of numbers or columns by method. One method alone: itself."""
    first, *others = claim.methods
    return {other: values[first] - values[other] for other in others} or {first: values[first]}


def in_paper(claim: PaperClaim) -> float | None:
    """The number of the paper that decides the claim: the difference nearest to refuting it. None if not printed."""
    if not claim.printed:
        return None
    numbers = published(claim.paper, claim.where)
    along, across = ("column", "row") if claim.printed in set(numbers["column"]) else ("row", "column")
    numbers = numbers[numbers[along] == claim.printed]
    values = dict(zip(numbers[across].replace(LIBRARY_NAMES[claim.paper]), numbers["value"], strict=True))
    if missing := [method for method in claim.methods if method not in values]:
        raise DatasetError(f"{claim.place}, {claim.printed!r}, has no {missing[0]!r}: {nearest(missing[0], values)}")
    worst = min if RELATIONS[claim.relation][0] == "above" else max
    return round(worst(differences(claim, values).values()), 6)  # beyond what any of the papers prints


def true_in_paper(claim: PaperClaim) -> bool | None:
    """Whether the paper's own numbers bear its statement out. None where it prints none."""
    number = in_paper(claim)
    if number is None:
        return None
    side, inclusive = RELATIONS[claim.relation]
    beyond = number > claim.threshold if side == "above" else number < claim.threshold
    return beyond or (inclusive and number == claim.threshold)
