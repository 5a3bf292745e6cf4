"""Every bad or unusual input of the specification: a typed error that names what is wrong, or the right result."""

import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

import clip_explain as cx
import small_clip
from clip_explain import maps
from clip_explain.cli import main
from clip_explain.explainers import METHODS, names_of

SIDE = 64


@pytest.fixture(scope="module")
def model(weights):
    return cx.load(weights, device="cpu")


def colourful(width=90, height=60):
    noise = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def missing(folder):
    return folder / "missing.jpg"


def text_file(folder):
    path = folder / "text.jpg"
    path.write_text("this is no image")
    return path


def truncated_jpeg(folder):
    path = folder / "truncated.jpg"
    colourful(300, 200).save(path)
    path.write_bytes(path.read_bytes()[:3000])
    return path


def truncated_png(folder):
    path = folder / "truncated.png"
    colourful(300, 200).save(path)
    path.write_bytes(path.read_bytes()[:3000])
    return path


def empty_file(folder):
    path = folder / "empty.png"
    path.touch()
    return path


def a_folder(folder):
    return folder


def float_image(folder):
    path = folder / "float.tiff"
    Image.fromarray(np.ones((20, 20), dtype=np.float32)).save(path)
    return path


@pytest.mark.parametrize("make", [missing, text_file, truncated_jpeg, truncated_png, empty_file, a_folder, float_image])
@pytest.mark.parametrize("listed", [False, True])
def test_unreadable_images_are_named(model, tmp_path, make, listed):
    path = make(tmp_path)
    with pytest.raises(cx.ImageError) as caught:
        cx.explain(model, [colourful(), path] if listed else path, "a cube")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("make", [missing, text_file, truncated_jpeg, empty_file, a_folder])
@pytest.mark.parametrize("listed", [False, True])
def test_unreadable_target_images_are_named(model, tmp_path, make, listed):
    path = make(tmp_path)
    with pytest.raises(cx.ImageError) as caught:
        cx.explain(model, colourful(), [colourful(), path] if listed else path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("targets", [["a cube", Image.new("RGB", (9, 9))], ["a cube", Path("cube.png")], []])
def test_targets_are_texts_or_images_and_at_least_one(model, targets):
    with pytest.raises(cx.TextError, match="at least one text, and none of them empty; or images alone"):
        cx.explain(model, colourful(), targets)


@pytest.mark.parametrize("pixels", [torch.zeros(1, 3, SIDE, SIDE + 1), torch.full((1, 3, SIDE, SIDE), float("nan"))])
def test_target_pixels_are_checked(model, pixels):
    with pytest.raises(cx.TensorError, match=r"expected .*got shape"):
        cx.explain(model, colourful(), small_clip.marked(pixels))


def test_unknown_templates_name_the_sets(model):
    with pytest.raises(cx.TextError, match=r"'imagnet'.*did you mean 'imagenet'.*Available: imagenet, clip_surgery"):
        cx.explain(model, colourful(), "a cube", templates="imagnet")
    with pytest.raises(cx.TextError, match="expected one or more with a {} for the text"):
        cx.explain(model, colourful(), "a cube", templates=["a photo of a {}.", "a photo"])


def test_a_word_that_is_not_there_is_named_with_its_text(model):
    with pytest.raises(cx.TextError, match="no word 'green' in the text 'a red cube'"):
        cx.without_word(model, "a red cube", "green")
    with pytest.raises(cx.TextError, match="no words to leave out"):
        cx.without_word(model, "a red cube", [])
    with pytest.raises(cx.TensorError, match="all zero"):
        cx.difference(model, "a cube", "a cube")


# Options for which every one of the methods that has them says what it takes: the model has two layers and two heads.
OUT_OF_RANGE = {
    "layers": (0, "layers=0, expected 1 to 2"),
    "layer": (7, "layer=7, expected"),
    "head": (2, "head=2, expected 0 to"),
    "heads": ("both", "'native', 'single'"),
    "variant": ("eigen_cam", "'grad_cam', 'grad_cam_plus_plus'"),
    "pool": ("max", "expected one of"),
    "spatial": ("tight", "'loose', 'softmax', 'none', 'released'"),
    "relu": ("both", "'sum', 'layer'"),
    "value": ("owen", "'shapley', 'banzhaf'"),
    "hidden": ("black", "'mean', 'drop'"),
    "normalize": ("heads", "'channels', 'tokens'"),
    "norm": ("channels", "'image', 'token'"),
    "single": (3, "single=3, expected 0 to 2"),
    "steps": (0, "steps=0, expected .*at least 1"),
    "samples": (0, "samples=0, expected .*at least 1"),
    "masks": (0, "masks=0, expected .*at least 1"),
    "cells": (0, "cells=0, expected .*at least 1"),
    "batch_size": (0, "batch_size=0, expected .*at least 1"),
    "keep": (0.0, "keep=0.0, expected a number above 0 and of at most 1"),
    "beta": (-1.0, "beta=-1.0, expected a number of at least 0"),
    "lr": (0.0, "lr=0.0, expected a number above 0"),
    "iterations": (-1, "iterations=-1, expected a whole number of at least 0"),
    "temperature": (0.0, "above 0"),
}
FREE = {"scale_logits", "pooled", "key_weight", "feature_surgery", "redundant", "last_update", "noise", "center"}
FREE |= {"generator"}
FITTING = {
    "clip_surgery": dict(layers=2),
    "gem": dict(layers=2),
    "m2ib": dict(layer=0),
    "nib": dict(layer=0),
    "grad_eclip": dict(layers=2),
}


@pytest.mark.parametrize("name", OUT_OF_RANGE)
def test_an_option_out_of_range_says_the_range_in_every_method(model, name):
    value, message = OUT_OF_RANGE[name]
    direction, tried = torch.ones(1, 64), 0
    for words, call in ((False, cx.explain), (True, cx.explain_words)):
        for method in (method for method in names_of(words) if name in METHODS[method].options_for(words)):
            given = (colourful(), direction) if not words else (direction, "a cube")
            with pytest.raises(cx.MethodError, match=message):
                call(model, *given, method, **(FITTING.get(method, {}) | {name: value}))
            tried += 1
    assert tried


def test_every_option_of_every_method_is_tried_or_free():
    known = {name for each in METHODS.values() for words in (False, True) for name in each.options_for(words)}
    assert known == set(OUT_OF_RANGE) | FREE


@pytest.mark.parametrize("redundant, error", [([], cx.TextError), (torch.ones(0, 64), cx.TensorError)])
def test_surgery_on_an_empty_set(model, redundant, error):
    with pytest.raises(error, match="redundant with no .* expected at least one"):
        cx.explain(model, colourful(), "a cube", "clip_surgery", layers=2, redundant=redundant)


@pytest.mark.parametrize("count, advice", [(4, "4 images at once: try 2 images at once"), (1, "smaller images")])
def test_out_of_memory_suggests_fewer_images(model, monkeypatch, count, advice):
    def fail(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99999999 bytes")

    monkeypatch.setattr("clip_explain.models.vit.forward_block", fail)  # torch's, in the middle of an explainer
    with pytest.raises(cx.MethodError, match=f"out of memory with .*{advice}"):
        cx.explain(model, [colourful()] * count, torch.ones(1, 64))


def test_an_open_but_truncated_image_is_named(model, tmp_path):
    path = truncated_jpeg(tmp_path)
    with Image.open(path) as image, pytest.raises(cx.ImageError, match="truncated.jpg"):
        cx.preprocess(model, image)


def test_a_strip_is_refused_except_squashed(model):
    strip = Image.new("RGB", (5000, 2))
    for fit in ("crop", "full"):
        with pytest.raises(cx.ImageError, match="5000 x 2"):
            cx.preprocess(model, strip, fit)
    assert cx.preprocess(model, strip, "squash").shape == (1, 3, SIDE, SIDE)


def test_images_of_different_shape_go_together_unless_full(model):
    images = [colourful(90, 60), colourful(60, 90), colourful(1, 1)]
    assert (
        cx.preprocess(model, images, "crop").shape == cx.preprocess(model, images, "squash").shape == (3, 3, SIDE, SIDE)
    )
    with pytest.raises(cx.ImageError, match="64 x 64, 64 x 96, 96 x 64"):
        cx.preprocess(model, images, "full")


def as_rgb(path):
    return np.asarray(cx.read_image(path)).astype(int)


def test_grey_and_palette_and_cmyk(tmp_path):
    image = colourful()
    image.convert("L").save(tmp_path / "grey.png")
    grey = np.asarray(image.convert("L"))
    assert (as_rgb(tmp_path / "grey.png") == grey[..., None]).all()
    few = Image.fromarray(np.asarray(image) // 128 * 255)
    few.quantize(8).save(tmp_path / "palette.png")
    assert Image.open(tmp_path / "palette.png").mode == "P" and (as_rgb(tmp_path / "palette.png") == few).all()
    image.convert("CMYK").save(tmp_path / "cmyk.tiff")
    assert np.abs(as_rgb(tmp_path / "cmyk.tiff") - np.asarray(image)).max() <= 1
    image.convert("1").save(tmp_path / "bits.png")
    assert set(np.unique(as_rgb(tmp_path / "bits.png"))) == {0, 255}


@pytest.mark.parametrize("kind", ["RGBA", "LA", "palette"])
def test_transparency_is_laid_on_white(tmp_path, kind):
    if kind == "palette":
        image = Image.new("P", (4, 2))
        image.putpalette([0, 0, 0, 30, 30, 30])
        image.paste(1, (2, 0, 4, 2))
        image.save(tmp_path / "x.png", transparency=0)
    else:
        image = Image.new("RGBA", (4, 2), (0, 0, 0, 0))
        image.paste((30, 30, 30, 255), (2, 0, 4, 2))
        image.convert(kind).save(tmp_path / "x.png")
    assert (as_rgb(tmp_path / "x.png")[0, :, 0] == [255, 255, 30, 30]).all()


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_16_bit_grey_keeps_its_range(tmp_path, suffix):
    levels = np.array([[0, 257, 128 * 257, 65535]], dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / f"x.{suffix}")
    assert (as_rgb(tmp_path / f"x.{suffix}")[0, :, 0] == [0, 1, 128, 255]).all()


@pytest.mark.parametrize(("orientation", "turn"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_exif_rotation_is_applied(tmp_path, orientation, turn):
    upright = colourful()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.rot90(np.asarray(upright), -turn)).save(tmp_path / "x.png", exif=exif)
    assert (as_rgb(tmp_path / "x.png") == np.asarray(upright)).all()


def test_one_pixel_gives_finite_maps(model):
    for fit in ("crop", "full", "squash"):
        found = cx.explain(model, Image.new("RGB", (1, 1), "red"), "a red cube", fit=fit)
        assert found.shape == (1, 1, 4, 4) and torch.isfinite(found).all()


def test_50_megapixels(model, tmp_path):
    Image.new("L", (10_000, 5_000), 200).save(tmp_path / "large.png", compress_level=1)
    pixels = cx.preprocess(model, tmp_path / "large.png", "full")
    assert pixels.shape == (1, 3, SIDE, 2 * SIDE)
    assert torch.allclose(
        pixels * torch.tensor(model.std)[:, None, None] + torch.tensor(model.mean)[:, None, None],
        torch.tensor(200 / 255),
    )


def test_long_texts_are_counted_and_can_be_truncated(model):
    with pytest.raises(cx.TextError, match=r"82 tokens.*takes 77.*truncate=True"):
        cx.tokenize(model, ["fine", "cube " * 80])
    with pytest.raises(cx.TextError, match="82 tokens"):
        cx.explain(model, colourful(), "cube " * 80)
    assert cx.tokenize(model, "cube " * 80, truncate=True)[0, -1] == 49407


@pytest.mark.parametrize("texts", ["", "  \n", [], ["a cube", ""]])
def test_empty_texts(model, texts):
    for call in (lambda: cx.tokenize(model, texts), lambda: cx.explain(model, colourful(), texts)):
        with pytest.raises(cx.TextError, match=r"empty|no texts|at least one"):
            call()


def test_no_images(model):
    with pytest.raises(cx.ImageError, match="no images"):
        cx.explain(model, [], "a cube")


BAD_PIXELS = {
    "three axes": torch.zeros(3, SIDE, SIDE),
    "channels last": torch.zeros(1, SIDE, SIDE, 3),
    "integers": torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8),
    "no images": torch.zeros(0, 3, SIDE, SIDE),
    "not whole patches": torch.zeros(1, 3, SIDE, SIDE + 1),
    "too small": torch.zeros(1, 3, 0, SIDE),
    "NaN": torch.zeros(1, 3, SIDE, SIDE).index_fill(3, torch.tensor([5]), float("nan")),
    "infinite": torch.full((1, 3, SIDE, SIDE), float("inf")),
}


@pytest.mark.parametrize("kind", BAD_PIXELS)
def test_bad_pixels(model, kind):
    with pytest.raises(cx.TensorError, match=r"expected .*got shape"):
        cx.pixels(model, BAD_PIXELS[kind])
    with pytest.raises(cx.TensorError, match=r"expected .*marked by cx.pixels"):
        cx.explain(model, BAD_PIXELS[kind], "a cube")


@pytest.mark.parametrize("kind", ["wrong length", "one axis", "NaN", "zero", "none"])
def test_bad_directions(model, kind):
    direction = torch.ones(2, 64)
    bad = {
        "wrong length": torch.ones(2, 63),
        "one axis": direction[0],
        "NaN": direction * float("nan"),
        "zero": direction * 0,
        "none": direction[:0],
    }
    with pytest.raises(cx.TensorError):
        cx.explain(model, colourful(), bad[kind])


def test_unknown_names_offer_the_nearest(model):
    with pytest.raises(cx.ModelError, match=r"'ViT-B-32'.*did you mean 'ViT-B/32'.*Available.*RN50"):
        cx.load("ViT-B-32")
    with pytest.raises(cx.MethodError, match=r"'gradeclip'.*did you mean 'grad_eclip'"):
        cx.explain(model, colourful(), "a cube", method="gradeclip")
    with pytest.raises(cx.MethodError, match=r"'sqash'.*did you mean 'squash'"):
        cx.explain(model, colourful(), "a cube", fit="sqash")


def broken_state(key):
    """A state dict without an entry, or with one of a wrong shape, or with one too many."""
    state = small_clip.state_dict(**small_clip.SMALL)
    if key not in state:
        return {**state, key: torch.zeros(1)}
    if key in ("ln_final.bias", "visual.positional_embedding"):
        return {**state, key: state[key][:-1].clone()}
    return {name: value for name, value in state.items() if name != key}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    "key",
    [
        "text_projection",
        "visual.transformer.resblocks.1.ln_2.bias",
        "ln_final.bias",
        "visual.positional_embedding",
        "visual.extra",
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path, key, suffix):
    path = tmp_path / f"weights{suffix}"
    save = safetensors.torch.save_file if suffix == ".safetensors" else torch.save
    save(broken_state(key), path)
    with pytest.raises(cx.WeightsError) as caught:
        cx.load(path, heads=(2, 1))
    assert str(path) in str(caught.value) and key in str(caught.value) and len(str(caught.value)) < 3000


class Trap:
    """Unpickling it would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


NO_STATE_DICTS = {
    "a list": lambda path, trap: torch.save([torch.zeros(2)], path),
    "a tensor": lambda path, trap: torch.save(torch.zeros(2), path),
    "an empty dict": lambda path, trap: torch.save({}, path),
    "numbers": lambda path, trap: torch.save({"a": 1, "b": [2]}, path),
    "other tensors": lambda path, trap: torch.save({"fc.weight": torch.zeros(2, 2)}, path),
    "a module": lambda path, trap: torch.save(torch.nn.Linear(2, 2), path),
    "a trap": lambda path, trap: torch.save({"a": trap}, path),
    "a plain pickle": lambda path, trap: path.write_bytes(pickle.dumps({"a": trap})),
    "text": lambda path, trap: path.write_text("no weights"),
    "nothing": lambda path, trap: path.touch(),
    "half a file": lambda path, trap: (torch.save({"a": torch.zeros(999)}, path), os.truncate(path, 2000)),
}


@pytest.mark.parametrize("kind", NO_STATE_DICTS)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_files_that_are_no_state_dict(tmp_path, kind, suffix):
    path, sprung = tmp_path / f"weights{suffix}", tmp_path / "sprung"
    NO_STATE_DICTS[kind](path, Trap(sprung))
    with pytest.raises(cx.WeightsError) as caught:
        cx.load(path)
    assert str(path) in str(caught.value)
    assert not sprung.exists()


def read_only_folder(folder):
    folder.chmod(0o555)
    if os.access(folder, os.W_OK):
        pytest.skip("this user writes everywhere")
    return folder


def folder_that_takes_no_files(folder):
    if sys.platform != "linux":
        pytest.skip("/proc is Linux's")
    return Path("/proc/self")


@pytest.mark.parametrize("make", [read_only_folder, folder_that_takes_no_files])
def test_read_only_output(weights, tmp_path, capsys, make):
    colourful().save(tmp_path / "photo.png")
    (tmp_path / "out").mkdir()
    out = make(tmp_path / "out") / "map.png"
    assert main([str(tmp_path / "photo.png"), "a cube", "--model", str(weights), "--out", str(out)]) == 2
    assert f"cannot write {out}" in capsys.readouterr().err
    assert not out.exists() and not list((tmp_path / "out").iterdir())


def test_a_failed_write_leaves_the_older_picture_and_nothing_else(weights, tmp_path, capsys, monkeypatch):
    def full_disk(self, path, **options):
        path.write_bytes(b"half a fi")
        raise OSError(28, "No space left on device")

    colourful().save(tmp_path / "photo.png")
    out = tmp_path / "out" / "map.png"
    out.parent.mkdir()
    out.write_text("older")
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full_disk)
    assert main([str(tmp_path / "photo.png"), "a cube", "--model", str(weights), "--out", str(out)]) == 2
    assert "No space left" in capsys.readouterr().err
    assert out.read_text() == "older" and list(out.parent.iterdir()) == [out]


def test_a_map_that_is_all_zero_normalises_to_zeros():
    assert not maps.normalize(torch.zeros(1, 2, 4, 4)).any()
