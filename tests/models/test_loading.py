"""What `load` refuses, and what to do about it; what it finds in place of weights."""

import dataclasses
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import clip_explain as cx
import small_clip
from clip_explain.errors import ModelError, TensorError, WeightsError
from clip_explain.explainers.m2ib import m2ib
from clip_explain.explainers.method import Method
from clip_explain.explainers.registry import METHODS
from clip_explain.request import Request

OPTIONS = dict(heads=(2, 1), activation="quick_gelu")


@pytest.fixture
def model():
    return small_clip.wrap(small_clip.build(**small_clip.SMALL).eval().requires_grad_(False))


# -- what is no name


@pytest.mark.parametrize("given", [None, 3, b"tiny-vit", ["tiny-vit"]])
def test_what_is_no_name_or_path_is_refused(given):
    with pytest.raises(ModelError, match="expected a model's name, the path of its weights, or a network in memory"):
        cx.load(given)


@pytest.mark.parametrize("given", [nn.Linear(2, 2), nn.DataParallel(nn.Linear(2, 2))])
def test_a_network_that_is_no_clip_is_refused(given):
    with pytest.raises(ModelError, match="got a Linear, expected a CLIP of OpenAI's package"):
        cx.load(given)


def test_a_network_for_several_devices_is_read_without_its_wrapper(model):
    wrapped = dataclasses.replace(model, network=nn.DataParallel(model.network))
    assert wrapped.network is model.network and wrapped.image_size == 64


@pytest.mark.parametrize("network", [nn.Linear(2, 2), nn.DataParallel(nn.Linear(2, 2))])
def test_a_network_that_is_no_clip_is_refused_in_a_models_place(model, network):
    with pytest.raises(ModelError, match="expected one laid out like OpenAI's or open_clip's CLIP"):
        dataclasses.replace(model, network=network)


def test_a_folder_or_file_called_like_a_model_does_not_take_its_place(tmp_path, monkeypatch):
    (tmp_path / "tiny-vit").mkdir()
    (tmp_path / "RN50").write_text("no weights")
    expected = cx.load("tiny-vit", "cpu").sha256
    monkeypatch.chdir(tmp_path)
    assert cx.load("tiny-vit", "cpu").sha256 == expected
    with pytest.raises(WeightsError, match="no weights file at tiny-vit: it is a folder"):
        cx.load(Path("tiny-vit"), "cpu")
    with pytest.raises(WeightsError, match="tiny-vit: it is a folder"):
        cx.load("./tiny-vit", "cpu")


def test_a_path_may_start_at_home(tmp_path, monkeypatch, weights):
    (tmp_path / "mine.safetensors").write_bytes(Path(weights).read_bytes())
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cx.load("~/mine.safetensors", "cpu").name == "mine"


def test_no_home_is_said(monkeypatch):
    def no_home(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", no_home)
    for name in ("RN50", "~/mine.safetensors", "torchvision:vit_b_16"):
        with pytest.raises(WeightsError, match="no home folder.*set HOME"):
            cx.load(name, "cpu")


# -- what stands in place of weights


@pytest.mark.parametrize(
    "content, message",
    [
        (b"<!DOCTYPE html><html><body>Please log in</body></html>", "it is a web page, a proxy's"),
        (b"\n  <html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS"),
        (b"", "it is empty"),
    ],
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".bin"])
def test_a_web_page_or_pointer_in_place_of_weights_is_named(tmp_path, content, message, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        cx.load(path, "cpu")


class Page:
    """A proxy's answer to a download: a page, whose length is not told."""

    def __init__(self):
        self.rest = b"<html>blocked</html>"

    def info(self):
        return {}

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


def test_a_proxys_page_in_place_of_openais_weights_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", lambda url: Page())
    with pytest.raises(ModelError, match="could not be downloaded.*place the file"):
        cx.load("RN50", "cpu")


# -- what is not finite


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("key", ["visual.proj", "transformer.resblocks.1.ln_1.bias", "logit_scale"])
def test_weights_that_are_not_finite_are_refused_at_load(tmp_path, key, value):
    state = small_clip.state_dict(**small_clip.SMALL, vocab=100)
    state[key].view(-1)[0] = value
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match=f"{key} has NaN or infinite values"):
        cx.load(tmp_path / "x.pt", "cpu", **OPTIONS)


def test_pixels_that_overflow_are_an_error_at_the_embedding(model):
    pixels = torch.full((1, 3, 64, 64), 1e38)
    target = nn.functional.normalize(torch.ones(1, 64), dim=-1)
    with pytest.raises(TensorError, match="an embedding.*NaN or infinite"):
        model.embed_images(pixels)
    with pytest.raises(TensorError, match="an embedding.*NaN or infinite"):
        Request(model, pixels, target).trace()
    with pytest.raises(TensorError, match="NaN or infinite"):
        cx.encode_image(model, cx.pixels(model, pixels))
    for name in METHODS:
        if METHODS[name].options is not None:
            with pytest.raises(cx.ClipExplainError):
                METHODS[name].image(Request(model, pixels, target))


def test_weights_that_overflow_in_a_forward_are_an_error_at_the_embedding(model):
    model.network.text_projection.data.fill_(3e38)
    model.network.transformer.resblocks[1].mlp.c_proj.weight.data.fill_(3e38)
    with pytest.raises(cx.ClipExplainError, match="NaN or infinite"):
        cx.encode_text(model, "a dog")
    with pytest.raises(ModelError, match="text tower.*NaN or infinite"):
        cx.explain(model, cx.pixels(model, small_clip.pixels(1, 64, 64)), "a dog")


def test_a_weight_of_the_information_that_is_infinite_is_refused(model):
    request = Request(model, small_clip.pixels(1, 64, 64), nn.functional.normalize(torch.ones(1, 64), dim=-1))
    for beta in (float("inf"), float("nan"), -1.0):
        with pytest.raises(cx.ClipExplainError, match="beta"):
            m2ib(request, beta=beta, layer=0)
        with pytest.raises(cx.ClipExplainError, match="beta"):
            cx.explain(
                model, cx.pixels(model, small_clip.pixels(1, 64, 64)), request.targets, "m2ib", beta=beta, layer=0
            )


def test_maps_that_are_not_finite_are_an_error(monkeypatch):
    from clip_explain.explainers import functions

    monkeypatch.setitem(functions.IMAGE_FUNCTIONS, "gem", lambda request: torch.tensor([float("nan")]))
    method: Method = METHODS["gem"]
    with pytest.raises(cx.MethodError, match="maps of .*NaN or infinite"):
        method.image(SimpleNamespace(depth=12))  # a request of which only the layers are asked
