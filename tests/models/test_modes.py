"""The same maps in every mode of torch that a user may be in."""

import dataclasses

import pytest
import safetensors.torch
import torch

import clip_explain as cx
import small_clip
from clip_explain.explainers.registry import METHODS


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A weights file of a CLIP as deep as the methods' own options want it."""
    path = tmp_path_factory.mktemp("weights") / "deep.safetensors"
    sizes = small_clip.SMALL | {"vlayers": 11, "tlayers": 11}
    safetensors.torch.save_file(small_clip.state_dict(**sizes), path, small_clip.METADATA)
    return path


def quick(options):
    """Values with which a slow method is quick."""
    return {option.name: option.quick for option in options if option.quick is not None}


def maps_of_all_methods(model):
    """All quick methods' maps of one image and two targets, and words' weights."""
    pixels, targets = cx.pixels(model, small_clip.pixels(1, 64, 96)), small_clip.pixels(2, 8, 16).reshape(2, -1)[:, :64]
    found = {}
    for name, method in METHODS.items():
        if method.options is not None:
            found[name] = cx.explain(model, pixels, targets, name, **quick(method.options)).maps.detach()
        if method.word_options is not None:
            words = cx.explain_words(model, targets, "a red cube", name, **quick(method.word_options))
            found[f"{name} of words"] = words[0][1].detach()
    return found


@pytest.fixture(scope="module")
def expected(weights):
    return maps_of_all_methods(cx.load(weights, "cpu"))


def assert_same(found, expected):
    assert found.keys() == expected.keys() and len(found) > 15
    for name, maps in expected.items():
        assert found[name].dtype == torch.float32, name
        torch.testing.assert_close(found[name], maps, rtol=1e-4, atol=1e-6, msg=name)


def test_a_model_loaded_and_used_in_inference_mode(weights, expected):
    with torch.inference_mode():
        model = cx.load(weights, "cpu")
        assert_same(maps_of_all_methods(model), expected)
    assert_same(maps_of_all_methods(model), expected)


def test_a_network_made_in_inference_mode(weights, expected):
    with torch.inference_mode():
        model = cx.load(weights, "cpu")
        for parameter in model.network.parameters():
            parameter.data = parameter.data.clone()
        network = small_clip.build_model(model.network.state_dict()).float().eval()
        network.load_state_dict(model.network.state_dict())
    assert any(parameter.is_inference() for parameter in network.parameters())
    assert_same(maps_of_all_methods(dataclasses.replace(model, network=network)), expected)


def test_the_search_for_anomalies_changes_nothing(weights, expected):
    with torch.autograd.detect_anomaly():
        assert_same(maps_of_all_methods(cx.load(weights, "cpu")), expected)


def test_another_default_dtype_changes_nothing(weights, expected):
    torch.set_default_dtype(torch.float64)
    try:
        assert_same(maps_of_all_methods(cx.load(weights, "cpu")), expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_no_grad_and_grad_change_nothing(weights, expected):
    with torch.no_grad():
        assert_same(maps_of_all_methods(cx.load(weights, "cpu")), expected)
