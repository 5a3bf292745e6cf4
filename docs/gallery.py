"""The site's gallery: a page for each notebook as it was executed, its code folded, and the table of all.

Beside notebooks/run.py, whose executed copies it shows; make_site.py puts the pages into the site.
"""

import csv
import os
import re
import shutil
from pathlib import Path

import nbformat
from link_check import ABROAD
from nbformat.v4 import new_markdown_cell
from PIL import Image

from clip_explain import papers

PAPERS = {  # heading -> the first number of its notebooks
    "To begin with": 0,
    "Grad-ECLIP": 1,
    "EPFL's CLIP Explainability": 15,
    "ICLIP": 20,
    "Beyond the papers": 24,
}
THUMBNAIL = 480  # pixels wide


# -- what there is to show


def title(notebook: nbformat.NotebookNode) -> str:
    """The notebook's first heading."""
    return notebook.cells[0].source.splitlines()[0].lstrip("# ")


def title_of(path: Path) -> str:
    return title(nbformat.read(path, as_version=4))


def reproduced(readme: str) -> dict[str, str]:
    """What each notebook reproduces, from the rows of README's table: [name](notebooks/name.ipynb)<br>what | ..."""
    return dict(re.findall(r"^\| \[(\w+)\]\(notebooks/\w+\.ipynb\)<br>([^|]*?) \|", readme, re.MULTILINE))


def counted(folder: Path) -> str:
    """The papers' statements reproduced / neither / not reproduced, and below them our controls; "none" if none."""
    return "<br>".join(papers.tally_of(folder)) or "none"


def code(notebook: nbformat.NotebookNode) -> list[str]:
    """The code as it stands in the source: what papermill put in for other parameters is left out."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [cell.source for cell in cells if "injected-parameters" not in cell.metadata.get("tags", [])]


def other_parameters(notebook: nbformat.NotebookNode) -> list[str]:
    """The lines by which papermill set parameters: none where the notebook ran with its own."""
    injected = [cell.source for cell in notebook.cells if "injected-parameters" in cell.metadata.get("tags", [])]
    lines = "\n".join(injected).splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def state(source: Path, copy: Path) -> str:
    """Of an executed copy: "executed", "missing", "failed", or "older" than the notebook's present code."""
    if not copy.is_file():
        return "missing"
    executed = nbformat.read(copy, as_version=4)
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    if any(output.output_type == "error" for output in outputs) or not outputs:
        return "failed"
    return "executed" if code(executed) == code(nbformat.read(source, as_version=4)) else "older"


# -- pages


def cleaned(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Without progress bars, whose widgets need scripts from elsewhere; code folded; pictures with words."""
    heading = title(notebook)
    for cell in notebook.cells:
        headings = re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else []
        heading = headings[-1] if headings else heading
        if cell.cell_type == "code":
            kept = [output for output in cell.outputs if output.get("name") != "stderr"]
            cell.outputs = [output for output in kept if not any("widget" in kind for kind in output.get("data", {}))]
            cell.metadata["mystnb"] = {"image": {"alt": f"Figure: {heading}"}}
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-input"]
    return notebook


def note(notebook: nbformat.NotebookNode, text: str) -> None:
    """A box below the title."""
    notebook.cells.insert(1, new_markdown_cell(f":::{{note}}\n{text}\n:::"))


def unexecuted(source: Path, figures: Path) -> nbformat.NotebookNode:
    """The notebook's source, and below it the pictures and claims that an earlier run left in figures/."""
    notebook = nbformat.read(source, as_version=4)
    pictures = sorted(figures.glob("*.png"))
    note(notebook, "Not executed for these pages: code only. The figures and claims at the end are those in git.")
    links = [f"![{picture.stem}](../figures/{figures.name}/{picture.name})" for picture in pictures]
    notebook.cells.append(new_markdown_cell("\n\n".join(["## Figures in git", *(links or ["There are none."])])))
    if (figures / "claims.csv").is_file():
        notebook.cells.append(new_markdown_cell("## Claims in git\n\n" + claims_table(figures / "claims.csv")))
    return notebook


def claims_table(path: Path) -> str:
    """A CSV file as a table in Markdown."""
    rows = [[cell.replace("|", "\\|").replace("$", "\\$") for cell in row] for row in csv.reader(path.open(newline=""))]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


def files_cell(figures: Path) -> nbformat.NotebookNode:
    """The figures and tables as files."""
    files = [path for path in sorted(figures.glob("*")) if path.suffix in (".pdf", ".csv", ".json")]
    links = [f"[{path.name}](path:../figures/{figures.name}/{path.name})" for path in files]
    return new_markdown_cell(
        "## Files\n\nEvery number, and figures for print where they were made here: " + ", ".join(links) + "."
    )


def page(source: Path, copy: Path, found: str, figures: Path) -> nbformat.NotebookNode:
    """What the site shows of one notebook, of whose executed copy the `state` was found."""
    shown = found in ("executed", "older")
    notebook = nbformat.read(copy, as_version=4) if shown else unexecuted(source, figures)
    if found == "older":
        note(notebook, "Executed before the notebook's last change: the code and results below belong together.")
    if given := other_parameters(notebook):
        lines = ", ".join(f"`{line}`" for line in given)
        note(notebook, f"Executed with other parameters than the notebook's own: {lines}.")
    if any(figures.glob("*.csv")):
        notebook.cells.append(files_cell(figures))
    return cleaned(notebook)


def row(source: Path, reproduces: str, figures: Path) -> str:
    """The notebook's line in the table."""
    heading, claims = title_of(source), counted(figures)
    image = f"![First figure of {source.stem}](thumbnails/{source.stem}.png){{.thumbnail}}"
    picture = f"[{image}](notebooks/{source.name})" if any(figures.glob("*.png")) else ""
    what = f"<br>Reproduces {reproduces}" if reproduces else ""
    return f"| {picture} | [{heading}](notebooks/{source.name})<br>{source.stem}{what} | {claims} |"


def tables(sources: list[Path], reproduces: dict[str, str], figures: Path) -> str:
    """The gallery: a table for each paper, and the contents."""
    parts, contents = [], ["```{toctree}", ":hidden:", ""]
    starts = [*PAPERS.values(), 100]
    for (paper, first), after in zip(PAPERS.items(), starts[1:], strict=True):
        some = [source for source in sources if first <= int(source.name[:2]) < after]
        rows = [row(source, reproduces.get(source.stem, ""), figures / source.stem) for source in some]
        if rows:
            head = "| figure | notebook | claims, controls below |\n| --- | --- | --- |"
            parts.append("\n".join([f"## {paper}\n", head, *rows]))
        contents += [f"{source.name[:2]} {title_of(source)} <notebooks/{source.stem}>" for source in some]
    return "\n\n".join([*parts, "\n".join([*contents, "```"])])


# -- files beside the pages


def copy_linked(notebook: nbformat.NotebookNode, home: Path, place: Path, figures: Path) -> None:
    """Files that a notebook's text points at, to the same relative place; notebooks are pages and stay links."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for target in re.findall(r"\]\((?:path:)?([^)\s#]+)", text):
        inside = target.removeprefix("../figures/")
        found = figures / inside if inside != target else home / target
        if found.is_file() and found.suffix != ".ipynb" and not ABROAD.match(target):
            goal = Path(os.path.normpath(place / target))
            goal.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(found, goal)


def thumbnail(picture: Path, out: Path) -> None:
    """A picture made small, its top part if it is very tall."""
    with Image.open(picture) as image:
        small = image.convert("RGB")
    small = small.crop((0, 0, small.width, min(small.height, small.width)))
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    small.save(out)
