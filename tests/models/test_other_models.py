"""Models other than CLIP: the trace equals the model's own forward, maps equal autograd's, and nothing is changed.

The oracle is literal and in float64: attention head by head from the library's own modules, one autograd call a map.
"""

import copy
import hashlib
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from sklearn.linear_model import LogisticRegression
from torchvision.models import _api

import clip_explain as cx
import oracles
import oracles_readers
import small_clip
from clip_explain import errors
from clip_explain.explainers import names_of
from clip_explain.models.blip import blip as blip_clip
from clip_explain.models.head import Head, class_index
from clip_explain.models.model import image_features, place
from clip_explain.models.probe import probe
from clip_explain.models.torchvision import vit_classifier
from clip_explain.request import Request, class_logits, make_request, scores
from clip_explain.sweep.features import linear_probe
from small_clip import relative_error

CLASSES = ["cat", "dog", "crane", "crane", "Bee"]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "green", "cube", "ball", "dog", "on", "the", "left"]
TEXTS = ["a red cube", "the dog on the left", "a ball"]


def randomize(network, seed=0):
    """Every parameter drawn again, wide enough that attention is not flat; layer norms around 1."""
    random = np.random.RandomState(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            drawn = torch.from_numpy(random.standard_normal(tuple(parameter.shape)))
            if parameter.ndim == 1:
                drawn = 0.1 * drawn + ("norm" in name.lower() or ".ln" in name) * name.endswith("weight")
            elif parameter.ndim in (2, 4):
                drawn = drawn * 1.5 * math.prod(parameter.shape[1:]) ** -0.5
            parameter.copy_(drawn)
    return network.eval()


def tiny_vit(dtype=torch.float64):
    network = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=len(CLASSES))
    return randomize(network).to(dtype)


def classifier(dtype=torch.float64):
    return vit_classifier(tiny_vit(dtype), CLASSES)


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def tokenizer(transformers, tmp_path_factory):
    path = tmp_path_factory.mktemp("words") / "vocab.txt"
    path.write_text("\n".join(WORDS))
    return transformers.BertTokenizerFast.from_pretrained(path.parent)


@pytest.fixture(scope="module")
def blip_network(transformers):
    size = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    vision = transformers.BlipVisionConfig(**size, image_size=32, patch_size=8, attn_implementation="eager")
    text = transformers.BlipTextConfig(**size, vocab_size=len(WORDS), encoder_hidden_size=16, is_decoder=False)
    config = transformers.BlipConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), image_text_hidden_size=12
    )
    return randomize(transformers.BlipForImageTextRetrieval(config)).double()


@pytest.fixture(scope="module")
def blip(blip_network, tokenizer):
    return blip_clip(blip_network, tokenizer)


def pixels(count=2, height=32, width=32, dtype=torch.float64):
    return small_clip.marked(torch.cat([small_clip.pixels(seed, height, width) for seed in range(count)]).to(dtype))


def itc(network, tokenizer, images, texts):
    """The model's own ITC similarity, one image and text at a time."""
    rows = [
        [
            network(**tokenizer(text, return_tensors="pt"), pixel_values=image[None], use_itm_head=False)
            for text in texts
        ]
        for image in images
    ]
    return torch.stack([torch.stack([each.itm_score[0, 0] for each in row]) for row in rows])


# The oracle


def literal_block(x, qkv, out, norms, mlp, heads):
    """One pre-norm block on tokens (tokens, channels), attention head by head; what oracles.py keeps of a block."""
    q, k, v = F.linear(norms[0](x), *qkv).chunk(3, dim=1)
    width = q.shape[1] // heads
    parts = [slice(head * width, (head + 1) * width) for head in range(heads)]
    attention = torch.stack([torch.softmax(q[:, p] @ k[:, p].T / width**0.5, dim=1) for p in parts])
    o = torch.cat([attention[head] @ v[:, p] for head, p in enumerate(parts)], dim=1)
    y = x + F.linear(o, *out)
    return dict(input=x, q=q, k=k, v=v, attention=attention, o=o, output=y + mlp(norms[1](y)), heads=heads)


def literal_vit(network, image, single):
    """Blocks of a torchvision ViT on one image, and its features before the head."""
    x = network._process_input(image[None])[0]
    x = torch.cat([network.class_token[0], x]) + network.encoder.pos_embedding[0]
    found = []
    for index, block in enumerate(network.encoder.layers):
        attn = block.self_attention
        qkv, out = (attn.in_proj_weight, attn.in_proj_bias), (attn.out_proj.weight, attn.out_proj.bias)
        heads = 1 if single and index == 1 else attn.num_heads
        found.append(literal_block(x, qkv, out, (block.ln_1, block.ln_2), block.mlp, heads))
        x = found[-1]["output"]
    return found, network.encoder.ln(x)[0]


def literal_blip(network, image, single):
    """Blocks of BLIP's vision tower on one image, and its ITC features."""
    x, found = network.vision_model.embeddings(image[None])[0], []
    for index, layer in enumerate(network.vision_model.encoder.layers):
        attn = layer.self_attn
        qkv, out = (attn.qkv.weight, attn.qkv.bias), (attn.projection.weight, attn.projection.bias)
        heads = 1 if single and index == 1 else attn.num_heads
        found.append(literal_block(x, qkv, out, (layer.layer_norm1, layer.layer_norm2), layer.mlp, heads))
        x = found[-1]["output"]
    return found, network.vision_proj(network.vision_model.post_layernorm(x)[0])


def literal_maps(forward, image, score, method):
    """One image's map for a score of its features; `forward` (image, single head in the last block)."""
    found, features = forward(image, method == "grad_eclip")
    rows = [each["attention"].mean(dim=0) for each in found]
    identity = torch.eye(len(rows[0]), dtype=torch.float64)
    if method == "self_attention":
        row = rows[-1][0]
    elif method == "rollout":
        row = ((rows[1] + identity) / 2 @ (rows[0] + identity) / 2)[0]
    elif method == "game":
        relevance = identity
        for each in found:
            slope = oracles_readers.attention_gradient(score(features), each)
            relevance = relevance + (slope * each["attention"]).clamp(min=0).mean(dim=0) @ relevance
        row = relevance[0]
    else:
        last = found[-1]
        (slope,) = torch.autograd.grad(score(features), last["o"])
        w_i = oracles.phi(last["k"][1:] @ last["q"][0])
        row = torch.cat([identity[0, :1], w_i * (last["v"][1:] @ slope[0])]).clamp(min=0)
    return row[1:].detach()


METHODS = ("self_attention", "rollout", "game", "grad_eclip")


def expected_maps(forward, images, targets_scores, method):
    return torch.stack(
        [torch.stack([literal_maps(forward, image, score, method) for score in targets_scores]) for image in images]
    )


def assert_maps(model, images, targets, forward, targets_scores, method):
    got = cx.explain(model, images, targets, method)
    assert got.dtype == torch.float32
    assert relative_error(got.flatten(2), expected_maps(forward, images, targets_scores, method)) < 1e-6


# torchvision's ViT


def test_the_trace_of_a_vit_gives_its_own_logits():
    network, images = tiny_vit(torch.float32), pixels(3, dtype=torch.float32)
    model = vit_classifier(network, CLASSES)
    assert relative_error(class_logits(model, images), network(images)) < 1e-5
    request = make_request(model, images, [0, "Bee"])
    assert relative_error(scores(request), network(images)[:, [0, 4]]) < 1e-5
    against = Request(model, images, torch.cat([-request.targets, request.targets[:1] - request.targets[1:]]))
    weighed = network(images)[:, [0, 4]] - model.head.bias[[0, 4]]
    expected = [*-network(images)[:, [0, 4]].T, weighed[:, 0] - weighed[:, 1]]  # a difference is no class: no bias
    assert relative_error(scores(against), torch.stack(expected, dim=1)) < 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_maps_of_a_vit_are_those_of_autograd_on_its_logits(method):
    model, network = classifier(), tiny_vit()
    head = network.heads.head
    found, features = literal_vit(network, pixels(1)[0], single=False)
    assert relative_error(head(features), network(pixels(1))[0]) < 1e-12
    logits = [lambda x, c=c: head(x)[c] for c in (1, 4)]
    assert_maps(model, pixels(), ["dog", 4], lambda *given: literal_vit(network, *given), logits, method)


def test_a_logit_is_no_cosine():
    model, images = classifier(), pixels()
    for method in ("game", "grad_eclip"):
        cosine = cx.explain(replace(model, head=None), images, model.head.weight[:2], method)
        assert relative_error(cx.explain(model, images, [0, 1], method), cosine) > 0.1


def test_directions_of_a_classifier_keep_their_length():
    model, images = classifier(), pixels()
    row = model.head.weight[1:2]
    got = cx.explain(model, images, "dog")
    assert torch.equal(got, cx.explain(model, images, row))
    assert relative_error(cx.explain(model, images, 3 * row), 3 * got) < 1e-6
    against = cx.difference(model, "dog", "cat")
    assert torch.equal(against, model.head.weight[1:2] - model.head.weight[:1])


@pytest.mark.parametrize("method", [each for each in names_of() if cx.METHODS[each].classifiers])
def test_all_methods_for_classifiers_run_and_batch_equals_loop(method):
    model, images = classifier(torch.float32), pixels(2, 40, 24, torch.float32)
    options = {"rise": {"masks": 20}, "nib": {"layer": 0}}.get(method, {})
    got = cx.explain(model, images, ["dog", 0], method, **options)
    one = [cx.explain(model, images[i : i + 1], ["dog", 0], method, **options) for i in range(2)]
    assert got.shape[:2] == (2, 2) and got.isfinite().all()
    assert relative_error(got, torch.cat(one)) < 1e-4


@pytest.mark.parametrize("method", [each for each in names_of() if not cx.METHODS[each].classifiers])
def test_a_method_that_does_not_explain_logits_says_which_do(method):
    with pytest.raises(errors.MethodError, match="is a classifier, for which fit: self_attention.*grad_eclip"):
        cx.explain(classifier(), pixels(), "dog", method)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_maps_agree(dtype):
    images = pixels(2, dtype=torch.float32)
    half = vit_classifier(place(tiny_vit(torch.float32), torch.device("cpu"), dtype), CLASSES)
    assert half.dtype == dtype
    for method in METHODS:
        got, expected = (cx.explain(model, images, "dog", method) for model in (half, classifier(torch.float32)))
        assert np.corrcoef(got.flatten(), expected.flatten())[0, 1] > 0.98


def test_a_vit_is_left_as_it_was():
    network = tiny_vit().train()
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    before, listed = (
        copy.deepcopy(network.state_dict()),
        {name: dict(m.__dict__) for name, m in network.named_modules()},
    )
    cx.explain(vit_classifier(network, CLASSES), pixels(), [0, 1])
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training and all(p.requires_grad and p.grad is None for p in network.parameters())
    assert {name: m.__dict__.keys() for name, m in network.named_modules()} == {n: d.keys() for n, d in listed.items()}


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A tiny ViT among torchvision's models, "vit_tiny", with weights on a server: this machine's disk."""
    torch.save(tiny_vit(torch.float32).state_dict(), tmp_path / "x.pth")
    sha256 = hashlib.sha256((tmp_path / "x.pth").read_bytes()).hexdigest()
    path = (tmp_path / "x.pth").rename(tmp_path / f"vit-{sha256[:8]}.pth")
    entry = _api.Weights(path.as_uri(), transforms=None, meta={"categories": CLASSES})
    weights = _api.WeightsEnum("ViT_Tiny_Weights", {"V1": entry, "DEFAULT": entry})

    def vit_tiny(*, weights=None, image_size=32, num_classes=5):
        return torchvision.models.VisionTransformer(image_size, 8, 2, 2, 16, 32, num_classes=num_classes)

    vit_tiny.__annotations__["weights"] = weights | None
    monkeypatch.setitem(_api.BUILTIN_MODELS, "vit_tiny", vit_tiny)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    return path, sha256


def test_load_torchvision_by_name_and_by_path(published):
    path, sha256 = published
    images = pixels(2, dtype=torch.float32)
    for tag in ("", "/V1", f"/{path}"):
        model = cx.load(f"torchvision:vit_tiny{tag}", device="cpu")
        assert (model.image_size, model.patch_size, model.sha256) == (32, 8, sha256)
        assert model.head.classes == tuple(CLASSES)
        with torch.no_grad():
            assert relative_error(class_logits(model, images), tiny_vit(torch.float32)(images)) < 1e-5
    image = Image.fromarray(np.random.RandomState(0).randint(0, 255, (90, 120, 3), dtype=np.uint8))
    assert cx.explain(model, image, "dog", fit="crop").shape == (1, 1, 4, 4)
    assert cx.explain(model, image, ["dog", 0], fit="full").shape == (1, 2, 4, 5)


def test_load_torchvision_at_another_size_and_number_of_classes(published, tmp_path):
    state = tiny_vit(torch.float32).state_dict()
    state["encoder.pos_embedding"] = state["encoder.pos_embedding"][:, :10]
    state |= {name: state[name][:3] for name in ("heads.head.weight", "heads.head.bias")}
    torch.save(state, tmp_path / "y.pth")
    model = cx.load(f"torchvision:vit_tiny/{tmp_path / 'y.pth'}", device="cpu")
    assert (model.image_size, model.head.classes) == (24, ("0", "1", "2"))


def test_random_weights_of_torchvision_are_seeded_and_asked_for(published):
    before = torch.get_rng_state()
    one, other = (cx.load("torchvision:vit_tiny/random", device="cpu") for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before) and one.sha256 == ""
    assert torch.equal(one.head.weight, other.head.weight) and one.head.weight.any(dim=1).all()
    published[0].unlink()
    with pytest.raises(errors.ModelError, match="could not be downloaded.*place the file"):
        cx.load("torchvision:vit_tiny")


def test_bad_weights_for_torchvision_are_said(tmp_path):
    (tmp_path / "y.pth").write_bytes(b"")
    with pytest.raises(errors.WeightsError, match="cannot be read"):
        cx.load(f"torchvision:vit_b_32/{tmp_path / 'y.pth'}")
    torch.save({"conv_proj.weight": torch.zeros(1)}, tmp_path / "z.pth")
    with pytest.raises(errors.WeightsError, match="not a torchvision ViT with a linear head"):
        cx.load(f"torchvision:vit_b_32/{tmp_path / 'z.pth'}")


def test_unknown_torchvision_models_are_said():
    with pytest.raises(errors.ModelError, match="no vision transformer 'vit_b_61'.*did you mean 'vit_b_16'"):
        cx.load("torchvision:vit_b_61")
    with pytest.raises(errors.ModelError, match="no weights 'IMAGENET' for 'vit_b_16'.*IMAGENET1K_V1"):
        cx.load("torchvision:vit_b_16/IMAGENET")
    with pytest.raises(errors.ModelError, match="got a Linear"):
        vit_classifier(torch.nn.Linear(1, 1))
    with pytest.raises(errors.ModelError, match="head of several layers"):
        vit_classifier(torchvision.models.VisionTransformer(32, 8, 1, 2, 16, 32, representation_size=8, num_classes=2))
    with pytest.raises(errors.ModelError, match="got 2 names of classes, expected 5"):
        vit_classifier(tiny_vit(), ["a", "b"])


def test_classes_by_name_and_index():
    head = classifier().head
    assert [class_index(head, wanted) for wanted in ("dog", "DOG", "bee", 3)] == [1, 1, 4, 3]
    for wanted, said in (
        ("crane", "2 classes are called 'crane': give the index, 2 or 3"),
        ("dgo", "did you mean 'dog'"),
        (5, "expected 0 to 4"),
    ):
        with pytest.raises(errors.TextError, match=said):
            class_index(head, wanted)
    for wanted in ([], [0, "no"]):
        with pytest.raises(errors.TextError):
            make_request(classifier(), pixels(), wanted)


def test_what_a_classifier_cannot_do_is_said():
    with pytest.raises(errors.MethodError, match="words cannot"):
        cx.explain_words(classifier(), pixels(), "a dog")
    with pytest.raises(errors.ModelError, match="is not a classifier"):
        class_logits(small_clip.exact_model(), pixels())
    with pytest.raises(errors.MethodError, match="features='other'"):
        Head(torch.ones(1, 2), torch.ones(1), ("a",), "other")


# Linear probes on a CLIP


def small_probe(features, count=4, model=None):
    model = model or small_clip.exact_model()
    weight = torch.randn(count, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return model, probe(model, weight, weight[:, 0], [f"class {i}" for i in range(count)], features)


@pytest.mark.parametrize("features", ["raw", "unit"])
def test_a_probes_logits_are_linear_in_the_models_own_features(features):
    model = small_clip.wrap(small_clip.build(**small_clip.SMALL))
    _, probed = small_probe(features, model=model)
    images = pixels(2, 64, 64, torch.float32)
    own = model.network.encode_image(images)
    own = F.normalize(own, dim=-1) if features == "unit" else own
    expected = own @ probed.head.weight.T + probed.head.bias
    assert relative_error(class_logits(probed, images), expected) < 1e-5
    assert model.head is None and model.tokenizer is not None


@pytest.mark.parametrize("features", ["raw", "unit"])
@pytest.mark.parametrize("method", METHODS)
def test_maps_of_a_probe_are_those_of_autograd_on_its_logits(method, features):
    model, probed = small_probe(features)
    state, images = model.network.state_dict(), pixels(1, 224, 224)
    weight, native = probed.head.weight, model.network.visual.transformer.resblocks[0].attn.num_heads

    def forward(image, single):
        return oracles.image_forward(state, image, native, int(single))[:2]

    def logit(embedding):
        return weight[2] @ (embedding / embedding.norm() if features == "unit" else embedding)

    got = cx.explain(probed, images, "class 2", method)[0, 0]
    expected = literal_maps(forward, images[0], logit, method)
    assert relative_error(got.flatten(), expected) < 1e-6


@pytest.mark.parametrize("names", [["cube", "ball"], ["cube", "ball", "cone"]])
def test_a_trained_probe_is_scikit_learns(names):
    model = small_clip.exact_model()
    images = pixels(12, 64, 64)
    labels = [names[i % len(names)] for i in range(12)]
    probed = linear_probe(model, images, labels, batch_size=5, C=10.0)
    assert probed.head.classes == tuple(sorted(names))
    x = image_features(model, images).double().numpy()
    reference = LogisticRegression(max_iter=10_000, C=10.0, tol=1e-11).fit(x, labels).decision_function(x)
    got = class_logits(probed, images)
    assert relative_error(got[:, 1] if len(names) == 2 else got, reference) < 1e-4
    if len(names) == 2:
        assert torch.equal(got[:, 0], -got[:, 1])
    assert cx.explain(probed, images[:1], names, "grad_eclip").shape == (1, len(names), 2, 2)


def test_bad_probes_are_said():
    model = small_clip.exact_model()
    with pytest.raises(errors.TensorError, match=r"expected \(classes, 64\)"):
        probe(model, torch.ones(3, 5), torch.ones(3), ["a", "b", "c"])
    with pytest.raises(errors.TensorError, match="for 2 classes"):
        probe(model, torch.ones(3, 64), torch.ones(3), ["a", "b"])
    with pytest.raises(errors.TensorError, match="NaN"):
        probe(model, torch.full((2, 64), torch.nan), torch.ones(2), ["a", "b"])
    with pytest.raises(errors.TensorError, match="got 2 images and 1 labels"):
        linear_probe(model, pixels(2, 64, 64), ["a"])


# BLIP


def test_the_trace_of_blip_gives_its_own_itc_similarity(blip_network, tokenizer):
    network, images = copy.deepcopy(blip_network).float(), pixels(3, dtype=torch.float32)
    model = blip_clip(network, tokenizer)
    with torch.no_grad():
        expected = itc(network, tokenizer, images, TEXTS)
    assert relative_error(scores(make_request(model, images, TEXTS)), expected) < 1e-5
    assert relative_error(cx.encode_image(model, images) @ cx.encode_text(model, TEXTS).T, expected) < 1e-5


def test_blip_at_another_size_is_its_own_with_interpolated_positions(blip, blip_network):
    images = pixels(1, 40, 24)
    with torch.no_grad():
        hidden = blip_network.vision_model(images, interpolate_pos_encoding=True).last_hidden_state[:, 0]
        assert relative_error(image_features(blip, images), blip_network.vision_proj(hidden)) < 1e-9


@pytest.mark.parametrize("method", METHODS)
def test_maps_of_blip_are_those_of_autograd_on_its_similarity(method, blip, blip_network, tokenizer):
    features = [
        blip_network.text_proj(blip_network.text_encoder(**tokenizer(text, return_tensors="pt"))[0][0, 0]).detach()
        for text in TEXTS[:2]
    ]
    similarities = [lambda x, t=t: oracles.cosine(x, t) for t in features]
    _, own = literal_blip(blip_network, pixels(1)[0], single=False)
    expected = itc(blip_network, tokenizer, pixels(1), TEXTS[:1])[0, 0]
    assert abs(oracles.cosine(own, features[0]) - expected) < 1e-12
    assert_maps(blip, pixels(), TEXTS[:2], lambda *given: literal_blip(blip_network, *given), similarities, method)


def test_game_of_blip_is_that_of_the_attentions_it_returns(blip, blip_network, tokenizer):
    tokens = tokenizer(TEXTS[0], return_tensors="pt")
    output = blip_network(**tokens, pixel_values=pixels(1), use_itm_head=False, output_attentions=True)
    slopes = torch.autograd.grad(output.itm_score[0, 0], output.attentions)
    relevance = torch.eye(17, dtype=torch.float64)
    for slope, attention in zip(slopes, output.attentions, strict=True):
        relevance = relevance + (slope * attention)[0].clamp(min=0).mean(dim=0) @ relevance
    got = cx.explain(blip, pixels(1), TEXTS[0], "game")[0, 0]
    assert relative_error(got, relevance[0, 1:].reshape(4, 4)) < 1e-6


def test_grad_eclip_of_blip_with_its_own_heads_by_hooks(blip, blip_network, tokenizer):
    layer, kept = blip_network.vision_model.encoder.layers[-1].self_attn, {}
    hooks = [
        layer.projection.register_forward_pre_hook(lambda _, given: kept.update(o=given[0])),
        layer.qkv.register_forward_hook(lambda _, given, out: kept.update(qkv=out)),
    ]
    tokens = tokenizer(TEXTS[0], return_tensors="pt")
    similarity = blip_network(**tokens, pixel_values=pixels(1), use_itm_head=False).itm_score[0, 0]
    for hook in hooks:
        hook.remove()
    (slope,) = torch.autograd.grad(similarity, kept["o"])
    q, k, v = kept["qkv"][0].detach().chunk(3, dim=1)
    total = 0.0
    for part in (slice(0, 8), slice(8, 16)):
        total = total + oracles.phi(k[1:, part] @ q[0, part]) * (v[1:, part] @ slope[0, 0, part])
    got = cx.explain(blip, pixels(1), TEXTS[0], heads="native")[0, 0]
    assert relative_error(got, total.clamp(min=0).reshape(4, 4)) < 1e-6


@pytest.mark.parametrize("method", names_of())
def test_every_image_explainer_takes_blip(method, blip):
    options = {
        "rise": {"masks": 20},
        "m2ib": {"layer": 0, "samples": 2},
        "nib": {"layer": 0},
        "clip_surgery": {"layers": 2},
    }
    options |= {"gem": {"layers": 2}}
    for texts in (TEXTS[:1], TEXTS):
        got = cx.explain(blip, pixels(), texts, method, **options.get(method, {}))
        assert got.shape[:2] == (2, len(texts)) and got.isfinite().all()


def test_blip_explains_no_words_and_takes_texts_up_to_its_limit(blip):
    with pytest.raises(errors.MethodError, match="words cannot"):
        cx.explain_words(blip, pixels(), "a red cube")
    long = "a " * 600
    with pytest.raises(errors.TextError, match="602 tokens, the model takes 512"):
        cx.targets(blip, long)
    assert cx.targets(blip, long, truncate=True).shape == (1, 12)
    with pytest.raises(errors.TextError):
        cx.targets(blip, " ")


def test_blip_is_left_as_it_was(blip_network, tokenizer):
    before = copy.deepcopy(blip_network.state_dict())
    cx.explain(blip_clip(blip_network, tokenizer), pixels(), TEXTS)
    assert all(torch.equal(value, before[name]) for name, value in blip_network.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in blip_network.parameters())


def test_blip_in_training_mode_is_run_as_in_evaluation(blip_network, tokenizer):
    expected = scores(make_request(blip_clip(blip_network, tokenizer), pixels(), TEXTS))
    blip_network.train()
    try:
        assert torch.equal(scores(make_request(blip_clip(blip_network, tokenizer), pixels(), TEXTS)), expected)
        assert all(module.training for module in blip_network.modules())
    finally:
        blip_network.eval()


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_load_blip_from_a_folder(blip_network, tokenizer, tmp_path, dtype):
    network = copy.deepcopy(blip_network).float()
    network.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = cx.load(f"blip:{tmp_path}", device="cpu", dtype=dtype)
    assert model.name == f"blip:{tmp_path}" and len(model.sha256) == 64
    with torch.no_grad():
        expected = itc(network, tokenizer, pixels(dtype=torch.float32), TEXTS)
    got = scores(make_request(model, pixels(dtype=torch.float32), TEXTS))
    assert relative_error(got, expected) < (1e-5 if dtype == "fp32" else 0.05)


def test_blip_that_is_not_there(tmp_path, monkeypatch, transformers):
    with pytest.raises(errors.ModelError, match="Expected a local folder"):
        cx.load(f"blip:{tmp_path}")
    with pytest.raises(errors.ModelError, match="got a Linear without vision_model"):
        blip_clip(torch.nn.Linear(1, 1), None)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(errors.ModelError, match=r"pip install 'clip-explain\[hugging-face\]'"):
        cx.load("blip:")
