"""The set-up: one list of dependencies in every place that names them, a clean lock, and what make hands on."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import clip_explain

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())
LOCK = (ROOT / "requirements.lock").read_text().splitlines()


def by_name(requirements: list[str]) -> dict[str, Requirement]:
    return {canonicalize_name(Requirement(text).name): Requirement(text) for text in requirements}


def everything() -> list[str]:
    """All requirements of the project and its extras, but for itself."""
    texts = PROJECT["dependencies"] + sum(EXTRAS.values(), [])
    return [text for text in texts if not text.startswith("clip-explain[")]


def pip_section() -> list[str]:
    return next(item["pip"] for item in CONDA["dependencies"] if isinstance(item, dict))


def imports(source: str) -> set[str]:
    """Top names of the absolute imports, also those inside functions."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def notebook_source(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    return re.sub(r"^\s*[%!].*$", "", code, flags=re.MULTILINE)


def undeclared(sources: list[str], declared: set[str], own: set[str]) -> set[str]:
    """Imported packages that none of the declared distributions brings."""
    providers = packages_distributions()
    third_party = set().union(*map(imports, sources)) - set(sys.stdlib_module_names) - own
    return {name for name in third_party if not declared & {canonicalize_name(p) for p in providers.get(name, [name])}}


def test_environment_yml_installs_the_project_with_its_dev_extra():
    assert pip_section() == ["-c requirements.lock", "-e .[dev]"]
    assert CONDA["name"] == PROJECT["name"]
    assert f"python{PROJECT['requires-python']}" in CONDA["dependencies"]


def test_dev_brings_every_extra_that_the_tests_use():
    itself = by_name(EXTRAS["dev"])["clip-explain"]
    assert itself.extras == EXTRAS.keys() - {"dev", "others"}


def test_lock_holds_names_and_versions_only():
    assert [line for line in LOCK if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._!]+", line)] == []
    assert sorted(LOCK, key=str.lower) == LOCK
    assert len({canonicalize_name(line.split("==")[0]) for line in LOCK}) == len(LOCK)


def test_lock_satisfies_every_requirement():
    locked = {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in LOCK}
    wanted = by_name(everything())
    assert wanted.keys() - locked.keys() == set()
    assert [str(need) for name, need in wanted.items() if locked[name] not in need.specifier] == []


def test_library_and_notebooks_import_only_what_is_declared():
    notebooks = ROOT / "notebooks"
    scripts = [path for folder in ("lib", "notebooks", "benchmarks") for path in ROOT.glob(f"{folder}/**/*.py")]
    sources = [path.read_text() for path in scripts]
    sources += [notebook_source(path) for path in notebooks.glob("*.ipynb")]
    extras = [text for extra, texts in EXTRAS.items() if extra != "dev" for text in texts]
    declared = set(by_name(PROJECT["dependencies"] + extras))
    assert undeclared(sources, declared, own={"clip_explain", "run", "table", "seeds"}) == set()


def test_tests_import_only_what_is_declared():
    files = list(ROOT.glob("tests/**/*.py"))
    declared = set(by_name(everything()))
    scripts = [*files, *ROOT.glob("docs/*.py"), *ROOT.glob("notebooks/*.py"), *ROOT.glob("benchmarks/*.py")]
    own = {"clip_explain"} | {path.stem for path in scripts}
    assert undeclared([path.read_text() for path in files], declared, own) == set()


def test_undeclared_imports_are_found():
    sources = ["import os, torch.nn", "def f():\n    from yaml import load", "from . import request"]
    assert undeclared(sources, {"torch"}, own=set()) == {"yaml"}


OPTIONAL = {"open_clip", "transformers", "distributed", "fsspec", "pycocotools", "torchmetrics", "papermill", "voila"}


def test_library_imports_optional_packages_only_inside_functions():
    found = {}
    for path in ROOT.glob("lib/**/*.py"):
        top = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        found[path.name] = imports(ast.unparse(top)) & OPTIONAL
    assert not any(found.values()), found


def test_citation_has_the_package_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (clip_explain.__version__, PROJECT["license"])


def make(*arguments: str, **environment: str) -> str:
    """The last command that make would run."""
    command = ["make", "--no-print-directory", "-n", *arguments]
    environment = {"PATH": os.environ["PATH"], **environment}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.skipif(shutil.which("make") is None, reason="no make, as in a conda environment")
@pytest.mark.parametrize(
    ("arguments", "environment", "command"),
    [
        ([], {}, "run.py"),
        ([], {"MODEL": "RN50", "OUT": "/tmp", "NB": "02"}, "run.py"),
        (["NB=01", "N_IMAGES=50"], {}, "run.py 01 -p n_images '50'"),
        (["NB=01 04", "MODEL=ViT-B/16", "DEVICE=cuda"], {}, "run.py 01 04 -p model 'ViT-B/16' -p device 'cuda'"),
        (["DATASET=it's mine", "SEED=0", "OUT=o"], {}, r"run.py -p dataset 'it'\''s mine' -p seed '0' -p out_dir 'o'"),
    ],
)
def test_make_figures_hands_on_what_its_command_line_gives(arguments, environment, command):
    assert " ".join(make("figures", *arguments, **environment).split()).endswith(f"notebooks/{command}")
