"""Queries, target arithmetic, and looking up and running an explainer."""

import functools

import numpy as np
import pytest
import torch
from clip.model import CLIP
from PIL import Image

import clip_explain as cx
import clip_explain.models.vit as trace_module
import small_clip
from clip_explain.directions import difference, targets
from clip_explain.errors import MethodError, TensorError, TextError
from clip_explain.explainers import METHODS, explain, explain_words, names_of, options_of
from clip_explain.images import encode_image, preprocess
from clip_explain.models.embed import encode_text
from clip_explain.models.model import IMAGES_AT_ONCE, image_features, unit
from clip_explain.request import make_request, make_word_request, scores
from clip_explain.texts import TEMPLATE_SETS
from small_clip import relative_error


@functools.cache
def model():
    return small_clip.wrap(small_clip.build(vlayers=2, tlayers=2))


PIXELS = small_clip.marked(torch.cat([small_clip.pixels(seed, 224, 224) for seed in (0, 1)]))


def test_text_targets_are_the_models_unit_text_features():
    got = targets(model(), ["a dog", "two people riding horses on the beach"])
    assert relative_error(got, encode_text(model(), ["a dog", "two people riding horses on the beach"])) < 1e-5
    assert relative_error(targets(model(), "a dog"), got[:1]) < 1e-5


def test_many_images_are_embedded_in_parts_as_all_at_once():
    pixels = small_clip.marked(torch.cat([small_clip.pixels(seed, 32, 64) for seed in range(IMAGES_AT_ONCE + 3)]))
    whole = unit(image_features(model(), pixels).detach())
    got = model().embed_images(pixels)
    assert len(got) == IMAGES_AT_ONCE + 3
    assert relative_error(got, whole) < 1e-5


def test_a_prompt_ensemble_is_the_unit_mean_of_unit_features():
    templates = ["a photo of a {}.", "{}"]
    got = targets(model(), ["dog", "cat"], templates)
    for row, name in zip(got, ["dog", "cat"], strict=True):
        mean = encode_text(model(), [f"a photo of a {name}.", name]).mean(dim=0)
        assert relative_error(row, mean / mean.norm()) < 1e-5


def test_template_sets_go_by_name_and_a_single_template_by_itself():
    for name, templates in TEMPLATE_SETS.items():
        assert relative_error(targets(model(), "dog", name), targets(model(), "dog", templates)) < 1e-6
    photo = encode_text(model(), ["a photo of a dog."])
    assert relative_error(targets(model(), "dog", "a photo of a {}."), photo) < 1e-5


def test_explain_puts_texts_into_templates():
    maps = explain(model(), PIXELS, ["dog", "cat"], layers=2, templates=["a photo of a {}.", "{}"])
    directions = targets(model(), ["dog", "cat"], ["a photo of a {}.", "{}"])
    assert relative_error(maps, explain(model(), PIXELS, directions, layers=2)) < 1e-5


def picture(seed, size=(90, 60)):
    noise = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


@pytest.mark.parametrize("fit", ["crop", "full", "squash"])
def test_another_image_is_a_target(fit, tmp_path):
    picture(1).save(tmp_path / "one.png")
    sizes = [picture(1), picture(2, (60, 90))]  # with "full", of different size
    got = targets(model(), sizes, fit=fit)
    for row, image in zip(got, sizes, strict=True):
        assert relative_error(row[None], model().embed_images(preprocess(model(), image, fit))) < 1e-5
    assert relative_error(targets(model(), tmp_path / "one.png", fit=fit), got[:1]) < 1e-5
    maps = explain(model(), picture(3), sizes, fit=fit, layers=2)
    assert relative_error(maps, explain(model(), picture(3), got, fit=fit, layers=2)) < 1e-5


def test_preprocessed_pixels_are_a_target():
    assert relative_error(targets(model(), PIXELS), encode_image(model(), PIXELS)) < 1e-5


def test_a_str_is_a_text_even_where_it_names_a_file(tmp_path):
    picture(1).save(tmp_path / "one.png")
    path = str(tmp_path / "one.png")
    assert relative_error(targets(model(), path), encode_text(model(), path)) < 1e-5


def test_texts_and_images_are_not_mixed():
    with pytest.raises(TextError, match="images alone"):
        targets(model(), ["a dog", picture(1)])


@pytest.mark.parametrize("templates", ["imagnet", "a photo", [], ["{}", "a photo"]])
def test_unknown_templates_name_the_sets(templates):
    with pytest.raises(TextError, match="Available: imagenet, clip_surgery"):
        explain(model(), PIXELS, "a dog", templates=templates)
    if templates == "imagnet":
        with pytest.raises(TextError, match="did you mean 'imagenet'"):
            targets(model(), "a dog", templates)


def test_a_long_text_can_be_truncated():
    long = "a dog and a cat " * 20
    assert relative_error(targets(model(), long, truncate=True), encode_text(model(), long, truncate=True)) < 1e-5
    assert explain(model(), PIXELS, long, truncate=True, layers=2).shape == (2, 1, 7, 7)
    ((tokens, weights),) = explain_words(model(), PIXELS, long, truncate=True, layers=2)
    assert len(tokens) == 75 and weights.shape == (2, 75)
    ((words, _),) = explain_words(model(), PIXELS, "unbelievablest" * 60, truncate=True, layers=2, per="word")
    assert len(words) == 1  # a word that is cut has no end


def test_the_public_interface_reaches_the_arithmetic():
    happy = cx.difference(model(), "a happy face", "a sad face", "a photo of {}.")
    features = encode_text(model(), ["a photo of a happy face.", "a photo of a sad face."])
    assert relative_error(happy, unit(features[:1] - features[1:])) < 1e-4
    assert torch.equal(cx.targets(model(), "a dog"), targets(model(), "a dog"))
    assert cx.without_word(model(), "a red cube", "red").shape == (1, 64)


# ------------------------------------------------------------------------------------------------------- words


def test_a_words_weight_is_the_sum_of_its_tokens():
    texts = ["an unbelievablest zyzzyva!", "a dog"]
    by_token = explain_words(model(), PIXELS, texts, layers=2, spatial="none")
    by_word = explain_words(model(), PIXELS, texts, layers=2, spatial="none", per="word")
    assert [words for words, _ in by_word] == [["an", "unbelievablest", "zyzzyva", "!"], ["a", "dog"]]
    for (tokens, weights), (words, sums) in zip(by_token, by_word, strict=True):
        assert weights.shape == (2, len(tokens)) and sums.shape == (2, len(words)) and weights.any()
        assert "".join(tokens) == "".join(words)
        start = 0
        for word, total in zip(words, sums.T, strict=True):
            end = start + next(n for n in range(1, 9) if "".join(tokens[start : start + n]) == word)
            assert torch.allclose(weights[:, start:end].sum(dim=1), total)
            start = end
        assert start == len(tokens)


def test_words_beyond_ascii_are_shown_as_written():
    ((words, _),) = explain_words(model(), PIXELS, "café zürich", layers=2, per="word")
    assert words == ["café", "zürich"]


def test_words_go_per_token_or_per_word():
    with pytest.raises(MethodError, match="per='letter', expected one of 'token', 'word'"):
        explain_words(model(), PIXELS, "a dog", per="letter")


def test_many_texts_are_embedded_in_several_passes(monkeypatch):
    names = ["a dog", "a cat on a mat", "a red car next to a tree"]
    expected = targets(model(), names)
    monkeypatch.setattr("clip_explain.models.model.TEXTS_AT_ONCE", 2)
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
    request = make_request(model(), PIXELS, torch.cat([dog, -dog]))
    assert torch.allclose(scores(request)[:, 0], -scores(request)[:, 1])
    assert relative_error(scores(request)[:, 0], encode_image(model(), PIXELS) @ dog[0]) < 1e-5


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
        make_request(model(), bad, "a dog")


def test_a_query_computes_a_trace_once(monkeypatch):
    calls = []
    monkeypatch.setattr(trace_module, "embed_pixels", lambda *a, f=trace_module.embed_pixels: calls.append(1) or f(*a))
    request = make_request(model(), PIXELS, "a dog")
    assert request.trace(heads="single", layers=1) is request.trace(layers=1, heads="single")
    assert request.trace(layers=2) is not request.trace(layers=1, heads="single")
    assert len(calls) == 2


def test_a_word_query_takes_images_or_their_embeddings():
    by_pixels = make_word_request(model(), PIXELS, ["a dog"])
    by_embedding = make_word_request(model(), encode_image(model(), PIXELS), "a dog")
    assert relative_error(by_pixels.targets, by_embedding.targets) < 1e-5
    assert torch.equal(by_pixels.tokens, by_embedding.tokens)


# Options for a model of two layers, and for little work.
DEEP = {"clip_surgery": dict(layers=2), "gem": dict(layers=2), "m2ib": dict(layer=0, steps=2), "nib": dict(layer=0)}
LONG = {"rise": dict(masks=4), "shapley": dict(samples=8)}
DEEP_WORDS = {"m2ib": dict(layer=0, steps=2), "nib": dict(layer=0), "leave_one_out": {}, "self_attention": {}}


def test_every_registered_explainer_gives_finite_float32_maps_of_its_shape():
    for method in names_of():
        options = (DEEP | LONG).get(method, {})
        maps = explain(model(), PIXELS, ["a dog", "a cat", "a car"], method=method, **options)
        grid = (224, 224) if method == "rise" else (7, 7)
        assert maps.shape == (2, 3, *grid) and maps.dtype == torch.float32 and torch.isfinite(maps).all()


def test_every_registered_word_explainer_gives_tokens_and_weights():
    for method in names_of(words=True):
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
    assert options_of(METHODS["grad_eclip"].image) == {
        "heads": "single",
        "layers": 1,
        "spatial": "loose",
        "head": None,
        "relu": "sum",
    }


def test_a_resnet_is_told_which_methods_fit_it():
    resnet = small_clip.wrap(CLIP(64, 64, (1, 1, 1, 1), 8, None, 77, 100, 64, 1, 1).eval())
    with pytest.raises(MethodError, match="rollout needs a vision transformer.*ResNet, for which fit"):
        explain(resnet, torch.zeros(1, 3, 64, 64), torch.ones(1, 64), "rollout")
