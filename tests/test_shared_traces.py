"""One forward for several methods: a trace that holds what is asked for serves it, with its numbers and gradients."""

import functools

import pytest
import torch

import small_clip
from clip_explain import request as requests
from clip_explain.errors import MethodError
from clip_explain.explainers import METHODS, names_of
from clip_explain.models import trace, vit
from clip_explain.models.trace import TraceOptions
from clip_explain.request import Request, WordRequest, in_parts, share_forward
from small_clip import relative_error

ALL = dict(layers=3, start="attention", tokens="all")
FAST = [name for name in names_of() if not METHODS[name].slow]
OPTIONS = {"clip_surgery": dict(layers=2), "gem": dict(layers=2), "nib": dict(layer=0)}
TOKENS = torch.tensor([[98, 5, 7, 99, 0, 0, 0, 0, 0], [98, 1, 2, 3, 4, 6, 99, 0, 0]])


@functools.cache
def exact_model():
    return small_clip.wrap(small_clip.build(torch.float64, vlayers=3, tlayers=3, vocab=100))


def asked(count=2):
    random = torch.Generator().manual_seed(0)
    pixels = torch.randn(count, 3, 96, 160, generator=random, dtype=torch.float64)
    directions = torch.randn(3, 64, generator=random, dtype=torch.float64)
    return Request(exact_model(), pixels, torch.nn.functional.normalize(directions, dim=-1))


@pytest.fixture
def forwards(monkeypatch):
    """The number of layers that each forward of images goes through."""
    counted = []
    run = vit._run

    def counting(tower, x, pooled, grid, own, options, first=0):
        counted.append(len(tower.layers) - first)
        return run(tower, x, pooled, grid, own, options, first)

    monkeypatch.setattr(vit, "_run", counting)
    return counted


@pytest.mark.parametrize(
    ("made", "wanted", "serves"),
    [
        ({}, {}, True),
        (dict(layers=2), {}, True),
        ({}, dict(layers=2), False),
        (dict(tokens="all"), {}, True),
        ({}, dict(tokens="all"), False),
        (dict(heads="single"), {}, False),
        (dict(heads="single", layers=2), dict(heads="single"), False),
        (dict(heads="single", layers=2), dict(heads="single", single=2), True),
        (dict(heads="native", single=2), {}, True),
        (dict(start="attention"), {}, True),
        ({}, dict(start="attention"), False),
        (dict(start="attention"), dict(start="attended"), True),
        (dict(start="attention"), dict(start="input"), False),
        (dict(start="attention", layers=2), dict(start="input"), True),
        (dict(start="attended"), dict(start="attention"), False),
        (dict(padding=True), {}, False),
    ],
)
def test_which_trace_serves_which(made, wanted, serves):
    assert TraceOptions(**made).serves(TraceOptions(**wanted)) is serves


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("start", [None, "input", "attention", "attended"])
@pytest.mark.parametrize("tokens", ["class", "all"])
def test_a_part_of_a_trace_has_the_numbers_and_the_gradients_of_its_own(layers, start, tokens, forwards):
    options = dict(layers=layers, start=start, tokens=tokens)
    alone, shared = asked().trace(**options), asked()
    shared.trace(layers=3, start="input", tokens="all")
    del forwards[:]
    part = shared.trace(**options)
    assert not forwards and len(part.blocks) == layers
    assert relative_error(part.embedding, alone.embedding) < 1e-10
    for got, expected in zip(part.blocks, alone.blocks, strict=True):
        for name in ("input", "k", "v", "attention", "attended", "output"):
            whole = getattr(got, name)
            rows = whole if whole.shape == getattr(expected, name).shape else whole[..., :1, :]
            assert relative_error(rows, getattr(expected, name)) < 1e-10
        if start is None:
            assert not got.attention.requires_grad and got.attention.shape == expected.attention.shape
    if start is not None:
        name = start if start == "input" else "attention" if start == "attention" else "attended"
        found, own = (
            trace.gradients(each.embedding, [getattr(block, name) for block in each.blocks], shared.targets)
            for each in (part, alone)
        )
        for got, expected in zip(found, own, strict=True):
            assert relative_error(got[..., : expected.shape[-2], :], expected) < 1e-8


@pytest.mark.parametrize("options", [dict(heads="single"), dict(heads="single", layers=2, start="attended")])
def test_a_trace_goes_on_from_another_ones_tokens(options, forwards):
    alone, shared = asked().trace(**options), asked()
    share_forward(shared)
    del forwards[:]
    found = shared.trace(**options)
    assert forwards == [options.get("layers", 1)]
    assert relative_error(found.embedding, alone.embedding) < 1e-10
    assert relative_error(found.blocks[0].attention, alone.blocks[0].attention) < 1e-10


def test_a_texts_trace_goes_on_too_and_padding_is_another_trace(forwards):
    request = WordRequest(exact_model(), TOKENS, asked().targets)
    request.trace(layers=3)
    request.trace(layers=1)
    request.trace(heads="single", layers=2)
    request.trace(layers=2, padding=True)
    assert forwards == [3, 2, 3]


def test_all_fast_methods_share_one_forward_and_have_their_own_maps(forwards):
    shared = asked()
    share_forward(shared)
    for name in FAST:
        found = METHODS[name].image(shared, **OPTIONS.get(name, {}))
        count, expected = len(forwards), METHODS[name].image(asked(), **OPTIONS.get(name, {}))
        del forwards[count:]
        assert (found - expected).abs().max() <= 1e-6 * max(1e-3, expected.abs().max()), name
    assert forwards[0] == 3 and set(forwards[1:]) == {1}  # the layer with a single head


def test_an_option_out_of_range_is_refused_though_a_larger_trace_is_there():
    request = asked()
    request.trace(**ALL)
    for bad in (dict(layers=0), dict(layers=4), dict(tokens="some"), dict(start="end"), dict(heads="both")):
        with pytest.raises(MethodError):
            request.trace(**bad)


def test_a_trace_that_is_asked_for_again_is_the_same_object():
    request = asked()
    request.trace(**ALL)
    assert request.trace(layers=2) is request.trace(layers=2)


@pytest.mark.parametrize("name", ["game", "all_gradients", "legrad"])
def test_images_in_parts_have_the_maps_of_all_at_once(name, forwards, monkeypatch):
    whole = METHODS[name].image(asked(5))
    assert len(forwards) == 1
    monkeypatch.setattr(requests, "BYTES_AT_ONCE", 2 * requests.graph_bytes(asked(1), 3))
    parts = METHODS[name].image(asked(5))
    assert len(forwards) == 1 + 3 and relative_error(parts, whole) < 1e-6
    shared = asked(5)
    share_forward(shared)
    assert [len(part.pixels) for part in in_parts(shared, **ALL)] == [5]  # it is there already


def test_game_and_all_gradients_share_one_backward(monkeypatch):
    calls, request = [], asked()
    gradients = trace.gradients
    monkeypatch.setattr(
        "clip_explain.explainers.gradients.gradients", lambda *given: calls.append(1) or gradients(*given)
    )
    logit = METHODS["game"].image(request)
    cosine = METHODS["all_gradients"].image(request)
    assert len(calls) == 1
    assert relative_error(cosine, METHODS["game"].image(asked(), scale_logits=False)) < 1e-6
    logit.zero_()  # maps are the caller's
    assert METHODS["game"].image(request).any()


def test_the_activation_in_place_is_the_modules():
    block = small_clip.build(**small_clip.SMALL).visual.transformer.resblocks[0]
    layer = vit.image_tower(small_clip.build(**small_clip.SMALL)).layers[0]
    normed = torch.randn(2, 5, 128, generator=torch.Generator().manual_seed(1))
    expected = block.mlp.gelu(block.mlp.c_fc(normed)).detach()
    with torch.no_grad():
        assert relative_error(vit.mlp_hidden(layer, normed), expected) < 1e-6
    assert relative_error(vit.mlp_hidden(layer, normed.requires_grad_()).detach(), expected) < 1e-6
