"""Networks in memory, of every library, as a user would hand them over: held against their own features."""

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torchvision import transforms

import clip_explain as cx
import hub_models
import open_clip_models
import small_clip
from clip_explain.errors import MethodError, ModelError
from clip_explain.explainers.registry import methods_for
from clip_explain.models.embed import tokenize
from clip_explain.models.open_clip import own_texts
from clip_explain.models.vit import trace_image, trace_text
from open_clip_models import NETWORKS, PREPROCESS, coca, tokenizer_of_clip
from small_clip import relative_error

EVERY = pytest.mark.parametrize("make", NETWORKS, ids=lambda make: make.__name__)


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    known = {}

    def made(make):
        if make not in known:
            network, tokenizer = open_clip_models.made(make, tmp_path_factory.mktemp(make.__name__))
            known[make] = network, cx.load(network, preprocess=PREPROCESS, tokenizer=tokenizer), tokenizer
        return known[make]

    return made


def pixels(model, count=2):
    side = model.image_size
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


TEXTS = ["a red cube", "a photo of the blue cone"]


@EVERY
def test_image_features_are_the_networks_own(load, make):
    network, model, _ = load(make)
    encoder, _ = NETWORKS[make]
    with torch.no_grad():
        expected = network.encode_image(pixels(model), normalize=False)
    assert model.encoder == encoder and model.embedding_size == expected.shape[1] and model.mean == (0.5, 0.5, 0.5)
    found = model.embed_images(cx.pixels(model, pixels(model)))
    assert relative_error(found, F.normalize(expected, dim=1)) < 1e-5
    if model.is_vit:
        assert relative_error(trace_image(model.network, pixels(model), start="attended").embedding, expected) < 1e-5


@EVERY
def test_text_features_are_the_networks_own(load, make):
    network, model, tokenizer = load(make)
    _, spoken = NETWORKS[make]
    tokens = open_clip_models.callable_tokenizer(tokenizer)(TEXTS)
    with torch.no_grad():
        expected = network.encode_text(tokens, normalize=False)
    assert relative_error(model.embed_texts(TEXTS), F.normalize(expected, dim=1)) < 1e-5
    assert (model.tokenizer is not None) == spoken
    if spoken:
        assert tokenize(model, TEXTS).tolist() == tokens.tolist()
        assert relative_error(trace_text(model.network, tokens).embedding, expected) < 1e-5


@EVERY
def test_every_network_has_maps_by_some_method(load, make):
    _, model, _ = load(make)
    assert {"rise", "shapley"} <= set(methods_for(model))
    given = cx.pixels(model, pixels(model, 1))
    for method, options in (("rise", dict(masks=8)), ("shapley", dict(samples=60))):
        maps = cx.explain(model, given, TEXTS, method, **options).maps
        assert maps.isfinite().all() and maps.std() > 0
    if model.encoder in ("convolutional", "other"):
        with pytest.raises(MethodError, match="needs a vision transformer .*, for which fit: .*rise, shapley"):
            cx.explain(model, given, TEXTS)
    else:
        assert cx.explain(model, given, TEXTS).maps.std() > 0


def test_a_tokenizer_that_cannot_be_called_says_what_helps(load):
    def of_another_version(texts):
        raise AttributeError("no batch_encode_plus")

    embed = own_texts(load(coca)[0], of_another_version)
    with pytest.raises(ModelError, match=r"no batch_encode_plus.*pip install 'open_clip_torch>=3.3'"):
        embed(TEXTS, False)


# -- other libraries, wrappers, and what is no CLIP


def test_a_network_of_openais_and_what_wraps_it():
    network = small_clip.build(**dict(small_clip.SMALL, vocab=49408))
    model = cx.load(network)
    given = cx.pixels(model, small_clip.pixels(1, 64, 64))
    expected = cx.explain(model, given, TEXTS).maps
    assert model.network is network
    assert torch.equal(cx.explain(cx.load(nn.DataParallel(network)), given, TEXTS).maps, expected)


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_a_network_of_transformers_is_the_model_of_its_folder(family, tmp_path):
    import transformers

    network = hub_models.FAMILIES[family](tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    model, loaded = cx.load(network, tokenizer=tokenizer, preprocess=processor), cx.load(f"hf:{tmp_path}", "cpu")
    given = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = cx.explain(model, cx.pixels(model, given), TEXTS)
    assert relative_error(found, cx.explain(loaded, cx.pixels(loaded, given), TEXTS)) < 1e-5
    assert (model.mean, model.std) == (loaded.mean, loaded.std)


def test_lora_layers_are_part_of_what_is_explained(tmp_path):
    """Of peft, not merged: each wrapped layer is called, and merging them changes nothing."""
    import transformers

    peft = pytest.importorskip("peft")

    network = hub_models.clip(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    config = peft.LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj", "fc1"])
    wrapped = peft.get_peft_model(network, config)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.2, generator=torch.Generator().manual_seed(1))
    model = cx.load(wrapped.eval(), tokenizer=tokenizer)
    given = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before = cx.explain(model, cx.pixels(model, given), TEXTS).maps
    with torch.no_grad():
        own = wrapped.get_image_features(pixel_values=given).pooler_output
    assert relative_error(trace_image(model.network, given).embedding, own) < 1e-5
    wrapped.peft_config["default"].base_model_name_or_path = str(tmp_path)
    wrapped.save_pretrained(tmp_path / "adapter")
    named = cx.load(f"hf:{tmp_path / 'adapter'}", "cpu")
    assert relative_error(cx.explain(named, cx.pixels(named, given), TEXTS).maps, before) < 1e-4
    merged = cx.load(wrapped.merge_and_unload(), tokenizer=tokenizer)
    after = cx.explain(merged, cx.pixels(merged, given), TEXTS).maps
    assert relative_error(before, after) < 1e-4
    base = cx.load(f"hf:{tmp_path}", "cpu")
    assert relative_error(cx.explain(base, cx.pixels(base, given), TEXTS).maps, after) > 0.01


class Own(nn.Module):
    """A network of nobody's library: the mean colour, projected."""

    def __init__(self):
        super().__init__()
        self.projection = nn.Linear(3, 8)

    def encode_image(self, pixels):
        return self.projection(pixels.mean(dim=(-2, -1)))

    def encode_text(self, tokens):
        return F.one_hot(tokens.long() % 8, 8).float().sum(dim=1)


def test_any_network_with_encode_image_is_explained_by_its_forward():
    torch.manual_seed(0)
    model = cx.load(Own(), preprocess=PREPROCESS, tokenizer=tokenizer_of_clip())
    assert model.encoder == "other" and model.image_size == 32 and model.embedding_size == 8
    maps = cx.explain(model, Image.new("RGB", (40, 30), "red"), TEXTS, "shapley", samples=60).maps
    assert maps.shape == (1, 2, 8, 8) and maps.isfinite().all()
    with pytest.raises(MethodError, match="words cannot"):
        cx.explain_words(model, Image.new("RGB", (40, 30)), TEXTS)


def test_what_is_no_clip_is_told_what_is():
    with pytest.raises(ModelError, match="got a Linear, expected a CLIP of OpenAI's package"):
        cx.load(nn.Linear(3, 4))
    with pytest.raises(ModelError, match="input size of a Own is not known"):
        cx.load(Own())
    with pytest.raises(ModelError, match="expected a transform with Normalize"):
        cx.load(small_clip.build(**small_clip.SMALL), preprocess=transforms.ToTensor())
