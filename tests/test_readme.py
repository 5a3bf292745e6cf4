"""README's commands: each is run here, or by .ci/run, or stands below with the reason why it is not.

A command that is new in README must get an entry below; the first test names it.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import small_clip

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
BEGIN = r"(?:make|pytest|pip|conda|kubectl|clip-explain|(?:\.venv/bin/)?python|\.venv/bin/\S+|>>>|-?cx\.)(?=[ \w]|$)"

# A command of README (* for any rest) -> what makes it short, put in place of a part of it ("" is its end), and what it
# leaves.
RUN = {
    '.venv/bin/python -c "from clip_explain import datasets;*': ({}, "photo.png"),
    ".venv/bin/clip-explain photo.png*": ({}, "map.png"),
    '.venv/bin/clip-explain photo.png "a blue cone" --model my_clip.pt*': ({}, "map.png"),
    ".venv/bin/clip-explain sweep*": ({"images 20": "images 1"}, "results"),
    ".venv/bin/python notebooks/run.py 01*": ({"-p out_dir": "-p n_images 1 -p out_dir"}, "mine"),
    "clip-explain --list": ({}, None),
    "clip-explain --help": ({}, None),
    "clip-explain data": ({}, None),
    ".venv/bin/pre-commit install": ({}, ".git/hooks/pre-commit"),
    "make lab": ({"make": "make -o .venv/setup-is-current", "": " ARGS=--version"}, None),  # else a server that stays
    # These take minutes or hours: that they are there and know the name is all that is tested here. What they do is
    # tested in test_training.py, test_embedded.py and test_sweep.py.
    ".venv/bin/clip-explain train tiny-vit": ({"": " --help"}, None),
    ".venv/bin/clip-explain card tiny-vit": ({"": " --help"}, None),
    ".venv/bin/python benchmarks/sweep_overhead.py": ({"": " --help"}, None),
}
PYTHON = {  # evaluated after the block of Python
    'cx.explain(model, "photo.png", Path("other.png"))': "an image as the target",
    'cx.difference(model, "a blue cone", "a cone")': "what a word adds",
    '-cx.targets(model, "a blue cone")': "what speaks against",
}
BY_CI = {
    "make setup": "a step of .ci/run",
    "make test": "a step of .ci/run",
    "make lint": "a step of .ci/run",
    "make site": "a step of .ci/run",
    "make figures NB=01": "a step of .ci/run",
}
NOT_RUN = {
    "make figures": "each of its notebooks is run by test_notebooks.py, the first by .ci/run",
    "make figures NB=01 MODEL=*": "needs a GPU and downloads weights; what make hands on: test_environment.py",
    "make figures NB=04 MODEL=*": "the same, and ImageNet",
    "make app": "a server that stays; test_explorer_browser.py starts the same",
    "python notebooks/run.py": "as make figures",
    "python docs/gallery.py": "as make site",
    "pytest": "as make test",
    "conda *": "no conda here; test_environment.py compares its list with pyproject.toml's",
    "pip install *": "downloads",
    "python -ic *": "needs a cluster",
    ">>> *": "needs a cluster",
    "kubectl *": "needs a cluster",
    "clip-explain sweep --scheduler *": "needs a cluster, a GPU, ImageNet; test_sweep.py has a scheduler and workers",
    "clip-explain check MODEL": "test_cli.py checks a small model",
    "cx.load(*": "downloads weights",
    "cx.linear_probe*": "a name",
    "make": "the program",
}
COVERED = RUN | PYTHON | BY_CI | NOT_RUN


def commands(text: str) -> list[str]:
    """Lines of indented blocks, and code within lines, that begin as a command does; without comments, each once."""
    lines = [line[4:] for line in text.splitlines() if line.startswith("    ")]
    joined = re.sub(r" +\\\n +", " ", "\n".join(lines))
    inline = [re.sub(r"\s+", " ", span) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", text)]
    found = [re.split(r" +# ", line)[0].strip() for line in [*joined.splitlines(), *inline]]
    return list(dict.fromkeys(line for line in found if re.match(BEGIN, line)))


def entry(command: str) -> str | None:
    """The entry above that covers a command; the longest if there are several."""
    fitting = [key for key in COVERED if command == key or (key[-1] == "*" and command.startswith(key[:-1]))]
    return max(fitting, key=len, default=None)


COMMANDS = {command: entry(command) for command in commands(README)}
ORDER = list(RUN)
TO_RUN = sorted((command for command, key in COMMANDS.items() if key in RUN), key=lambda each: ORDER.index(entry(each)))


def test_every_command_is_accounted_for():
    unknown = [command for command, key in COMMANDS.items() if key is None]
    assert unknown == [], "new in README: put them into RUN, PYTHON, BY_CI or NOT_RUN"


def test_ci_runs_what_it_is_said_to():
    steps = re.findall(r"^step (.+)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert [command for command in BY_CI if not any(step.startswith(command) for step in steps)] == []


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """What the commands need of a clone, in a folder where they may write; with the photo that the first one makes."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("notebooks", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("0[2-9]_*", "[12]*_*", "__pycache__"))
    shutil.copy(ROOT / ".pre-commit-config.yaml", folder)
    shutil.copy(ROOT / "Makefile", folder)
    (folder / ".venv").symlink_to(sys.prefix)
    widths = {"vwidth": 768, "twidth": 512, "embed": 512}  # of a ViT-B, whose heads are known
    torch.save(small_clip.state_dict(**small_clip.SMALL | widths), folder / "my_clip.pt")
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    run(TO_RUN[0], folder)
    return folder


def run(command: str, folder: Path) -> None:
    """Run a command of README in a clone, made short, and look for what it leaves."""
    changes, left = RUN[COMMANDS[command]]
    for old, new in changes.items():
        assert old in command
        command = command.replace(old, new, 1) if old else command + new
    path = f"{folder / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert left is None or (folder / left).exists()


@pytest.mark.parametrize("command", TO_RUN[1:], ids=lambda command: command[:50])
def test_it_runs(clone, command):
    if command.startswith("make") and shutil.which("make") is None:
        pytest.skip("no make, as in a conda environment")
    run(command, clone)


def test_the_python_block_and_what_follows_it(clone, monkeypatch):
    (block,) = re.findall(r"```python\n(import clip_explain.*?)```", README, re.DOTALL)
    monkeypatch.chdir(clone)
    shutil.copy("photo.png", "other.png")
    known = {"Path": Path}
    exec(block, known)
    assert known["found"].shape[:2] == (1, 2) and len(known["words"]) == 1 and Path("maps.png").is_file()
    assert [each for each in PYTHON if each not in COMMANDS] == []
    for text in PYTHON:
        assert eval(text, known).ndim in (2, 4)


def test_commands_are_found():
    text = "`make x`, `python y.py`, `cx.z()`, `a.png`:\n\n    make a   # says\n    b c\n    .venv/bin/d \\\n      e\n"
    assert commands(text) == ["make a", ".venv/bin/d e", "make x", "python y.py", "cx.z()"]
