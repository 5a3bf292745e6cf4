"""The embedded models as shipped: whole, loadable by OpenAI's own code, and as good as their cards say."""

import json
import math

import pytest
import torch

from clip_explain.embedded.cards.figures import chance, pixels_of, pointing, recognition
from clip_explain.embedded.cards.iclip import separation
from clip_explain.embedded.scenes.pool import make_pool
from clip_explain.files import data_folder
from clip_explain.images import encode_image, preprocess
from clip_explain.models import load
from clip_explain.models.dino import load_dino
from clip_explain.models.embed import tokenize
from clip_explain.models.embedded import EMBEDDED, embedded_path
from clip_explain.models.vit import trace_image, trace_text
from clip_explain.models.weights import clip, read_weights

NAMES = [name for name in EMBEDDED if embedded_path(name).is_file()]
SCENES = 60


@pytest.fixture(scope="module", params=NAMES)
def shipped(request):
    return load(request.param, device="cpu"), json.loads(
        (data_folder() / "models" / f"{request.param}.json").read_text()
    )


@pytest.fixture(scope="module")
def pools(tmp_path_factory):
    """Scenes that neither the training nor the card has used."""
    folder = tmp_path_factory.mktemp("pools")
    return {recipe: make_pool(folder / recipe, SCENES, 77_000_001, recipe) for recipe in ("one", "several")}


def at_least(card_figure: float, count: int) -> float:
    """Four standard errors below a card's share, as measured on `count` cases."""
    return card_figure - 4 * math.sqrt(max(card_figure * (1 - card_figure), 0.01) / count)


def test_tiny_vit_is_shipped():
    assert "tiny-vit" in NAMES


def test_file_is_small_and_is_the_cards(shipped):
    model, card = shipped
    assert model.sha256 == card["sha256"] and model.name == card["name"]
    assert (data_folder() / "models" / f"{model.name}.safetensors").stat().st_size <= 16e6
    assert {"seed", "steps", "samples", "plan", "figures", "held_out_scenes"} <= set(card)


def test_openais_own_code_builds_it(shipped):
    model, _ = shipped
    state, _ = read_weights(data_folder() / "models" / f"{model.name}.safetensors")
    assert state["token_embedding.weight"].shape[0] == 49408
    rebuilt = clip.model.build_model(state).float().eval()
    for ours, own in zip(rebuilt.visual.modules(), model.network.visual.modules(), strict=True):
        if isinstance(own, torch.nn.MultiheadAttention):  # OpenAI's code takes 64 channels for each head
            ours.num_heads, ours.head_dim = own.num_heads, own.head_dim
    pixels = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(rebuilt.encode_image(pixels), model.network.encode_image(pixels), rtol=1e-3, atol=1e-3)


def test_trace_equals_the_models_own_encoders(shipped, pools):
    model, _ = shipped
    if not model.is_vit:
        pytest.skip("a ResNet has no trace")
    pixels, tokens = (
        pixels_of(pools["one"], slice(0, 4)),
        tokenize(model, ["a red cube", "a photo of a small blue ball"]),
    )
    with torch.no_grad():
        own = model.network.encode_image(pixels), model.network.encode_text(tokens)
    traced = trace_image(model.network, pixels).embedding, trace_text(model.network, tokens).embedding
    for a, b in zip(traced, own, strict=True):
        assert ((a - b).norm() / b.norm()).item() < 1e-5


def test_zero_shot_is_as_good_as_the_card_says(shipped, pools):
    model, card = shipped
    for name, value in recognition(model, pools["one"]).items():
        assert value.mean >= at_least(card["figures"][name], SCENES), name


def test_grad_eclip_points_as_well_as_the_card_says(shipped, pools):
    model, card = shipped
    if not model.is_vit:
        pytest.skip("Grad-ECLIP needs a ViT")
    on, near = pointing(model, pools["several"])
    assert on.mean >= at_least(card["figures"]["pointing game"], on.count)
    assert near.mean >= at_least(card["figures"]["pointing game, within 8 pixels"], near.count)
    by_chance = chance(pools["several"])
    assert on.mean > 2 * by_chance[0].mean and near.mean > 2 * by_chance[1].mean


def test_embeddings_have_unit_length(shipped, pools):
    model, _ = shipped
    lengths = encode_image(model, preprocess(model, pixels_of(pools["one"], slice(0, 4)))).norm(dim=-1)
    torch.testing.assert_close(lengths, torch.ones(4))


def test_tiny_dino_attends_to_objects_as_its_card_says(pools):
    """Twice the objects' share of the area on the card's 300 scenes; here on a few others, whose share differs."""
    model, path = load_dino("tiny-dino"), data_folder() / "models/tiny-dino"
    card = json.loads(path.with_suffix(".json").read_text())
    assert model.sha256 == card["sha256"] and path.with_suffix(".safetensors").stat().st_size <= 16e6
    assert card["figures"]["ratio"] >= 2
    assert separation(model, pools["several"])["ratio"] > 0.85 * card["figures"]["ratio"]
