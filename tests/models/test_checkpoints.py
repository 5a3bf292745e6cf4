"""Checkpoints as people have them load to the network that they are of, and what else they hold does no harm."""

import argparse
import collections
import functools
import json
import pathlib
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import clip_explain as cx
import hub_models
import small_clip
from clip_explain.errors import WeightsError
from small_clip import relative_error

SMALL = dict(small_clip.SMALL, vlayers=1, tlayers=1, vocab=49408)
TOLD = {"heads": (2, 1), "activation": "quick_gelu"}  # what its tensors do not tell
PIXELS = small_clip.pixels(3, 64, 64)


@functools.cache
def state():
    return {key: value.half().float() for key, value in small_clip.state_dict(**SMALL).items()}


@functools.cache
def expected():
    network = small_clip.build(**SMALL)
    network.load_state_dict(state())
    return maps_of(small_clip.wrap(network))


def maps_of(model):
    return cx.explain(model, cx.pixels(model, PIXELS), torch.eye(64)[:2]).maps


def named(prefix):
    return {prefix + key: value for key, value in state().items()}


def as_hub():
    """The same weights under transformers' names, as its own conversion writes them."""
    found = {}
    for key, value in state().items():
        tower = "vision_model." if key.startswith("visual.") else "text_model."
        key = key.removeprefix("visual.")
        for old, new in (
            ("transformer.resblocks.", "encoder.layers."),
            (".ln_1.", ".layer_norm1."),
            (".ln_2.", ".layer_norm2."),
            (".mlp.c_fc.", ".mlp.fc1."),
            (".mlp.c_proj.", ".mlp.fc2."),
            (".attn.out_proj.", ".self_attn.out_proj."),
            ("class_embedding", "embeddings.class_embedding"),
            ("conv1.", "embeddings.patch_embedding."),
            ("ln_pre.", "pre_layrnorm."),
            ("ln_post.", "post_layernorm."),
            ("ln_final.", "final_layer_norm."),
            ("token_embedding.", "embeddings.token_embedding."),
        ):
            key = key.replace(old, new)
        if key == "positional_embedding":
            found[tower + "embeddings.position_embedding.weight"] = value
        elif key in ("proj", "text_projection"):
            found["visual_projection.weight" if key == "proj" else "text_projection.weight"] = value.T.contiguous()
        elif key == "logit_scale":
            found[key] = value
        elif ".attn.in_proj_" in key:
            for part, own in zip("qkv", value.chunk(3), strict=True):
                found[tower + key.replace(".attn.in_proj_", f".self_attn.{part}_proj.")] = own.clone()
        else:
            found[tower + key] = value
    positions = len(found["vision_model.embeddings.position_embedding.weight"])
    return found | {"vision_model.embeddings.position_ids": torch.arange(positions)[None]}


def as_open_clip():
    """The same weights as open_clip's CustomTextCLIP has them."""
    outside = ("visual.", "logit_scale")
    return {key if key.startswith(outside) else f"text.{key}": value for key, value in state().items()}


PREFIXES = (
    "",
    "module.",
    "model.",
    "clip.",
    "_orig_mod.",
    "module.model.",
    "_orig_mod.module.",
    "model.clip.",
    "network.",
    "module._orig_mod.",
)
WRAPPED = {
    **{f"state_dict of {prefix!r}": lambda p=prefix: {"state_dict": named(p), "epoch": 3} for prefix in PREFIXES},
    **{f"bare {prefix!r}": lambda p=prefix: named(p) for prefix in PREFIXES},
    "model": lambda: {"model": named(""), "optimizer": {"step": 4}},
    "model_state_dict": lambda: {"model_state_dict": named("module."), "loss": 0.5},
    "network": lambda: {"network": named("")},
    "ema": lambda: {"ema": named("module."), "decay": 0.99},
    "two wrappers": lambda: {"model": {"state_dict": named("clip.")}},
    "two models": lambda: {"state_dict": named(""), "ema": {key: value * 2 for key, value in state().items()}},
    "numpy scalars": lambda: {"state_dict": named(""), "best": np.float64(0.5), "step": np.int64(7)},
    "a namespace": lambda: {"state_dict": named(""), "args": argparse.Namespace(lr=1e-3, out=pathlib.Path("runs"))},
    "a path": lambda: {"model": named(""), "from": pathlib.Path("runs/1")},
    "ordered": lambda: collections.OrderedDict(named("module.")),
    "half precision": lambda: {key: value.half() for key, value in state().items()},
    "transformers": as_hub,
    "transformers in a trainer": lambda: {"model": {f"module.{key}": value for key, value in as_hub().items()}},
    "open_clip": lambda: {"state_dict": {f"module.{key}": value for key, value in as_open_clip().items()}},
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_a_checkpoint_loads_to_the_same_maps(tmp_path, kind):
    assert len(WRAPPED) >= 30
    torch.save(WRAPPED[kind](), tmp_path / "checkpoint.pt")
    with warnings.catch_warnings(action="error", category=UserWarning):
        model = cx.load(tmp_path / "checkpoint.pt", "cpu", **TOLD)
    assert torch.equal(maps_of(model), expected())


def test_what_is_no_part_of_a_clip_is_named_and_left_out(tmp_path):
    extra = {"head.weight": torch.zeros(3, 4), "criterion.scale": torch.zeros(1)}
    torch.save({"state_dict": named("module.") | extra}, tmp_path / "checkpoint.pt")
    with pytest.warns(UserWarning, match="left out: head.weight, criterion.scale"):
        model = cx.load(tmp_path / "checkpoint.pt", "cpu", **TOLD)
    assert torch.equal(maps_of(model), expected())


def test_an_unknown_part_of_a_tower_is_an_error(tmp_path):
    scale = {"visual.transformer.resblocks.0.ls_1.gamma": torch.ones(128)}
    torch.save(state() | scale, tmp_path / "checkpoint.pt")
    with pytest.raises(WeightsError, match="ls_1.gamma"):
        cx.load(tmp_path / "checkpoint.pt", "cpu", **TOLD)


def test_two_models_under_one_name_are_an_error(tmp_path):
    torch.save(named("module.") | named("model."), tmp_path / "checkpoint.pt")
    with pytest.raises(WeightsError, match="two tensors for"):
        cx.load(tmp_path / "checkpoint.pt", "cpu", **TOLD)


def test_a_file_that_runs_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return pathlib.Path.touch, (tmp_path / "touched",)

    torch.save({"state_dict": named(""), "evil": Evil()}, tmp_path / "checkpoint.pt")
    with pytest.raises(WeightsError, match="objects other than tensors"):
        cx.load(tmp_path / "checkpoint.pt", "cpu", **TOLD)
    assert not (tmp_path / "touched").exists()


def test_weights_in_several_files_by_their_index(tmp_path):
    names = list(state())
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, keys in parts.items():
        save_file({key: state()[key].contiguous() for key in keys}, tmp_path / file)
    index = {"metadata": {}, "weight_map": {key: file for file, keys in parts.items() for key in keys}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert torch.equal(maps_of(cx.load(tmp_path / "model.safetensors.index.json", "cpu", **TOLD)), expected())
    index["weight_map"]["logit_scale"] = "../elsewhere.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsError, match="outside its folder"):
        cx.load(tmp_path / "model.safetensors.index.json", "cpu", **TOLD)


def test_long_clips_positions_are_its_own_sum(tmp_path):
    """248 positions: the first 20 of one tensor, the later ones of the other, as its forward adds them by masks."""
    long = torch.randn(2, 248, 64, generator=torch.Generator().manual_seed(0))
    changed = state() | {"positional_embedding": long[0], "positional_embedding_res": long[1]}
    torch.save(changed, tmp_path / "long.pt")
    model = cx.load(tmp_path / "long.pt", "cpu", **TOLD)
    first = (torch.arange(248) < 20).float()[:, None]
    assert model.context_length == 248
    torch.testing.assert_close(model.network.positional_embedding, long[0] * first + long[1] * (1 - first))
    assert cx.tokenize(model, "a photo of " + "a red cube and " * 40).shape == (1, 248)


def test_another_image_size_is_read_off_the_positions(tmp_path):
    larger = state() | {"visual.positional_embedding": torch.randn(37, 128)}
    torch.save(larger, tmp_path / "larger.pt")
    assert cx.load(tmp_path / "larger.pt", "cpu", **TOLD).image_size == 96


def test_a_transformers_file_by_path_is_the_model_of_its_folder(tmp_path):
    """Heads and activation come from the config beside it."""
    network = hub_models.clip(tmp_path)
    model = cx.load(tmp_path / "model.safetensors", "cpu")
    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = network.get_image_features(pixel_values=pixels).pooler_output
        assert relative_error(model.network.encode_image(pixels), found) < 1e-5


def test_lora_factors_that_are_not_merged_are_refused(tmp_path):
    factors = {"base_model.model.visual.proj.lora_A.weight": torch.zeros(2, 4)}
    torch.save(named("base_model.model.") | factors, tmp_path / "checkpoint.pt")
    with pytest.raises(WeightsError, match="merge_and_unload"):
        cx.load(tmp_path / "checkpoint.pt", "cpu", **TOLD)
