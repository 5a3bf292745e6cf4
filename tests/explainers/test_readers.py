"""The readers of one trace: against the authors' code, against the papers' equations in float64, and invariants."""

import functools

import numpy as np
import pytest
import torch
from clip.model import CLIP
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, LayerCAM, ScoreCAM, XGradCAM

import oracles_readers
import small_clip
from clip_explain import maps as scaling
from clip_explain.errors import MethodError
from clip_explain.explainers import METHODS, explain
from clip_explain.explainers.grad_cam import VARIANTS, _as_map, _entering_tokens, _stage_output, grad_cam
from clip_explain.models.model import Model, unit
from clip_explain.models.resnet import resnet_embedding, resnet_stage
from clip_explain.models.trace import gradients
from clip_explain.request import Request, WordRequest, make_word_request
from small_clip import GOLDEN, TEXTS, exact_model, golden_model, golden_query, relative_error

TOKENS = torch.tensor([[98, 5, 7, 99, 0, 0, 0, 0, 0], [98, 1, 2, 3, 4, 6, 99, 0, 0]])

# Every reader of images with its options, for the invariants.
READERS = [
    ("rollout", {}),
    ("rollout", dict(layers=1)),
    ("grad_cam", {}),
    ("grad_cam", dict(layer=1)),
    ("grad_cam", dict(heads="single", pool="tokens")),
    ("grad_cam", dict(variant="grad_cam_plus_plus")),
    ("grad_cam", dict(variant="layer_cam")),
    ("attention_grad_cam", {}),
    ("attention_grad_cam", dict(pooled=True)),
    ("game", {}),
    ("game", dict(layers=2, scale_logits=False)),
    ("all_gradients", {}),
    ("last_gradient", {}),
    ("maskclip", {}),
    ("maskclip", dict(key_weight=True)),
    ("itsm", {}),
    ("reversed_itsm", {}),
    ("legrad", {}),
    ("legrad", dict(layers=2, pool="class")),
]
WORD_READERS = [
    ("self_attention", {}),
    ("self_attention", dict(heads="single", single=2)),
    ("rollout", {}),
    ("game", {}),
    ("game", dict(layers=1)),
]
RESNET_READERS = [("grad_cam", dict(variant=variant)) for variant in VARIANTS]
RESNET_READERS += [(name, {}) for name in ("self_attention", "maskclip", "itsm", "reversed_itsm")]
SCORE_CAM = dict(variant="score_cam", scale_logits=True)


def random_targets(count, dtype=torch.float64):
    return unit(torch.randn(count, 64, generator=torch.Generator().manual_seed(2), dtype=dtype))


def images(size=(96, 160), count=2, dtype=torch.float64):
    return small_clip.marked(torch.cat([small_clip.pixels(seed, *size) for seed in range(20, 20 + count)]).to(dtype))


@functools.cache
def small32() -> Model:
    return small_clip.wrap(small_clip.build(vlayers=3, tlayers=3, vocab=100))


@functools.cache
def resnet(dtype=torch.float32) -> Model:
    """A random CLIP with a ModifiedResNet of one block a stage, its batch norms far from the identity."""
    random = torch.Generator().manual_seed(5)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        network = CLIP(64, 64, (1, 1, 1, 1), 8, None, 9, 100, 64, 1, 1)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.5, 1.5),
                (module.bias, -0.5, 0.5),
                (module.running_var, 0.5, 2),
            ):
                tensor.data.uniform_(low, high, generator=random)
            module.running_mean.uniform_(-0.5, 0.5, generator=random)
    return small_clip.wrap(network.eval().to(dtype))


def close(got, expected):
    """Equal up to a relative error of 1e-6; where nothing is left after a ReLU, zero like the other."""
    return got.shape == expected.shape and bool((got - expected).norm() <= 1e-6 * expected.norm())


def check_oracle(method, options, oracle, model=None, **oracle_options):
    """Each image and target of a batch against `oracle(state, image, target, native heads, ...)`."""
    model, pixels, directions = model or exact_model(), images(), random_targets(3)
    got = METHODS[method].image(Request(model, pixels, directions), **options)
    assert got.shape == (2, 3, 3, 5) and got.dtype == torch.float32 and got.any()
    for index, image in enumerate(pixels):
        for number, target in enumerate(directions):
            expected = oracle(model.network.state_dict(), image, target, 2, **oracle_options)
            assert close(got[index, number], expected)


def check_word_oracle(method, options, oracle, **oracle_options):
    model, directions = exact_model(), random_targets(2)
    got = METHODS[method].words(WordRequest(model, TOKENS, directions), **options)
    assert got.shape == (2, 2, 7) and got.dtype == torch.float32 and got.any()
    for index, text in enumerate(TOKENS):
        end = int(text.argmax())
        for number, target in enumerate(directions):
            expected = oracle(model.network.state_dict(), text, target, 2, **oracle_options)
            assert close(got[index, number, 1:end], expected)
        assert not got[index, :, :1].any() and not got[index, :, end:].any()


def without_target(oracle):
    return lambda state, x, target, native, **options: oracle(state, x, native, **options)


# ------------------------------------------------------------------------------------------------- the authors' code


@pytest.mark.parametrize(
    "key, method, options",
    [
        ("rollout", "rollout", {}),
        ("rollout_last_layer", "rollout", dict(layers=1)),
        ("grad_cam", "grad_cam", dict(heads="single", pool="tokens")),
        ("maskclip", "maskclip", dict(key_weight=True)),
        ("game", "game", {}),
        ("game_last_layer", "game", dict(layers=1)),
        ("itsm", "itsm", {}),
        ("last_gradient", "last_gradient", {}),
        ("all_gradients", "all_gradients", {}),
        ("attention_grad_cam", "attention_grad_cam", {}),
    ],
)
def test_golden(key, method, options):
    expected = torch.from_numpy(GOLDEN[key]).reshape(-1, 7, 7).expand(3, 7, 7)
    assert relative_error(METHODS[method].image(golden_query(), **options)[0], expected) < 1e-4


@pytest.mark.parametrize("method", ["last_gradient", "all_gradients", "attention_grad_cam"])
def test_golden_negative_saliency_is_that_of_the_negated_target(method):
    negated = Request(golden_model(), golden_query().pixels, -golden_query().targets)
    assert relative_error(METHODS[method].image(negated)[0], GOLDEN[f"{method}_negative"]) < 1e-4


@pytest.mark.parametrize(
    "key, method, options",
    [
        ("text_game", "game", {}),
        ("text_self_attention_single_head", "self_attention", dict(heads="single", single=8)),
    ],
)
def test_golden_words(key, method, options):
    request = make_word_request(golden_model(), torch.from_numpy(GOLDEN["image_features"]), TEXTS)
    found = METHODS[method].words(request, **options)
    for index, end in enumerate(request.tokens.argmax(dim=-1).tolist()):
        assert relative_error(found[index, 0, 1:end], GOLDEN[f"{key}/{index}"]) < 1e-4


# ---------------------------------------------------------------------------------------------- the papers' equations


@pytest.mark.parametrize("layers, read", [(1, 1), (2, 2), (None, 2)])
def test_oracle_rollout(layers, read):
    check_oracle("rollout", dict(layers=layers), without_target(oracles_readers.rollout), layers=read)


@pytest.mark.parametrize("layers, read", [(1, 1), (None, 2)])
@pytest.mark.parametrize("scale_logits", [True, False])
def test_oracle_game(layers, read, scale_logits):
    scale = exact_model().network.logit_scale.exp().item() if scale_logits else 1.0
    options = dict(layers=layers, scale_logits=scale_logits)
    check_oracle("game", options, oracles_readers.game, layers=read, scale=scale)


@pytest.mark.parametrize("method, last_gradient", [("all_gradients", False), ("last_gradient", True)])
def test_oracle_epfl(method, last_gradient):
    check_oracle(method, {}, oracles_readers.game, layers=2, scale=1.0, last_gradient=last_gradient)


@pytest.mark.parametrize("pooled", [False, True])
def test_oracle_attention_grad_cam(pooled):
    check_oracle("attention_grad_cam", dict(pooled=pooled), oracles_readers.attention_grad_cam, pooled=pooled)


@pytest.mark.parametrize("pool", ["mean", "class"])
@pytest.mark.parametrize("layers, read", [(1, 1), (None, 2)])
def test_oracle_legrad(layers, read, pool):
    check_oracle("legrad", dict(layers=layers, pool=pool), oracles_readers.legrad, layers=read, pool=pool)


@pytest.mark.parametrize("heads", ["native", "single"])
@pytest.mark.parametrize("pool", ["patches", "tokens"])
@pytest.mark.parametrize("layer, read", [(0, 0), (None, 1)])
def test_oracle_grad_cam(layer, read, heads, pool):
    options = dict(heads=heads, pool=pool)
    check_oracle("grad_cam", options | dict(layer=layer), oracles_readers.grad_cam, layer=read, **options)


@pytest.mark.parametrize("key_weight", [False, True])
def test_oracle_maskclip(key_weight):
    check_oracle("maskclip", dict(key_weight=key_weight), oracles_readers.maskclip, key_weight=key_weight)


def test_oracle_itsm():
    check_oracle("itsm", {}, oracles_readers.itsm)
    check_oracle("reversed_itsm", {}, lambda *given: (1 - oracles_readers.itsm(*given)).abs())


def test_reversed_itsm_once_scaled_is_the_papers():
    request = Request(small32(), images(dtype=torch.float32), random_targets(3, torch.float32))
    expected = (1 - scaling.normalize(METHODS["itsm"].image(request))).abs()
    assert torch.allclose(scaling.normalize(METHODS["reversed_itsm"].image(request)), expected, atol=1e-5)


@pytest.mark.parametrize("layers, read", [(1, 1), (None, 3)])
def test_oracle_words(layers, read):
    scale = exact_model().network.logit_scale.exp().item()
    check_word_oracle("rollout", dict(layers=layers), without_target(oracles_readers.rollout), layers=read)
    check_word_oracle("game", dict(layers=layers), oracles_readers.game, layers=read, scale=scale)
    options = dict(layers=layers, scale_logits=False)
    check_word_oracle("game", options, oracles_readers.game, layers=read, scale=1.0)


@pytest.mark.parametrize("options, single", [({}, 0), (dict(heads="single"), 1), (dict(heads="single", single=3), 3)])
def test_oracle_self_attention_words(options, single):
    check_word_oracle("self_attention", options, without_target(oracles_readers.self_attention), single=single)


def test_rollout_by_hand():
    """Two tokens, two layers: (A2 + I)/2 (A1 + I)/2, its first row."""
    from clip_explain.explainers.attention import propagate

    first, last = torch.tensor([[0.5, 0.5], [0.2, 0.8]]), torch.tensor([[0.4, 0.6], [1.0, 0.0]])
    row = propagate([first[None, None], last[None, None]], torch.tensor([0]))
    # (1.4, 0.6) is the first row of A2 + I; times A1 + I = ((1.5, 0.5), (0.2, 1.8)).
    assert torch.allclose(row[0, 0], torch.tensor([1.4 * 1.5 + 0.6 * 0.2, 1.4 * 0.5 + 0.6 * 1.8]))


# -------------------------------------------------------------------------------------------------- Grad-CAM, ResNets


def test_the_resnet_written_out_is_the_models_own():
    network, pixels = resnet(torch.float64).network, images((64, 64))
    expected = network.encode_image(pixels)
    for stage in (1, 2, 3, 4):
        got = resnet_embedding(network.visual, resnet_stage(network.visual, pixels, stage), stage)
        assert relative_error(got, expected) < 1e-12


@pytest.mark.parametrize("layer, stage, grid", [(None, 4, (2, 2)), (2, 3, (4, 4))])
def test_oracle_resnet_grad_cam(layer, stage, grid):
    model, pixels, directions = resnet(torch.float64), images((64, 64)), random_targets(3)
    got = grad_cam(Request(model, pixels, directions), layer=layer)
    assert got.shape == (2, 3, *grid)
    for index in range(2):
        for number in range(3):
            expected = oracles_readers.resnet_grad_cam(model.network, pixels[index], directions[number], stage)
            assert close(got[index, number], expected)


@pytest.mark.parametrize(
    "method, oracle",
    [
        ("self_attention", lambda network, image, target: oracles_readers.resnet_attention(network, image)),
        ("maskclip", oracles_readers.resnet_maskclip),
        ("itsm", oracles_readers.resnet_itsm),
        ("reversed_itsm", lambda *given: (1 - oracles_readers.resnet_itsm(*given)).abs()),
    ],
)
def test_oracle_resnet_pooling(method, oracle):
    model, pixels, directions = resnet(torch.float64), images((64, 64)), random_targets(3)
    got = METHODS[method].image(Request(model, pixels, directions))
    assert got.shape == (2, 3, 2, 2) and got.dtype == torch.float32
    for index in range(2):
        for number in range(3):
            assert close(got[index, number], oracle(model.network, pixels[index], directions[number]))


@pytest.mark.parametrize("heads", ["single", "native"])
def test_oracle_resnet_grad_eclip(heads):
    model, pixels, directions = resnet(torch.float64), images((64, 64)), random_targets(3)
    got = METHODS["grad_eclip"].image(Request(model, pixels, directions), heads=heads)
    assert got.shape == (2, 3, 2, 2) and got.any()
    for index in range(2):
        for number in range(3):
            pair = pixels[index], directions[number]
            expected = oracles_readers.resnet_grad_eclip(model.network, *pair, heads == "single")
            assert torch.allclose(got[index, number].double(), expected, rtol=1e-6, atol=1e-6 * float(expected.max()))


# The classes of the grad-cam package, an independent implementation.
PACKAGE = {
    "grad_cam": GradCAM,
    "grad_cam_plus_plus": GradCAMPlusPlus,
    "xgrad_cam": XGradCAM,
    "layer_cam": LayerCAM,
    "score_cam": ScoreCAM,
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_resnet_maps_once_scaled_are_those_of_the_whole_package(variant, monkeypatch):
    model, pixels, target = resnet(), images((64, 64), dtype=torch.float32), random_targets(1, torch.float32)
    got = scaling.resize(
        scaling.normalize(grad_cam(Request(model, pixels, target), layer=2, variant=variant)), (64, 64)
    )
    with PACKAGE[variant](model.network.visual, [model.network.visual.layer3]) as package:
        monkeypatch.setattr("tqdm.tqdm", lambda steps: steps)
        expected = package(pixels, [lambda embedding: torch.cosine_similarity(embedding, target[0], dim=0)] * 2)
    assert np.abs(scaling.normalize(got)[:, 0].numpy() - expected).max() < 1e-3


@pytest.mark.parametrize("make", [exact_model, lambda: resnet(torch.float64)])
@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "score_cam"])
@pytest.mark.parametrize("scale_logits", [False, True])
def test_raw_maps_are_the_packages_weighting_of_the_same_features(make, variant, scale_logits):
    directions = random_targets(3)
    request = Request(make(), images((64, 64)), torch.cat([directions, -directions]))
    read = _entering_tokens if request.model.is_vit else _stage_output
    leaf, embedding, grid = read(request, None, "native")
    (slope,) = gradients(embedding, [leaf], request.targets)
    slope = slope * (request.model.logit_scale if scale_logits else 1.0)
    package = PACKAGE[variant](torch.nn.ParameterList([torch.nn.Parameter(torch.zeros(1))]), [])  # puts no hook on ours
    features = _as_map(leaf.detach(), grid).repeat_interleave(6, dim=0).numpy()
    slopes = _as_map(slope, grid).flatten(0, 1).numpy()
    maps = package.get_cam_image(request.pixels, None, None, features, slopes, False)
    expected = torch.from_numpy(maps).relu().unflatten(0, (2, 6)).float()
    got = grad_cam(request, variant=variant, scale_logits=scale_logits)
    assert got.any() and relative_error(got, expected) < 1e-5


@pytest.mark.parametrize("make", [exact_model, lambda: resnet(torch.float64)])
def test_oracle_score_cam(make):
    model, pixels, directions = make(), images((64, 96)), random_targets(2)
    visual, request = model.network.visual, Request(make(), pixels, directions)
    got = grad_cam(request, layer=0, **SCORE_CAM)

    def encode(masked):
        if model.is_vit:
            return Request(model, masked, directions).trace().embedding
        return resnet_embedding(visual, resnet_stage(visual, masked, 4), 4)

    if model.is_vit:
        trace = request.trace(layers=2)
        features = trace.blocks[0].input[:, 1:].transpose(1, 2).unflatten(-1, trace.grid)
    else:
        features = resnet_stage(visual, pixels, 1)
    scale = model.network.logit_scale.exp()
    for index in range(2):
        for number in range(2):
            expected = oracles_readers.score_cam(encode, pixels[index], features[index], directions[number], scale)
            assert close(got[index, number], expected)


@pytest.mark.parametrize("method, options", RESNET_READERS)
def test_resnet_batch_is_the_loop_at_any_size(method, options):
    pixels, directions = images((64, 96), dtype=torch.float32), random_targets(3, torch.float32)
    batch = explain(resnet(), pixels, directions, method=method, **options)
    assert batch.shape == (2, 3, 2, 3) and torch.isfinite(batch).all()
    for index in range(2):
        for number in range(3):
            one = pixels[index : index + 1], directions[number : number + 1]
            alone = explain(resnet(), *one, method=method, **options)[0, 0]
            assert torch.allclose(alone, batch[index, number], rtol=1e-3, atol=1e-5 * float(batch.max()))


def test_score_cam_of_a_batch_is_the_loop():
    pixels, directions = images((64, 96), dtype=torch.float32), random_targets(3, torch.float32)
    batch = explain(small32(), pixels, directions, method="grad_cam", layer=0, **SCORE_CAM)
    alone = explain(small32(), pixels[1:], directions[2:], method="grad_cam", layer=0, **SCORE_CAM)
    assert batch.any() and relative_error(alone[0, 0], batch[1, 2]) < 1e-4


def test_a_resnet_is_told_what_fits_it():
    pixels, directions = images((64, 64), dtype=torch.float32), random_targets(1, torch.float32)
    for method in {name for name, _ in READERS} - {name for name, _ in RESNET_READERS}:
        with pytest.raises(MethodError, match=f"{method} needs a vision transformer .*grad_cam, maskclip, itsm"):
            explain(resnet(), pixels, directions, method=method)


# --------------------------------------------------------------------------------------------------------- invariants


@pytest.mark.parametrize("method, options", READERS)
def test_a_batch_is_the_loop_over_its_images_and_targets(method, options):
    model, pixels, directions = small32(), images(dtype=torch.float32, count=3), random_targets(4, torch.float32)
    batch = explain(model, pixels, directions, method=method, **options)
    assert batch.shape == (3, 4, 3, 5) and batch.dtype == torch.float32 and torch.isfinite(batch).all() and batch.any()
    for index in range(3):
        for number in range(4):
            one = pixels[index : index + 1], directions[number : number + 1]
            alone = explain(model, *one, method=method, **options)[0, 0]
            assert torch.allclose(alone, batch[index, number], rtol=1e-3, atol=1e-5 * float(batch.abs().max()))


@pytest.mark.parametrize("method", ["game", "legrad"])
def test_targets_taken_in_parts_are_those_taken_together(method, monkeypatch):
    request = Request(small32(), images(dtype=torch.float32), random_targets(5, torch.float32))
    together = METHODS[method].image(request)
    monkeypatch.setattr("clip_explain.explainers.gradients.VALUES_AT_ONCE", 1)
    assert relative_error(METHODS[method].image(request), together) < 1e-5


@pytest.mark.parametrize("method, options", READERS)
def test_bf16_maps_follow_those_of_float32(method, options):
    model, pixels, directions = small32(), images((224, 224), dtype=torch.float32), random_targets(3, torch.float32)
    half = small_clip.wrap(small_clip.half(model.network, torch.bfloat16))
    expected = explain(model, pixels, directions, method=method, **options).flatten(2).flatten(0, 1)
    got = explain(half, pixels, directions, method=method, **options).flatten(2).flatten(0, 1)
    assert got.dtype == torch.float32
    size = expected.norm(dim=1)
    assert (size > 0).any()
    for index in (size > 0.02 * size.max()).nonzero():  # of the others the ReLU left next to nothing
        assert torch.corrcoef(torch.cat([got[index], expected[index]]))[0, 1] > 0.98


@pytest.mark.parametrize("method, options", READERS)
def test_constant_images_and_one_patch_have_finite_maps(method, options):
    directions = random_targets(1, torch.float32)
    for pixels in (torch.zeros(1, 3, 64, 96), torch.full((1, 3, 64, 96), -50.0), images((32, 32), 1, torch.float32)):
        maps = explain(small32(), small_clip.marked(pixels), directions, method=method, **options)
        assert maps.shape[-2:] == (pixels.shape[2] // 32, pixels.shape[3] // 32) and torch.isfinite(maps).all()


@pytest.mark.parametrize("method", ["rollout", "self_attention"])
def test_maps_of_attention_are_the_same_for_every_target_and_at_most_one_in_sum(method):
    maps = explain(small32(), images(dtype=torch.float32), random_targets(3, torch.float32), method=method)
    assert torch.equal(maps[:, 0], maps[:, 2]) and (maps >= 0).all() and (maps.sum(dim=(-2, -1)) < 1).all()


@pytest.mark.parametrize("method, options", WORD_READERS)
def test_word_weights_do_not_depend_on_the_rest_of_the_batch(method, options):
    directions = random_targets(2, torch.float32)
    batch = METHODS[method].words(WordRequest(small32(), TOKENS, directions), **options)
    assert batch.shape == (2, 2, 7) and torch.isfinite(batch).all()
    for index, end in enumerate(TOKENS.argmax(dim=-1).tolist()):
        alone = METHODS[method].words(WordRequest(small32(), TOKENS[index : index + 1], directions[1:]), **options)
        assert relative_error(alone[0, 0, 1:end], batch[index, 1, 1:end]) < 1e-4


@pytest.mark.parametrize(
    "make", [lambda: small_clip.wrap(small_clip.build(vlayers=2, tlayers=2, vocab=100)), resnet.__wrapped__]
)
def test_the_model_is_unchanged_also_after_an_error(make):
    model = make()
    before = {name: (value.clone(), value.requires_grad) for name, value in model.network.named_parameters()}
    buffers = {name: value.clone() for name, value in model.network.named_buffers()}
    pixels, directions = images((64, 64), dtype=torch.float32), random_targets(1, torch.float32)
    for method, options in READERS if model.is_vit else RESNET_READERS:
        explain(model, pixels, directions, method=method, **options)
    with pytest.raises(MethodError):
        explain(model, pixels, directions, method="grad_cam", layer=9)
    for name, value in model.network.named_parameters():
        assert torch.equal(value, before[name][0]) and value.requires_grad == before[name][1] and value.grad is None
    assert all(torch.equal(value, buffers[name]) for name, value in model.network.named_buffers())
    assert not any(module.training or module._forward_hooks for module in model.network.modules())


@pytest.mark.parametrize(
    "method, options, message",
    [
        ("rollout", dict(layers=4), "layers=4, expected 1 to 3"),
        ("rollout", dict(layers=0), "layers=0, expected 1 to 3"),
        ("game", dict(layers=4), "layers=4, expected 1 to 3"),
        ("legrad", dict(layers=4), "layers=4, expected 1 to 3"),
        ("legrad", dict(pool="max"), "'mean', 'class'"),
        ("grad_cam", dict(layer=3), "layer=3, expected 0 to 2"),
        ("grad_cam", dict(layer=-1), "layer=-1, expected 0 to "),
        ("grad_cam", dict(variant="eigen_cam"), "'grad_cam', 'grad_cam_plus_plus', 'xgrad_cam', 'layer_cam', 'score"),
        ("grad_cam", dict(heads="both"), "'native', 'single'"),
        ("grad_cam", dict(pool="max"), "'patches', 'tokens'"),
        ("grad_cam", dict(pool="tokens", variant="layer_cam"), "pool='tokens' is for variant='grad_cam'"),
        ("grad_cam", dict(heads="single", variant="score_cam"), "the model's own heads"),
    ],
)
def test_options_out_of_range_are_told_the_range(method, options, message):
    with pytest.raises(MethodError, match=message):
        explain(small32(), images(dtype=torch.float32), random_targets(1, torch.float32), method=method, **options)


@pytest.mark.parametrize(
    "method, options, message",
    [
        ("grad_cam", dict(layer=4), "layer=4, expected 0 to 3"),
        ("grad_cam", dict(layer=-1), "layer=-1, expected 0 to "),
        ("grad_cam", dict(heads="single"), "for a ViT"),
        ("grad_cam", dict(pool="tokens"), "for a ViT"),
        ("self_attention", dict(heads="single"), "expected 'native': the model is a ResNet"),
        ("maskclip", dict(key_weight=True), "this model is a ResNet"),
    ],
)
def test_resnet_options_out_of_range_are_told_the_range(method, options, message):
    with pytest.raises(MethodError, match=message):
        explain(resnet(), images(dtype=torch.float32), random_targets(1, torch.float32), method=method, **options)


@pytest.mark.parametrize("method, options", [("rollout", dict(layers=4)), ("game", dict(layers=0))])
def test_word_options_out_of_range_are_told_the_range(method, options):
    with pytest.raises(MethodError, match="expected 1 to 3"):
        METHODS[method].words(WordRequest(small32(), TOKENS, random_targets(1, torch.float32)), **options)
