"""The command line as a user meets it: pictures, listings, and errors without a traceback."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib import image as mpimage
from PIL import Image

from clip_explain.__main__ import main, typed


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    noise = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((90, 60)).save(path)
    return path


def run(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_one_picture_with_its_scores(weights, photo, tmp_path, capsys, suffix):
    out = tmp_path / f"map{suffix}"
    assert (
        run(photo, "a red cube", "--model", weights, "--out", out, "a $5 ball", "--fit", "full", "--option", "layers=2")
        == 0
    )
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert [line.split("  ")[1] for line in lines] == ["a red cube", "a $5 ball"] and shown.err == ""
    assert sum(int(line.split("%")[0].split()[-1]) for line in lines) in (99, 100, 101)
    assert list(tmp_path.iterdir()) == [out] and out.stat().st_size > 5000
    if suffix == ".png":
        picture = mpimage.imread(out)[..., :3]
        assert picture.shape[1] == 3 * 3 * 200 and picture.std() > 0.05
        assert "grad_eclip" in Image.open(out).info["Title"] and "layers" in Image.open(out).info["Title"]


def test_one_text_has_no_probability_and_replaces_the_older_picture(weights, photo, tmp_path, capsys):
    out = tmp_path / "map.png"
    out.write_text("older")
    assert (
        run(photo, "a red cube", "--model", weights, "--out", out, "--method", "self_attention", "--dtype", "bf16") == 0
    )
    assert "%" not in capsys.readouterr().out
    assert Image.open(out).size == (1200, Image.open(out).size[1])


def test_truncate_allows_a_long_text(weights, photo, tmp_path, capsys):
    command = (photo, "cube " * 90, "--model", weights, "--out", tmp_path / "map.png")
    assert run(*command) == 2
    assert "92 tokens" in capsys.readouterr().err
    assert run(*command, "--truncate") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "grad_clip"], "unknown method 'grad_clip': did you mean 'grad_eclip'"),
        (["--option", "layer=2"], "no option 'layer': did you mean 'layers'"),
        (["--option", "layers=two"], "layers takes int, got 'two'"),
        (["--option", "layers"], "layers takes int, got ''"),
        (["--option", "layers=3"], "layers=3, expected 1 to 2"),
        (["--fit", "crops"], "did you mean 'crop'"),
        (["--device", "gpu"], "device 'gpu' cannot be used"),
        (["--dtype", "fp64"], "did you mean"),
        (["--model", "ViT-B16"], "did you mean 'ViT-B/16'"),
        (["--model", "nowhere.pt"], "no weights file at nowhere.pt"),
        (["--out", "map.bmp"], "must end in one of .png, .pdf, .svg"),
        (["--out", "nowhere/map.png"], "there is no folder nowhere"),
    ],
)
def test_errors_are_one_plain_line(weights, photo, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert run(photo, "a red cube", "--model", weights, *arguments) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("clip-explain: ") and message in shown.err and shown.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [[], ["photo.png"], ["photo.png", "a cube", "--nonsense"]])
def test_unusable_commands_show_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: clip-explain" in capsys.readouterr().err


def test_help_is_quick_and_list_is_quiet():
    """--help does without torch, and --list shows no warning of a package underneath."""
    code = "import sys, clip_explain.__main__ as cli\ntry: cli.main(['--help'])\nfinally: print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "usage: clip-explain" in shown.stdout and shown.stdout.endswith("False\n")
    shown = subprocess.run([sys.executable, "-m", "clip_explain", "--list"], capture_output=True, text=True)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "  ViT-B/16\n" in shown.stdout and "  grad_eclip " in shown.stdout and "layers=1" in shown.stdout


def test_options_get_the_type_of_the_signature():
    assert typed("layers", "2", int) == 2 and typed("lr", "1e-2", float) == 0.01 and typed("heads", "2", str) == "2"
    assert typed("head", "none", int | None) is None and typed("head", "3", int | None) == 3
    assert typed("scaled", "no", bool) is False and typed("scaled", "True", bool) is True
