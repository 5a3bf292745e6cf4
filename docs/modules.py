"""The map of the library's modules in CONTRIBUTING.md: `python docs/modules.py` writes it anew.

The layers are those of import-linter's contract in pyproject.toml; what is in a module is its docstring's first line.
"""

import ast
import tomllib
from pathlib import Path

from clip_explain.files import between_marks

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "lib" / "clip_explain"
PAGE = ROOT / "CONTRIBUTING.md"
START, END = "<!-- modules: written by docs/modules.py -->", "<!-- end of modules -->"


def layers() -> list[list[str]]:
    """The contract's layers from the top down, each with the modules or packages that share it."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return [[name.strip() for name in layer.split(":")] for layer in contracts[0]["layers"]]


def modules() -> dict[str, str]:
    """Every module by its dotted name, a package by its own, and the first line of its docstring."""
    found = {}
    for path in sorted(LIBRARY.rglob("*.py")):
        parts = path.relative_to(LIBRARY).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        found[name] = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0]
    return found


def inside(name: str, package: str) -> bool:
    """Whether a module is the package, or is in it."""
    return name == package or name.startswith(f"{package}.")


def table() -> str:
    """The map in Markdown, from the bottom up: a line for each module under its layer."""
    lines = ["| module | what is in it |", "| --- | --- |"]
    known = modules()
    for layer in reversed(layers()):
        for package in layer:
            lines += [f"| `{name}` | {what} |" for name, what in known.items() if inside(name, package)]
    return "\n".join(lines)


def written(page: str) -> str:
    """The page with its table of modules written anew."""
    return between_marks(page, START, END, f"\n{table()}\n")


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
