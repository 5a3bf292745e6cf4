"""The notebooks: their form, and a run of each with few images; and that the checks used for it catch what they should.

The runner, notebooks/run.py, holds the checks of parameters and results; `flaws` below holds those of form.
"""

import csv
import json
import os
import re
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from PIL import Image

import run as runner
import small_clip
from clip_explain import cli
from notebook_smoke import EVERY, SMOKE

NOTEBOOKS = sorted(runner.NOTEBOOKS.glob("*.ipynb"))
FIGURES = runner.NOTEBOOKS.parent / "figures"
MOST_LINES = 140  # of code in a notebook, the blank ones not counted
LONGEST_CELL = 10  # lines that are not blank
LONGEST_PARAMETERS = 15  # of the cell tagged so, a list of names with their comments

# Notebooks that are still longer, or have longer cells: rewrite one, and take it off.
TOO_LONG: tuple[str, ...] = ()


def lines(cell) -> int:
    return sum(bool(line.strip()) for line in cell.source.splitlines())


def is_long(cell) -> bool:
    return lines(cell) > (LONGEST_PARAMETERS if "parameters" in cell.metadata.get("tags", []) else LONGEST_CELL)


def too_long(path: Path) -> list[str]:
    """Where a notebook's code is longer than a reader of the paper follows, as messages."""
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    found = [f"has a cell of more than {LONGEST_CELL} lines: {cell.source}" for cell in code if is_long(cell)]
    total = sum(map(lines, code))
    return found + ([f"has {total} lines of code, more than {MOST_LINES}"] if total > MOST_LINES else [])


def flaws(path: Path) -> list[str]:
    """What a notebook in git must not have, as messages."""
    cells = nbformat.read(path, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    found = [] if path.name.startswith(TOO_LONG) else too_long(path)
    if cells[0].cell_type != "markdown" or not cells[0].source.startswith("# "):
        found.append("does not open with a title")
    if any(cell.outputs or cell.execution_count is not None for cell in code):
        found.append("carries outputs or execution counts")
    if any(re.search(r"^\s*class\s", cell.source, re.MULTILINE) for cell in code):
        found.append("defines classes")
    if any(re.search(r"^\s*[!%]\s*(pip|conda)\b", cell.source, re.MULTILINE) for cell in code):
        found.append("installs packages")
    return found


# The notebooks of this repository


def test_first_notebook_exists():
    assert any(path.stem == "01_grad_eclip_at_a_glance" for path in NOTEBOOKS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_form(path):
    assert flaws(path) == []
    runner.parameters(path)


def test_every_notebook_has_its_smoke_parameters():
    assert {path.stem for path in NOTEBOOKS if not runner.is_explorer(path)} == set(SMOKE)


def smoke(path: Path, tmp_path: Path, **given: str) -> Path | None:
    given = {**EVERY, **SMOKE.get(path.stem, {}).get("parameters", {}), "out_dir": str(tmp_path / "figures"), **given}
    return runner.run(path, given, executed=tmp_path / "executed")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path, tmp_path):
    folder = smoke(path, tmp_path)
    if runner.is_explorer(path):
        return
    assert folder == tmp_path / "figures" / path.stem
    left = json.loads((folder / "provenance.json").read_text())["values"]
    for name, (low, high) in SMOKE[path.stem]["values"].items():
        assert low <= left[name] <= high, name
    assert [name for name in SMOKE[path.stem].get("files", ()) if not (folder / name).is_file()] == []


@pytest.fixture(scope="module")
def full_size(tmp_path_factory):
    """A state dict of random weights in the shapes of OpenAI's ViT-B/16, in half precision: 300 MB."""
    sizes = dict(embed=512, res=224, patch=16, vlayers=12, vwidth=768, tlayers=12, twidth=512)
    state = {name: value.half() for name, value in small_clip.state_dict(**sizes, gain=1.0).items()}
    path = tmp_path_factory.mktemp("weights") / "b16.pt"
    torch.save(state, path)
    return path


@pytest.mark.skipif("FULL_SIZE" not in os.environ, reason="takes minutes; set FULL_SIZE=1 to run it")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_with_a_full_size_model(path, tmp_path, full_size):
    folder = smoke(path, tmp_path, model=str(full_size))
    assert runner.is_explorer(path) or json.loads((folder / "provenance.json").read_text())["model"] == "b16"


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if not runner.is_explorer(p)], ids=lambda path: path.stem)
def test_figures_in_git(path):
    folder = FIGURES / path.stem
    runner.check_results(folder, vectors=False)  # PDFs are made by `make figures`, and not kept in git
    strings = re.findall(r'"((?:[^"\\]|\\.)*)"', (folder / "provenance.json").read_text())
    assert [text for text in strings if text.startswith(("/", "~"))] == []  # no path of the machine that made them


# The checks themselves, on notebooks made here

TITLE = new_markdown_cell("# A title")
PARAMETERS = 'model = "tiny-vit"\ndataset = "scenes"\nn_images = 8\nseed = 0\ndevice = "cpu"\nout_dir = "figures"'
RESULTS = """\
import json, sys
from pathlib import Path
from PIL import Image
folder = Path(out_dir, "01_test")
folder.mkdir(parents=True)
Image.effect_noise((8, 8), 50).save(folder / "a.png")
(folder / "a.pdf").touch()
(folder / "claims.csv").write_text("claim,paper,ours,holds\\nit works,1,0.9,yes\\n")
record = dict(model=model, weights_sha256="0", dataset=dataset, seed=seed, n_images=n_images, parameters={})
record["values"] = {"auc": 0.5}
record["versions"] = {"prefix": sys.prefix, "folder": str(Path.cwd())}
(folder / "provenance.json").write_text(json.dumps(record))"""


def parameters_cell(source: str = PARAMETERS):
    return new_code_cell(source, metadata={"tags": ["parameters"]})


def write(folder: Path, *cells, name: str = "01_test.ipynb") -> Path:
    kernel = {"name": "some-other-kernel", "display_name": "Other", "language": "python"}
    nbformat.write(new_notebook(cells=list(cells), metadata={"kernelspec": kernel}), folder / name)
    return folder / name


def results(folder: Path, provenance=None, claims=None, pixels=None) -> Path:
    """A folder as a good notebook leaves it, but for what is given."""
    good = {"model": "m", "weights_sha256": "0", "dataset": "d", "parameters": {"n_images": 2}, "versions": {}}
    record = {**good, "seed": 0, "n_images": 2, "values": {"auc": 0.5}, **(provenance or {})}
    (folder / "provenance.json").write_text(json.dumps(record))
    with (folder / "claims.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["claim", "paper", "ours", "holds"], *(claims or [["it works", "", "0.9", "yes"]])])
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) if pixels is None else pixels).save(folder / "a.png")
    (folder / "a.pdf").touch()
    return folder


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([new_code_cell("1")], "title"),
        ([TITLE, new_code_cell("1", execution_count=1)], "counts"),
        ([TITLE, new_code_cell("1", outputs=[nbformat.v4.new_output("stream", text="1")])], "outputs"),
        ([TITLE, new_code_cell("\n".join("1" * 11))], "10 lines"),
        ([TITLE, parameters_cell("\n".join("1" * 16))], "10 lines"),
        ([TITLE, *(new_code_cell("\n".join("1" * 10)) for _ in range(15))], "150 lines of code"),
        ([TITLE, new_code_cell("class A: pass")], "defines"),
        ([TITLE, new_code_cell("%pip install x")], "installs"),
    ],
)
def test_form_check_catches(tmp_path, cells, message):
    assert [message in flaw for flaw in flaws(write(tmp_path, *cells))] == [True]


def test_form_check_passes_a_good_notebook(tmp_path):
    ten = new_code_cell("def f():\n" + "    1\n\n" * 9)
    assert flaws(write(tmp_path, TITLE, parameters_cell("\n".join("1" * 15)), ten)) == []


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([TITLE, new_code_cell(PARAMETERS)], "found 0"),
        ([parameters_cell(), parameters_cell()], "found 2"),
        ([parameters_cell(PARAMETERS.replace("seed", "sead"))], "lacks seed"),
    ],
)
def test_parameters_check_catches(tmp_path, cells, message):
    with pytest.raises(runner.NotebookError, match=message):
        runner.parameters(write(tmp_path, *cells))


def test_explorer_needs_no_standard_parameters_and_ignores_unknown_ones(tmp_path):
    path = write(tmp_path, parameters_cell('model = "tiny-vit"'), name="00_explorer.ipynb")
    assert runner.choose(path, {"model": "RN50", "n_images": "5"}) == {"model": "RN50"}


def test_parameters_are_typed_as_their_defaults(tmp_path):
    extra = "\nscale = 0.5\nlog = False\ntexts = ['a']\nlayer = None\nside = 2 * 3"
    path = write(tmp_path, parameters_cell(PARAMETERS + extra))
    given = {"model": "ViT-B/16", "n_images": "50", "scale": "2", "log": "true", "texts": "['b']", "layer": "9"}
    chosen = runner.choose(path, {**given, "side": "wide"})
    assert chosen == {
        **{"model": "ViT-B/16", "n_images": 50, "scale": 2.0, "log": True, "texts": ["b"], "layer": 9, "side": "wide"}
    }
    assert isinstance(chosen["scale"], float)
    assert runner.choose(path, {"texts": "a red cone"}) == {"texts": ["a red cone"]}  # one alone is a list of one


def test_several_images_become_a_list_of_whole_paths(tmp_path, monkeypatch):
    path = write(tmp_path, parameters_cell(PARAMETERS + "\nimages = ''"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.png").touch()
    chosen = runner.choose(path, {"images": "['p.png', 'q.png']"})
    assert chosen == {"images": [str(tmp_path / "p.png"), "q.png"]}
    assert runner.choose(path, {"images": "p.png"}) == {"images": str(tmp_path / "p.png")}
    for text in ("[", "[1]", "[]", "['p.png'"):
        with pytest.raises(runner.NotebookError, match="images: expected a path, a folder, or a list"):
            runner.choose(path, {"images": text})


def test_paths_given_become_absolute(tmp_path, monkeypatch):
    path = write(tmp_path, parameters_cell())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.pt").touch()
    chosen = runner.choose(path, {"out_dir": "here", "model": "weights.pt"})
    assert chosen == {"out_dir": str(tmp_path / "here"), "model": str(tmp_path / "weights.pt")}


@pytest.mark.parametrize(("name", "text"), [("n_images", "many"), ("n_images", "2.5"), ("seed", "True")])
def test_wrong_type_is_refused(tmp_path, name, text):
    with pytest.raises(runner.NotebookError, match=f"{name}: expected a int such as .*{text}"):
        runner.choose(write(tmp_path, parameters_cell()), {name: text})


def test_results_check_passes_a_good_folder(tmp_path):
    assert runner.check_results(results(tmp_path))["n_images"] == 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"provenance": {"n_images": 0}}, "processed no image"),
        ({"provenance": {"values": {"auc": float("nan")}}}, "values.auc = nan"),
        ({"provenance": {"values": {"auc": float("inf")}}}, "values.auc = inf"),
        ({"provenance": {"parameters": {"scales": [1, float("nan")]}}}, "parameters.scales.1 = nan"),
        ({"provenance": {"values": {}}}, "no values"),
        ({"provenance": {"values": {"auc": "high"}}}, "must be numbers"),
        ({"claims": [["it works", "1", "nan", "no"]]}, "not finite"),
        ({"claims": [["it works", "1", "", "no"]]}, "under 'ours'"),
        ({"pixels": np.full((8, 8), 255, dtype=np.uint8)}, "a.png is blank"),
    ],
)
def test_results_check_catches(tmp_path, wrong, message):
    with pytest.raises(runner.NotebookError, match=message):
        runner.check_results(results(tmp_path, **wrong))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("provenance.json", "no provenance.json"),
        ("claims.csv", "no claims.csv"),
        ("a.png", "wrote no figure"),
        ("a.pdf", "has no PDF"),
    ],
)
def test_results_check_catches_a_missing_file(tmp_path, name, message):
    (results(tmp_path) / name).unlink()
    with pytest.raises(runner.NotebookError, match=message):
        runner.check_results(tmp_path)


def test_figures_in_git_need_no_vectors(tmp_path):
    (results(tmp_path) / "a.pdf").unlink()
    assert runner.check_results(tmp_path, vectors=False)["n_images"] == 2


def test_results_of_an_earlier_run_do_not_count(tmp_path):
    later = results(tmp_path).stat().st_mtime_ns + 10**9
    with pytest.raises(runner.NotebookError, match="wrote no provenance.json"):
        runner.check_results(tmp_path, since=later)


def test_a_notebook_runs_in_its_own_folder_on_this_interpreter(tmp_path, monkeypatch):
    """Even where the user's own kernel named python3 is another, broken one, and the notebook names a third."""
    decoy = tmp_path / "jupyter" / "kernels" / "python3"
    decoy.mkdir(parents=True)
    decoy.joinpath("kernel.json").write_text('{"argv": ["false"], "display_name": "broken", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    write(tmp_path, parameters_cell(), new_code_cell(RESULTS))
    assert runner.main(["01", "-p", "n_images", "3"], folder=tmp_path, executed=tmp_path / "executed") == 0
    record = json.loads((tmp_path / "figures" / "01_test" / "provenance.json").read_text())
    assert record["n_images"] == 3
    assert record["versions"] == {"prefix": sys.prefix, "folder": str(tmp_path)}
    assert nbformat.read(tmp_path / "executed" / "01_test.ipynb", as_version=4).cells[-1].execution_count


def test_a_clone_that_cannot_be_written_to_is_only_read(tmp_path, monkeypatch):
    clone, work = tmp_path / "clone", tmp_path / "work"
    clone.mkdir()
    write(clone, parameters_cell(), new_code_cell(RESULTS))
    clone.chmod(0o555)
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in clone.rglob("*")}
    assert runner.main(["01", "--work", "work"], folder=clone, executed=clone / "executed") == 0
    assert {path: path.stat().st_mtime_ns for path in clone.rglob("*")} == before
    assert (work / "figures" / "01_test" / "claims.csv").is_file() and (work / "notebooks" / "01_test.ipynb").is_file()


def test_the_command_line_runs_notebooks_of_the_clone(tmp_path, monkeypatch, capfd):
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    monkeypatch.setenv("CLIP_EXPLAIN_DATA", str(tmp_path / "data"))
    assert cli.main(["notebook", "01"]) == 2
    assert f"no notebooks at {notebooks}: they live in the repository" in capfd.readouterr().err
    (notebooks / "run.py").write_text((runner.NOTEBOOKS / "run.py").read_text())
    write(notebooks, parameters_cell(), new_code_cell(RESULTS))
    assert cli.main(["notebook", "01", "-p", "n_images", "3", "--work", str(tmp_path / "work")]) == 0
    record = json.loads((tmp_path / "work" / "figures" / "01_test" / "provenance.json").read_text())
    assert record["n_images"] == 3
    with pytest.raises(SystemExit) as left:
        cli.main(["notebook", "02"])
    assert left.value.code == 2 and "no notebook starts with '02'" in capfd.readouterr().err


def test_a_failing_notebook_does_not_stop_the_others(tmp_path, capsys):
    write(tmp_path, parameters_cell(), new_code_cell("x = 1 / 0"), name="02_broken.ipynb")
    write(tmp_path, parameters_cell(), new_code_cell(RESULTS.replace("01_test", "03_good")), name="03_good.ipynb")
    assert runner.main(["--jobs", "2"], folder=tmp_path, executed=tmp_path) == 1
    out, err = capsys.readouterr()
    assert "x = 1 / 0" in err and "ZeroDivisionError: division by zero" in err
    assert "1 of 2 notebooks failed: 02_broken" in err and "03_good" in out


CLOCK = """\
import json, os, time
start = time.time()
time.sleep(1)
seen = {"from": start, "to": time.time(), "threads": os.environ.get("OMP_NUM_THREADS")}
Path(out_dir, NAME, "clock.json").write_text(json.dumps(seen))"""


def test_notebooks_run_side_by_side_and_the_one_of_times_alone_after_them(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(runner, "cores", lambda: 2)
    names = ["07_one", "08_times", "09_other"]
    for name in names:
        cell = new_code_cell(RESULTS.replace("01_test", name) + "\n" + CLOCK.replace("NAME", repr(name)))
        write(tmp_path, parameters_cell(), cell, name=f"{name}.ipynb")
    assert runner.main(["--jobs", "2"], folder=tmp_path, executed=tmp_path / "executed") == 0
    seen = [json.loads((tmp_path / "figures" / name / "clock.json").read_text()) for name in names]
    assert max(seen[0]["from"], seen[2]["from"]) < min(seen[0]["to"], seen[2]["to"])
    assert seen[1]["from"] > max(seen[0]["to"], seen[2]["to"])
    assert [each["threads"] for each in seen] == ["1", None, "1"]
    lines = capsys.readouterr().out.splitlines()
    assert [line[:5] for line in lines] == ["[1/3]", "[2/3]", "[3/3]"] and "08_times" in lines[2]


def test_full_gives_a_notebook_more_images_unless_others_are_given(tmp_path, monkeypatch):
    """The others keep their own; what is asked for by -p wins."""
    monkeypatch.setattr(runner, "FULL", {"01_test": {"n_images": "40"}})
    for name in ("01_test", "02_test"):
        cell = new_code_cell(RESULTS.replace("01_test", name))
        write(tmp_path, parameters_cell(), cell, name=f"{name}.ipynb")

    def images(*arguments: str) -> list[int]:
        work = tmp_path / f"work{len(arguments)}"
        assert runner.main([*arguments, "--jobs", "1", "--work", str(work)], folder=tmp_path) == 0
        records = [work / "figures" / name / "provenance.json" for name in ("01_test", "02_test")]
        return [json.loads(record.read_text())["n_images"] for record in records]

    assert images() == [8, 8] and images("--full") == [40, 8] and images("--full", "-p", "n_images", "3") == [3, 3]


@pytest.mark.parametrize("name", runner.FULL)
def test_the_shipped_figures_are_those_of_the_full_run(name):
    """What --full gives are parameters of the notebook, more than its own; the figures in git were made with them."""
    own = runner.parameters(runner.NOTEBOOKS / f"{name}.ipynb")
    record = json.loads((runner.NOTEBOOKS.parent / "figures" / name / "provenance.json").read_text())
    used = record["parameters"] | {"n_images": record["n_images"]}
    for parameter, text in runner.FULL[name].items():
        assert own[parameter] < int(text) == used[parameter]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--jobs", "0"], "got --jobs 0, expected at least 1"),
        (["07"], "no notebook starts with '07'.*01_test"),
        (["-p", "n_image", "3"], "no parameter n_image; there are: model, dataset, n_images"),
    ],
)
def test_nothing_runs_when_the_command_is_wrong(tmp_path, capsys, arguments, message):
    write(tmp_path, parameters_cell(), new_code_cell(RESULTS))
    assert runner.main(arguments, folder=tmp_path, executed=tmp_path / "executed") == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "executed").exists()
