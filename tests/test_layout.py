"""How the library lies: each module says what is in it and stands in CONTRIBUTING.md; imports go downwards only."""

import ast
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import clip_explain as cx

ROOT = Path(__file__).resolve().parents[1]
LAYOUT = runpy.run_path(str(ROOT / "docs" / "modules.py"))
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
MODULES = LAYOUT["modules"]()
LIBRARY = LAYOUT["LIBRARY"]
DATA = (
    "papers.claims",
    "explainers.registry",
)
# In blocks of Python: "# file", a colon or comma with a remark perhaps, and lines of that file.
EXCERPTS = [
    pair
    for block in re.findall(r"```python\n(.*?)```", PAGE + (ROOT / "README.md").read_text(), re.DOTALL)
    for pair in re.findall(r"^# ((?:lib|tests)/\S+?\.py)\b.*\n((?:(?!# lib/|# tests/).*\n)*)", block, re.MULTILINE)
]


def source(name: str) -> str:
    path = LIBRARY.joinpath(*name.split("."))
    return (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()


@pytest.mark.parametrize("name", MODULES)
def test_a_docstring_opens_with_a_line_and_goes_on_with_at_most_three(name):
    """What is in it; then where it stands. What else a reader needs comes after that."""
    what, *rest = (ast.get_docstring(ast.parse(source(name))) or "").split("\n\n")
    assert 10 <= len(what) <= 120 and what.count("\n") == 0 and what[-1] in ".?!"
    assert rest == [] or len(rest[0].splitlines()) <= 3


def test_contributing_has_every_module_as_it_is():
    assert LAYOUT["written"](PAGE) == PAGE, "run `python docs/modules.py`"
    rows = [line.split("`")[1] for line in LAYOUT["table"]().splitlines() if line.startswith("| `")]
    assert sorted(rows) == sorted(set(MODULES) - {"__init__", "embedded"})


def test_imports_go_downwards_only():
    """By import-linter's reading of all imports, also those inside functions and under TYPE_CHECKING."""
    run = subprocess.run([Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


def test_no_module_is_imported_by_a_name_in_a_string():
    """Such an import would be hidden from the contract."""
    allowed = {"__init__"}  # the light surface: its strings are the names of public modules
    hidden = [name for name in MODULES if name not in allowed and "import_module(f" in source(name)]
    assert hidden == []


def test_the_house_is_small():
    """At most 12 files and 11 folders at the top; no module but those of data over 350 lines."""
    files = [path for path in LIBRARY.iterdir() if path.is_file()]
    folders = [path for path in LIBRARY.iterdir() if path.is_dir() and path.name != "__pycache__"]
    assert len(files) <= 12 and len(folders) <= 11
    lines = {name: source(name).count("\n") for name in MODULES}
    assert {name: count for name, count in lines.items() if count > 350 and name not in DATA} == {}


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no git clone")
def test_git_keeps_only_notebooks_and_programs_in_their_folder():
    """What a run leaves beside them, such as a cache under a mistaken name, is not committed."""
    kept = subprocess.run(["git", "ls-files", "notebooks"], cwd=ROOT, capture_output=True, text=True, check=True)
    names = kept.stdout.splitlines()
    assert len(names) >= 25 and [name for name in names if not name.endswith((".ipynb", ".py"))] == []


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


def functions_called(call) -> list[tuple[str, str]]:
    """The library's functions that a call runs, as (file, name), in the order of their first calls."""
    found = {}

    def note(frame, event, argument):
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(str(LIBRARY)):
            found.setdefault((str(Path(code.co_filename).relative_to(LIBRARY)), code.co_qualname))

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return list(found)


@pytest.mark.filterwarnings("ignore:tiny-vit has learned")
def test_contributing_walks_through_a_call_as_it_is():
    """Six files; each file's functions are called, in their order. The text is embedded before, by the same layers."""
    model, image = cx.load("tiny-vit"), Image.new("RGB", (96, 64), "red")
    texts = cx.targets(model, ["a red cube"])
    called = functions_called(lambda: cx.explain(model, image, texts))
    rows = re.findall(r"^\| `(\S+\.py)` \| (`.*?`) \|", PAGE, re.MULTILINE)
    walk = [[(file, name) for name in re.findall(r"`(\S+?)`", names)] for file, names in rows]
    assert len(walk) == 6
    for named in walk:
        places = [called.index(function) for function in named]
        assert places == sorted(places), named
