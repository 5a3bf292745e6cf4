"""Builds the documentation, a static site: `python docs/make_site.py` (make site) writes build/site/.

The guide is docs/*.md; the pages of methods, the scoreboard, the gallery of notebooks and the reference are made by the
modules beside this one. Sphinx with myst-nb makes the pages: Jupyter Book 1 was a thin layer over these two and is no
longer developed, and Jupyter Book 2 needs Node and loads fonts and scripts from afar.
"""

import argparse
import re
import shutil
import sys
from pathlib import Path

import gallery
import method_pages
import nbformat
import reference
import scoreboard
from link_check import flaws
from sphinx.cmd.build import build_main

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
GUIDE = ("first_image", "better_method", "sweep", "models", "embedded", "notebooks")
OTHERS = ("methods", "scoreboard", "gallery", "reference")
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(\.\./([^)]+)\)")


def for_site(text: str, pages: set[str]) -> str:
    """A page of docs/ for the site: links to notebooks lead to their pages, other files of the repository are named."""

    def link(found: re.Match) -> str:
        says, target = found.groups()
        name = Path(target).stem
        if target.endswith(".ipynb") and name in pages:
            return f"[{says}](notebooks/{name}.ipynb)"
        return says if says.strip("`").endswith(target) or name == says else f"{says} (`{target}`)"

    return LINK.sub(link, text)


def stage(given: argparse.Namespace, out: Path) -> dict[str, str]:
    """Fill a folder with all that Sphinx reads; returns the state of each notebook's executed copy."""
    shutil.rmtree(out, ignore_errors=True)
    for name in ("notebooks", "thumbnails"):
        (out / name).mkdir(parents=True)
    shutil.copytree(DOCS / "_static", out / "_static")
    for name in ("conf.py", "reference.py"):
        shutil.copy(DOCS / name, out)
    sources = sorted(given.notebooks.glob("*.ipynb"))
    states = {source.stem: stage_notebook(source, given, out) for source in sources}
    for name in GUIDE:
        (out / f"{name}.md").write_text(for_site((DOCS / f"{name}.md").read_text(), set(states)))
    method_pages.write(out / "methods", given.pictures)
    (out / "methods.md").write_text(method_pages.index())
    scoreboard.write(out, given.figures, set(states))
    reference.write(out / "reference")
    table = gallery.tables(sources, gallery.reproduced(given.readme.read_text()), given.figures)
    (out / "gallery.md").write_text((DOCS / "gallery.md").read_text().replace("<!-- notebooks -->", table))
    (out / "index.md").write_text((DOCS / "index.md").read_text().replace("<!-- contents -->", contents()))
    return states


def stage_notebook(source: Path, given: argparse.Namespace, out: Path) -> str:
    """Put a notebook's page, its files and its thumbnail in place; the state of its executed copy."""
    copy, figures = given.executed / source.name, given.figures / source.stem
    state = gallery.state(source, copy)
    page = gallery.page(source, copy, state, figures)
    nbformat.write(page, out / "notebooks" / source.name)
    gallery.copy_linked(page, source.parent, out / "notebooks", given.figures)
    for picture in sorted(figures.glob("*.png"))[:1]:
        gallery.thumbnail(picture, out / "thumbnails" / f"{source.stem}.png")
    return state


def contents() -> str:
    """The site's contents: the guide, then the pages that are made."""
    guide = "\n".join(["```{toctree}", ":caption: Guide", ":hidden:", "", *GUIDE, "```"])
    others = "\n".join(["```{toctree}", ":caption: Look up", ":hidden:", "", *OTHERS, "```"])
    return (
        "- [Methods](methods.md): what each computes, its options, where it fails\n"
        "- [Scoreboard](scoreboard.md): every statement that was checked, with its verdict\n"
        "- [Gallery](gallery.md): the notebooks as they were executed\n"
        f"- [Reference](reference.md): the functions of the library\n\n{guide}\n\n{others}"
    )


def build(given: argparse.Namespace) -> tuple[dict[str, str], list[str]]:
    """Build the site; returns the state of each notebook's executed copy, and the site's flaws."""
    out = given.out.resolve()
    staged = out.with_name(f"{out.name}-source")
    states = stage(given, staged)
    shutil.rmtree(out, ignore_errors=True)
    if code := build_main(["-q", "-b", "html", "-d", str(staged / ".doctrees"), str(staged), str(out)]):
        return states, [f"Sphinx ended with {code}"]
    return states, flaws(out, list(states))


def main(arguments: list[str] | None = None) -> int:
    """Builds the site and says what is missing. Returns 1 if a page is missing or a link broken."""
    parser = argparse.ArgumentParser(description="Build the documentation, with the gallery of the executed notebooks.")
    parser.add_argument("--notebooks", type=Path, default=ROOT / "notebooks", help="their sources")
    parser.add_argument("--executed", type=Path, default=ROOT / "build" / "notebooks", help="their executed copies")
    parser.add_argument("--figures", type=Path, default=ROOT / "figures", help="what they left")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md", help="whose table says what they reproduce")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "site", help="where the site goes")
    parser.add_argument("--no-pictures", dest="pictures", action="store_false", help="of methods, which take a minute")
    given = parser.parse_args(arguments)
    states, found = build(given)
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
