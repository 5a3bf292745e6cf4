"""Grad-ECLIP against the authors' code, against the paper's equations in float64, and its invariants."""

import functools

import numpy as np
import pytest
import torch

import oracles
import small_clip
from clip_explain.directions import targets
from clip_explain.errors import MethodError
from clip_explain.explainers import explain, explain_words
from clip_explain.explainers.attention import self_attention
from clip_explain.explainers.grad_eclip import grad_eclip, grad_eclip_words
from clip_explain.models.embed import tokenize
from clip_explain.models.model import Model, unit
from clip_explain.request import Request, WordRequest, make_word_request
from small_clip import GOLDEN, TEXTS, exact_model, golden_model, golden_query, relative_error


def random_targets(count, dtype=torch.float64):
    return unit(torch.randn(count, 64, generator=torch.Generator().manual_seed(2), dtype=dtype))


def images(size=(96, 160), count=2, dtype=torch.float64):
    return small_clip.marked(torch.cat([small_clip.pixels(seed, *size) for seed in range(20, 20 + count)]).to(dtype))


# ------------------------------------------------------------------------------------------------- the authors' code


def test_golden_features():
    assert relative_error(golden_query().targets, GOLDEN["text_features"]) < 1e-4
    assert relative_error(unit(golden_query().trace().embedding), GOLDEN["image_features"]) < 1e-4
    single = golden_query().trace(heads="single").embedding
    assert relative_error(unit(single), GOLDEN["single_head_image_features"]) < 1e-4


def test_golden_self_attention():
    assert relative_error(self_attention(golden_query(), heads="single")[0, 2], GOLDEN["self_attention"]) < 1e-4


@pytest.mark.parametrize("spatial, key", [("released", "grad_eclip"), ("none", "grad_eclip_without_spatial")])
def test_golden_grad_eclip(spatial, key):
    assert relative_error(grad_eclip(golden_query(), spatial=spatial)[0], GOLDEN[key]) < 1e-4


@pytest.mark.parametrize("spatial, key", [("released", "text_grad_eclip"), ("none", "text_grad_eclip_without_spatial")])
def test_golden_word_weights(spatial, key):
    pixels = small_clip.pixels(10, 224, 224)
    found = explain_words(golden_model(), pixels, TEXTS, spatial=spatial)
    for index, (tokens, weights) in enumerate(found):
        expected = GOLDEN[f"{key}/{index}"]
        assert len(tokens) == len(expected)
        if np.isnan(expected).all():  # nothing is left after the ReLU: the authors' code divides 0 by 0
            assert not weights.any()
        else:
            assert relative_error(weights[0] / weights.sum(), expected) < 1e-4


# ---------------------------------------------------------------------------------------------- the paper's equations


@pytest.mark.parametrize("heads", ["single", "native"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(
    ("spatial", "relu"),
    [("loose", "sum"), ("softmax", "sum"), ("none", "sum"), ("loose", "layer"), ("cosine", "layer")],
)
def test_oracle_image(heads, layers, spatial, relu):
    model, pixels, directions = exact_model(), images(), random_targets(3)
    got = grad_eclip(Request(model, pixels, directions), heads=heads, layers=layers, spatial=spatial, relu=relu)
    assert got.shape == (2, 3, 3, 5)
    for index, image in enumerate(pixels):
        for number, target in enumerate(directions):
            state = model.network.state_dict()
            given = dict(heads=heads, layers=layers, spatial=spatial, relu=relu)
            expected = oracles.grad_eclip(state, image, target, 2, **given)
            assert relative_error(got[index, number], expected) < 1e-6


@pytest.mark.parametrize("head", [0, 1])
def test_oracle_one_head(head):
    model, pixels, (target,) = exact_model(), images(count=1), random_targets(1)
    expected = oracles.grad_eclip(model.network.state_dict(), pixels[0], target, 2, heads="native", head=head)
    got = grad_eclip(Request(model, pixels, target[None]), head=head)
    assert relative_error(got[0, 0], expected) < 1e-6


@pytest.mark.parametrize("heads", ["single", "native"])
@pytest.mark.parametrize(
    ("spatial", "relu"), [("loose", "sum"), ("softmax", "sum"), ("none", "sum"), ("cosine", "layer")]
)
def test_oracle_words(heads, spatial, relu):
    tokens = torch.tensor([[98, 5, 7, 99, 0, 0, 0, 0, 0], [98, 1, 2, 3, 4, 6, 99, 0, 0]])
    model, directions = exact_model(), random_targets(2)
    got = grad_eclip_words(WordRequest(model, tokens, directions), heads=heads, layers=3, spatial=spatial, relu=relu)
    for index, text in enumerate(tokens):
        end = int(text.argmax())
        for number, target in enumerate(directions):
            state = model.network.state_dict()
            given = dict(heads=heads, layers=3, spatial=spatial, relu=relu)
            expected = oracles.grad_eclip_words(state, text, target, 2, **given)
            assert (got[index, number, 1:end] - expected).norm() <= 1e-6 * got[index].norm()
            assert not got[index, number, :1].any() and not got[index, number, end:].any()


def test_softmax_weights_take_the_attention_output_apart():
    """sum_i of the signed native softmax map, class token included, is w_c . o_cls: eq. 5 put into eq. 6."""
    from clip_explain.explainers.grad_eclip import block_maps
    from clip_explain.models.trace import gradients

    request = Request(exact_model(), images(), random_targets(3))
    trace = request.trace(start="attended")
    everything = torch.ones(2, 16, dtype=torch.bool)
    total = block_maps(trace, request.targets, "softmax", None, everything)[0].sum(dim=-1)
    (slope,) = gradients(trace.embedding, [trace.blocks[0].attended], request.targets)
    assert relative_error(total, torch.einsum("itqc,iqc->it", slope, trace.blocks[0].attended.detach())) < 1e-10


# --------------------------------------------------------------------------------------------------------- invariants


@pytest.mark.parametrize("options", [{}, dict(heads="native", layers=2), dict(head=1), dict(spatial="released")])
def test_a_batch_is_the_loop_over_its_images_and_targets(options):
    model, pixels, directions = small32(), images(dtype=torch.float32, count=3), random_targets(4, torch.float32)
    batch = explain(model, pixels, directions, **options)
    for index in range(3):
        for number in range(4):
            alone = explain(model, pixels[index : index + 1], directions[number : number + 1], **options)
            assert relative_error(alone[0, 0], batch[index, number]) < 1e-4


@functools.cache
def small32() -> Model:
    return small_clip.wrap(small_clip.build(vlayers=3, tlayers=2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_maps_follow_those_of_float32(dtype):
    model, pixels, directions = small32(), images((224, 224), dtype=torch.float32), random_targets(3, torch.float32)
    half = small_clip.wrap(small_clip.half(model.network, dtype))
    for options in ({}, {"layers": 3, "heads": "native"}):
        expected = explain(model, pixels, directions, **options).flatten(2)
        got = explain(half, pixels, directions, **options).flatten(2)
        assert got.dtype == torch.float32
        for one, other in zip(got.flatten(0, 1), expected.flatten(0, 1), strict=True):
            assert torch.corrcoef(torch.stack([one, other]))[0, 1] > 0.98


@pytest.mark.parametrize("value", [0.0, 1.0, -50.0])
@pytest.mark.parametrize("spatial", ["loose", "softmax", "none", "released", "cosine"])
def test_a_constant_image_has_a_finite_map(value, spatial):
    maps = explain(small32(), small_clip.marked(torch.full((1, 3, 64, 96), value)), "a dog", spatial=spatial)
    assert maps.shape == (1, 1, 2, 3) and torch.isfinite(maps).all() and (maps >= 0).all()


def test_one_patch_alone_has_spatial_weight_one():
    pixels = images((32, 32), dtype=torch.float32)
    directions = random_targets(2, torch.float32)
    assert torch.equal(explain(small32(), pixels, directions), explain(small32(), pixels, directions, spatial="none"))


def test_the_map_of_the_negated_target_has_no_place_in_common():
    dog = targets(small32(), "a dog")
    maps = explain(small32(), images(dtype=torch.float32), torch.cat([dog, -dog]))
    assert maps.any() and not (maps[:, 0] * maps[:, 1]).any()


def test_self_attention_is_the_same_for_every_target_and_no_more_than_one_in_sum():
    maps = explain(small32(), images(dtype=torch.float32), random_targets(3, torch.float32), method="self_attention")
    assert maps.shape == (2, 3, 3, 5) and torch.equal(maps[:, 0], maps[:, 2])
    assert (maps >= 0).all() and (maps.sum(dim=(-2, -1)) < 1).all()


def test_the_model_is_unchanged_also_after_an_error():
    model = small_clip.wrap(small_clip.build(vlayers=2, tlayers=2))
    before = {name: (value.clone(), value.requires_grad) for name, value in model.network.named_parameters()}
    explain(model, images(dtype=torch.float32), "a dog", layers=2)
    with pytest.raises(MethodError):
        explain(model, images(dtype=torch.float32), "a dog", head=2)
    explain_words(model, images(dtype=torch.float32), "a dog", layers=2)
    for name, value in model.network.named_parameters():
        assert torch.equal(value, before[name][0]) and value.requires_grad == before[name][1] and value.grad is None
    assert not any(module.training for module in model.network.modules())


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(layers=4), "layers=4, expected 1 to 3"),
        (dict(head=2), "head=2, expected 0 to 1"),
        (dict(head=-1), "head=-1, expected 0 to 1"),
        (dict(spatial="tight"), "'loose', 'softmax', 'none', 'released'"),
        (dict(heads="both"), "'native', 'single'"),
        (dict(spatial="released", head=0), "joins all heads"),
        (dict(spatial="cosine", head=0), "joins all heads"),
        (dict(relu="both"), "'sum', 'layer'"),
    ],
)
def test_options_out_of_range_are_told_the_range(options, message):
    with pytest.raises(MethodError, match=message):
        explain(small32(), images(dtype=torch.float32), "a dog", **options)


def test_word_weights_do_not_depend_on_the_other_texts_of_a_batch():
    request = make_word_request(golden_model(), random_targets(2, torch.float32), TEXTS)
    batch = grad_eclip_words(request)
    for index in range(3):
        tokens = tokenize(golden_model(), TEXTS[index])
        alone = grad_eclip_words(WordRequest(golden_model(), tokens, request.targets))
        width = alone.shape[-1]
        assert (
            torch.allclose(batch[index, :, :width], alone[0], rtol=1e-3, atol=1e-6)
            and not batch[index, :, width:].any()
        )
