"""How the library lies: each module says what is in it and stands in CONTRIBUTING.md; imports go downwards only."""

import ast
import graphlib
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYOUT = runpy.run_path(str(ROOT / "docs" / "modules.py"))
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
MODULES = LAYOUT["modules"]()
# In blocks of Python: "# file", a colon or comma with a remark perhaps, and lines of that file.
EXCERPTS = [
    pair
    for block in re.findall(r"```python\n(.*?)```", PAGE + (ROOT / "README.md").read_text(), re.DOTALL)
    for pair in re.findall(r"^# ((?:lib|tests)/\S+?\.py)\b.*\n((?:(?!# lib/|# tests/).*\n)*)", block, re.MULTILINE)
]


@pytest.mark.parametrize("name", MODULES)
def test_a_docstring_opens_with_a_line_and_goes_on_with_at_most_three(name):
    """What is in it; then where it stands. What else a reader needs comes after that."""
    what, *rest = (ast.get_docstring(MODULES[name]) or "").split("\n\n")
    assert 10 <= len(what) <= 120 and what.count("\n") == 0 and what[-1] in ".?!"
    assert rest == [] or len(rest[0].splitlines()) <= 3


def test_contributing_has_every_module_as_it_is():
    assert LAYOUT["written"](PAGE) == PAGE, "run `python docs/modules.py`"
    rows = [line.split("`")[1] for line in LAYOUT["table"]().splitlines() if line.startswith("| `")]
    assert sorted(rows) == sorted(MODULES)


def test_every_module_has_a_layer():
    assert [name for name in MODULES if LAYOUT["layer_of"](name) < 0] == []


def test_imports_go_downwards_only():
    """By layers, and within one without a circle: each module stands below all that it imports."""
    order = LAYOUT["ordered"]()
    place = {name: number for number, name in enumerate(order)}
    upwards = {name: {each for each in imports if place[each] > place[name]} for name, (_, imports) in order.items()}
    assert {name: found for name, found in upwards.items() if found} == {}


@pytest.mark.parametrize(("file", "text"), EXCERPTS, ids=[file for file, _ in EXCERPTS])
def test_code_in_the_pages_is_the_code(file, text):
    """Line for line and in order, but for what "..." leaves out."""
    lines, place = (ROOT / file).read_text().splitlines(), 0
    for line in [line for line in text.splitlines() if line.strip() not in ("", "...")]:
        assert line in lines[place:], line
        place += lines[place:].index(line) + 1


def test_contributing_shows_an_explainer_with_its_line_and_its_test():
    files = re.findall(r"^# (\S+\.py)$", PAGE, re.MULTILINE)
    assert {Path(file).parts[0] for file in files} == {"lib", "tests"} and set(files) <= {file for file, _ in EXCERPTS}


def write(folder: Path, **modules: str) -> Path:
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def test_imports_are_found_in_every_form(tmp_path):
    text = "from clip_explain import maps, np\nimport clip_explain.query\n"
    text += "def f():\n    from clip_explain.trace import on_grid\n    import torch"
    found = LAYOUT["imported"](ast.parse(text), {"maps", "query", "trace", "model"})
    assert found == {"maps", "query", "trace"}


def test_a_circle_is_found(tmp_path):
    library = write(tmp_path, maps="from clip_explain import query", query="from clip_explain.maps import resize")
    with pytest.raises(graphlib.CycleError):
        LAYOUT["ordered"](library)


def test_an_import_upwards_is_seen_in_the_order(tmp_path):
    library = write(tmp_path, maps='"""Maps."""\nimport clip_explain.plots', plots='"""Plots."""')
    assert list(LAYOUT["ordered"](library)) == ["maps", "plots"]  # by its layer; the rule above then fails
