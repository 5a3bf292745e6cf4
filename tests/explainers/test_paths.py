"""NIB, head effects, AttnLRP and the interactions of patches and words: against their equations in float64."""

import functools
import itertools

import pytest
import torch
from PIL import Image

import oracles_paths
import small_clip
from clip_explain.errors import ImageError, MethodError, TextError
from clip_explain.explainers import METHODS
from clip_explain.explainers.attn_lrp import attn_lrp
from clip_explain.explainers.head_effects import effects_by_head, head_effects
from clip_explain.explainers.integrated import nib, nib_words
from clip_explain.explainers.interactions import (
    Pair,
    draw_players,
    embed_patches,
    embed_words,
    exclip,
    explain_pair,
    fixlip,
    make_pair,
    pair_maps,
    token_effects,
    whole,
)
from clip_explain.models.embed import tokenize
from clip_explain.models.model import unit
from clip_explain.request import Request, WordRequest
from small_clip import relative_error

TEXT = "a red cube"


@functools.cache
def exact():
    """Two vision and three text layers in float64, with CLIP's vocabulary."""
    return small_clip.wrap(small_clip.build(torch.float64, vlayers=2, tlayers=3, res=64))


def images(*sizes):
    return torch.cat([small_clip.pixels(seed, *size).double() for seed, size in enumerate(sizes)])


@functools.cache
def request():
    targets = unit(torch.randn(3, 64, generator=torch.Generator().manual_seed(2), dtype=torch.float64))
    return Request(exact(), images((64, 96), (64, 96)), targets)


@functools.cache
def word_request():
    return WordRequest(exact(), tokenize(exact(), [TEXT, "two small green balls"]), request().targets)


def state():
    return exact().network.state_dict()


@functools.cache
def pair() -> Pair:
    """Four patches and three words: all their sets can be looked at."""
    return make_pair(exact(), images((64, 64)), TEXT)


# -- NIB


@pytest.mark.parametrize("layer", [0, 1])
def test_nib_is_its_sum_over_the_path(layer):
    got = nib(request(), layer=layer, steps=3)
    for i, j in itertools.product(range(2), range(3)):
        expected = oracles_paths.nib(state(), request().pixels[i], request().targets[j], 2, layer, 3)
        assert relative_error(got[i, j].flatten(), expected[1:]) < 1e-6


def test_nib_of_words_is_its_sum_over_the_path():
    got = nib_words(word_request(), layer=1, steps=3)
    for i, j in itertools.product(range(2), range(3)):
        tokens = word_request().tokens[i]
        end = int(tokens.argmax())
        expected = oracles_paths.nib(state(), tokens, request().targets[j], 2, 1, 3)
        assert relative_error(got[i, j, 1:end], expected[1:end]) < 1e-6
        assert got[i, j, 0] == 0 and (got[i, j, end:] == 0).all()


@pytest.mark.parametrize("options", [dict(layer=2), dict(layer=-1), dict(layer=0, steps=0)])
def test_nib_says_what_is_out_of_range(options):
    with pytest.raises(MethodError, match="expected"):
        nib(request(), **options)


# -- head effects


def test_head_effects_are_each_heads_own_addition():
    got = effects_by_head(request().trace(layers=2), request().targets)
    for i, j in itertools.product(range(2), range(3)):
        expected = oracles_paths.head_effects(state(), request().pixels[i], request().targets[j], 2)
        assert relative_error(got[i, j], expected) < 1e-6
    maps = head_effects(request(), layers=2)
    assert relative_error(maps.flatten(-2), got[..., 1:].sum(dim=(2, 3))) < 1e-6


def test_heads_maps_sum_to_the_whole():
    by_head = [head_effects(request(), layers=1, head=head) for head in range(2)]
    assert relative_error(sum(by_head), head_effects(request(), layers=1)) < 1e-6
    with pytest.raises(MethodError, match="expected 0 to 1"):
        head_effects(request(), layers=1, head=2)


def test_a_head_that_adds_nothing_has_no_effect():
    network = small_clip.build(torch.float64, vlayers=2, tlayers=1, res=64, vocab=100)
    with torch.no_grad():
        network.visual.transformer.resblocks[1].attn.out_proj.weight[:, :64] = 0
    model = small_clip.wrap(network)
    asked = Request(model, request().pixels, request().targets)
    assert head_effects(asked, layers=1, head=0).abs().max() == 0
    assert head_effects(asked, layers=1, head=1).abs().max() > 0


# -- AttnLRP


def test_attn_lrp_hands_relevance_back_by_its_rules():
    got = attn_lrp(request())
    for i, j in itertools.product(range(2), range(3)):
        expected = oracles_paths.attn_lrp(state(), request().pixels[i], request().targets[j], 2)
        assert relative_error(got[i, j].flatten(), expected[1:]) < 1e-6


def test_attn_lrp_of_a_batch_is_that_of_each_image():
    alone = [attn_lrp(Request(exact(), each[None], request().targets)) for each in request().pixels]
    assert relative_error(attn_lrp(request()), torch.cat(alone)) < 1e-6


# -- interactions


@functools.cache
def values() -> dict[tuple[bool, ...], float]:
    """The cosine for all sets of the four patches and the three words."""
    shown = list(itertools.product([False, True], repeat=4))
    said = list(itertools.product([False, True], repeat=3))
    table = embed_patches(pair(), torch.tensor(shown), 8) @ embed_words(pair(), torch.tensor(said), 8).T
    return {(*s, *w): float(table[i, j]) for i, s in enumerate(shown) for j, w in enumerate(said)}


def banzhaf(players: list[int], patches: int, words: int, p: float) -> float:
    """E over sets of the others of the alternating sum of v with and without the players."""
    total, count = 0.0, patches + words
    others = [each for each in range(count) if each not in players]
    for taken in itertools.product([False, True], repeat=len(others)):
        weight = p ** sum(taken) * (1 - p) ** (len(taken) - sum(taken))
        for own in itertools.product([False, True], repeat=len(players)):
            joined = dict(zip([*others, *players], [*taken, *own], strict=True))
            sign = (-1) ** (len(own) - sum(own))
            total += weight * sign * values()[tuple(joined[each] for each in range(count))]
    return total


@pytest.mark.parametrize("p", [0.5, 0.7])
def test_fixlip_over_all_sets_is_the_weighted_banzhaf_interaction(p):
    found = fixlip(pair(), p=p)
    assert found.pairs.shape == (3, 2, 2) and found.names == ("a", "red", "cube")
    for patch, word in [(0, 0), (3, 1), (1, 2)]:
        expected = banzhaf([patch, 4 + word], 4, 3, p)
        assert abs(float(found.pairs[word].flatten()[patch]) - expected) < 1e-6
    assert abs(float(found.patches.flatten()[2]) - banzhaf([2], 4, 3, p)) < 1e-6
    assert abs(float(found.words[1]) - banzhaf([5], 4, 3, p)) < 1e-6
    assert abs(found.score - values()[(True,) * 7]) < 1e-6


@pytest.mark.parametrize("p", [0.5, 0.7])
def test_fixlips_map_is_the_change_of_its_fit_while_all_words_are_said(p):
    """The fit, written out: products of one patch and one word, each coded as taking part less p."""
    found = fixlip(pair(), p=p)

    def fitted(patches: list[float]) -> float:
        shown = torch.tensor(patches) - p
        said = torch.full((3,), 1 - p)
        return float(found.patches.flatten() @ shown + said @ found.pairs.flatten(1) @ shown)

    for patch in range(4):
        with_it, without = [[float(i == patch) * on for i in range(4)] for on in (1.0, 0.0)]
        assert abs(float(found.map.flatten()[patch]) - (fitted(with_it) - fitted(without))) < 1e-6
    maps = pair_maps(exact(), images((64, 64), (64, 64)), [TEXT, "a blue ball"], "fixlip", p=p)
    assert maps.shape == (2, 2, 2, 2) and torch.equal(maps[0, 0], fixlip(pair_of(0), p=p).map)


def test_fixlip_without_the_tokens_of_hidden_patches_is_that_of_their_embeddings(monkeypatch):
    """The same estimator, of the embeddings of the shown patches' tokens alone."""
    found = fixlip(pair(), hidden="drop")

    def embed(asked, sets, batch_size):
        return asked.model.embed_shown(asked.pixels, sets)

    monkeypatch.setattr("clip_explain.explainers.interactions.embed_patches", embed)
    assert torch.equal(found.pairs, fixlip(pair()).pairs)
    monkeypatch.undo()
    assert relative_error(found.pairs, fixlip(pair()).pairs) > 0.01
    with pytest.raises(MethodError, match="got hidden='black', expected"):
        fixlip(pair(), hidden="black")


def pair_of(seed: int) -> Pair:
    return make_pair(exact(), images((64, 64), (64, 64))[seed : seed + 1], TEXT)


def test_fixlip_of_drawn_sets_comes_near_and_follows_its_seed():
    asked = make_pair(exact(), images((64, 64)), "a red cube and two small green balls")
    exactly = fixlip(asked, texts=1024)
    drawn = [fixlip(asked, texts=100, generator=seed) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0].pairs, drawn[1].pairs) and not torch.equal(drawn[0].pairs, drawn[2].pairs)
    assert relative_error(drawn[0].pairs, exactly.pairs) < 0.3


def test_players_are_drawn_with_their_probability():
    sets, weights = draw_players(40, 0.3, 5000, torch.Generator().manual_seed(0))
    assert abs(sets.double().mean() - 0.3) < 0.01 and abs(float(weights.sum()) - 1) < 1e-12
    sets, weights = draw_players(3, 0.3, 8, torch.Generator().manual_seed(0))
    assert len(sets) == 8 and abs(float(weights.sum()) - 1) < 1e-12


def test_exclip_is_the_product_of_two_integrated_jacobians():
    asked = pair()
    found = exclip(asked, layer=1, steps=2)
    tokens = asked.tokens[0]
    end = int(tokens.argmax())
    empty = tokens.clone()
    empty[1:end] = 289
    blank = torch.zeros_like(asked.pixels[0])
    expected = oracles_paths.exclip(state(), asked.pixels[0], tokens, blank, empty, 2, 1, 2)
    assert relative_error(found.pairs.flatten(1), expected[1:end, 1:]) < 1e-6
    assert relative_error(found.patches.flatten(), expected[: end + 1].sum(dim=0)[1:]) < 1e-6
    assert relative_error(found.words, expected[1:end].sum(dim=1)) < 1e-6


def test_exclip_sums_to_the_cosine_less_its_references():
    """(e - e_r) . (f - f_r) / (|e| |f|), once the steps are many."""
    asked = pair()
    end = int(asked.tokens.argmax())
    empty = asked.tokens.clone()
    empty[0, 1:end] = 289
    e, e_r = (oracles_paths.parts(state(), each, 2)[2] for each in (asked.pixels[0], asked.pixels[0] * 0))
    f, f_r = (oracles_paths.parts(state(), each[0], 2)[2] for each in (asked.tokens, empty))
    expected = float((e - e_r) @ (f - f_r) / e.norm() / f.norm())
    assert abs(exclip_total(asked) - expected) < 5e-3


def exclip_total(asked: Pair) -> float:
    """The sum over all tokens of both sides, as `exclip` makes it before start, end and class token are left out."""
    nothing = asked.tokens.masked_fill(asked.members.any(dim=0), 289)
    dummy = torch.ones(1, 64, dtype=torch.float64)
    traces = [Request(asked.model, each, dummy).trace(layers=1) for each in (asked.pixels, asked.pixels * 0)]
    texts = [WordRequest(asked.model, each, dummy).trace(layers=2) for each in (asked.tokens, nothing)]
    return float((token_effects(*texts, 60) @ token_effects(*traces, 60).T).sum())


def test_a_pairs_words_and_tokens_have_their_names():
    text = "a zxqvkj cube"
    by_word, by_token = (make_pair(exact(), images((64, 64)), text, per) for per in ("word", "token"))
    assert by_word.names == ("a", "zxqvkj", "cube") and len(by_token.names) > 3
    with pytest.raises(MethodError, match="per"):
        make_pair(exact(), images((64, 64)), text, "letter")


@pytest.mark.parametrize("options", [dict(p=0.0), dict(p=1.0), dict(images=0), dict(texts=0)])
def test_fixlip_says_what_is_out_of_range(options):
    with pytest.raises(MethodError, match="expected"):
        fixlip(pair(), **options)


@pytest.mark.parametrize("method", ["fixlip", "exclip"])
def test_a_pair_is_explained_in_one_call(method):
    quick = {option.name: option.quick for option in METHODS[method].pair_options if option.quick is not None}
    options = quick | ({"layer": 1} if method == "exclip" else {})
    found = explain_pair(exact(), Image.new("RGB", (64, 64), "red"), TEXT, method, **options)
    assert found.pairs.shape == (3, 2, 2) and found.patches.shape == (2, 2) and found.words.shape == (3,)
    assert all(torch.isfinite(each).all() for each in (found.pairs, found.patches, found.words))


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((Image.new("RGB", (64, 64)), TEXT, "grad_eclip"), {}, MethodError, "unknown method 'grad_eclip' for pairs"),
        ((Image.new("RGB", (64, 64)), TEXT), {"q": 1}, MethodError, "fixlip has no option 'q'"),
        ((Image.new("RGB", (64, 64)), TEXT), {"p": "x"}, MethodError, "p='x'"),
        (([Image.new("RGB", (64, 64))] * 2, TEXT), {}, ImageError, "expected one"),
        ((Image.new("RGB", (64, 64)), " "), {}, TextError, "empty"),
    ],
)
def test_a_wrong_pair_is_said(arguments, options, error, message):
    with pytest.raises(error, match=message):
        explain_pair(exact(), *arguments, **options)


def test_the_score_of_a_pair_is_the_cosine():
    e, f = (oracles_paths.parts(state(), each[0], 2)[2] for each in (pair().pixels, pair().tokens))
    assert abs(float(whole(pair())) - float(e @ f / e.norm() / f.norm())) < 1e-9
