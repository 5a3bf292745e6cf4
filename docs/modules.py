"""The map of the library's modules in CONTRIBUTING.md: `python docs/modules.py` writes it anew from the code.

Read from the modules' docstrings and imports; tests/test_layout.py holds CONTRIBUTING.md, and the rule that imports go
downwards only, against it.
"""

import ast
import graphlib
import sys
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "lib" / "clip_explain"
PAGE = ROOT / "CONTRIBUTING.md"
START, END = "<!-- modules: written by docs/modules.py -->", "<!-- end of modules -->"

# From the bottom up: a module imports modules of its own layer and of those before it, never of those after it, and
# none in a circle. A name stands for a module, or for a package with all in it; * for any letters.
LAYERS: dict[str, tuple[str, ...]] = {
    "ground": ("errors", "templates", "files", "storage"),
    "a CLIP, and what is asked of it": ("weights", "head", "model", "trace", "resnet", "query", "maps"),
    "other models": ("other_models", "open_clip_models", "dino"),
    "explainers": ("explainers", "iclip"),
    "metrics": ("metrics", "timing"),
    "images": ("scenes", "datasets"),
    "papers and results": ("published", "claims", "specification", "results"),
    "figures": ("plots", "pages"),
    "many images": ("probe", "shards", "sweep"),
    "training": ("training", "card", "iclip_card"),
    "in front of the user": ("explorer*", "*_command", "__main__", "__init__"),
}


def modules(library: Path = LIBRARY) -> dict[str, ast.Module]:
    """Every module of the library, by its dotted name below it; a package by its own name, the library by __init__."""
    found = {}
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts
        found[".".join(parts)] = ast.parse(path.read_text())
    return found


def imported(tree: ast.Module, known: set[str], library: str = "clip_explain") -> set[str]:
    """The library's modules that a module imports, also inside functions."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            inside = {name for name in whole if name.removeprefix(f"{library}.") in known}
            names |= inside or {node.module}
    return {name.removeprefix(f"{library}.") for name in names} & known


def layer_of(name: str) -> int:
    """The place of a module's layer, counted from the bottom; -1 if it has none."""
    for place, members in enumerate(LAYERS.values()):
        if any(fnmatch(name.split(".")[0], member) for member in members):
            return place
    return -1


def says(tree: ast.Module) -> str:
    """The first line of a module's docstring."""
    return (ast.get_docstring(tree) or "").split("\n")[0]


def ordered(library: Path = LIBRARY) -> dict[str, tuple[str, set[str]]]:
    """Name -> what is in it and what it imports, from the bottom up. graphlib.CycleError for imports in a circle."""
    trees = modules(library)
    imports = {name: imported(tree, set(trees)) - {name} for name, tree in trees.items()}
    sorter, levels = graphlib.TopologicalSorter(imports), {}
    sorter.prepare()
    while ready := sorted(sorter.get_ready()):
        levels |= {name: 1 + max((levels[each] for each in imports[name]), default=-1) for name in ready}
        sorter.done(*ready)
    order = sorted(trees, key=lambda name: (layer_of(name), levels[name], name))
    return {name: (says(trees[name]), imports[name]) for name in order}


def table(library: Path = LIBRARY) -> str:
    """The map in Markdown. Of another package only the name is given; errors.py, which all may import, is left out."""
    lines, shown = ["| module | what is in it | stands on |", "| --- | --- | --- |"], -2
    for name, (what, imports) in ordered(library).items():
        if layer_of(name) != shown:
            shown = layer_of(name)
            lines.append(f"| **{list(LAYERS)[shown]}** | | |")
        home = name.split(".")[0]
        near = {each if each.split(".")[0] == home else each.split(".")[0] for each in imports} - {"errors"}
        near = {each for each in near if not (name == home and each.startswith(f"{home}."))}
        lines.append(f"| `{name}` | {what} | {', '.join(f'`{each}`' for each in sorted(near))} |")
    return "\n".join(lines)


def written(page: str, library: Path = LIBRARY) -> str:
    """The page with its table of modules written anew."""
    before, rest = page.split(START)
    return f"{before}{START}\n\n{table(library)}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    if strange := [name for name in modules() if layer_of(name) < 0]:
        sys.exit(f"in no layer: {', '.join(strange)}; put them into LAYERS of docs/modules.py")
    PAGE.write_text(written(PAGE.read_text()))
