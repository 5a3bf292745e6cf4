"""The public surface: light to import, known to type checkers, and old names that still work."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import clip_explain as cx
from clip_explain.models import embed

ROOT = Path(__file__).resolve().parents[1]
STUB = Path(cx.__file__).with_suffix(".pyi")
NAMES = [
    alias.name for node in ast.parse(STUB.read_text()).body if isinstance(node, ast.ImportFrom) for alias in node.names
]
EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_import_brings_no_heavy_package():
    code = "import sys, clip_explain; print(sorted({'torch', 'numpy', 'matplotlib', 'pandas'} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_the_stub_is_there(name):
    assert getattr(cx, name) is not None and name in dir(cx) and name in cx.__all__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = cx.no_such_name


@pytest.mark.parametrize(
    ("old", "new"), [("Clip", "models.Model"), ("query", "request"), ("results", "papers"), ("pages", "plots")]
)
def test_names_of_the_first_edition_work_and_warn(old, new):
    with pytest.warns(DeprecationWarning, match=rf"clip_explain\.{old} is now clip_explain\.{new}"):
        found = getattr(cx, old)
    assert found.__name__.rpartition(".")[2] == new.rpartition(".")[2]


@pytest.mark.parametrize("name", ["Trace", "trace_image", "trace_text", "gradients", "HEADS"])
def test_the_first_editions_trace_module_has_its_names(name):
    with pytest.warns(DeprecationWarning, match="clip_explain.trace is now clip_explain.models.vit"):
        assert hasattr(cx.trace, name)


@pytest.mark.parametrize("name", ["embed_images", "embed_texts", "embed_tokens"])
def test_functions_that_are_methods_now_work_and_warn(name):
    with pytest.warns(DeprecationWarning, match=f"models.embed.{name} is now Model.{name}"):
        assert getattr(embed, name) is getattr(cx.Model, name)


def checked(path: Path, text: str) -> str:
    """What pyright says of a file with this text."""
    path.write_text(text)
    pyright = Path(sys.executable).with_name("pyright")
    command = [pyright, "--pythonpath", sys.executable, str(path)]
    return subprocess.run(command, cwd=path.parent, capture_output=True, text=True).stdout


def library_path(folder: Path) -> None:
    """A configuration by which pyright reads the library that is tested."""
    (folder / "pyrightconfig.json").write_text(f'{{"extraPaths": ["{STUB.parents[1]}"], "typeCheckingMode": "basic"}}')


def test_pyright_knows_what_the_calls_return(tmp_path):
    library_path(tmp_path)
    asked = ['cx.load("tiny-vit")', "cx.explain", "cx.plots.grid"]
    text = "import clip_explain as cx\n" + "\n".join(f"reveal_type({each})" for each in asked)
    said = checked(tmp_path / "calls.py", text)
    assert 'Type of "cx.load("tiny-vit")" is "Model"' in said
    assert 'Type of "cx.explain" is "(model: Model' in said
    assert "0 errors" in said


@pytest.mark.parametrize("text", [text for text in EXAMPLES if "import clip_explain" in text])
def test_pyright_finds_no_fault_in_the_readmes_examples(tmp_path, text):
    library_path(tmp_path)
    assert "0 errors" in checked(tmp_path / "example.py", text)


def test_version_is_the_distributions():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "clip_explain.__version__"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", cx.__version__)
