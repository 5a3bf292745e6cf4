"""The trace: equal to the model's own encoders, to the oracle block by block, and without a trace left on the model."""

import functools

import pytest
import torch
from clip.model import CLIP

import oracles
import small_clip
from clip_explain.errors import MethodError, ModelError, TensorError
from clip_explain.models.trace import gradients, pooled_row
from clip_explain.models.vit import resize_positions, trace_image, trace_text
from small_clip import relative_error

TOKENS = torch.tensor([[98, 5, 7, 99] + [0] * 73, [98, 1, 2, 3, 4, 6, 99] + [0] * 70, [98, 9, 99] + [0] * 74])


@functools.cache
def small(dtype=torch.float32, **options):
    return small_clip.build(dtype, vocab=100, **options)


@functools.cache
def full_size(patch):
    """A ViT-B image encoder with random weights; attention widened as in a trained model, so that heads matter."""
    torch.manual_seed(patch)
    network = CLIP(512, 224, 12, 768, patch, 77, 100, 64, 1, 2).eval()
    for block in network.visual.transformer.resblocks:
        block.attn.in_proj_weight.data *= 3
    return network


@pytest.mark.parametrize("network", [small, *(functools.partial(full_size, patch) for patch in (32, 16))])
def test_embedding_is_the_models_own_image_embedding(network):
    pixels = small_clip.marked(torch.cat([small_clip.pixels(seed, 224, 224) for seed in (1, 2)]))
    with torch.no_grad():
        expected = network().encode_image(pixels)
    assert relative_error(trace_image(network(), pixels, start="attended").embedding, expected) < 1e-5


def test_embedding_does_not_depend_on_what_is_kept():
    pixels = small_clip.pixels(1, 224, 224)
    with torch.no_grad():
        expected = small().encode_image(pixels)
    for options in ({}, dict(layers=8, start="input", tokens="all"), dict(layers=2, start="attention"), dict(single=0)):
        heads = "single" if "single" in options else "native"
        assert relative_error(trace_image(small(), pixels, heads=heads, **options).embedding, expected) < 1e-5


@pytest.mark.parametrize("options", [{}, dict(layers=10, start="attention", tokens="all"), dict(padding=True)])
def test_embedding_is_the_models_own_text_embedding(options):
    with torch.no_grad():
        expected = small().encode_text(TOKENS)
    assert relative_error(trace_text(small(), TOKENS, **options).embedding, expected) < 1e-5


@pytest.mark.parametrize("dtype, tolerance", [(torch.float16, 0.01), (torch.bfloat16, 0.05)])
def test_half_precision_agrees_with_the_model(dtype, tolerance):
    network, pixels = small_clip.half(small(), dtype), small_clip.pixels(3, 224, 224)
    with torch.no_grad():
        image, text = network.encode_image(pixels), network.encode_text(TOKENS)
    trace = trace_image(network, pixels, start="attended")
    assert trace.embedding.dtype == dtype
    assert relative_error(trace.embedding, image) < tolerance
    assert relative_error(trace_text(network, TOKENS).embedding, text) < tolerance


@pytest.mark.parametrize("heads, single", [("native", 0), ("single", 1), ("single", 2)])
@pytest.mark.parametrize("size", [(224, 224), (64, 160)])
def test_every_image_block_equals_the_oracle(heads, single, size):
    network = small(torch.float64, vlayers=3)
    pixels = small_clip.pixels(4, *size).double()
    found, embedding, grid = oracles.image_forward(network.state_dict(), pixels[0], 2, single)
    trace = trace_image(network, pixels, heads=heads, single=single, layers=3, start="input", tokens="all")
    assert trace.grid == grid == (size[0] // 32, size[1] // 32)
    assert relative_error(trace.embedding[0], embedding) < 1e-10
    for block, expected in zip(trace.blocks, found, strict=True):
        compare(block, expected)


@pytest.mark.parametrize("single", [0, 2])
def test_every_text_block_equals_the_oracle(single):
    network = small(torch.float64, tlayers=3)
    found, embedding, end = oracles.text_forward(network.state_dict(), TOKENS[1], 2, single)
    trace = trace_text(network, TOKENS[1:2], heads="single", single=single, layers=3, tokens="all", padding=True)
    assert trace.pooled.tolist() == [end] == [6]
    assert relative_error(trace.embedding[0], embedding) < 1e-10
    for block, expected in zip(trace.blocks, found, strict=True):
        compare(block, expected)


def compare(block, expected):
    for name in ("q", "k", "v"):
        joined = getattr(block, name)[0].transpose(0, 1).flatten(1)
        assert relative_error(joined, expected[name]) < 1e-10
    assert relative_error(block.input[0], expected["input"]) < 1e-10
    assert relative_error(block.attention[0], expected["attention"]) < 1e-10
    assert relative_error(block.attended[0], expected["o"]) < 1e-10
    assert relative_error(block.output[0], expected["output"]) < 1e-10


def test_the_pooled_token_alone_is_its_row_of_all_tokens():
    for trace in (functools.partial(trace_text, small(), TOKENS), functools.partial(trace_image, small(), images())):
        (alone,), (full,) = trace().blocks, trace(tokens="all").blocks
        pooled = trace().pooled
        for name in ("q", "attention", "attended", "output"):
            assert getattr(alone, name).shape[-2] == 1
            row, same = pooled_row(getattr(alone, name), pooled), pooled_row(getattr(full, name), pooled)
            torch.testing.assert_close(row, same, rtol=1e-4, atol=1e-4)


def images():
    return small_clip.marked(torch.cat([small_clip.pixels(seed, 96, 128) for seed in (5, 6, 7)]))


@pytest.mark.parametrize("start, name", [("input", "input"), ("attention", "attention"), ("attended", "attended")])
def test_gradients_of_all_targets_equal_one_autograd_call_each(start, name):
    network = small(torch.float64, vlayers=2)
    trace = trace_image(network, images().double(), layers=2, start=start)
    targets = torch.nn.functional.normalize(
        torch.randn(5, 64, generator=torch.Generator().manual_seed(0)).double(), dim=1
    )
    tensors = [getattr(block, name) for block in trace.blocks]
    got = gradients(trace.embedding, tensors, targets)
    for index in range(3):
        for number, target in enumerate(targets):
            score = oracles.cosine(trace.embedding[index], target)
            expected = torch.autograd.grad(score, tensors, retain_graph=True)
            for tensor, grad in zip(got, expected, strict=True):
                assert relative_error(tensor[index, number], grad[index]) < 1e-10


def test_gradients_are_the_same_in_any_number_of_passes(monkeypatch):
    trace = trace_image(small(), images(), start="attended")
    targets = torch.nn.functional.normalize(torch.randn(7, 64, generator=torch.Generator().manual_seed(1)), dim=1)
    (once,) = gradients(trace.embedding, [trace.blocks[0].attended], targets)
    monkeypatch.setattr("clip_explain.models.trace.ROWS_AT_ONCE", 6)
    (often,) = gradients(trace.embedding, [trace.blocks[0].attended], targets)
    assert relative_error(often, once) < 1e-5


def test_graph_starts_where_asked_and_not_before():
    first, last = trace_image(small(), images(), layers=2, start="attended").blocks
    assert first.attended.is_leaf and first.attended.requires_grad
    assert not first.input.requires_grad and not first.attention.requires_grad
    assert last.input.requires_grad and last.attention.requires_grad
    assert not trace_image(small(), images()).embedding.requires_grad


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_work_whatever_the_callers_mode(mode):
    targets = torch.eye(64)[:1]
    expected = trace_image(small(), images(), start="attended")
    with mode():
        trace = trace_image(small(), images(), start="attended")
        (got,) = gradients(trace.embedding, [trace.blocks[0].attended], targets)
    assert relative_error(got, gradients(expected.embedding, [expected.blocks[0].attended], targets)[0]) < 1e-5


def test_positions_of_the_models_own_grid_are_left_alone_and_others_have_their_length():
    position = small().visual.positional_embedding.detach()
    assert resize_positions(position, (7, 7)) is position
    resized = resize_positions(position, (2, 5))
    assert resized.shape == (11, 128) and torch.equal(resized[0], position[0])


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was(fails, monkeypatch):
    network = small_clip.build(vocab=100, vlayers=2, tlayers=2)
    network.visual.requires_grad_(False)
    network.transformer.train()
    before = snapshot(network)
    if fails:
        monkeypatch.setattr("clip_explain.models.vit.project", lambda *_: 1 / 0)
    for call in (functools.partial(trace_image, network, images()), functools.partial(trace_text, network, TOKENS)):
        if fails:
            with pytest.raises(ZeroDivisionError):
                call(layers=2, heads="single", start="input")
        else:
            trace = call(layers=2, heads="single", start="input")
            gradients(trace.embedding, [block.attended for block in trace.blocks], torch.eye(64)[:2])
    after = snapshot(network)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def snapshot(network):
    """Everything of a network that a call could have changed, as tensors."""
    state = {name: value.clone() for name, value in network.state_dict().items()}
    state |= {f"{name} requires_grad": torch.tensor(p.requires_grad) for name, p in network.named_parameters()}
    state |= {f"{name} has grad": torch.tensor(p.grad is not None) for name, p in network.named_parameters()}
    state |= {f"{name} trains": torch.tensor(module.training) for name, module in network.named_modules()}
    state |= {f"{name} hooks": torch.tensor(len(m._forward_hooks)) for name, m in network.named_modules()}
    with torch.no_grad():
        return state | {
            "image": network.encode_image(small_clip.pixels(8, 224, 224)),
            "text": network.encode_text(TOKENS),
        }


@pytest.mark.parametrize(
    "options, expected",
    [
        (dict(layers=0), "1 to 8"),
        (dict(layers=9), "1 to 8"),
        (dict(heads="single", single=9), "0 to 8"),
        (dict(heads="many"), "'native', 'single'"),
        (dict(start="output"), "'attended'"),
        (dict(tokens="some"), "'class', 'all'"),
    ],
)
def test_bad_options_are_told_what_is_possible(options, expected):
    with pytest.raises(MethodError, match=expected):
        trace_image(small(), images(), **options)


@pytest.mark.parametrize("shape", [(3, 224, 224), (1, 1, 224, 224), (1, 3, 224, 200), (1, 3, 0, 32), (0, 3, 32, 32)])
def test_pixels_of_a_wrong_shape_are_refused(shape):
    with pytest.raises(TensorError, match="multiples of the patch, 32 x 32"):
        trace_image(small(), torch.zeros(shape))


def test_tokens_of_a_wrong_kind_are_refused():
    for tokens in (TOKENS[0], TOKENS.float(), TOKENS[:0]):
        with pytest.raises(TensorError, match="texts, context"):
            trace_text(small(), tokens)


def test_a_resnet_has_no_trace():
    network = CLIP(64, 64, (1, 1, 1, 1), 8, None, 77, 100, 64, 1, 1)
    with pytest.raises(ModelError, match="ModifiedResNet"):
        trace_image(network, torch.zeros(1, 3, 64, 64))
    assert trace_text(network.eval(), TOKENS).embedding.shape == (3, 64)
