"""The site's scoreboard: every statement that a notebook judged, with the paper's number, ours, and the verdict.

Read from the claims.csv of each notebook's folder in figures/, as they are in git or as the last run left them.
"""

from pathlib import Path

import pandas as pd

from clip_explain import papers

BOARDS = {  # page -> its title and the kind of the statements
    "scoreboard_papers": ("What the papers state", "paper"),
    "scoreboard_controls": ("Our own controls", "control"),
}
NUMBERS = ["ours", "low", "high"]


def read(figures: Path) -> dict[str, pd.DataFrame]:
    """The verdicts of each notebook that left some."""
    paths = sorted(figures.glob("*/claims.csv"))
    return {path.parent.name: papers.read_verdicts(path) for path in paths}


def escaped(text: object) -> str:
    """Text that Markdown leaves as it is, in a table."""
    marks = {"|": "\\|", "$": "\\$", "*": "\\*", "_": "\\_", "<": "&lt;", "\n": " "}
    return "".join(marks.get(letter, letter) for letter in str(text))


def number(row: pd.Series) -> str:
    """Our number with its interval, where there is one."""
    found = [pd.to_numeric(row.get(name), errors="coerce") for name in NUMBERS]
    if pd.isna(found[0]):
        return ""
    return f"{found[0]:.3g}" + ("" if pd.isna(found[1]) else f" [{found[1]:.3g}, {found[2]:.3g}]")


def table(verdicts: pd.DataFrame) -> str:
    """A row for each statement."""
    lines = ["| statement | the paper's number | ours [95 %] | verdict |", "|---|---|---|---|"]
    for _, row in verdicts.iterrows():
        about = [row.get(name, "") for name in ("setting", "metric", "against")]
        details = ", ".join(escaped(each) for each in about if each)
        says = escaped(row["claim"]) + (f"<br>({details})" if details else "")
        why = f"<br>{escaped(row['why'])}" if row.get("why", "") else ""
        lines.append(f"| {says} | {escaped(row['paper'])} | {number(row)} | {row['verdict']}{why} |")
    return "\n".join(lines)


def board(name: str, verdicts: dict[str, pd.DataFrame], pages: set[str]) -> str:
    """One scoreboard, with the statements of each notebook under its name; a link where it has a page."""
    title, kind = BOARDS[name]
    parts = [f"# {title}"]
    for notebook, found in verdicts.items():
        some = found[found["kind"] == kind]
        if len(some):
            heading = f"[{notebook}](notebooks/{notebook}.ipynb)" if notebook in pages else notebook.replace("_", "\\_")
            parts += [
                f"## {heading}",
                f"{papers.tally(some)[kind]} (reproduced / neither / not reproduced)",
                table(some),
            ]
    return "\n\n".join(parts) + "\n"


def summary(verdicts: dict[str, pd.DataFrame]) -> str:
    """The page above the two: how often each verdict was given, over all notebooks."""
    counts = papers.totals(pd.concat(verdicts.values()))
    head = f"| | statements | {' | '.join(papers.VERDICTS)} |"
    lines = [head, "|---|" + "---|" * (len(papers.VERDICTS) + 1)]
    for name, (title, kind) in BOARDS.items():
        row = counts.loc[kind, list(papers.VERDICTS)]
        lines.append(f"| [{title}]({name}.md) | {row.sum()} | {' | '.join(map(str, row))} |")
    return "\n".join(lines)


def write(folder: Path, figures: Path, pages: set[str]) -> None:
    """Write the scoreboards and the page above them; `pages` are the notebooks that have a page of their own."""
    verdicts = read(figures)
    for name in BOARDS:
        (folder / f"{name}.md").write_text(board(name, verdicts, pages))
    says = (
        "Measured on the embedded models and rendered scenes. A statement is *reproduced*, or *not reproduced*, where "
        "the interval of our number clearly lies on one side; *no difference* means smaller than the margin that the "
        "statement names."
    )
    entries = "\n".join(BOARDS)
    contents = f"```{{toctree}}\n:hidden:\n\n{entries}\n```"
    counted = summary(verdicts) if verdicts else "No notebook has left verdicts yet."
    (folder / "scoreboard.md").write_text("\n\n".join(["# Scoreboard", says, counted, contents]) + "\n")
