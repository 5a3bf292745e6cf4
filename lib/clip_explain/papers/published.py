"""The numbers that the three papers print in their tables.

data/paper/README.md describes the CSV files; claims.py has what the papers state about the numbers.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from clip_explain.errors import DatasetError, nearest
from clip_explain.files import data_folder

PAPERS = {"grad_eclip": "GE", "epfl": "EP", "iclip": "IC"}

# Rows and columns of the papers' tables -> the library's names for them. A name that is missing here is kept.
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


# Table of a paper -> our metric -> the column that prints it.
COLUMNS: dict[tuple[str, str], dict[str, str]] = {
    ("grad_eclip", "table1"): {
        "deletion": "Deletion Ground-truth @1",
        "deletion_top5": "Deletion Ground-truth @5",
        "deletion_predicted": "Deletion Prediction @1",
        "deletion_predicted_top5": "Deletion Prediction @5",
        "insertion": "Insertion Ground-truth @1",
        "insertion_top5": "Insertion Ground-truth @5",
        "insertion_predicted": "Insertion Prediction @1",
        "insertion_predicted_top5": "Insertion Prediction @5",
    },
    ("grad_eclip", "table3"): {
        "pointing_game": "PG",
        "energy_pointing_game": "PG-energy",
        "average_precision": "AP",
        "pixel_accuracy": "Pixel Acc.",
        "pixel_accuracy_mask": "Pixel Acc.",
        "iou_fixed": "maskIoU",
        "iou_mean": "maskIoU",
        "iou_searched": "maskIoU",
    },
    ("grad_eclip", "table4"): {"seconds": "time (s/img)"},
    ("grad_eclip", "table5"): {
        f"{mode.lower()}_{side.lower()}@{k}": f"{mode} {side} @{k}"
        for mode in ("Deletion", "Insertion")
        for side in ("IR", "TR")
        for k in (1, 5, 10)
    },
}
COLUMNS["grad_eclip", "table2"] = COLUMNS["grad_eclip", "table6"] = {
    "word_deletion_ir": "Deletion IR",
    "word_deletion_tr": "Deletion TR",
    "word_insertion_ir": "Insertion IR",
    "word_insertion_tr": "Insertion TR",
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
    words = ("paper", "table", "row", "column", "direction", "setting")
    types: Any = dict.fromkeys(words, str) | {"value": float}
    return pd.read_csv(folder / f"{paper}_{table}.csv", dtype=types, keep_default_na=False)


def columns(paper: str, table: str) -> dict[str, str]:
    """Our metrics of a published table, each with the column that prints it; DatasetError for one not listed here."""
    if (paper, table) not in COLUMNS:
        tables = [other for each, other in COLUMNS if each == paper]
        raise DatasetError(f"no metrics are listed for {table!r} of {paper}: {nearest(table, tables)}")
    return dict(COLUMNS[paper, table])


def printed(
    paper: str, table: str, metrics: Mapping[str, str] | None = None, unit: int | float | None = None
) -> pd.DataFrame:
    """Columns of a published table as rows of a summary, to be set beside ours; `metrics`: our metric -> its column.

        pd.concat([papers.summarize(table), papers.printed("grad_eclip", "table3", {"pointing_game": "PG"})])

    By default the metrics are those of `columns`. The setting is the paper's name, methods are called as in the
    library, and `images` is 0: the paper prints no interval. Columns in percent, such as "mMIoU (%)", become shares, as
    the library measures them; others are divided by `unit`, as counts by their total. DatasetError for a column that
    the table does not have.
    """
    metrics = columns(paper, table) if metrics is None else metrics
    numbers = published(paper, table)
    rows = []
    for metric, column in metrics.items():
        if column not in set(numbers["column"]):
            raise DatasetError(
                f"{paper} {table} has no column {column!r}: {nearest(column, numbers['column'].unique())}"
            )
        divisor = unit or (100 if column.endswith("(%)") else 1)
        for row in numbers[numbers["column"] == column].itertuples():
            method, value = LIBRARY_NAMES[paper].get(row.row, row.row), row.value / divisor
            rows.append((f"{PAPERS[paper]}'s", method, metric, value, value, value, 0))
    return pd.DataFrame(rows, columns=["setting", "method", "metric", "mean", "low", "high", "images"])


def beside(summary: pd.DataFrame, paper: str, table: str, metrics: Mapping[str, str] | None = None) -> pd.DataFrame:
    """A summary, and below it what a paper's table prints of the same metrics: `printed`, with the same arguments."""
    return pd.concat([summary, printed(paper, table, metrics)], ignore_index=True)
