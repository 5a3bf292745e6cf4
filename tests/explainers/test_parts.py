"""The parts are the factors of Grad-ECLIP: they multiply to its maps, summed out here channel by channel."""

import functools

import pytest
import torch

import small_clip
from clip_explain.explainers.attention import self_attention
from clip_explain.explainers.grad_eclip import grad_eclip, grad_eclip_parts
from clip_explain.models.model import unit
from clip_explain.request import Request, make_request, scores


@functools.cache
def request() -> Request:
    """Two images of 3 x 5 patches, three targets, two heads."""
    model = small_clip.wrap(small_clip.build(vlayers=2, tlayers=1, vocab=100))
    images = small_clip.marked(torch.cat([small_clip.pixels(seed, 96, 160) for seed in (3, 4)]))
    return make_request(model, images, unit(torch.randn(3, 64, generator=torch.Generator().manual_seed(0))))


@pytest.mark.parametrize("heads", ["single", "native"])
def test_parts_multiply_to_the_map(heads):
    parts = grad_eclip_parts(request(), heads=heads)
    count = 1 if heads == "single" else 2
    assert parts.v.shape == (2, count, 128 // count, 3, 5) and parts.w_c.shape == (2, 3, count, 128 // count)
    weighted = parts.w_c[..., None, None] * parts.v[:, None]  # images targets heads width grid_h grid_w
    torch.testing.assert_close(parts.unplaced, weighted.sum(dim=(2, 3)))
    torch.testing.assert_close(parts.signed, (weighted * parts.w_i[:, None, :, None]).sum(dim=(2, 3)))
    torch.testing.assert_close(parts.signed.relu(), grad_eclip(request(), heads=heads))
    torch.testing.assert_close(parts.unplaced.relu(), grad_eclip(request(), heads=heads, spatial="none"))


@pytest.mark.parametrize("heads", ["single", "native"])
def test_weights_of_the_patches(heads):
    parts = grad_eclip_parts(request(), heads=heads)
    assert (parts.w_i.amin(dim=(2, 3)) == 0).all() and (parts.w_i.amax(dim=(2, 3)) == 1).all()
    assert (parts.attention.sum(dim=(2, 3)) < 1).all()
    torch.testing.assert_close(parts.attention.mean(dim=1), self_attention(request(), heads=heads)[:, 0])


def test_both_weights_rank_the_patches_alike():
    """They are made of the same product of request and key."""
    parts = grad_eclip_parts(request())
    assert torch.equal(parts.w_i.flatten(2).argsort(dim=-1), parts.attention.flatten(2).argsort(dim=-1))


def test_the_score_is_that_of_the_heads():
    native, single = grad_eclip_parts(request(), heads="native").score, grad_eclip_parts(request()).score
    torch.testing.assert_close(native, scores(request()))
    assert (native - single).abs().max() > 1e-3


def test_half_precision_gives_float32():
    half = small_clip.half(request().model.network, torch.bfloat16)
    parts = grad_eclip_parts(make_request(small_clip.wrap(half), request().pixels, request().targets))
    assert all(part.dtype == torch.float32 for part in vars(parts).values())
