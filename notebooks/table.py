"""Fills what README.md and docs/notebooks.md say of the notebooks and can be read off files.

    python notebooks/table.py          after `make figures`

In README.md the pictures and verdicts of each notebook and the totals of all, in docs/notebooks.md their times. Rows,
what a notebook reproduces, and the papers' own data are written by hand. Beside run.py.
"""

import json
import re
from pathlib import Path

import pandas as pd

from clip_explain import papers
from clip_explain.files import between_marks
from run import FULL

ROOT = Path(__file__).resolve().parents[1]
ROW = re.compile(r"\| \[(\d\d_\w+)\]\((?:\.\./)?notebooks/\w+\.ipynb\)")
START, END = "<!-- totals: written by notebooks/table.py -->", "<!-- end of totals -->"
KINDS = {"paper": "the papers' statements", "control": "our controls"}


def fill(text: str, root: Path = ROOT) -> str:
    """README's text with the table's rows and the totals brought up to date."""
    lines = text.splitlines(keepends=True)
    filled = "".join(fill_row(line, found[1], root) if (found := ROW.match(line)) else line for line in lines)
    if START not in filled:
        return filled
    return between_marks(filled, START, END, totals(root))


def fill_row(line: str, name: str, root: Path) -> str:
    """notebook and what it reproduces | pictures | verdicts."""
    what = cells(line)[0]
    return f"| {what} | {picture(name, root)} | {claims(name, root)} |\n"


def fill_times(text: str, root: Path = ROOT) -> str:
    """The text of docs/notebooks.md with its column of times brought up to date."""
    filled = []
    for line in text.splitlines(keepends=True):
        if found := ROW.match(line):
            notebook, before, data = cells(line)
            line = f"| {notebook} | {time(found[1], root) or before} | {data} |\n"
        filled.append(line)
    return "".join(filled)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def picture(name: str, root: Path) -> str:
    found = sorted((root / "figures" / name).glob("*.png"))
    return f"[{len(found)}](figures/{name}/{found[0].name})" if found else ""


def claims(name: str, root: Path) -> str:
    """The papers' statements reproduced / neither / not reproduced, and the same of our controls."""
    counts = papers.tally_of(root / "figures" / name)
    return f"[{' · '.join(counts)}](figures/{name}/claims.csv)" if counts else ""


def totals(root: Path) -> str:
    """How often each verdict was given in all notebooks: a row for the papers' statements, one for our controls."""
    paths = sorted((root / "figures").glob("*/claims.csv"))
    counts = papers.totals(pd.concat([papers.read_verdicts(path) for path in paths]))
    lines = [f"| | statements | {' | '.join(papers.VERDICTS)} |", "|---|" + "---|" * (len(papers.VERDICTS) + 1)]
    for kind, says in KINDS.items():
        row = counts.loc[kind, list(papers.VERDICTS)]
        lines.append(f"| {says} | {row.sum()} | {' | '.join(map(str, row))} |")
    return "\n".join(lines)


def time(name: str, root: Path) -> str | None:
    """Seconds of the executed copy and the images it used; None if there is none with its own parameters.

    None also for a notebook of `FULL`, which has two times: they are written by hand.
    """
    executed, provenance = root / f"build/notebooks/{name}.ipynb", root / f"figures/{name}/provenance.json"
    if name in FULL or not executed.exists():
        return None
    ran = json.loads(executed.read_text())["metadata"].get("papermill", {})
    if not ran.get("duration") or ran.get("exception") or ran.get("parameters"):
        return None
    images = json.loads(provenance.read_text())["n_images"] if provenance.exists() else 0
    return f"{ran['duration']:.0f} s" + (f", {images} images" if images else "")


if __name__ == "__main__":
    readme, page = ROOT / "README.md", ROOT / "docs" / "notebooks.md"
    readme.write_text(fill(readme.read_text()))
    page.write_text(fill_times(page.read_text()))
