"""What a built site must not have: missing pages, broken links, raw markup, anything loaded from elsewhere."""

import os
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ABROAD = re.compile(r"^(https?:)?//")
# Markdown that was meant for Sphinx and stands as text: a fence, a role or directive, a link, a formula.
RAW = re.compile(r":::|```|\{[a-z-]+\}`|\{(?:note|warning|toctree|figure)\}|\]\([^)\s]+\)|\$\$")
CODE = ("pre", "code", "script", "style", "title")  # elements whose text may look like markup


class Links(HTMLParser):
    """What a page points at and loads, the places in it that can be pointed at, and its text except code."""

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
