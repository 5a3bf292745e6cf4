"""What the tensors of a CLIP do not tell: number of heads and activation."""

import warnings

import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import nn

import clip_explain as cx
import small_clip
from clip_explain.errors import ClipExplainError, ModelError, WeightsError
from clip_explain.explainers.registry import METHODS
from clip_explain.models.dino import load_dino
from clip_explain.models.network import Architecture, build
from clip_explain.models.vit import resize_positions, trace_image, trace_text
from clip_explain.request import Request

TOKENS = torch.tensor([[49406, 320, 1929, 49407] + [0] * 73])


def save(path, **metadata):
    told = {"format": "pt", **small_clip.METADATA, **metadata}
    safetensors.torch.save_file(small_clip.state_dict(**small_clip.SMALL), path, told)
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


# -- weights by path


def state_file(path, **sizes):
    torch.save(small_clip.state_dict(**{**small_clip.SMALL, "vlayers": 1, "tlayers": 1, **sizes}), path)
    return path


@pytest.mark.parametrize(
    "sizes, tower",
    [
        (dict(vwidth=128, twidth=512), r"128 channels in its vision tower.*heads=\(VISION, TEXT\)"),
        (dict(vwidth=1280, twidth=1024), "1280 channels in its vision tower.*ViT-H"),
        (dict(vwidth=768, twidth=384), "384 channels in its text tower"),
    ],
)
def test_a_width_that_openai_never_published_needs_its_heads(tmp_path, sizes, tower):
    path = state_file(tmp_path / "x.pt", vocab=100, **sizes)
    with pytest.raises(ModelError, match=tower):
        cx.load(path, "cpu", activation="gelu")


@pytest.mark.parametrize("width, heads", [(1280, 16), (1408, 16), (1664, 16)])
def test_open_clips_large_vision_towers_have_the_heads_they_are_given(tmp_path, width, heads):
    """Heads of 80, 88 and 104 channels, as in ViT-H, ViT-g and ViT-bigG."""
    path = state_file(tmp_path / "large.pt", vocab=100, vwidth=width, twidth=1280)
    network = cx.load(path, "cpu", heads=(heads, 20), activation="gelu").network
    attn = network.visual.transformer.resblocks[0].attn
    assert (attn.num_heads, attn.head_dim, heads_of(network.transformer)) == (heads, width // heads, {20})


def test_one_number_of_heads_is_that_of_both_towers(tmp_path):
    network = cx.load(state_file(tmp_path / "x.pt", vocab=100), "cpu", heads=4, activation="gelu").network
    assert heads_of(network.visual.transformer) == heads_of(network.transformer) == {4}


def test_options_go_before_metadata(tmp_path):
    path = save(tmp_path / "x.safetensors", vision_heads="2", text_heads="1", activation="gelu")
    network = cx.load(path, "cpu", heads=(4, 2), activation="quick_gelu").network
    assert (heads_of(network.visual.transformer), heads_of(network.transformer)) == ({4}, {2})
    assert not isinstance(network.transformer.resblocks[0].mlp.gelu, nn.GELU)


def test_an_activation_that_nothing_tells_is_named(tmp_path):
    path = state_file(tmp_path / "x.pt", vocab=100)
    with pytest.warns(UserWarning, match="QuickGELU is taken.*activation='gelu'"):
        cx.load(path, "cpu", heads=(2, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cx.load(path, "cpu", heads=(2, 1), activation="quick_gelu")


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(heads=0), "heads"),
        (dict(heads="8"), "heads"),
        (dict(heads=(2, 1, 1)), "heads"),
        (dict(heads=5), "which 5 heads do not divide"),
        (dict(activation="relu"), "quick_gelu, gelu"),
        (dict(grid=(4,)), "grid"),
        (dict(grid=(2, 4)), "positional_embedding for 16 patches, not for 2 x 4"),
    ],
)
def test_odd_options_are_refused(tmp_path, options, message):
    path = state_file(tmp_path / "x.pt", vocab=100)
    with pytest.raises(ClipExplainError, match=message):
        cx.load(path, "cpu", **{"heads": (2, 1), "activation": "gelu", **options})


def test_options_of_a_file_are_refused_with_a_name():
    with pytest.raises(ModelError, match="'tiny-vit' is not the path of a weights file, so heads= cannot be chosen"):
        cx.load("tiny-vit", "cpu", heads=4)


# -- grids that are not square


def flat_state(height, width):
    """The state dict of a CLIP for pictures of height x width patches of 16 px."""
    state = small_clip.state_dict(**small_clip.SMALL, vocab=100)
    generator = torch.Generator().manual_seed(0)
    positions = torch.randn(1 + height * width, 128, generator=generator, dtype=torch.float32)
    return {**state, "visual.positional_embedding": positions}


@pytest.mark.parametrize("height, width", [(7, 28), (16, 8), (2, 8)])
def test_a_grid_that_is_not_square_keeps_its_height_and_width(tmp_path, height, width):
    """16 x 8 patches are no square; 7 x 28 and 2 x 8 have as many patches as one, and were scrambled."""
    torch.save(flat_state(height, width), tmp_path / "flat.pt")
    model = cx.load(tmp_path / "flat.pt", "cpu", heads=(2, 1), activation="quick_gelu", grid=(height, width))
    assert model.image_shape == (16 * height, 16 * width)
    pixels = small_clip.pixels(3, *model.image_shape)
    trace = trace_image(model.network, pixels)
    with torch.no_grad():
        assert small_clip.relative_error(trace.embedding, model.network.encode_image(pixels)) < 1e-5
    assert trace.grid == (height, width)
    target = torch.nn.functional.normalize(torch.ones(1, 64), dim=-1)
    maps = METHODS["grad_eclip"].image(Request(model, pixels, target))
    assert maps.shape == (1, 1, height, width)
    larger = trace_image(model.network, small_clip.pixels(3, 32 * height, 32 * width)).grid
    assert larger == (2 * height, 2 * width)


def test_positions_are_resized_from_their_own_grid():
    """A ramp along the height stays one along the height, whatever the grid's shape."""
    rows = torch.arange(2.0)[:, None].expand(2, 8).reshape(-1, 1)
    position = torch.cat([torch.full((1, 1), 9.0), rows])
    resized = resize_positions(position, (2, 4), (2, 8))
    assert resized[0] == 9 and torch.allclose(resized[1:].reshape(2, 4), torch.tensor([[0.0] * 4, [1.0] * 4]))


def test_a_number_of_patches_that_is_no_square_needs_its_grid(tmp_path):
    torch.save(flat_state(16, 8), tmp_path / "flat.pt")
    with pytest.raises(WeightsError, match=r"positional_embedding for 128 patches.*grid=\(HEIGHT, WIDTH\)"):
        cx.load(tmp_path / "flat.pt", "cpu", heads=(2, 1), activation="quick_gelu")


def test_a_files_metadata_tell_its_grid(tmp_path):
    told = {**small_clip.METADATA, "grid": "7x28"}
    safetensors.torch.save_file(flat_state(7, 28), tmp_path / "flat.safetensors", told)
    model = cx.load(tmp_path / "flat.safetensors", "cpu")
    assert model.network.visual.grid_size == (7, 28)
    picture = Image.new("RGB", (100, 80), "red")
    assert cx.encode_image(model, picture).shape == (1, 64)
    assert cx.pixels(model, picture, "squash").shape == (1, 3, 112, 448)
    safetensors.torch.save_file(flat_state(7, 28), tmp_path / "odd.safetensors", {**told, "grid": "7*28"})
    with pytest.raises(WeightsError, match=r"grid='7\*28', expected HEIGHTxWIDTH"):
        cx.load(tmp_path / "odd.safetensors", "cpu")
