"""What a command cannot do is said in one line, with exit code 2; and its pictures are whole files."""

import os
import xml.dom.minidom

import numpy as np
import pytest
from PIL import Image

from clip_explain.cli import main

LONG = "a" * 5000
HUGE = "9" * 400
SWEEP = ["sweep", "--methods", "itsm", "--metrics", "pointing_game", "--images", "1"]
REFUSED = {
    "a picture's name is too long": ["p.png", "a cube", "--out", LONG + ".png"],
    "an image's name is too long": [LONG, "a cube"],
    "a model's name is too long": ["p.png", "a cube", "--model", LONG],
    "a model of a prefix": ["p.png", "a cube", "--model", "blip:" + LONG],
    "a name of no file": ["p.png", "a cube", "--out", "\0.png"],
    "a device without numbers": ["p.png", "a cube", "--device", "meta"],
    "a device that is none": ["p.png", "a cube", "--device", "\x07"],
    "a huge number of layers": ["p.png", "a cube", "--option", "layers=" + HUGE],
    "a huge number of masks": ["p.png", "a cube", "--method", "rise", "--option", "masks=" + HUGE],
    "a huge seed": ["p.png", "a cube", "--method", "rise", "--option", "generator=" + HUGE],
    "an endless number": ["p.png", "a cube", "--method", "m2ib", "--option", "beta=inf"],
    "bytes that are no UTF-8": [os.fsdecode(b"p\xff.png"), "a cube"],
    "a folder that cannot be": ["p.png", "a cube", "--out", "/proc/p.png"],
    "a text that comes to nothing": ["p.png", "&nbsp;"],
    "a file of directions": ["p.png", "--direction", LONG],
    "a pipe": ["pipe", "a cube"],
    "a device file": ["/dev/zero", "a cube"],
    "a URL": ["nope://x/y.png", "a cube"],
    "a folder of a sweep": [*SWEEP, "--out", "\0"],
    "a sweep's folder is a file": [*SWEEP, "--out", "p.png"],
    "a sweep's seed": [*SWEEP, "--out", "o", "--seed", "-1"],
    "a picture too small": [*SWEEP, "--out", "o", "--option", "scenes.size=1"],
    "a training's folder": ["train", "tiny-vit", "--folder", LONG],
    "a training's device": ["train", "tiny-vit", "--folder", "t", "--device", "meta"],
    "a training's steps": ["train", "iclip", "--folder", "t", "--steps", "0"],
    "a training's rate": ["train", "iclip", "--folder", "t", "--rate", "nan"],
    "no checkpoint": ["card", "tiny-vit", "--folder", "nope"],
    "a card's scenes": ["card", "tiny-vit", "--scenes", "0", "--measure-only"],
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)).save("p.png")
    os.mkfifo("pipe")
    return tmp_path


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_said_in_one_line(here, capsys, name):
    assert main(REFUSED[name]) == 2
    *warned, said = capsys.readouterr().err.strip().split("\n")
    assert all(line.startswith("clip-explain: warning: ") for line in warned)
    assert said.startswith("clip-explain: ") and len(said) < 7000


def test_control_characters_leave_an_svg_whole(here):
    assert main(["p.png", "a \x07 cube\x1b[31m", "half a \ud800 pair", "--out", "p.svg"]) == 0
    assert "cube" in xml.dom.minidom.parse("p.svg").toxml()


def test_data_of_a_folder_that_cannot_be_is_not_here(here, capsys):
    assert main(["data", "--root", LONG]) == 0
    assert "coco: not here" in capsys.readouterr().out
