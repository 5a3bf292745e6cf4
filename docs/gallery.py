"""Builds the gallery, a static site of the executed notebooks: `python docs/gallery.py` (make site) writes build/site/.

Beside notebooks/run.py, whose executed copies it shows. Sphinx with myst-nb makes the pages: Jupyter Book 1 was a thin
layer over these two and is no longer developed, and Jupyter Book 2 needs Node and loads fonts and scripts from afar.
"""

import argparse
import csv
import os
import re
import shutil
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
from nbformat.v4 import new_markdown_cell
from PIL import Image
from sphinx.cmd.build import build_main

from clip_explain import papers

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
PAPERS = {  # heading -> the first number of its notebooks
    "To begin with": 0,
    "Grad-ECLIP": 1,
    "EPFL's CLIP Explainability": 15,
    "ICLIP": 20,
    "Beyond the papers": 24,
}
THUMBNAIL = 480  # pixels wide
ABROAD = re.compile(r"^(https?:)?//")
# Markdown that was meant for Sphinx and stands as text: a fence, a role or directive, a link, a formula.
RAW = re.compile(r":::|```|\{[a-z-]+\}`|\{(?:note|warning|toctree|figure)\}|\]\([^)\s]+\)|\$\$")
CODE = ("pre", "code", "script", "style", "title")  # elements whose text may look like markup


# -- what there is to show


def title(notebook: nbformat.NotebookNode) -> str:
    """The notebook's first heading."""
    return notebook.cells[0].source.splitlines()[0].lstrip("# ")


def title_of(path: Path) -> str:
    return title(nbformat.read(path, as_version=4))


def reproduced(readme: str) -> dict[str, str]:
    """What each notebook reproduces, from the rows of README's table: [name](notebooks/name.ipynb) ... | what | ..."""
    return dict(re.findall(r"^\| \[(\w+)\]\(notebooks/\w+\.ipynb\)[^|]*\| ([^|]*?) \|", readme, re.MULTILINE))


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
    """Without progress bars, whose widgets need scripts from elsewhere, and with words in place of bare pictures."""
    heading = title(notebook)
    for cell in notebook.cells:
        headings = re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else []
        heading = headings[-1] if headings else heading
        if cell.cell_type == "code":
            kept = [output for output in cell.outputs if output.get("name") != "stderr"]
            cell.outputs = [output for output in kept if not any("widget" in kind for kind in output.get("data", {}))]
            cell.metadata["mystnb"] = {"image": {"alt": f"Figure: {heading}"}}
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
    """The notebook's line in the index."""
    heading, claims = title_of(source), counted(figures)
    image = f"![First figure of {source.stem}](thumbnails/{source.stem}.png){{.thumbnail}}"
    picture = f"[{image}](notebooks/{source.name})" if any(figures.glob("*.png")) else ""
    what = f"<br>Reproduces {reproduces}" if reproduces else ""
    return f"| {picture} | [{source.stem}](notebooks/{source.name})<br>{heading}{what} | {claims} |"


def index(sources: list[Path], reproduces: dict[str, str], figures: Path) -> str:
    """docs/index.md with a table for each paper in its place."""
    parts, contents = [], ["```{toctree}", ":hidden:", ""]
    starts = [*PAPERS.values(), 100]
    for (paper, first), after in zip(PAPERS.items(), starts[1:], strict=True):
        some = [source for source in sources if first <= int(source.name[:2]) < after]
        rows = [row(source, reproduces.get(source.stem, ""), figures / source.stem) for source in some]
        if rows:
            head = "| figure | notebook | claims, controls below |\n| --- | --- | --- |"
            parts.append("\n".join([f"## {paper}\n", head, *rows]))
        contents += [f"{source.name[:2]} {title_of(source)} <notebooks/{source.stem}>" for source in some]
    text = (DOCS / "index.md").read_text()
    return text.replace("<!-- notebooks -->", "\n\n".join([*parts, "\n".join([*contents, "```"])])) + "\n"


# -- the site


def stage(sources: list[Path], copies: Path, figures: Path, readme: Path, out: Path) -> dict[str, str]:
    """Fill a folder with all that Sphinx reads; returns the state of each notebook's executed copy."""
    shutil.rmtree(out, ignore_errors=True)
    for name in ("notebooks", "thumbnails"):
        (out / name).mkdir(parents=True)
    shutil.copytree(DOCS / "_static", out / "_static")
    shutil.copy(DOCS / "conf.py", out)
    states = {source.stem: state(source, copies / source.name) for source in sources}
    for source in sources:
        made = page(source, copies / source.name, states[source.stem], figures / source.stem)
        nbformat.write(made, out / "notebooks" / source.name)
        copy_linked(made, source.parent, out / "notebooks", figures)
        for picture in sorted((figures / source.stem).glob("*.png"))[:1]:
            thumbnail(picture, out / "thumbnails" / f"{source.stem}.png")
    (out / "index.md").write_text(index(sources, reproduced(readme.read_text()), figures))
    return states


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


class Links(HTMLParser):
    """What a page points at and loads, the places in it that can be pointed at, and its text but for code."""

    def __init__(self, page: Path):
        super().__init__()
        self.targets, self.loaded, self.places, self.text = [], [], set(), []
        self.inside_code = 0
        self.feed(page.read_text())

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.places |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag in ("a", "link") and given.get("href"):
            (self.targets if tag == "a" else self.loaded).append(given["href"])
        if tag != "a" and given.get("src"):
            self.loaded.append(given["src"])
        self.inside_code += tag in CODE

    def handle_endtag(self, tag):
        self.inside_code -= tag in CODE

    def handle_data(self, data):
        if not self.inside_code:
            self.text.append(data)


def flaws(site: Path, names: list[str]) -> list[str]:
    """What a built site must not have: missing pages, broken links, anything loaded from elsewhere, no search."""
    wanted = ["index.html", "search.html", "searchindex.js", *(f"notebooks/{name}.html" for name in names)]
    found = [f"there is no {name}" for name in wanted if not (site / name).is_file()]
    pages = {page: Links(page) for page in sorted(site.rglob("*.html"))}
    return found + [flaw for page, links in pages.items() for flaw in of_page(site, page, links, pages)]


def of_page(site: Path, page: Path, links: Links, pages: dict[Path, Links]) -> Iterator[str]:
    """The flaws of one page."""
    name = page.relative_to(site)
    if raw := RAW.search(" ".join(links.text)):
        yield f"{name} shows raw markup: {raw.group(0)}"
    for target in links.loaded:
        if ABROAD.match(target):
            yield f"{name} loads {target}"
    for target in [*links.targets, *links.loaded]:
        parts = urlsplit(target)
        if parts.scheme or ABROAD.match(target):
            continue
        goal = Path(os.path.normpath(page.parent / unquote(parts.path))) if parts.path else page
        if not goal.exists():
            yield f"{name} points at {target}, which is not there"
        elif goal in pages and parts.fragment and unquote(parts.fragment) not in pages[goal].places:
            yield f"{name} points at {target}, a place that is not there"


def build(notebooks: Path, copies: Path, figures: Path, readme: Path, out: Path) -> tuple[dict[str, str], list[str]]:
    """Build the site of a folder's notebooks in `out`; returns the state of each executed copy, and flaws."""
    sources = sorted(notebooks.glob("*.ipynb"))
    staged = out.with_name(f"{out.name}-source")
    states = stage(sources, copies, figures, readme, staged)
    shutil.rmtree(out, ignore_errors=True)
    if code := build_main(["-q", "-b", "html", "-d", str(staged / ".doctrees"), str(staged), str(out)]):
        return states, [f"Sphinx ended with {code}"]
    return states, flaws(out, list(states))


def main(arguments: list[str] | None = None) -> int:
    """Builds the site and says what is missing. Returns 1 if a page is missing or a link broken."""
    parser = argparse.ArgumentParser(description="Build the gallery of the executed notebooks.")
    parser.add_argument("--notebooks", type=Path, default=ROOT / "notebooks", help="their sources")
    parser.add_argument("--executed", type=Path, default=ROOT / "build" / "notebooks", help="their executed copies")
    parser.add_argument("--figures", type=Path, default=ROOT / "figures", help="what they left")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md", help="whose table says what they reproduce")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "site", help="where the site goes")
    given = parser.parse_args(arguments)
    states, found = build(given.notebooks, given.executed, given.figures, given.readme, given.out)
    for kind, meaning in {"missing": "not executed", "failed": "failed", "older": "changed since executed"}.items():
        if names := [name for name, each in states.items() if each == kind]:
            numbers = " ".join(name[:2] for name in names)
            print(f"{meaning}: {', '.join(names)}; to execute them: make figures NB='{numbers}'", file=sys.stderr)
    for flaw in found:
        print(f"error: {flaw}", file=sys.stderr)
    print(f"{len(states)} notebooks in {given.out / 'index.html'}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
