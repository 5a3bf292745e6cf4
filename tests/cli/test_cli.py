"""The command line as a user meets it: pictures, listings, and errors without a traceback."""

import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import torch
from matplotlib import image as mpimage
from PIL import Image

import clip_explain as cx
from clip_explain import datasets, plots
from clip_explain.cli import main
from clip_explain.cli.explain import EXAMPLES, described, parse
from clip_explain.cli.listing import OPENAI as SIZES
from clip_explain.cli.listing import listing
from clip_explain.errors import MethodError
from clip_explain.explainers.method import option_of
from clip_explain.explainers.registry import METHODS, names_of
from clip_explain.models.openai import OPENAI
from clip_explain.papers.specification import openai_network

BAR = round(200 * plots.BAR)  # px


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
        assert picture.shape[1] == 3 * 3 * 200 + BAR and picture.std() > 0.05
        assert "grad_eclip" in Image.open(out).info["Title"] and "layers" in Image.open(out).info["Title"]


def test_one_text_has_no_probability_and_replaces_the_older_picture(weights, photo, tmp_path, capsys):
    out = tmp_path / "map.png"
    out.write_text("older")
    assert (
        run(photo, "a red cube", "--model", weights, "--out", out, "--method", "self_attention", "--dtype", "bf16") == 0
    )
    assert "%" not in capsys.readouterr().out
    assert Image.open(out).size == (1200 + BAR, Image.open(out).size[1])


def test_truncate_allows_a_long_text(weights, photo, tmp_path, capsys):
    command = (photo, "cube " * 90, "--model", weights, "--out", tmp_path / "map.png")
    assert run(*command) == 2
    assert "92 tokens" in capsys.readouterr().err
    assert run(*command, "--truncate") == 0


@pytest.fixture(scope="module")
def other(photo):
    Image.open(photo).rotate(90).save(photo.with_name("other.png"))
    return photo.with_name("other.png")


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["a red cube", "--templates", "imagenet"], ["a red cube"]),
        (["a cube", "--templates", "a {}.", "--templates", "the {}."], ["a cube"]),
        (
            ["a red cube", "--without", "red", "--without", "cube"],
            ["a red cube, less 'red'", "a red cube, less 'cube'"],
        ),
        (["--image-target", "OTHER"], ["other.png"]),
        (["a cube", "--image-target", "OTHER", "--negative"], ["against: a cube", "against: other.png"]),
    ],
)
def test_what_is_explained_can_be_more_than_a_text(weights, photo, other, tmp_path, capsys, options, names):
    options = [str(other) if option == "OTHER" else option for option in options]
    assert run(photo, *options, "--model", weights, "--out", tmp_path / "map.png") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[1] for line in lines] == names and not any("%" in line for line in lines)
    assert Image.open(tmp_path / "map.png").size[0] == (1 + len(names)) * 3 * 200 + BAR


def test_the_command_lines_targets_are_those_of_the_library(weights, photo, other):
    model = cx.load(weights, "cpu")

    def directions(*arguments):
        return described(model, parse([str(photo), *arguments, "--image-target", str(other), "--fit", "full"]))[1]

    image = cx.targets(model, other, fit="full")
    text = cx.targets(model, "a red cube", ["a {}.", "the {}."])
    assert torch.equal(
        directions("a red cube", "--templates", "a {}.", "--templates", "the {}."), torch.cat([text, image])
    )
    less = cx.without_word(model, "a red cube", ["red", "a"])
    assert torch.equal(
        directions("a red cube", "--without", "red", "--without", "a", "--negative"), -torch.cat([less, image])
    )
    assert torch.equal(directions("a cube", "--templates", "imagenet")[:1], cx.targets(model, "a cube", "imagenet"))


def test_words_are_printed_with_their_weights(weights, photo, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = (photo, "a red cube", "--model", weights, "--words", "--option", "layers=2", "--option", "spatial=none")
    assert run(*command) == 0
    shown = capsys.readouterr().out.split()
    model = cx.load(weights, "cpu")
    ((words, expected),) = cx.explain_words(model, photo, "a red cube", per="word", layers=2, spatial="none")
    assert shown[1::2] == words == ["a", "red", "cube"]
    assert [float(weight) for weight in shown[::2]] == pytest.approx(expected[0].tolist(), abs=1e-4)
    assert run(*command, "--negative") == 0
    against = [float(weight) for weight in capsys.readouterr().out.split()[::2]]
    assert any(against) and not any(one * other for one, other in zip(against, expected[0].tolist(), strict=True))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "grad_clip"], "unknown method 'grad_clip': did you mean 'grad_eclip'"),
        (["--option", "layer=2"], "no option 'layer': did you mean 'layers'"),
        (["--option", "layers=two"], "got layers='two', expected 1 to the number of layers"),
        (["--option", "layers"], "got layers='', expected 1 to the number of layers"),
        (["--option", "layers=3"], "layers=3, expected 1 to 2"),
        (["--fit", "crops"], "did you mean 'crop'"),
        (["--device", "gpu"], "device 'gpu' cannot be used"),
        (["--dtype", "fp64"], "did you mean"),
        (["--model", "ViT-B16"], "did you mean 'ViT-B/16'"),
        (["--model", "nowhere.pt"], "no weights file at nowhere.pt"),
        (["--templates", "imagnet"], "did you mean 'imagenet'"),
        (["--templates", "a photo"], "with a {} for the text"),
        (["--without", "green"], "there is no word 'green' in the text 'a red cube'"),
        (["--image-target", "nowhere.png"], "no image at nowhere.png"),
        (["--words", "--method", "rise"], "unknown method 'rise'"),
        (["--words", "--option", "layers=3"], "layers=3, expected 1 to 2"),
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


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["photo.png"],
        ["photo.png", "a cube", "--nonsense"],
        ["--image-target", "other.png"],
        ["photo.png", "--image-target", "other.png", "--without", "red"],
        ["photo.png", "a cube", "--without", "a", "--templates", "imagenet"],
        ["photo.png", "a cube", "--words", "--image-target", "other.png"],
    ],
)
def test_unusable_commands_show_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: clip-explain" in capsys.readouterr().err


def test_help_is_quick_and_list_is_quiet():
    """--help does without torch, and --list shows no warning of a package underneath."""
    code = "import sys, clip_explain.cli as cli\ntry: cli.main(['--help'])\nfinally: print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "usage: clip-explain" in shown.stdout and shown.stdout.endswith("False\n")
    shown = subprocess.run([sys.executable, "-m", "clip_explain", "--list"], capture_output=True, text=True)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "methods for --words" in shown.stdout
    assert "  ViT-B/16: " in shown.stdout and "  grad_eclip: Grad-ECLIP" in shown.stdout and "layers=1" in shown.stdout


def test_options_get_the_type_of_the_signature():
    assert option_of("k", int).read("2") == 2 and option_of("lr", float).read("1e-2") == 0.01
    assert option_of("split", str).read("2") == "2" and option_of("empty", bool).read("no") is False
    assert option_of("most", int | None).read("none") is None and option_of("most", int | None).read("3") == 3
    with pytest.raises(MethodError, match="got k='many', expected a whole number"):
        option_of("k", int).read("many")


def test_check_says_what_is_read_of_a_model_and_whether_it_agrees(capsys):
    """Towers, agreement by layer below rounding, the methods of the registry, and a map as large as the grid."""
    assert main(["check", "tiny-resnet", "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("tiny-resnet: a ResNet, 224 px, cells of 32 px")
    assert any(
        re.fullmatch(r"text tower: 12 layers, 4 heads, QuickGELU, pooled by end, causal", line) for line in lines
    )
    measured = [line.split()[-1] for line in lines if line.strip().startswith(("layer", "embedding"))]
    assert len(measured) == 4 + 1 + 12 + 1 and all(float(number) < 1e-4 for number in measured)
    resnets = ", ".join(name for name in names_of() if METHODS[name].resnets)
    assert f"methods for images: {resnets}" in lines
    assert [len(line) for line in lines[-7:]] == [2 + 7] * 7


def test_check_refuses_a_model_that_is_not_there(capsys):
    assert main(["check", "tiny-vat"]) == 2
    assert "unknown model 'tiny-vat'" in capsys.readouterr().err


def test_the_examples_of_the_help_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    datasets.load("scenes", size=480)[1].image.save("photo.png")
    examples = [line.strip() for line in EXAMPLES.splitlines() if line.startswith("  clip-explain ")]
    assert len(examples) == 3
    for example in examples:
        assert main(shlex.split(example)[1:]) == 0, capsys.readouterr().err
    assert (tmp_path / "map.png").is_file()


def test_every_download_of_openais_is_listed_with_its_size():
    """Published weights are in half precision, but for the token embedding: so the architecture tells their size."""
    assert set(SIZES) == set(OPENAI)
    for name, size in SIZES.items():
        network = openai_network(name)
        numbers = sum(parameter.numel() for parameter in network.parameters())
        expected = 2 * (numbers + network.token_embedding.weight.numel()) / 2**20
        assert size == pytest.approx(expected, rel=0.015), name
        assert f"  {name}: OpenAI's CLIP; download of {size} MB\n" in listing()
