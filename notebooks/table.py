"""Fills the columns of README's table of notebooks that can be read off files: picture, claims, time.

    python notebooks/table.py          after `make figures`

Beside run.py. Rows, and the columns "reproduces" and "the paper's own data", are written by hand.
"""

import json
import re
from pathlib import Path

from clip_explain import papers

ROOT = Path(__file__).resolve().parents[1]
ROW = re.compile(r"\| \[(\d\d_\w+)\]\(notebooks/\w+\.ipynb\) \|")


def fill(text: str, root: Path = ROOT) -> str:
    """README's text with the table's rows brought up to date."""
    lines = text.splitlines(keepends=True)
    return "".join(fill_row(line, found[1], root) if (found := ROW.match(line)) else line for line in lines)


def fill_row(line: str, name: str, root: Path) -> str:
    """notebook | reproduces | picture | claims here | time | the paper's own data."""
    cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
    cells[2:5] = [picture(name, root), claims(name, root), time(name, root) or cells[4]]
    return "| " + " | ".join(cells) + " |\n"


def picture(name: str, root: Path) -> str:
    found = sorted((root / "figures" / name).glob("*.png"))
    return f"[{len(found)}](figures/{name}/{found[0].name})" if found else ""


def claims(name: str, root: Path) -> str:
    """The papers' statements reproduced / neither / not reproduced, and the same of our controls."""
    counts = papers.tally_of(root / "figures" / name)
    return f"[{' · '.join(counts)}](figures/{name}/claims.csv)" if counts else ""


def time(name: str, root: Path) -> str | None:
    """Seconds of the executed copy and the images it used; None if there is none with its own parameters."""
    executed, provenance = root / f"build/notebooks/{name}.ipynb", root / f"figures/{name}/provenance.json"
    if not executed.exists():
        return None
    ran = json.loads(executed.read_text())["metadata"].get("papermill", {})
    if not ran.get("duration") or ran.get("exception") or ran.get("parameters"):
        return None
    images = json.loads(provenance.read_text())["n_images"] if provenance.exists() else 0
    return f"{ran['duration']:.0f} s" + (f", {images} images" if images else "")


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(fill(readme.read_text()))
