"""Executes the notebooks without a screen: checks the parameters, runs each through papermill, checks what it left.

    python notebooks/run.py                                         every notebook
    python notebooks/run.py 01 04 -p model ViT-B/16 -p n_images 50  some, with other parameters
    python notebooks/run.py --full                                  with as many images as figures/ rests on: hours
    clip-explain notebook 01 --work mine                            the same from any folder, all results in mine/

Several run at once, one a core; the one that measures times runs last, alone. A notebook N writes <out_dir>/N/: figures
(.png with a .pdf beside each), claims.csv and provenance.json (the keys in PROVENANCE). Executed copies go to
build/notebooks/. With --work WORK, figures go to WORK/figures and copies to WORK/notebooks, and nothing is written to
the clone. It stands on papermill alone; the notebooks use the library.
"""

import argparse
import ast
import csv
import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import nbformat
import numpy as np
import papermill
from nbclient.exceptions import DeadKernelError
from PIL import Image

NOTEBOOKS = Path(__file__).resolve().parent
EXECUTED = NOTEBOOKS.parent / "build" / "notebooks"
PARAMETERS = ("model", "dataset", "n_images", "seed", "device", "out_dir")
PROVENANCE = ("model", "weights_sha256", "dataset", "parameters", "versions", "seed", "n_images", "values")
CLAIMS = ("claim", "paper", "ours")
UNMEASURED = ("not comparable", "true by construction")  # verdicts that need no number
PATHS = ("model", "dataset", "images")  # parameters that may name one
ALONE = ("08_",)  # measures times: beside another notebook they would be wrong
# What --full gives to notebooks whose own images, few enough for an hour in all, leave many statements undecided.
FULL = {
    "04_image_faithfulness": {"n_images": "501"},
    "05_retrieval_faithfulness": {"n_images": "640"},
    "11_layer_ablation": {"n_images": "1920", "n_captions": "1200"},
}
MOST_JOBS = 4  # at once, unless more are asked for: each takes 1 to 2 GB


class NotebookError(ValueError):
    """What is wrong with a notebook, its parameters or what it left."""


def is_explorer(notebook: Path) -> bool:
    """The interactive notebook needs no standard parameters and leaves no results."""
    return notebook.name.startswith("00_")


def select(prefixes: list[str], folder: Path) -> list[Path]:
    """The folder's notebooks whose names start with one of the prefixes, in reading order; all without a prefix."""
    notebooks = sorted(folder.glob("*.ipynb"))
    names = ", ".join(notebook.stem for notebook in notebooks) or "none"
    for prefix in prefixes or [""]:
        if not any(notebook.name.startswith(prefix) for notebook in notebooks):
            raise NotebookError(f"no notebook starts with {prefix!r} in {folder.name}/; there are: {names}")
    return [notebook for notebook in notebooks if notebook.name.startswith(tuple(prefixes or [""]))]


def parameters(notebook: Path) -> dict[str, object]:
    """Names and default values in the one cell tagged `parameters`; a default that is no literal reads as None."""
    cells = nbformat.read(notebook, as_version=4).cells
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise NotebookError(f"{notebook.name}: expected exactly one cell tagged 'parameters', found {len(tagged)}")
    found = {}
    for statement in ast.parse(tagged[0].source).body:
        if isinstance(statement, ast.Assign):
            names = [target.id for target in statement.targets if isinstance(target, ast.Name)]
            found.update(dict.fromkeys(names, literal(statement.value)))
    missing = [name for name in PARAMETERS if name not in found]
    if missing and not is_explorer(notebook):
        raise NotebookError(f"{notebook.name}: its parameters cell lacks {', '.join(missing)}")
    return found


def literal(expression: ast.expr | str) -> object:
    """The value of a Python literal; None for what is none."""
    try:
        return ast.literal_eval(expression)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def typed(name: str, text: str, default: object) -> object:
    """The text given for a parameter, as a value of its default's type."""
    if isinstance(default, str):
        return several_images(text) if name == "images" and text.lstrip().startswith("[") else resolved(name, text)
    if isinstance(default, bool):
        value = {"true": True, "false": False}.get(text.lower())
    elif isinstance(default, int | float):
        value = literal(text)
        value = float(value) if isinstance(default, float) and type(value) is int else value
    else:
        value = literal(text)
        value = text if value is None else value
        return [value] if isinstance(default, list) and not isinstance(value, list | tuple) else value
    if type(value) is not type(default):
        raise NotebookError(f"{name}: expected a {type(default).__name__} such as {default!r}, got {text!r}")
    return value


def resolved(name: str, text: str) -> str:
    """A text; if it names a path, the whole path: a notebook runs in its own folder, where a relative one is wrong."""
    is_path = name == "out_dir" or (name in PATHS and os.path.exists(text))
    return str(Path(text).resolve()) if is_path else text


def several_images(text: str) -> list[str]:
    """The paths of a list such as "['a.png', 'b.png']"."""
    found = literal(text)
    if not isinstance(found, list) or not found or not all(isinstance(path, str) for path in found):
        raise NotebookError(f"images: expected a path, a folder, or a list such as ['a.png', 'b.png'], got {text!r}")
    return [resolved("images", path) for path in found]


def choose(notebook: Path, given: dict[str, str]) -> dict[str, object]:
    """The given parameters, typed; papermill would only warn of one that the notebook does not know."""
    known = parameters(notebook)
    unknown = [name for name in given if name not in known]
    if unknown and not is_explorer(notebook):
        raise NotebookError(f"{notebook.name}: no parameter {', '.join(unknown)}; there are: {', '.join(known)}")
    return {name: typed(name, text, known[name]) for name, text in given.items() if name in known}


def results_folder(notebook: Path, chosen: dict[str, object]) -> Path:
    out_dir = chosen.get("out_dir") or parameters(notebook)["out_dir"]
    return notebook.parent / str(out_dir) / notebook.stem


def run(notebook: Path, given: dict[str, str], executed: Path = EXECUTED) -> Path | None:
    """Executes one notebook in its own folder; returns the folder of its results, checked, or None for the explorer."""
    chosen = choose(notebook, given)
    # The kernel is this interpreter's, whatever kernels the user has installed elsewhere.
    os.environ["JUPYTER_PATH"] = os.path.join(sys.prefix, "share", "jupyter")
    executed.mkdir(parents=True, exist_ok=True)
    start = time.time_ns()
    papermill.execute_notebook(
        notebook,
        executed / notebook.name,
        parameters=chosen,
        kernel_name="python3",
        cwd=notebook.parent,
        progress_bar=False,
        start_timeout=300,
        extra_arguments=["--log-level=50"],  # else kernels warn of their connection, and of being stopped in the end
    )
    if is_explorer(notebook):
        return None
    folder = results_folder(notebook, chosen)
    check_results(folder, since=start)
    return folder


def check_results(folder: Path, since: int = 0, vectors: bool = True) -> dict:
    """Raises NotebookError unless the folder holds a full provenance, finite numbers, claims and real pictures.

    Files last written before `since` (nanoseconds, as time.time_ns) do not count. `vectors`: each picture must have
    its PDF, which git does not keep. Returns the provenance.
    """
    files = {path.name: path for path in sorted(folder.glob("*")) if path.stat().st_mtime_ns >= since}
    for name in ("provenance.json", "claims.csv"):
        if name not in files:
            raise NotebookError(f"{folder.name}: wrote no {name}")
    provenance = json.loads(files["provenance.json"].read_text())
    check_provenance(folder.name, provenance)
    check_claims(folder.name, files["claims.csv"])
    pictures = [path for name, path in files.items() if name.endswith(".png")]
    if not pictures:
        raise NotebookError(f"{folder.name}: wrote no figure")
    for picture in pictures:
        check_picture(folder.name, picture)
        if vectors and picture.with_suffix(".pdf").name not in files:
            raise NotebookError(f"{folder.name}: {picture.name} has no PDF beside it")
    return provenance


def check_provenance(name: str, provenance: dict) -> None:
    missing = [key for key in PROVENANCE if key not in provenance]
    if missing:
        raise NotebookError(f"{name}: provenance.json lacks {', '.join(missing)}")
    if type(provenance["n_images"]) is not int or provenance["n_images"] < 1:
        raise NotebookError(f"{name}: processed no image")
    if not provenance["values"]:
        raise NotebookError(f"{name}: provenance.json has no values")
    for where, number in numbers(provenance):
        if not math.isfinite(number):
            raise NotebookError(f"{name}: provenance.json holds {where} = {number}")
    for key, value in provenance["values"].items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise NotebookError(f"{name}: provenance.json's values must be numbers, {key} is {value!r}")


def numbers(value: object, where: str = "") -> Iterator[tuple[str, float]]:
    """Every number inside nested dicts and lists, with the keys that lead to it."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from numbers(item, f"{where}.{key}" if where else str(key))
    elif isinstance(value, int | float):
        yield where, value


def check_claims(name: str, path: Path) -> None:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise NotebookError(f"{name}: claims.csv has no rows")
    for row in rows:
        verdict = row.get("verdict") or row.get("holds")  # the first edition's column
        missing = [column for column in CLAIMS if column not in row]
        if missing or not verdict or not (row["ours"] or verdict in UNMEASURED):
            raise NotebookError(
                f"{name}: claims.csv needs {', '.join(CLAIMS)}, a verdict, and a value under 'ours': got {row}"
            )
        if any(text and text.strip().lower() in ("nan", "inf", "-inf") for text in row.values()):
            raise NotebookError(f"{name}: claims.csv holds a number that is not finite: {row}")


def check_picture(name: str, path: Path) -> None:
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    if (pixels == pixels[0, 0]).all():
        raise NotebookError(f"{name}: {path.name} is blank")


def main(arguments: list[str] | None = None, folder: Path = NOTEBOOKS, executed: Path = EXECUTED) -> int:
    """Runs the chosen notebooks, also past a failing one. Returns 1 if one failed, 2 if none could start."""
    parser = argparse.ArgumentParser(description="Execute the notebooks and check what they leave.")
    parser.add_argument("notebooks", nargs="*", metavar="NB", help="number or start of the name; all when left out")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="a parameter")
    parser.add_argument("--full", action="store_true", help=f"with more images in {', '.join(FULL)}: hours")
    most = min(cores(), MOST_JOBS)
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="where results go (default: the clone's own)")
    parser.add_argument("--jobs", type=int, default=most, help=f"notebooks that run at once (default here: {most})")
    options = parser.parse_args(arguments)
    given = dict(options.p)
    if options.work:
        given = {"out_dir": str(options.work / "figures")} | given
        executed = options.work.resolve() / "notebooks"
    try:
        if options.jobs < 1:
            raise NotebookError(f"got --jobs {options.jobs}, expected at least 1")
        chosen = {}
        for notebook in select(options.notebooks, folder):
            chosen[notebook] = (FULL.get(notebook.stem, {}) if options.full else {}) | given
            choose(notebook, chosen[notebook])
    except NotebookError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    failed = []
    for number, (notebook, good, said) in enumerate(reports(chosen, executed, options.jobs), 1):
        counted = f"[{number}/{len(chosen)}] " if len(chosen) > 1 else ""
        print(f"{counted}{notebook.stem}: {said}", file=sys.stdout if good else sys.stderr, flush=True)
        failed += [] if good else [notebook.stem]
    if failed:
        print(f"{len(failed)} of {len(chosen)} notebooks failed: {', '.join(sorted(failed))}", file=sys.stderr)
    return 1 if failed else 0


def cores() -> int:
    """Of this machine, as many as this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def reports(given: dict[Path, dict[str, str]], executed: Path, jobs: int) -> Iterator[tuple[Path, bool, str]]:
    """Runs notebooks with what is `given` to each, `jobs` at once, those of ALONE after the others.

    Each with how it went, as soon as it has.
    """
    together = [notebook for notebook in given if not notebook.name.startswith(ALONE)]
    if jobs > 1 and len(together) > 1:
        yield from in_processes({each: given[each] for each in together}, executed, min(jobs, len(together)))
        together = []
    alone = [notebook for notebook in given if notebook.name.startswith(ALONE)]
    for notebook in together + alone:
        yield notebook, *report(notebook, given[notebook], executed)


def in_processes(given: dict[Path, dict[str, str]], executed: Path, jobs: int) -> Iterator[tuple[Path, bool, str]]:
    """The same, each in one of so many processes, among which the cores are shared out."""
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), share_cores, (max(1, cores() // jobs),))
    try:
        running: dict[Future, Path] = {pool.submit(report, each, own, executed): each for each, own in given.items()}
        for future in as_completed(running):
            try:
                yield running[future], *future.result()
            except BrokenProcessPool:
                yield running[future], False, "failed\nit, or one beside it, was killed, perhaps for want of memory"
    except BaseException:  # Ctrl-C: those that run are worth nothing
        for process in list((pool._processes or {}).values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def share_cores(threads: int) -> None:
    """The kernels that this process starts take so many threads, unless the user has set another number."""
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))


def report(notebook: Path, given: dict[str, str], executed: Path) -> tuple[bool, str]:
    """Runs one notebook: did it do well, and how it went."""
    start = time.monotonic()
    try:
        folder = run(notebook, given, executed)
    except (papermill.PapermillExecutionError, DeadKernelError, NotebookError) as error:
        return False, f"failed\n{error}"
    kept = "nothing kept" if folder is None else f"{len(list(folder.glob('*.png')))} figures in {folder.resolve()}"
    return True, f"{time.monotonic() - start:.0f} s, {kept}"


if __name__ == "__main__":
    sys.exit(main())
