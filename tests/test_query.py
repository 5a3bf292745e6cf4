"""Queries, target arithmetic, and looking up and running an explainer."""

import functools

import pytest
import torch
from clip.model import CLIP

import clip_explain.trace as trace_module
import small_clip
from clip_explain.errors import MethodError, TensorError, TextError
from clip_explain.explainers import EXPLAINERS, WORD_EXPLAINERS, explain, explain_words, options_of
from clip_explain.model import encode_image, encode_text
from clip_explain.query import difference, make_query, make_word_query, scores, targets, unit
from small_clip import relative_error


@functools.cache
def model():
    return small_clip.wrap(small_clip.build(vlayers=2, tlayers=2))


PIXELS = torch.cat([small_clip.pixels(seed, 224, 224) for seed in (0, 1)])


def test_text_targets_are_the_models_unit_text_features():
    got = targets(model(), ["a dog", "two people riding horses on the beach"])
    assert relative_error(got, encode_text(model(), ["a dog", "two people riding horses on the beach"])) < 1e-5
    assert relative_error(targets(model(), "a dog"), got[:1]) < 1e-5


def test_a_prompt_ensemble_is_the_unit_mean_of_unit_features():
    templates = ["a photo of a {}.", "{}"]
    got = targets(model(), ["dog", "cat"], templates)
    for row, name in zip(got, ["dog", "cat"], strict=True):
        mean = encode_text(model(), [f"a photo of a {name}.", name]).mean(dim=0)
        assert relative_error(row, mean / mean.norm()) < 1e-5


def test_many_texts_are_embedded_in_several_passes(monkeypatch):
    names = ["a dog", "a cat on a mat", "a red car next to a tree"]
    expected = targets(model(), names)
    monkeypatch.setattr("clip_explain.query.TEXTS_AT_ONCE", 2)
    assert relative_error(targets(model(), names), expected) < 1e-5


def test_directions_are_scaled_to_length_one_whatever_their_size():
    direction = torch.randn(1, 64, generator=torch.Generator().manual_seed(0))
    expected = direction / direction.norm()
    for scale in (1.0, 1e30, 1e-30):
        assert relative_error(targets(model(), direction * scale), expected) < 1e-6


def test_difference_by_hand():
    a, b = torch.zeros(1, 64), torch.zeros(1, 64)
    a[0, 0], b[0, 1] = 2.0, 5.0  # of length 1 each before the subtraction
    got = difference(model(), a, b)
    assert got[0, 0].item() == pytest.approx(0.5**0.5) and got[0, 1].item() == pytest.approx(-(0.5**0.5))
    with pytest.raises(TensorError, match="all zero"):
        difference(model(), "a dog", "a dog")


def test_the_negated_target_has_the_negated_score():
    dog = targets(model(), "a dog")
    query = make_query(model(), PIXELS, torch.cat([dog, -dog]))
    assert torch.allclose(scores(query)[:, 0], -scores(query)[:, 1])
    assert relative_error(scores(query)[:, 0], encode_image(model(), PIXELS) @ dog[0]) < 1e-5


def test_unit_of_zero_is_zero_and_not_nan():
    assert torch.equal(unit(torch.zeros(2, 3)), torch.zeros(2, 3))


@pytest.mark.parametrize("spec", [[], "", " ", ["a dog", ""]])
def test_texts_that_are_none_are_refused(spec):
    with pytest.raises(TextError, match="at least one text"):
        targets(model(), spec)


@pytest.mark.parametrize("templates", [[], ["a photo"]])
def test_templates_without_a_place_for_the_text_are_refused(templates):
    with pytest.raises(TextError, match="template"):
        targets(model(), "a dog", templates)


@pytest.mark.parametrize(
    "vectors, message",
    [
        (torch.ones(64), r"\(targets, 64\)"),
        (torch.ones(2, 63), r"\(targets, 64\)"),
        (torch.ones(0, 64), r"\(targets, 64\)"),
        (torch.ones(2, 64, dtype=torch.long), r"\(targets, 64\)"),
        (torch.full((1, 64), float("nan")), "finite"),
        (torch.full((1, 64), float("inf")), "finite"),
        (torch.eye(64)[:2] * torch.tensor([[1.0], [0.0]]), "all zero"),
    ],
)
def test_bad_directions_are_refused(vectors, message):
    with pytest.raises(TensorError, match=message):
        targets(model(), vectors)


@pytest.mark.parametrize("bad", [PIXELS[0], PIXELS * float("nan"), PIXELS[..., :200]])
def test_bad_pixels_are_refused(bad):
    with pytest.raises(TensorError):
        make_query(model(), bad, "a dog")


def test_a_query_computes_a_trace_once(monkeypatch):
    calls = []
    monkeypatch.setattr(trace_module, "embed_pixels", lambda *a, f=trace_module.embed_pixels: calls.append(1) or f(*a))
    query = make_query(model(), PIXELS, "a dog")
    assert query.trace(heads="single", layers=1) is query.trace(layers=1, heads="single")
    assert query.trace(layers=2) is not query.trace(layers=1, heads="single")
    assert len(calls) == 2


def test_a_word_query_takes_images_or_their_embeddings():
    by_pixels = make_word_query(model(), PIXELS, ["a dog"])
    by_embedding = make_word_query(model(), encode_image(model(), PIXELS), "a dog")
    assert relative_error(by_pixels.targets, by_embedding.targets) < 1e-5
    assert torch.equal(by_pixels.tokens, by_embedding.tokens)


# Options for a model of two layers, and for little work.
DEEP = {"clip_surgery": dict(layers=2), "gem": dict(layers=2), "m2ib": dict(layer=0, steps=2)}
LONG = {"rise": dict(masks=4), "occlusion": dict(samples=8)}
DEEP_WORDS = {"m2ib": dict(layer=0, steps=2), "occlusion": {}, "self_attention": {}}


def test_every_registered_explainer_gives_finite_float32_maps_of_its_shape():
    for method in EXPLAINERS:
        options = (DEEP | LONG).get(method, {})
        maps = explain(model(), PIXELS, ["a dog", "a cat", "a car"], method=method, **options)
        grid = (224, 224) if method == "rise" else (7, 7)
        assert maps.shape == (2, 3, *grid) and maps.dtype == torch.float32 and torch.isfinite(maps).all()


def test_every_registered_word_explainer_gives_tokens_and_weights():
    for method in WORD_EXPLAINERS:
        options = DEEP_WORDS.get(method, dict(layers=2))
        found = explain_words(model(), PIXELS, ["a dog", "horseback riding"], method=method, **options)
        assert [tokens for tokens, _ in found] == [["a", "dog"], ["horseback", "riding"]]
        assert [tuple(weights.shape) for _, weights in found] == [(2, 2), (2, 2)]
        assert all(torch.isfinite(weights).all() for _, weights in found)


def test_an_unknown_method_is_answered_with_the_nearest():
    with pytest.raises(MethodError, match="did you mean 'grad_eclip'"):
        explain(model(), PIXELS, "a dog", method="gradeclip")
    with pytest.raises(MethodError, match="Available: .*grad_eclip"):
        explain_words(model(), PIXELS, "a dog", method="rise")


def test_an_unknown_option_is_answered_with_those_of_the_method():
    with pytest.raises(MethodError, match="did you mean 'layers'.*heads, layers, spatial, head"):
        explain(model(), PIXELS, "a dog", layer=3)


def test_options_of_an_explainer_and_their_defaults():
    assert options_of(EXPLAINERS["grad_eclip"]) == {"heads": "single", "layers": 1, "spatial": "loose", "head": None}


def test_a_resnet_is_told_which_methods_fit_it():
    resnet = small_clip.wrap(CLIP(64, 64, (1, 1, 1, 1), 8, None, 77, 100, 64, 1, 1).eval())
    with pytest.raises(MethodError, match="grad_eclip needs a vision transformer.*ResNet, for which fit"):
        explain(resnet, torch.zeros(1, 3, 64, 64), torch.ones(1, 64))
