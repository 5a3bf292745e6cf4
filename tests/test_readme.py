"""The commands and examples of README and of the pages in docs/: each is run here, or by .ci/run, or stands below with
the reason why it is not.

A command that is new on a page must get an entry below; the first test names it.
"""

import os
import re
import shutil
import subprocess
import sys
from functools import reduce
from pathlib import Path

import pytest
import torch

import clip_explain as cx
import small_clip

ROOT = Path(__file__).resolve().parents[1]
PAGES = {path.name: path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
BEGIN = (
    r"(?:git|make|pytest|pip|conda|kubectl|clip-explain|(?:\.venv/bin/)?python|\.venv/bin/\S+|>>>|-?cx\.)(?=[ \w]|$)"
)

# A command of a page (* for any rest) -> what makes it short, put in place of a part of it ("" is its end), and what it
# leaves.
RUN = {
    '.venv/bin/clip-explain photo.png "a blue cone" "a red ring"*': ({}, "map.png"),
    '.venv/bin/clip-explain photo.png "a blue cone" --model my_clip.pt*': ({"map.png": "mine.png"}, "mine.png"),
    ".venv/bin/clip-explain check my_clip.pt": ({}, None),
    ".venv/bin/clip-explain sweep*": ({"images 20": "images 1"}, "results"),
    ".venv/bin/clip-explain notebook 01 -p images*": ({"--work": "-p n_images 1 --work"}, "mine/figures"),
    "clip-explain --list": ({}, None),
    "clip-explain --help": ({}, None),
    "clip-explain data": ({}, None),
    "make lab": ({"make": "make -o .venv/setup-is-current", "": " ARGS=--version"}, None),  # else a server that stays
    # These take minutes or hours: that they are there and know the name is all that is tested here. What they do is
    # tested in test_training.py, test_embedded.py and test_sweep.py.
    ".venv/bin/clip-explain train tiny-vit tiny-vit-plain --device cuda": ({"": " --help"}, None),
    ".venv/bin/clip-explain card tiny-vit*": ({"": " --help"}, None),
    ".venv/bin/python benchmarks/sweep_overhead.py": ({"": " --help"}, None),
    ".venv/bin/python benchmarks/curricula.py": ({"": " --help"}, None),  # test_curricula.py has it in small
    ".venv/bin/python notebooks/seeds.py figures*": ({"": " --help"}, None),  # test_seeds.py has what it counts
}
BY_CI = {
    "make setup": "a step of .ci/run",
    "make test": "a step of .ci/run",
    "make lint": "a step of .ci/run",
    "make site": "a step of .ci/run",
}
NOT_RUN = {
    "git clone *": "the address is the reader's",
    "make figures": "each of its notebooks is run by test_notebooks.py, the first by .ci/run",
    'make figures NB="04 05 11" ARGS=--full': "hours; that it gives more images: test_notebooks.py",
    "make figures NB=04 N_IMAGES=*": "the same; what make hands on: test_environment.py",
    "make figures NB=01 MODEL=*": "needs a GPU and downloads weights; what make hands on: test_environment.py",
    "make figures NB=04 MODEL=*": "the same, and ImageNet",
    ".venv/bin/clip-explain notebook 04*": "writes to figures/; the same with --work is run, and in test_notebooks.py",
    ".venv/bin/clip-explain notebook 07*": "minutes; the same as notebook 01, which is run",
    ".venv/bin/clip-explain notebook 09*": "the same",
    "clip-explain notebook": "its name",
    "clip-explain card": "its name",
    "clip-explain sweep": "its name",
    "make app": "a server that stays; test_explorer_browser.py starts the same",
    "python docs/make_site.py": "as make site",
    "pytest": "as make test",
    "conda *": "no conda here; test_environment.py compares its list with pyproject.toml's",
    "pip install *": "downloads",
    "python -ic *": "needs a cluster",
    ">>> *": "needs a cluster",
    "kubectl *": "needs a cluster",
    "clip-explain sweep --scheduler *": "needs a cluster, a GPU, ImageNet; test_sweep.py has a scheduler and workers",
    "cx.load(*": "downloads weights, or stands for a model of the reader's",
}
COVERED = RUN | BY_CI | NOT_RUN
NAME = re.compile(r"cx(?:\.\w+)+")  # a name of the library, without a call


def commands(text: str) -> list[str]:
    """Lines of indented blocks, and code within lines, that begin as a command does; without comments, each once.

    Blocks in fences are Python, and run as a whole.
    """
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    lines = [line[4:] for line in text.splitlines() if line.startswith("    ")]
    joined = re.sub(r" +\\\n +", " ", "\n".join(lines))
    inline = [re.sub(r"\s+", " ", span) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", text)]
    found = [re.split(r" +# ", line)[0].strip() for line in [*joined.splitlines(), *inline]]
    return list(dict.fromkeys(line for line in found if re.match(BEGIN, line)))


def entry(command: str) -> str | None:
    """The entry above that covers a command; the longest if there are several."""
    fitting = [key for key in COVERED if command == key or (key[-1] == "*" and command.startswith(key[:-1]))]
    return max(fitting, key=len, default=None)


COMMANDS = {command: entry(command) for command in commands("\n\n".join(PAGES.values()))}
ORDER = list(RUN)
TO_RUN = sorted((command for command, key in COMMANDS.items() if key in RUN), key=lambda each: ORDER.index(entry(each)))


def test_every_command_is_accounted_for():
    unknown = [command for command, key in COMMANDS.items() if key is None and not NAME.fullmatch(command)]
    assert unknown == [], "new on a page: put them into RUN, BY_CI or NOT_RUN"


def test_no_entry_is_of_a_command_that_is_gone():
    assert COVERED.keys() - COMMANDS.values() == set()


def test_names_of_the_library_are_there():
    names = [command for command in COMMANDS if NAME.fullmatch(command)]
    assert names
    for name in names:
        reduce(getattr, name.split(".")[1:], cx)


def test_readme_is_short_and_counts_the_methods_and_families():
    lines = PAGES["README.md"].splitlines()
    assert len(lines) <= 150
    assert f"The {len(cx.METHODS)} methods" in PAGES["README.md"]
    families = PAGES["models.md"].partition("|---|")[2].partition("<!-- end")[0].count("\n|")
    assert f"has the {families} families" in PAGES["README.md"]


@pytest.mark.parametrize("name", PAGES)
def test_links_of_a_page_lead_to_files(name):
    home = ROOT if name == "README.md" else ROOT / "docs"
    targets = re.findall(r"\]\(([^)#\s]+)", PAGES[name])
    inside = [target for target in targets if "://" not in target]
    assert [target for target in inside if not (home / target).exists()] == []


def test_ci_runs_what_it_is_said_to():
    steps = re.findall(r"^step (.+)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert [command for command in BY_CI if not any(step.startswith(command) for step in steps)] == []


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """What the commands need of a clone, in a folder where they may write, with a photo and a model of one's own."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "benchmarks", folder / "benchmarks")
    (folder / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks" / "seeds.py", folder / "notebooks")
    shutil.copy(ROOT / "Makefile", folder)
    (folder / ".venv").symlink_to(sys.prefix)
    widths = {"vwidth": 768, "twidth": 512, "embed": 512}  # of a ViT-B, whose heads are known
    torch.save(small_clip.state_dict(**small_clip.SMALL | widths), folder / "my_clip.pt")
    cx.datasets.load("scenes", size=480)[1].image.save(folder / "photo.png")
    return folder


def run(command: str, folder: Path) -> None:
    """Run a command of a page in a clone, made short, and look for what it leaves."""
    changes, left = RUN[COMMANDS[command]]
    for old, new in changes.items():
        assert old in command
        command = command.replace(old, new, 1) if old else command + new
    path = f"{folder / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert left is None or (folder / left).exists()


@pytest.mark.parametrize("command", TO_RUN, ids=lambda command: command[:50])
def test_it_runs(clone, command):
    if command.startswith("make") and shutil.which("make") is None:
        pytest.skip("no make, as in a conda environment")
    run(command, clone)


@pytest.mark.parametrize("name", [name for name, text in PAGES.items() if "```python" in text])
def test_the_python_of_a_page_runs_from_the_first_line_to_the_last(clone, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    shutil.copy(clone / "photo.png", tmp_path)
    known = {}
    for block in re.findall(r"```python\n(.*?)```", PAGES[name], re.DOTALL):
        exec(block, known)
    if name in ("README.md", "first_image.md"):
        assert known["found"].shape[:2] == (1, 2) and Path("maps.png").is_file()


def test_commands_are_found():
    text = "`make x`, `python y.py`, `cx.z()`, `a.png`:\n\n    make a   # says\n    b c\n    .venv/bin/d \\\n      e\n"
    assert commands(text) == ["make a", ".venv/bin/d e", "make x", "python y.py", "cx.z()"]
