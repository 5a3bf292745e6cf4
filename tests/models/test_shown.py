"""An image of which only some patches are seen, against the network's own modules on fewer tokens."""

import pytest
import torch

import clip_explain as cx
import open_clip_models
import small_clip
from clip_explain.errors import ModelError
from clip_explain.models.model import unit
from small_clip import relative_error


@pytest.fixture(scope="module")
def model():
    return small_clip.wrap(small_clip.build(vlayers=2, tlayers=2))


def sets_of(patches: int, count: int = 6) -> torch.Tensor:
    """Random sets of different sizes, the whole image and no patch at all among them."""
    drawn = torch.rand(count, patches, generator=torch.Generator().manual_seed(0)) < 0.5
    return torch.cat([torch.ones_like(drawn[:1]), drawn, torch.zeros_like(drawn[:1])])


def by_modules(visual, pixels, shown):
    """OpenAI's image tower, step by step, without the tokens that are not shown."""
    patches = visual.conv1(pixels).flatten(2)[0].T
    tokens = torch.cat([visual.class_embedding[None], patches]) + visual.positional_embedding
    kept = visual.ln_pre(tokens[torch.cat([torch.tensor([True]), shown])])
    return visual.ln_post(visual.transformer(kept[:, None])[0, 0]) @ visual.proj


def test_only_the_tokens_of_shown_patches_go_in(model):
    sets, pixels = sets_of(49), small_clip.pixels(3, 224, 224)
    found = model.embed_shown(pixels, sets)
    with torch.no_grad():
        expected = torch.stack([by_modules(model.network.visual, pixels, shown) for shown in sets])
    assert relative_error(found, unit(expected)) < 1e-6
    assert relative_error(found[:1], model.embed_images(pixels)) < 1e-6


def test_what_is_hidden_does_not_count_and_batches_and_order_do_not_either(model):
    sets, pixels = sets_of(15), small_clip.pixels(3, 96, 160)  # a grid of 3 x 5, of which positions are resized
    found = model.embed_shown(pixels, sets)
    turned = sets.flip(0)
    assert relative_error(model.embed_shown(pixels, turned, batch_size=1).flip(0), found) < 1e-6
    changed = pixels.clone()
    changed[..., :32, :32] = 7.0  # the first patch
    without = ~sets[:, 0]
    assert without.sum() > 1 and relative_error(model.embed_shown(changed, sets)[without], found[without]) < 1e-6
    assert relative_error(model.embed_shown(changed, sets)[~without], found[~without]) > 1e-3


@pytest.mark.parametrize(
    "make", [open_clip_models.plain, open_clip_models.layer_scale, open_clip_models.behind_convolutions]
)
def test_open_clips_towers_see_all_patches_as_they_see_the_image(make, tmp_path):
    network, tokenizer = open_clip_models.made(make, tmp_path)
    model = cx.load(network, preprocess=open_clip_models.PREPROCESS, tokenizer=tokenizer)
    side, patch = model.image_size, model.patch_size
    pixels = small_clip.pixels(3, side, side)
    sets = torch.ones(1, (side // patch) ** 2, dtype=torch.bool)
    assert relative_error(model.embed_shown(pixels, sets), model.embed_images(pixels)) < 1e-5


@pytest.mark.parametrize("make", [open_clip_models.eva, open_clip_models.siglip, open_clip_models.resnet])
def test_towers_that_cannot_leave_patches_out_say_so(make, tmp_path):
    network, tokenizer = open_clip_models.made(make, tmp_path)
    model = cx.load(network, preprocess=open_clip_models.PREPROCESS, tokenizer=tokenizer)
    pixels = small_clip.pixels(3, model.image_size, model.image_size)
    with pytest.raises(ModelError, match="cannot leave patches out: expected a vision transformer with a class token"):
        cx.explain(model, pixels, torch.randn(1, model.embedding_size), "shapley", samples=2, hidden="drop")
