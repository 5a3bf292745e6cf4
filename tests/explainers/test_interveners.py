"""Explainers that change the computation or the input: the authors' code, the equations, and their invariants."""

import functools
import hashlib
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from clip.model import CLIP

import oracles_interveners as oracles
import small_clip
from clip_explain.checks import out_of_memory
from clip_explain.cli.explain import parse_options
from clip_explain.directions import empty_text, targets, without_word
from clip_explain.errors import MethodError, TensorError, TextError
from clip_explain.explainers import explain, explain_words
from clip_explain.explainers.m2ib import m2ib, m2ib_words
from clip_explain.explainers.rise import draw_masks, rise
from clip_explain.explainers.shapley import draw_sets, shapley
from clip_explain.explainers.surgery import clip_surgery, gem
from clip_explain.images import encode_image
from clip_explain.models.embed import encode_text, tokenize
from clip_explain.models.model import Model, unit
from clip_explain.models.network import build
from clip_explain.request import Request, WordRequest, scores
from clip_explain.texts import CONTEXT_NOUNS, IMAGENET_TEMPLATES, SURGERY_TEMPLATES, drop_tokens
from small_clip import relative_error

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "authors_code_seed0.npz")


@functools.cache
def golden_query() -> Request:
    """CLIP Surgery's own loader does not round the weights to fp16, `clip`'s, which made the text features, does."""
    model = small_clip.wrap(build(small_clip.state_dict(seed=0)))
    return Request(model, small_clip.pixels(10, 224, 224), torch.from_numpy(GOLDEN["text_features"]))


@functools.cache
def exact_model() -> Model:
    """Two layers in float64 with a vocabulary of 100, for the oracles."""
    return small_clip.wrap(small_clip.build(torch.float64, vlayers=2, tlayers=2, vocab=100))


@functools.cache
def model32() -> Model:
    return small_clip.wrap(small_clip.build(vlayers=3, tlayers=3))


def random_targets(count, dtype=torch.float64):
    return unit(torch.randn(count, 64, generator=torch.Generator().manual_seed(2), dtype=dtype))


def images(size=(96, 160), count=2, dtype=torch.float64):
    return small_clip.marked(torch.cat([small_clip.pixels(seed, *size) for seed in range(20, 20 + count)]).to(dtype))


@functools.cache
def exact_query() -> Request:
    return Request(exact_model(), images(), random_targets(3))


@functools.cache
def query32(size=(96, 160)) -> Request:
    return Request(model32(), images(size, dtype=torch.float32), random_targets(3, torch.float32))


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
    request, options = exact_query(), dict(layers=layers, feature_surgery=feature_surgery, normalize=normalize)
    got = clip_surgery(request, **options)
    for index, pixels in enumerate(request.pixels):
        assert relative_error(got[index], oracles.clip_surgery(state(), pixels, request.targets, 2, **options)) < 1e-6


def test_oracle_clip_surgery_with_given_redundant_directions():
    request, given = exact_query(), random_targets(5)[3:]
    got = clip_surgery(request, layers=2, redundant=3 * given)
    expected = oracles.clip_surgery(state(), request.pixels[0], request.targets, 2, 2, redundant=given.mean(dim=0))
    assert relative_error(got[0], expected) < 1e-6


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("options", [{}, dict(iterations=0), dict(iterations=2, temperature=0.3)])
def test_oracle_gem(layers, options):
    request = exact_query()
    got = gem(request, layers=layers, **options)
    for index, pixels in enumerate(request.pixels):
        assert relative_error(got[index], oracles.gem(state(), pixels, request.targets, 2, layers, **options)) < 1e-6


def test_surgery_maps_of_the_targets_have_the_mean_zero():
    assert clip_surgery(query32(), layers=2).mean(dim=1).abs().max() < 1e-6


def test_one_target_alone_is_freed_of_the_empty_text():
    request = query32()
    alone = clip_surgery(Request(request.model, request.pixels, request.targets[:1]), layers=2)
    plain = clip_surgery(request, layers=2, feature_surgery=False)
    empty = clip_surgery(
        Request(request.model, request.pixels, empty_text(request.model)), layers=2, feature_surgery=False
    )
    assert relative_error(alone[:, 0], plain[:, 0] - empty[:, 0]) < 1e-4
    for redundant in ("", ["", ""]):
        assert relative_error(clip_surgery(request, layers=2, redundant=redundant)[:, :1], alone) < 1e-5


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


# ------------------------------------------------------------------------------------------ RISE and Shapley values


@pytest.mark.parametrize("center", (False, True))
def test_oracle_rise_with_given_masks(center):
    request = exact_query()
    masks = torch.rand(5, 96, 160, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    got = rise(request, masks=masks, keep=0.3, center=center, batch_size=2)
    assert got.shape == (2, 3, 96, 160)
    for index, pixels in enumerate(request.pixels):
        for number, target in enumerate(request.targets):
            expected = oracles.rise(state(), pixels, target, 2, masks, 0.3, center)
            assert relative_error(got[index, number], expected) < 1e-6


@pytest.mark.parametrize("size, cells", [((40, 64), 8), ((33, 50), 4), ((5, 3), 8), ((16, 16), 1)])
def test_rise_masks_are_resized_and_shifted_grids(size, cells):
    generator, again = (torch.Generator().manual_seed(5) for _ in range(2))
    got = torch.cat(list(draw_masks(7, size, cells, 0.4, 3, generator)))
    kept = (torch.rand(7, cells, cells, generator=again) < 0.4).float()
    shifts = [torch.randint(-(-side // cells), (7,), generator=again).tolist() for side in size]
    for mask, grid, shift in zip(got, kept, zip(*shifts, strict=True), strict=True):
        assert torch.allclose(mask, oracles.rise_mask(grid, shift, size).float(), rtol=0, atol=1e-6)


def test_rise_masks_keep_the_share_asked_for():
    masks = torch.cat(list(draw_masks(2000, (32, 32), 4, 0.3, 500, torch.Generator().manual_seed(0))))
    assert masks.min() >= 0 and masks.max() <= 1 and (masks.mean(dim=0) - 0.3).abs().max() < 0.05


def test_rise_and_shapley_do_not_depend_on_the_batch_size():
    for explainer, options in ((rise, dict(masks=9)), (shapley, dict(samples=9))):
        few, many = (explainer(exact_query(), **options, batch_size=size) for size in (2, 64))
        assert relative_error(few, many) < 1e-6


@functools.cache
def nine_patches() -> Request:
    return Request(exact_model(), images((96, 96)), random_targets(2))


@functools.cache
def played_out() -> dict:
    """The score of every set of patches of the second image, for the second target."""
    return oracles.patch_game(state(), nine_patches().pixels[1], nine_patches().targets[1], 2)


@pytest.mark.parametrize("value", ["shapley", "banzhaf"])
def test_patch_values_are_exact_where_all_sets_fit(value):
    got = shapley(nine_patches(), value=value, samples=512)
    assert got.shape == (2, 2, 3, 3)
    assert relative_error(got[1, 1].flatten(), getattr(oracles, value)(played_out(), 9)) < 1e-6


@pytest.mark.parametrize("value", ["shapley", "banzhaf"])
def test_sampled_patch_values_are_the_fit_to_the_sets_drawn_and_come_near_the_exact_ones(value):
    game = played_out()
    got = shapley(nine_patches(), value=value, samples=400, generator=7)[1, 1].flatten()
    sets, weights = draw_sets(9, value, 400, torch.Generator().manual_seed(7))
    assert len(sets) == 400 and weights.eq(1).all() and torch.equal(sets[:200], ~sets[200:])
    scores = torch.tensor([game[tuple(one.nonzero()[:, 0].tolist())] for one in sets], dtype=torch.float64)
    if value == "shapley":
        whole, none = game[tuple(range(9))], game[()]
        expected = oracles.constrained_fit(sets, scores - none, whole - none)
    else:
        expected = oracles.free_fit(sets, scores)
    assert relative_error(got, expected) < 1e-6
    assert relative_error(got, getattr(oracles, value)(game, 9)) < 0.25


@pytest.mark.parametrize("value", ["shapley", "banzhaf"])
def test_patch_values_without_the_tokens_of_hidden_patches_are_exact(value):
    """The same game, whose score is that of the shown patches' tokens alone."""
    request = nine_patches()
    sets = list(itertools.product([False, True], repeat=9))
    embedded = request.model.embed_shown(request.pixels[1:], torch.tensor(sets))
    played = (embedded @ request.targets[1].to(embedded)).tolist()
    game = {tuple(i for i in range(9) if one[i]): score for one, score in zip(sets, played, strict=True)}
    got = shapley(request, value=value, samples=512, hidden="drop")
    assert got.shape == (2, 2, 3, 3)
    assert relative_error(got[1, 1].flatten(), getattr(oracles, value)(game, 9)) < 1e-6
    with pytest.raises(MethodError, match="got hidden='black', expected"):
        shapley(request, samples=2, hidden="black")


def test_shapley_values_add_up_to_the_score_less_that_of_the_empty_image():
    request = query32()
    maps = shapley(request, samples=40)
    empty = request.model.embed_images(torch.zeros_like(request.pixels)) @ request.targets.T
    assert torch.allclose(maps.sum(dim=(-2, -1)), scores(request) - empty, atol=1e-5)


def test_set_sizes_of_shapley_follow_its_kernel():
    sets, _ = draw_sets(20, "shapley", 20000, torch.Generator().manual_seed(0))
    sizes = torch.arange(1, 20)
    expected = 1 / (sizes * (20 - sizes))
    found = sets.sum(dim=1).bincount(minlength=21)[1:20] / 20000
    assert (found - expected / expected.sum()).abs().max() < 0.01 and (sets.float().mean(dim=0) == 0.5).all()


@functools.cache
def resnet() -> Model:
    return small_clip.wrap(CLIP(64, 64, (1, 1, 1, 1), 8, None, 77, 100, 64, 1, 1).eval())


@pytest.mark.parametrize("size", [(64, 64), (96, 64)])
def test_a_resnet_is_explained_as_a_black_box_at_any_size(size):
    pixels, directions = images(size, dtype=torch.float32), random_targets(2)
    values = explain(resnet(), pixels, directions, "shapley", samples=64)
    assert values.shape == (2, 2, size[0] // 32, size[1] // 32)
    change = (resnet().embed_images(pixels) - resnet().embed_images(torch.zeros_like(pixels))) @ directions.T.float()
    assert torch.allclose(values.sum(dim=(-2, -1)), change, atol=1e-5)
    maps = explain(resnet(), pixels, directions, "rise", masks=5)
    assert maps.shape == (2, 2, *size) and torch.isfinite(maps).all()


def test_a_resnet_is_embedded_as_it_does_itself():
    pixels = images((64, 64), dtype=torch.float32)
    assert relative_error(resnet().embed_images(pixels), encode_image(resnet(), pixels)) < 1e-5


@pytest.mark.parametrize(
    "method, options",
    [
        ("rise", dict(masks=0)),
        ("rise", dict(masks=torch.ones(0, 96, 160))),
        ("rise", dict(cells=0)),
        ("rise", dict(keep=0.0)),
        ("rise", dict(keep=1.5)),
        ("rise", dict(batch_size=0)),
        ("shapley", dict(samples=0)),
        ("shapley", dict(value="owen")),
        ("shapley", dict(batch_size=0)),
    ],
)
def test_black_boxes_refuse_options_out_of_range(method, options):
    with pytest.raises(MethodError, match="expected"):
        explain(model32(), query32().pixels, query32().targets, method, **options)


def test_rise_refuses_masks_of_another_size():
    with pytest.raises(TensorError, match=r"expected \(masks, 96, 160\)"):
        rise(query32(), masks=torch.ones(2, 160, 96))


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_out_of_memory_suggests_a_smaller_batch(error, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr("clip_explain.models.model.image_features", fail)
    with pytest.raises(MethodError, match="batch_size=32: try batch_size=16"):
        rise(query32(), masks=4, batch_size=32)


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    with pytest.raises(RuntimeError, match="another"), out_of_memory(32):
        raise RuntimeError("another")


# -------------------------------------------------------------------------------------------------------------- M2IB


def noise(steps, samples, tokens, seed=4):
    return torch.randn(steps, samples, tokens, 128, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@functools.cache
def four_layers() -> Model:
    """In float64, for the oracle: with bottlenecks two blocks and more before the end."""
    return small_clip.wrap(small_clip.build(torch.float64, vlayers=4, tlayers=4, vocab=100))


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("last_update", [True, False])
def test_oracle_m2ib(layer, last_update):
    request, some = Request(four_layers(), images(), random_targets(2)), noise(4, 3, 16)
    got = m2ib(request, layer=layer, steps=4, samples=3, noise=some, last_update=last_update, beta=0.2, lr=0.7)
    assert got.shape == (2, 2, 3, 5) and got.dtype == torch.float32
    weights = four_layers().network.state_dict()
    for index, pixels in enumerate(request.pixels):
        for number, target in enumerate(request.targets):
            expected = oracles.m2ib_image(weights, pixels, target, 2, layer, 0.2, 0.7, some, last_update)
            assert relative_error(got[index, number], expected) < 1e-6


@pytest.mark.parametrize("layer", [0, 2])
def test_oracle_m2ib_words(layer):
    tokens = torch.tensor([[98, 5, 7, 99, 0, 0, 0, 0, 0], [98, 1, 2, 3, 4, 6, 99, 0, 0]])
    request, some = WordRequest(four_layers(), tokens, random_targets(2)), noise(4, 3, 9)
    got = m2ib_words(request, layer=layer, steps=4, samples=3, noise=some)
    assert got.shape == (2, 2, 7)
    for index, text in enumerate(tokens):
        end = int(text.argmax())
        for number, target in enumerate(request.targets):
            weights = four_layers().network.state_dict()
            expected = oracles.m2ib_words(weights, text, target, 2, layer, 0.1, 1.0, some)
            assert relative_error(got[index, number, 1:end], expected) < 1e-6
            assert not got[index, number, :1].any() and not got[index, number, end:].any()


def test_m2ib_does_not_depend_on_the_batch_size():
    request = Request(four_layers(), images(), random_targets(3))
    few, many = (m2ib(request, layer=1, steps=3, samples=4, batch_size=size) for size in (3, 64))
    assert relative_error(few, many) < 1e-6


def test_m2ib_draws_by_its_generator_or_seed():
    first, same, other = (m2ib(query32(), layer=0, steps=2, generator=seed) for seed in (3, 3, 4))
    again = m2ib(query32(), layer=0, steps=2, generator=torch.Generator().manual_seed(3))
    assert torch.equal(first, same) and torch.equal(first, again) and not torch.equal(first, other)


def test_m2ib_of_a_text_does_not_depend_on_the_other_texts():
    others = random_targets(2)
    tokens = torch.tensor([[98, 5, 7, 99, 0, 0, 0, 0, 0], [98, 1, 2, 3, 4, 6, 99, 0, 0]])
    both = m2ib_words(WordRequest(four_layers(), tokens, others), layer=1, steps=3)
    alone = m2ib_words(WordRequest(four_layers(), tokens[:1], others), layer=1, steps=3)
    assert relative_error(both[0, :, :4], alone[0]) < 1e-5


def test_without_a_cost_of_information_hardly_any_is_held_back():
    request = query32()
    free, dear = (m2ib(request, layer=0, steps=6, beta=beta) for beta in (0.0, 1e6))
    assert (dear < free).all() and dear.max() < 0.2 * free.min()


def test_m2ib_works_under_inference_mode():
    with torch.inference_mode():
        maps = explain(model32(), query32().pixels, query32().targets, "m2ib", layer=0, steps=2)
    assert relative_error(maps, m2ib(query32(), layer=0, steps=2)) < 1e-4


@pytest.mark.parametrize(
    "options, error",
    [
        (dict(layer=2), "layer=2, expected 0 to 1"),
        (dict(layer=-1), "layer=-1, expected 0 to 1"),
        (dict(layer=0, steps=0), "steps=0, expected .*at least 1"),
        (dict(layer=0, samples=0), "samples=0, expected .*at least 1"),
        (dict(layer=0, batch_size=0), "batch_size=0, expected .*at least 1"),
        (dict(layer=0, beta=-1.0), "beta=-1.0"),
        (dict(layer=0, lr=0.0), "lr=0.0"),
        (dict(layer=0, noise=torch.ones(10, 10, 5, 128)), r"expected \(steps, samples, tokens, channels\)"),
    ],
)
def test_m2ib_refuses_options_out_of_range(options, error):
    with pytest.raises((MethodError, TensorError), match=error):
        m2ib(query32(), **options)
    if "noise" not in options:
        with pytest.raises(MethodError, match=error):
            explain_words(model32(), random_targets(1), "a dog", "m2ib", **options)


# ------------------------------------------------------------------------------------------------- words left out


def test_a_words_weight_is_what_its_absence_takes_away():
    texts, others = ["a horseback riding dog.", "two cats"], random_targets(2, torch.float32)
    found = explain_words(model32(), others, texts, "leave_one_out", batch_size=3)
    rests = {
        "a": "horseback riding dog.",
        "dog": "a horseback riding.",
        "two": "cats",
        "cats": "two",
        "riding": "a horseback dog.",
    }
    whole = encode_text(model32(), texts) @ others.T
    for index, (tokens, weights) in enumerate(found):
        assert weights.shape == (2, len(tokens)) and weights.dtype == torch.float32
        for token, weight in zip(tokens, weights.T, strict=True):
            if token in rests:
                expected = whole[index] - encode_text(model32(), rests[token])[0] @ others.T
                assert torch.allclose(weight, expected, atol=1e-5)


def test_the_tokens_of_a_word_share_its_weight_and_add_up_to_it():
    others = random_targets(2, torch.float32)
    ((tokens, weights),) = explain_words(model32(), others, "an unbelievablest zyzzyva", "leave_one_out")
    assert len(tokens) > 4
    change = (
        encode_text(model32(), "an unbelievablest zyzzyva") - encode_text(model32(), "an unbelievablest")
    ) @ others.T
    last = len(tokenize(model32(), "zyzzyva")[0].nonzero()) - 2
    assert torch.allclose(weights[:, -last:].sum(dim=1), change, atol=1e-5)
    assert last > 1 and torch.equal(weights[:, -1], weights[:, -2])


def test_the_only_word_is_weighed_against_the_empty_text():
    others = random_targets(2, torch.float32)
    ((_, weights),) = explain_words(model32(), others, "dog", "leave_one_out")
    change = (encode_text(model32(), "dog") - empty_text(model32())) @ others.T
    assert torch.allclose(weights[:, 0], change[0], atol=1e-5)


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


def test_the_templates_are_openais_80_and_surgerys_85():
    assert len(set(IMAGENET_TEMPLATES)) == 80 and len(set(SURGERY_TEMPLATES)) == 85 and len(set(CONTEXT_NOUNS)) == 59
    digest = hashlib.sha256("\n".join(IMAGENET_TEMPLATES).encode()).hexdigest()
    assert digest == "4f976686fb651bb5803d4689dcd849f75efe0ef19a3c801355bc9a6f03c8a5af"
    assert all(template.count("{}") == 1 for template in SURGERY_TEMPLATES)
    some = IMAGENET_TEMPLATES[:3]
    mean = encode_text(model32(), [template.format("dog") for template in some]).mean(dim=0, keepdim=True)
    assert relative_error(targets(model32(), "dog", some), unit(mean)) < 1e-5


def test_drop_tokens_by_hand():
    tokens = torch.tensor([[98, 5, 6, 7, 99, 0], [98, 5, 99, 0, 0, 0]])
    dropped = torch.tensor([[0, 1, 0, 1, 0, 0], [0, 1, 0, 0, 0, 0]]).bool()
    assert drop_tokens(tokens, dropped).tolist() == [[98, 6, 99, 0, 0, 0], [98, 99, 0, 0, 0, 0]]


# ----------------------------------------------------------------------------------------- invariants of them all

# Options that make them cheap, and the maps of one target independent of the others.
CHEAP = {
    "clip_surgery": dict(layers=2, redundant=random_targets(9)[8:]),
    "gem": dict(layers=2),
    "m2ib": dict(layer=0, steps=4, samples=5),
    "rise": dict(masks=6),
    "shapley": dict(samples=30),
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
    pixels = small_clip.marked(torch.full((1, 3, 64, 96), value))
    maps = explain(model32(), pixels, random_targets(2), method, **CHEAP[method])
    assert torch.isfinite(maps).all() and maps.shape[:2] == (1, 2)


@pytest.mark.parametrize("method", CHEAP)
def test_bf16_maps_follow_those_of_float32(method):
    request = query32((224, 224))
    models = model32(), small_clip.wrap(small_clip.half(model32().network, torch.bfloat16))
    expected, got = (explain(model, request.pixels, request.targets, method, **CHEAP[method]) for model in models)
    assert got.dtype == torch.float32
    for one, other in zip(got.flatten(0, 1), expected.flatten(0, 1), strict=True):
        assert torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1] > 0.98


@pytest.mark.parametrize("method", CHEAP)
def test_the_model_is_unchanged_also_after_an_error(method, monkeypatch):
    model = small_clip.wrap(small_clip.build(vlayers=3, tlayers=2))
    before = {name: (value.clone(), value.requires_grad) for name, value in model.network.named_parameters()}
    explain(model, images(dtype=torch.float32), "a dog", method, **CHEAP[method])
    monkeypatch.setattr("clip_explain.models.vit.project", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        explain(model, images(dtype=torch.float32), random_targets(1), method, **CHEAP[method])
    for name, value in model.network.named_parameters():
        assert torch.equal(value, before[name][0]) and value.requires_grad == before[name][1] and value.grad is None
    assert not any(module.training for module in model.network.modules())


def test_the_command_line_takes_counts_and_seeds():
    assert parse_options("rise", ["masks=5", "generator=3", "keep=0.4"]) == {"masks": 5, "generator": 3, "keep": 0.4}
    assert parse_options("m2ib", ["last_update=no", "beta=1"]) == {"last_update": False, "beta": 1.0}
    assert parse_options("clip_surgery", ["redundant=a photo"]) == {"redundant": "a photo"}
