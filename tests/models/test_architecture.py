"""What the tensors of a CLIP do not tell: number of heads and activation."""

import pytest
import safetensors.torch
import torch
from torch import nn

import clip_explain as cx
import small_clip
from clip_explain.errors import WeightsError
from clip_explain.models.dino import load_dino
from clip_explain.models.network import Architecture, build
from clip_explain.models.vit import trace_image, trace_text

TOKENS = torch.tensor([[49406, 320, 1929, 49407] + [0] * 73])


def save(path, **metadata):
    safetensors.torch.save_file(small_clip.state_dict(**small_clip.SMALL), path, {"format": "pt", **metadata})
    return path


def heads_of(tower):
    return {block.attn.num_heads for block in tower.resblocks}


def test_a_files_metadata_tell_heads_and_activation(tmp_path):
    path = save(tmp_path / "narrow.safetensors", vision_heads="8", text_heads="4", activation="gelu")
    network = cx.load(path, "cpu").network
    assert (heads_of(network.visual.transformer), heads_of(network.transformer)) == ({8}, {4})
    assert all(isinstance(block.mlp.gelu, nn.GELU) for block in network.transformer.resblocks)
    pixels = small_clip.pixels(1, 64, 64)
    with torch.no_grad():
        image, text = network.encode_image(pixels), network.encode_text(TOKENS)
    assert small_clip.relative_error(trace_image(network, pixels).embedding, image) < 1e-5
    assert small_clip.relative_error(trace_text(network, TOKENS).embedding, text) < 1e-5
    other = cx.load(save(tmp_path / "wide.safetensors", vision_heads="2", text_heads="1"), "cpu").network
    with torch.no_grad():
        assert small_clip.relative_error(other.encode_image(pixels), image) > 0.01
        assert small_clip.relative_error(other.encode_text(TOKENS), text) > 0.01


@pytest.mark.parametrize(
    "metadata, message",
    [
        (dict(vision_heads="many"), "vision_heads='many'"),
        (dict(text_heads="0"), "text_heads='0'"),
        (dict(vision_heads="3"), "128 channels, which 3 heads do not divide"),
        (dict(activation="relu"), "unknown activation 'relu'.*quick_gelu, gelu"),
    ],
)
def test_metadata_that_fit_no_network_are_refused(tmp_path, metadata, message):
    with pytest.raises(WeightsError, match=message):
        cx.load(save(tmp_path / "odd.safetensors", **metadata), "cpu")


def test_a_network_is_built_as_openais_code_builds_it():
    state = small_clip.state_dict(**small_clip.SMALL)
    ours, theirs = build(state), small_clip.build_model(dict(state)).float()
    pixels = small_clip.pixels(2, 64, 64)
    with torch.no_grad():
        theirs.load_state_dict(state)  # build_model has rounded them to fp16
        assert torch.equal(ours.encode_image(pixels), theirs.encode_image(pixels))
        assert torch.equal(ours.encode_text(TOKENS), theirs.encode_text(TOKENS))


def test_widths_that_64_does_not_divide_are_built_with_the_heads_told():
    state = small_clip.state_dict(embed=64, res=64, patch=16, vlayers=1, vwidth=176, tlayers=1, twidth=48)
    network = build(state, "a file", Architecture(vision_heads=2, text_heads=3))
    assert (heads_of(network.visual.transformer), heads_of(network.transformer)) == ({2}, {3})


def test_a_dino_file_tells_its_heads(tmp_path):
    visual = {
        key.removeprefix("visual."): value
        for key, value in small_clip.state_dict(**small_clip.SMALL).items()
        if key.startswith("visual.") and key != "visual.proj"
    }
    safetensors.torch.save_file(visual, tmp_path / "narrow.safetensors", {"vision_heads": "4"})
    assert heads_of(load_dino(tmp_path / "narrow.safetensors").network.visual.transformer) == {4}
