"""Says how many verdicts change with the seed, from the folders that runs with different seeds left.

    clip-explain notebook 02 12 --work seeds/1 -p seed 1
    clip-explain notebook 02 12 --work seeds/2 -p seed 2
    python notebooks/seeds.py figures seeds/1/figures seeds/2/figures

A row for each notebook that all folders hold: its statements, those whose verdict is the same in all folders, those
that change (as from "undecided" to "reproduced"), and those that turn (from "reproduced" to "not reproduced").
Beside run.py.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from clip_explain import papers

STATEMENT = ["id", "setting", "metric", "against"]  # what tells the rows of a notebook's claims.csv apart
OPPOSITE = {"reproduced", "not reproduced"}


def seeds(folders: Sequence[Path]) -> pd.DataFrame:
    """For each notebook that all folders hold, and for all of them: statements, same, changed, turned, and the share
    of changed ones."""
    shared = set.intersection(*(notebooks_of(folder) for folder in folders))
    if not shared:
        raise SystemExit(f"no notebook's claims.csv is in all of {', '.join(map(str, folders))}")
    rows = {name: changes([verdicts(folder / name) for folder in folders]) for name in sorted(shared)}
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.loc["all"] = table.sum()
    table["share changed"] = (table["changed"] / table["statements"]).round(3)
    return table


def notebooks_of(folder: Path) -> set[str]:
    """The notebooks whose statements are told apart by an id; those of the first edition are not."""
    return {path.parent.name for path in folder.glob("*/claims.csv") if path.read_text().startswith("id,")}


def verdicts(folder: Path) -> pd.Series:
    """The verdict of each statement; statements that occur more than once are numbered."""
    table = papers.read_verdicts(folder / "claims.csv")
    number = table.groupby(STATEMENT).cumcount()
    return pd.Series(list(table["verdict"]), index=pd.MultiIndex.from_frame(table[STATEMENT].assign(number=number)))


def changes(runs: Sequence[pd.Series]) -> dict[str, int]:
    """How many of the statements that all runs judged have one verdict, several, or both of two opposite ones."""
    table = pd.concat(runs, axis=1, join="inner")
    given = [set(row) for row in table.to_numpy()]
    same = sum(len(each) == 1 for each in given)
    turned = sum(each >= OPPOSITE for each in given)
    return {"statements": len(given), "same": same, "changed": len(given) - same, "turned": turned}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="folder", help="two or more folders of figures")
    args = parser.parse_args()
    if len(args.folders) < 2:
        parser.error("two folders or more are needed")
    print(seeds(args.folders).to_string())


if __name__ == "__main__":
    main()
