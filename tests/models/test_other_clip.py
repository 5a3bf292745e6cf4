"""Nothing is hard-wired: every explainer against its oracle on a CLIP of other depth, widths, heads, patch and grid.

Four heads of width 24 where OpenAI's rule would have one of 64, patches of 16 on a 4 x 4 grid, images of 2 x 3 patches.
"""

import functools

import pytest
import torch

import oracles
import oracles_interveners
import oracles_paths
import oracles_readers
import small_clip
from clip_explain.explainers import METHODS, names_of
from clip_explain.models.model import Model, unit
from clip_explain.request import Request, WordRequest
from small_clip import relative_error

HEADS, TEXT_HEADS, LAYERS = 4, 5, 3
TOKENS = torch.tensor([[78, 5, 7, 79, 0, 0, 0, 0, 0], [78, 1, 2, 3, 4, 6, 79, 0, 0]])
MASKS = torch.rand(5, 32, 48, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
NOISE = torch.randn(3, 2, 9, 96, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
TEXT_NOISE = torch.randn(3, 2, 9, 80, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


@functools.cache
def odd(dtype: torch.dtype = torch.float64) -> Model:
    size = dict(embed=48, res=64, patch=16, vlayers=LAYERS, vwidth=96, tlayers=LAYERS, twidth=80, vocab=80)
    network = small_clip.build(dtype, seed=9, **size)
    for tower, heads in ((network.visual.transformer, HEADS), (network.transformer, TEXT_HEADS)):
        for block in tower.resblocks:
            block.attn.num_heads, block.attn.head_dim = heads, block.attn.embed_dim // heads
    return small_clip.wrap(network)


def pixels(*size):
    return small_clip.marked(torch.cat([small_clip.pixels(seed, *size) for seed in (30, 31)]).double())


def directions():
    return unit(torch.randn(2, 48, generator=torch.Generator().manual_seed(6), dtype=torch.float64))


def scale():
    return odd().network.logit_scale.exp().item()


def for_each_target(oracle, native=HEADS, **options):
    """Maps of one image (or weights of one text) for every target, by an oracle of one target."""
    return lambda state, x, targets: torch.stack([oracle(state, x, target, native, **options) for target in targets])


def without_target(oracle, native=HEADS, **options):
    return lambda state, x, targets: oracle(state, x, native, **options).expand(len(targets), -1, -1)


def exact_shapley(state, image, target, native):
    game = oracles_interveners.patch_game(state, image, target, native)
    return oracles_interveners.shapley(game, 6).reshape(2, 3)


def reversed_itsm(*given):
    return (1 - oracles_readers.itsm(*given)).abs()


def nib(state, pixels, target, native):
    return oracles_paths.nib(state, pixels, target, native, 1, 3)[1:].reshape(2, 3)


def head_effects(state, pixels, target, native):
    return oracles_paths.head_effects(state, pixels, target, native).sum(dim=(0, 1))[1:].reshape(2, 3)


def attn_lrp(state, pixels, target, native):
    return oracles_paths.attn_lrp(state, pixels, target, native)[1:].reshape(2, 3)


def text_nib(state, text, target, native):
    return oracles_paths.nib(state, text, target, native, 1, 3)[1 : int(text.argmax())]


def iclip(state, pixels, target, native):
    """IC eq. 9, 12 and 3: tokens times the scaled attention, projected, over the norm of them all."""
    mask = oracles_readers.self_attention(state, pixels, native, single=0)
    mask = ((mask - mask.min()) / (mask.max() - mask.min())).detach()
    found, _, _, explained, grid = oracles_readers.forward(state, pixels, native)
    tokens = oracles.norm(state, "visual.ln_post", found[-1]["output"])[explained].detach()
    projected = torch.stack([token * m @ state["visual.proj"] for token, m in zip(tokens, mask.flatten(), strict=True)])
    return (projected @ target / projected.square().sum().sqrt()).reshape(grid)


def m2ib(state, image, target, native):
    return oracles_interveners.m2ib_image(state, image, target, native, 1, 0.1, 1.0, NOISE[:, :, :7], True)


# Method -> its options here, and the oracle of one image.
IMAGES = {
    "self_attention": ({}, without_target(oracles_readers.self_attention, single=0)),
    "rollout": ({}, without_target(oracles_readers.rollout, layers=LAYERS)),
    "grad_cam": ({}, for_each_target(oracles_readers.grad_cam, layer=LAYERS - 1)),
    "attention_grad_cam": ({}, for_each_target(oracles_readers.attention_grad_cam, pooled=False)),
    "game": ({}, lambda *given: for_each_target(oracles_readers.game, layers=LAYERS, scale=scale())(*given)),
    "all_gradients": ({}, for_each_target(oracles_readers.game, layers=LAYERS, scale=1.0)),
    "last_gradient": ({}, for_each_target(oracles_readers.game, layers=LAYERS, scale=1.0, last_gradient=True)),
    "maskclip": (dict(key_weight=True), for_each_target(oracles_readers.maskclip, key_weight=True)),
    "itsm": ({}, for_each_target(oracles_readers.itsm)),
    "reversed_itsm": ({}, for_each_target(reversed_itsm)),
    "iclip": ({}, for_each_target(iclip)),
    "legrad": ({}, for_each_target(oracles_readers.legrad, layers=LAYERS, pool="mean")),
    "grad_eclip": (dict(layers=2), for_each_target(oracles.grad_eclip, layers=2)),
    "clip_surgery": (
        dict(layers=2),
        lambda state, image, targets: oracles_interveners.clip_surgery(state, image, targets, HEADS, 2),
    ),
    "gem": (dict(layers=2), lambda state, image, targets: oracles_interveners.gem(state, image, targets, HEADS, 2)),
    "m2ib": (dict(layer=1, steps=3, samples=2, noise=NOISE[:, :, :7]), for_each_target(m2ib)),
    "nib": (dict(layer=1, steps=3), for_each_target(nib)),
    "head_effects": ({}, for_each_target(head_effects)),
    "attn_lrp": ({}, for_each_target(attn_lrp)),
    "rise": (dict(masks=MASKS), for_each_target(oracles_interveners.rise, masks=MASKS, keep=0.5)),
    "shapley": (dict(samples=64), for_each_target(exact_shapley)),
}


def text_m2ib(state, text, target, native):
    return oracles_interveners.m2ib_words(state, text, target, native, 1, 0.1, 1.0, TEXT_NOISE)


def text_game(*given):
    return for_each_target(oracles_readers.game, TEXT_HEADS, layers=LAYERS, scale=scale())(*given)


def text_rows(oracle, **options):
    return lambda state, text, targets: oracle(state, text, TEXT_HEADS, **options).expand(len(targets), -1)


WORDS = {
    "self_attention": ({}, text_rows(oracles_readers.self_attention, single=0)),
    "rollout": ({}, text_rows(oracles_readers.rollout, layers=LAYERS)),
    "game": ({}, text_game),
    "grad_eclip": (dict(layers=2), for_each_target(oracles.grad_eclip_words, TEXT_HEADS, layers=2)),
    "m2ib": (dict(layer=1, steps=3, samples=2, noise=TEXT_NOISE), for_each_target(text_m2ib, TEXT_HEADS)),
    "nib": (dict(layer=1, steps=3), for_each_target(text_nib, TEXT_HEADS)),
}


def test_its_towers_are_traced_as_they_are():
    model, native = odd(torch.float32), pixels(64, 64).float()  # OpenAI's layer norm takes no float64
    assert relative_error(model.embed_images(native), unit(model.network.encode_image(native))) < 1e-5
    texts = torch.nn.functional.pad(TOKENS, (0, 77 - TOKENS.shape[1]))
    assert relative_error(model.embed_tokens(texts), unit(model.network.encode_text(texts))) < 1e-5


def test_every_explainer_is_here():
    assert set(IMAGES) == set(names_of())
    assert set(WORDS) == set(names_of(words=True)) - {"leave_one_out"}  # which needs the words of a real vocabulary


@pytest.mark.parametrize("method", IMAGES)
def test_maps(method):
    options, oracle = IMAGES[method]
    request = Request(odd(), pixels(32, 48), directions())
    got = METHODS[method].image(request, **options)
    assert got.shape == ((2, 2, 32, 48) if method == "rise" else (2, 2, 2, 3)) and got.any()
    for found, image in zip(got, request.pixels, strict=True):
        expected = oracle(odd().network.state_dict(), image, request.targets)
        assert (found - expected).norm() <= 1e-6 * expected.norm()


@pytest.mark.parametrize("method", WORDS)
def test_word_weights(method):
    options, oracle = WORDS[method]
    request = WordRequest(odd(), TOKENS, directions())
    got = METHODS[method].words(request, **options)
    for found, text in zip(got, TOKENS, strict=True):
        end = int(text.argmax())
        expected = oracle(odd().network.state_dict(), text, request.targets)
        assert (found[:, 1:end] - expected).norm() <= 1e-6 * expected.norm()
