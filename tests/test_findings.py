"""What a notebook says that it found, held against the verdicts in its folder of figures.

A sentence of "What we found" ends with what it rests on, in a comment that is not shown:
<!-- id of the claim, metric, setting: verdict -->; metric and setting may be left out.
"""

import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from clip_explain import papers

ROOT = Path(__file__).parents[1]
BASIS = re.compile(r"<!-- ([^,:>]+)(?:, ([^,:>]+))?(?:, ([^:>]+))?: ([a-z ]+) -->")


def found(path: Path) -> str:
    """The cell that opens with "What we found", or nothing."""
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    return next((text for text in cells if text.startswith("**What we found.**")), "")


def untrue(text: str, verdicts: pd.DataFrame) -> list[str]:
    """Comments that the verdicts do not bear out in every row that they name."""
    wrong = []
    for basis in BASIS.finditer(text):
        claim, metric, setting, verdict = basis.groups()
        rows = verdicts[verdicts["id"] == claim]
        rows = rows[rows["metric"] == metric] if metric else rows
        rows = rows[rows["setting"] == setting] if setting else rows
        if rows.empty or (rows["verdict"] != verdict).any():
            wrong.append(basis.group(0))
    return wrong


NOTEBOOKS = [path for path in sorted((ROOT / "notebooks").glob("*.ipynb")) if found(path)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_was_found_is_what_the_verdicts_say(path):
    text = found(path)
    assert text.count("<!--") == len(BASIS.findall(text)) > 0
    assert {groups[3] for groups in BASIS.findall(text)} <= set(papers.VERDICTS)
    verdicts = papers.read_verdicts(ROOT / "figures" / path.stem / "claims.csv")
    if "id" not in verdicts:
        pytest.skip("the figures are of the first edition: run `make figures`")
    assert untrue(text, verdicts) == []


def test_what_is_untrue_is_seen():
    rows = [("a", "m", "x", "reproduced"), ("a", "m", "y", "undecided"), ("b", "m", "", "undecided")]
    verdicts = pd.DataFrame(rows, columns=["id", "metric", "setting", "verdict"])
    true = "It is so. <!-- a, m, x: reproduced --> It may be. <!-- b: undecided -->"
    assert untrue(true, verdicts) == []
    for wrong in ("<!-- a: reproduced -->", "<!-- c: reproduced -->", "<!-- b, m: reproduced -->"):
        assert untrue(wrong, verdicts) == [wrong]
