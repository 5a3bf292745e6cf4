"""Explainers that change the computation or the input: the authors' code, the equations, and their invariants."""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch

import oracles_interveners as oracles
import small_clip
from clip_explain.errors import MethodError, TensorError, TextError
from clip_explain.explainers import explain
from clip_explain.explainers.surgery import clip_surgery, gem
from clip_explain.model import Clip, encode_text, tokenize
from clip_explain.query import Query, drop_tokens, empty_text, unit, without_word
from clip_explain.weights import build
from small_clip import relative_error

GOLDEN = np.load(Path(__file__).parent / "golden" / "authors_code_seed0.npz")


@functools.cache
def golden_query() -> Query:
    """CLIP Surgery's own loader does not round the weights to fp16, `clip`'s, which made the text features, does."""
    model = small_clip.wrap(build(small_clip.state_dict(seed=0)))
    return Query(model, small_clip.pixels(10, 224, 224), torch.from_numpy(GOLDEN["text_features"]))


@functools.cache
def exact_model() -> Clip:
    """Two layers in float64 with a vocabulary of 100, for the oracles."""
    return small_clip.wrap(small_clip.build(torch.float64, vlayers=2, tlayers=2, vocab=100))


@functools.cache
def model32() -> Clip:
    return small_clip.wrap(small_clip.build(vlayers=3, tlayers=3))


def random_targets(count, dtype=torch.float64):
    return unit(torch.randn(count, 64, generator=torch.Generator().manual_seed(2), dtype=dtype))


def images(size=(96, 160), count=2, dtype=torch.float64):
    return torch.cat([small_clip.pixels(seed, *size) for seed in range(20, 20 + count)]).to(dtype)


@functools.cache
def exact_query() -> Query:
    return Query(exact_model(), images(), random_targets(3))


@functools.cache
def query32(size=(96, 160)) -> Query:
    return Query(model32(), images(size, dtype=torch.float32), random_targets(3, torch.float32))


def state():
    return exact_model().network.state_dict()


# ------------------------------------------------------------------------------------------- CLIP Surgery and GEM


def test_golden_clip_surgery():
    assert relative_error(clip_surgery(golden_query())[0], GOLDEN["clip_surgery"]) < 1e-4
    architecture = clip_surgery(golden_query(), feature_surgery=False)
    assert relative_error(architecture[0], GOLDEN["clip_surgery_architecture_only"]) < 1e-4


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("feature_surgery", [True, False])
@pytest.mark.parametrize("normalize", ["channels", "tokens"])
def test_oracle_clip_surgery(layers, feature_surgery, normalize):
    query, options = exact_query(), dict(layers=layers, feature_surgery=feature_surgery, normalize=normalize)
    got = clip_surgery(query, **options)
    for index, pixels in enumerate(query.pixels):
        assert relative_error(got[index], oracles.clip_surgery(state(), pixels, query.targets, 2, **options)) < 1e-6


def test_oracle_clip_surgery_with_given_redundant_directions():
    query, given = exact_query(), random_targets(5)[3:]
    got = clip_surgery(query, layers=2, redundant=3 * given)
    expected = oracles.clip_surgery(state(), query.pixels[0], query.targets, 2, 2, redundant=given.mean(dim=0))
    assert relative_error(got[0], expected) < 1e-6


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("options", [{}, dict(iterations=0), dict(iterations=2, temperature=0.3)])
def test_oracle_gem(layers, options):
    query = exact_query()
    got = gem(query, layers=layers, **options)
    for index, pixels in enumerate(query.pixels):
        assert relative_error(got[index], oracles.gem(state(), pixels, query.targets, 2, layers, **options)) < 1e-6


def test_surgery_maps_of_the_targets_have_the_mean_zero():
    assert clip_surgery(query32(), layers=2).mean(dim=1).abs().max() < 1e-6


def test_one_target_alone_is_freed_of_the_empty_text():
    query = query32()
    alone = clip_surgery(Query(query.model, query.pixels, query.targets[:1]), layers=2)
    plain = clip_surgery(query, layers=2, feature_surgery=False)
    empty = clip_surgery(Query(query.model, query.pixels, empty_text(query.model)), layers=2, feature_surgery=False)
    assert relative_error(alone[:, 0], plain[:, 0] - empty[:, 0]) < 1e-4
    for redundant in ("", ["", ""]):
        assert relative_error(clip_surgery(query, layers=2, redundant=redundant)[:, :1], alone) < 1e-5


@pytest.mark.parametrize("redundant, error", [([], TextError), (torch.ones(0, 64), TensorError)])
def test_an_empty_redundant_set_is_refused(redundant, error):
    with pytest.raises(error, match="redundant"):
        clip_surgery(query32(), layers=2, redundant=redundant)


@pytest.mark.parametrize("method", ["clip_surgery", "gem"])
def test_a_layer_out_of_range_says_the_range(method):
    with pytest.raises(MethodError, match="layers=4, expected 1 to 3"):
        explain(model32(), query32().pixels, query32().targets, method, layers=4)


@pytest.mark.parametrize("options", [dict(iterations=-1), dict(temperature=0.0)])
def test_gem_refuses_options_out_of_range(options):
    with pytest.raises(MethodError, match="expected"):
        gem(query32(), layers=2, **options)


# ------------------------------------------------------------------------------------------- targets: words and texts


def test_the_direction_of_a_word_is_the_text_less_the_text_without_it():
    text, rests = "A red cube and a small blue ball.", ["a cube and a small blue ball.", "a red cube and a blue ball."]
    got = without_word(model32(), text, ["Red", "small"])
    features = encode_text(model32(), [text, *rests])
    assert relative_error(got, unit(features[:1] - features[1:])) < 1e-4
    both = without_word(model32(), "a red cube", "red cube")
    assert relative_error(both, unit(encode_text(model32(), "a red cube") - encode_text(model32(), "a"))) < 1e-4


def test_the_only_word_leaves_the_empty_text():
    expected = unit(encode_text(model32(), "horseback") - empty_text(model32()))
    assert relative_error(without_word(model32(), "horseback", "horseback"), expected) < 1e-4


def test_the_empty_text_is_a_start_and_an_end():
    start, end = tokenize(model32(), "a")[0, [0, 2]].tolist()
    tokens = torch.zeros(1, 77, dtype=torch.long)
    tokens[0, 0], tokens[0, 1] = start, end
    with torch.no_grad():
        expected = unit(model32().network.encode_text(tokens))
    assert relative_error(empty_text(model32()), expected) < 1e-5


@pytest.mark.parametrize("word", ["green", "re", "ed", "a cube"])
def test_a_word_that_is_not_in_the_text_is_refused(word):
    with pytest.raises(TextError, match="no word .* in the text 'a red cube'"):
        without_word(model32(), "A red cube", word)


def test_drop_tokens_by_hand():
    tokens = torch.tensor([[98, 5, 6, 7, 99, 0], [98, 5, 99, 0, 0, 0]])
    dropped = torch.tensor([[0, 1, 0, 1, 0, 0], [0, 1, 0, 0, 0, 0]]).bool()
    assert drop_tokens(tokens, dropped).tolist() == [[98, 6, 99, 0, 0, 0], [98, 99, 0, 0, 0, 0]]


# ----------------------------------------------------------------------------------------- invariants of them all

# Options that make them cheap, and the maps of one target independent of the others.
CHEAP = {
    "clip_surgery": dict(layers=2, redundant=random_targets(9)[8:]),
    "gem": dict(layers=2),
}


@pytest.mark.parametrize("method", CHEAP)
def test_a_batch_is_the_loop_over_its_images_and_targets(method):
    pixels, directions = images(count=3), random_targets(4)
    batch = explain(exact_model(), pixels, directions, method, **CHEAP[method])
    for index in range(3):
        for number in range(4):
            alone = (exact_model(), pixels[index : index + 1], directions[number : number + 1], method)
            assert relative_error(explain(*alone, **CHEAP[method])[0, 0], batch[index, number]) < 1e-5


@pytest.mark.parametrize("method", CHEAP)
def test_a_second_call_gives_the_same_numbers(method):
    first, second = (explain(model32(), query32().pixels, query32().targets, method, **CHEAP[method]) for _ in range(2))
    assert torch.equal(first, second) and first.dtype == torch.float32


@pytest.mark.parametrize("value", [0.0, 1.0, -50.0])
@pytest.mark.parametrize("method", CHEAP)
def test_a_constant_image_has_a_finite_map(method, value):
    maps = explain(model32(), torch.full((1, 3, 64, 96), value), random_targets(2), method, **CHEAP[method])
    assert torch.isfinite(maps).all() and maps.shape[:2] == (1, 2)


@pytest.mark.parametrize("method", CHEAP)
def test_bf16_maps_follow_those_of_float32(method):
    query = query32((224, 224))
    models = model32(), small_clip.wrap(small_clip.half(model32().network, torch.bfloat16))
    expected, got = (explain(model, query.pixels, query.targets, method, **CHEAP[method]) for model in models)
    assert got.dtype == torch.float32
    for one, other in zip(got.flatten(0, 1), expected.flatten(0, 1), strict=True):
        assert torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1] > 0.98


@pytest.mark.parametrize("method", CHEAP)
def test_the_model_is_unchanged_also_after_an_error(method, monkeypatch):
    model = small_clip.wrap(small_clip.build(vlayers=3, tlayers=2))
    before = {name: (value.clone(), value.requires_grad) for name, value in model.network.named_parameters()}
    explain(model, images(dtype=torch.float32), "a dog", method, **CHEAP[method])
    monkeypatch.setattr("clip_explain.trace.project", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        explain(model, images(dtype=torch.float32), random_targets(1), method, **CHEAP[method])
    for name, value in model.network.named_parameters():
        assert torch.equal(value, before[name][0]) and value.requires_grad == before[name][1] and value.grad is None
    assert not any(module.training for module in model.network.modules())
