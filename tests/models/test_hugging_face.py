"""Models of transformers: small random ones of the real classes, saved, loaded back and held against themselves."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from PIL import Image

import clip_explain as cx
import hub_models
from clip_explain.errors import MethodError, ModelError, TextError
from clip_explain.explainers.registry import METHODS, methods_for
from clip_explain.models.embed import tokenize
from clip_explain.models.vit import trace_image, trace_text
from small_clip import relative_error

TEXTS = ["a red cube", "a photo of the blue cone zq"]
SPOKEN = ("clip", "metaclip_2", "siglip", "siglip2")  # whose words are explained
FAMILIES = pytest.mark.parametrize("family", hub_models.FAMILIES)


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """A model of a family as `load` returns it, and the folder that it came from."""
    known = {}

    def made(family):
        if family not in known:
            folder = tmp_path_factory.mktemp(family)
            hub_models.FAMILIES[family](folder)
            known[family] = (cx.load(f"hf:{folder}", "cpu"), folder)
        return known[family]

    return made


def pixels(height=32, width=32):
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def photo():
    values = np.random.RandomState(0).randint(0, 255, (6, 9, 3)).astype(np.uint8)
    return Image.fromarray(values).resize((90, 60), Image.Resampling.BICUBIC)


@FAMILIES
@pytest.mark.parametrize("size", [(32, 32), (32, 48), (16, 40)])
def test_the_trace_is_the_networks_own_image_features(load, family, size):
    model, _ = load(family)
    with torch.no_grad():
        expected = model.network.encode_image(pixels(*size))
    assert relative_error(trace_image(model.network, pixels(*size), start="attended").embedding, expected) < 1e-5
    assert expected.shape[1] == model.embedding_size


@pytest.mark.parametrize("family", SPOKEN)
def test_the_trace_is_the_networks_own_text_features(load, family):
    model, _ = load(family)
    tokens = tokenize(model, TEXTS)
    with torch.no_grad():
        expected = model.network.encode_text(tokens)
    assert relative_error(trace_text(model.network, tokens, layers=3, start="input").embedding, expected) < 1e-5


@pytest.mark.parametrize("family", SPOKEN)
def test_tokens_are_those_of_the_models_own_tokenizer(load, family):
    model, folder = load(family)
    own = transformers.AutoTokenizer.from_pretrained(folder)
    expected = own(TEXTS, padding="max_length", max_length=hub_models.CONTEXT)["input_ids"]
    assert tokenize(model, TEXTS).tolist() == expected


@FAMILIES
def test_scores_are_the_networks_own_logits(load, family):
    """Cosine times scale plus bias, as the whole network's forward gives it."""
    model, folder = load(family)
    own = transformers.AutoTokenizer.from_pretrained(folder)
    padding = "longest" if model.text_encoder else "max_length"
    given = own(TEXTS, padding=padding, max_length=hub_models.CONTEXT, return_tensors="pt")
    kept = ("input_ids", "attention_mask") if model.text_encoder else ("input_ids",)
    given = {key: given[key] for key in kept}
    if family == "siglip2":
        patches = pixels().unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 4, 5, 1).reshape(2, 16, -1)
        given |= dict(pixel_values=patches, pixel_attention_mask=torch.ones(2, 16, dtype=torch.long))
        given |= dict(spatial_shapes=torch.tensor([[4, 4], [4, 4]]))
    else:
        given |= dict(pixel_values=pixels())
    with torch.no_grad():
        expected = model.network.whole(**given).logits_per_image
    cosines = model.embed_images(pixels()) @ model.embed_texts(TEXTS).T
    assert relative_error(cosines * model.logit_scale + model.logit_bias, expected) < 1e-5
    chances = expected.sigmoid() if family.startswith("siglip") else expected.softmax(dim=1)
    assert relative_error(model.probabilities(cosines), chances) < 1e-5


@FAMILIES
def test_pixels_are_normalised_as_the_models_own_processor_does(load, family):
    model, folder = load(family)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    assert model.mean == tuple(processor.image_mean) and model.std == tuple(processor.image_std)
    grey = Image.new("RGB", (32, 32), (100, 150, 200))
    ours = cx.preprocess(model, grey, "squash")
    expected = (torch.tensor([100, 150, 200]) / 255 - torch.tensor(model.mean)) / torch.tensor(model.std)
    torch.testing.assert_close(ours[0, :, 5, 7], expected)


def test_the_crop_is_the_processors_own(load):
    model, folder = load("clip")
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    expected = processor(photo(), return_tensors="pt")["pixel_values"]
    assert (cx.preprocess(model, photo(), "crop") - expected).abs().max() < 0.02  # a grey level is 0.015


@FAMILIES
def test_a_photo_and_texts_give_maps(load, family):
    model, _ = load(family)
    maps = cx.explain(model, photo(), TEXTS, fit="full")
    assert maps.shape == (1, 2, 4, 6) and maps.isfinite().all() and maps.std() > 0


@pytest.mark.parametrize("family", SPOKEN)
def test_words_are_those_of_the_text(load, family):
    model, _ = load(family)
    ((words, weights),) = cx.explain_words(model, photo(), TEXTS[1], per="word", layers=1)
    assert words == TEXTS[1].split() and weights.shape == (1, 7) and weights.sum() > 0
    ((words, weights),) = cx.explain_words(model, photo(), TEXTS[0], "leave_one_out", per="word")
    assert words == TEXTS[0].split() and weights.abs().sum() > 0
    assert cx.without_word(model, TEXTS[0], "red").shape == (1, model.embedding_size)


@pytest.mark.parametrize("family", ["chinese_clip", "altclip"])
def test_texts_of_a_bert_are_targets_and_no_words(load, family):
    model, _ = load(family)
    with pytest.raises(MethodError, match="words cannot be explained so, for which fit: leave_one_out"):
        cx.explain_words(model, photo(), TEXTS)
    ((words, weights),) = cx.explain_words(model, photo(), TEXTS[1], "leave_one_out")
    assert words == TEXTS[1].split() and weights.shape == (1, 7) and weights.any()
    with pytest.raises(TextError, match="16"):
        model.embed_texts(["cube " * 40])
    assert model.embed_texts(["cube " * 40], truncate=True).shape == (1, model.embedding_size)


def test_a_text_is_the_same_alone_and_among_longer_ones(load):
    for family in hub_models.FAMILIES:
        model, _ = load(family)
        assert relative_error(model.embed_texts(TEXTS[:1]), model.embed_texts(TEXTS)[:1]) < 1e-5


def test_another_family_is_refused(tmp_path):
    config = transformers.ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16)
    transformers.ViTModel(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="'vit', expected one of CLIPModel"):
        cx.load(f"hf:{tmp_path}", "cpu")


def test_a_folder_without_a_tokenizer_is_refused(tmp_path, load):
    _, folder = load("clip")
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(ModelError, match="could not be loaded"):
        cx.load(f"hf:{tmp_path}", "cpu")


# -- the tokenizer of SigLIP 1, and half precision


def test_siglip_1_reads_its_texts_by_sentencepiece(tmp_path):
    network = hub_models.siglip(tmp_path, hub_models.spiece_tokenizer(tmp_path))
    model = cx.load(f"hf:{tmp_path}", "cpu")
    own, texts = transformers.AutoTokenizer.from_pretrained(tmp_path), ["a red cube", "the blue cone"]
    assert type(own).__name__ == "SiglipTokenizer" and (tmp_path / "spiece.model").is_file()
    given = own(texts, padding="max_length", max_length=hub_models.CONTEXT, return_tensors="pt")["input_ids"]
    assert tokenize(model, texts).tolist() == given.tolist()
    with torch.no_grad():
        found = network.get_text_features(input_ids=given)
    expected = F.normalize(getattr(found, "pooler_output", found), dim=1)
    assert relative_error(model.embed_texts(texts), expected) < 1e-5
    for method in ("grad_eclip", "leave_one_out"):
        options = dict(layers=1) if method == "grad_eclip" else {}
        ((words, weights),) = cx.explain_words(model, photo(), "A Red cube!", method, per="word", **options)
        assert words == ["a", "red", "cube"] and weights.shape == (1, 3), method  # it lowers case and drops marks
    assert (
        relative_error(cx.without_word(model, "a red cube", "red"), cx.difference(model, "a red cube", "a cube")) < 1e-5
    )


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize("family", ["clip", "siglip", "siglip2"])
def test_half_precision_is_near_the_full_one(load, family, dtype):
    model, folder = load(family)
    half = cx.load(f"hf:{folder}", "cpu", dtype)
    assert half.dtype == {"fp16": torch.float16, "bf16": torch.bfloat16}[dtype]
    near = 0.02 if dtype == "fp16" else 0.08  # bf16 has 8 bits
    assert relative_error(half.embed_texts(TEXTS), model.embed_texts(TEXTS)) < near
    with torch.no_grad():
        own = F.normalize(half.network.encode_image(pixels().to(half.dtype)).float(), dim=1)
    assert relative_error(half.embed_images(cx.pixels(half, pixels())), own) < near
    for method, options in (("grad_eclip", {}), ("game", {}), ("maskclip", {}), ("rise", dict(masks=40))):
        one, other = (
            cx.explain(each, cx.pixels(each, pixels()), TEXTS, method, **options).maps for each in (model, half)
        )
        assert (
            other.dtype == torch.float32 and torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1] > 0.97
        )
    for words, weights in cx.explain_words(half, photo(), TEXTS, layers=1):
        assert weights.isfinite().all() and weights.shape == (1, len(words))


# -- Grad-ECLIP where an attention head pools, against its definition in float64


def head_oracle(network, image, target, heads):
    """ReLU(sum_c w_c w_i v_ic) by the network's own modules, one head and one patch at a time."""
    vision = network.vision_model
    with torch.no_grad():
        tokens = vision.post_layernorm(vision.encoder(inputs_embeds=vision.embeddings(image)).last_hidden_state)[0]
    head = vision.head
    weights, biases = head.attention.in_proj_weight.chunk(3), head.attention.in_proj_bias.chunk(3)
    q, k, v = (F.linear(x, w, b) for x, w, b in zip((head.probe[0], tokens, tokens), weights, biases, strict=True))
    width = q.shape[-1] // heads
    attended, similarity = [], []
    for number in range(heads):
        own = slice(number * width, (number + 1) * width)
        logits = q[0, own] @ k[:, own].T
        similarity.append((logits - logits.min()) / (logits.max() - logits.min()))
        attended.append((logits / width**0.5).softmax(dim=-1) @ v[:, own])
    o = torch.cat(attended).detach().requires_grad_()
    pooled = head.attention.out_proj(o)
    embedding = pooled + head.mlp(head.layernorm(pooled))
    (w_c,) = torch.autograd.grad(F.cosine_similarity(embedding, target, dim=0), o)
    rows = [
        [(w_c[c] * similarity[c // width][i] * v[i, c]).item() for c in range(len(w_c))] for i in range(len(tokens))
    ]
    return torch.tensor(rows, dtype=torch.float64).sum(dim=1).relu()


@pytest.mark.parametrize("kind, heads", [("single", 1), ("native", 2)])
def test_grad_eclip_of_siglip_is_its_definition_at_the_pooling_head(load, kind, heads, tmp_path):
    hub_models.siglip(tmp_path)
    model = cx.load(f"hf:{tmp_path}", "cpu")
    model.network.double()
    targets = F.normalize(torch.randn(2, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64), dim=1)
    found = cx.explain(model, cx.pixels(model, pixels()[:1].double()), targets, heads=kind)
    for map, target in zip(found[0], targets, strict=True):
        expected = head_oracle(model.network.whole, pixels()[:1].double(), target, heads)
        assert expected.max() > 0
        assert relative_error(map.flatten(), expected) < 1e-6


# -- which methods take which tower


def quick_options(name, words=False):
    """Options with which a method is quick, and fits a tower of three layers."""
    found = {}
    for option in METHODS[name].options_for(words).values():
        if option.kind in ("layer", "layers") and option.default is not None:
            found[option.name] = 1
        elif option.quick is not None:
            found[option.name] = min(option.quick, 40)
    return found


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_every_method_that_takes_the_tower_gives_a_finite_map(load, family):
    model, _ = load(family)
    for name in methods_for(model):
        maps = cx.explain(model, cx.pixels(model, pixels()[:1]), TEXTS, name, **quick_options(name))
        assert maps.shape[:2] == (1, 2) and maps.isfinite().all() and maps.abs().sum() > 0, name
    for name in methods_for(model, words=True):
        for words, weights in cx.explain_words(model, photo(), TEXTS, name, **quick_options(name, words=True)):
            assert weights.shape == (1, len(words)) and weights.isfinite().all(), name


def test_methods_that_make_no_sense_at_a_pooling_head_say_so_and_name_those_that_do(load):
    model, _ = load("siglip")
    assert {"grad_eclip", "game", "legrad", "grad_cam", "maskclip", "m2ib", "rise"} <= set(methods_for(model))
    for name in ("itsm", "clip_surgery", "gem", "iclip", "last_gradient"):
        told = f"{name} needs a vision transformer.* pooled by attention, for which fit: .*grad_eclip"
        with pytest.raises(MethodError, match=told):
            cx.explain(model, cx.pixels(model, pixels()), TEXTS, name)
    with pytest.raises(MethodError, match="expected 1"):
        cx.explain(model, cx.pixels(model, pixels()), TEXTS, layers=2)


def test_rollout_and_game_of_a_head_without_a_residual(load):
    """The head's row of attention times the layers' matrices; of the head itself nothing is added."""
    model, _ = load("siglip")
    request = cx.request.make_request(model, cx.pixels(model, pixels()[:1]), TEXTS)
    blocks = trace_image(model.network, pixels()[:1], layers=4, tokens="all").blocks
    row = blocks[-1].attention.mean(dim=1)[0, 0].double()
    for block in reversed(blocks[:-1]):
        row = row @ (block.attention.mean(dim=1)[0].double() + torch.eye(16).double()) / 2
    found = METHODS["rollout"].image(request)
    assert relative_error(found[0, 0].flatten(), row) < 1e-5
    assert abs(found.sum(dim=(-2, -1)) - 1).max() < 1e-5  # each row of every factor sums to 1
