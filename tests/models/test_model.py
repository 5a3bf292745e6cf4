"""Loading from every home of a CLIP, preprocessing and tokenizing, against OpenAI's own code."""

import copy
import hashlib
import json
import sys
import urllib.error
import warnings

import clip
import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

import clip_explain as cx
import small_clip
from clip_explain import errors, images
from clip_explain.models import weights
from clip_explain.models.model import DTYPES

SIZES = {  # embed, resolution, vision layers, vision width, patch, text width, heads, text layers
    "ViT-B/32": (512, 224, 12, 768, 32, 512, 8, 12),
    "ViT-B/16": (512, 224, 12, 768, 16, 512, 8, 12),
    "RN50": (1024, 224, (3, 4, 6, 3), 64, None, 512, 8, 12),
}
SMALL = dict(embed=64, res=64, patch=16, vlayers=2, vwidth=128, tlayers=2, twidth=64)
TEXTS = ["a red cube", "Two SHINY  balls &amp; a cone!"]


def random_network(name):
    embed, resolution, layers, width, patch, text_width, heads, text_layers = SIZES[name]
    torch.manual_seed(0)
    with torch.no_grad():
        return clip.model.CLIP(
            embed, resolution, layers, width, patch, 77, 49408, text_width, heads, text_layers
        ).eval()


def photo(width=300, height=200, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def archive(network, path):
    """Save as OpenAI did: traced, weights in fp16, the sizes as buffers."""
    for key, value in [("input_resolution", 224), ("context_length", 77), ("vocab_size", 49408)]:
        if hasattr(network, key):
            delattr(network, key)
        network.register_buffer(key, torch.tensor(value))
    clip.model.convert_weights(network)
    example = torch.zeros(1, 3, 224, 224), clip.tokenize("x")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.jit.trace(network, example, check_trace=False).save(path)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("small") / "small.safetensors"
    safetensors.torch.save_file(small_clip.state_dict(**SMALL), path, small_clip.METADATA)
    return path


@pytest.fixture(scope="module")
def loaded(small):
    return cx.load(small, device="cpu")


@pytest.fixture(scope="module")
def vit_b_32():
    return random_network("ViT-B/32")


@pytest.fixture(scope="module")
def openai_archive(vit_b_32, tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "ViT-B-32.pt"
    archive(copy.deepcopy(vit_b_32), path)
    yield path
    path.unlink()


@pytest.mark.parametrize(("name", "suffix"), [("ViT-B/32", ".pt"), ("ViT-B/16", ".safetensors"), ("RN50", ".pt")])
def test_full_size_state_dict(name, suffix, tmp_path, vit_b_32):
    network = vit_b_32 if name == "ViT-B/32" else random_network(name)
    path = tmp_path / f"random{suffix}"
    if suffix == ".pt":
        torch.save(network.state_dict(), path)
    else:
        safetensors.torch.save_file(network.state_dict(), path)
    found = cx.load(path, device="cpu", activation="quick_gelu")
    path.unlink()
    assert (found.name, found.image_size, found.context_length) == ("random", 224, 77)
    assert (found.is_vit, found.patch_size) == (name != "RN50", {"ViT-B/32": 32, "ViT-B/16": 16, "RN50": 32}[name])
    pixels, tokens = cx.preprocess(found, photo(), "crop"), cx.tokenize(found, TEXTS)
    with torch.no_grad():
        assert torch.equal(found.network.encode_image(pixels), network.encode_image(pixels))
        assert torch.equal(found.network.encode_text(tokens), network.encode_text(tokens))


@pytest.mark.filterwarnings("ignore:.*torch.jit.load.*deprecated:FutureWarning")  # clip.load's own
def test_openai_archive_equals_clip(openai_archive):
    reference, transform = clip.load(str(openai_archive), device="cpu", jit=False)
    found = cx.load(openai_archive, device="cpu")
    assert found.sha256 == hashlib.sha256(openai_archive.read_bytes()).hexdigest()
    assert found.name == "ViT-B-32"
    pixels = transform(photo())[None]
    assert torch.equal(cx.preprocess(found, photo(), "crop"), pixels)
    with torch.no_grad():
        assert torch.equal(found.network.encode_image(pixels), reference.encode_image(pixels))
        tokens = clip.tokenize(TEXTS)
        assert torch.equal(found.network.encode_text(tokens), reference.encode_text(tokens))
    for (key, ours), theirs in zip(found.network.state_dict().items(), reference.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), key


def test_openai_name_from_its_cache(openai_archive, tmp_path, monkeypatch):
    sha256 = hashlib.sha256(openai_archive.read_bytes()).hexdigest()
    cache = tmp_path / ".cache" / "clip"
    cache.mkdir(parents=True)
    (cache / "ViT-B-32.pt").symlink_to(openai_archive)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setitem(clip.clip._MODELS, "ViT-B/32", f"https://example.org/{sha256}/ViT-B-32.pt")
    found = cx.load("ViT-B/32", device="cpu")
    assert (found.name, found.sha256, found.dtype) == ("ViT-B/32", sha256, torch.float32)


def test_openai_name_without_network_says_where_to_put_the_file(tmp_path, monkeypatch):
    def no_network(url):
        raise urllib.error.URLError("no network")

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    with pytest.raises(errors.ModelError, match=r"no network.*Download https://.*RN50.pt.*place the file.*clip"):
        cx.load("RN50")
    assert not list(tmp_path.rglob("*.pt"))


def test_open_clip_absent_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(errors.ModelError, match="needs the package open_clip"):
        cx.load("open_clip:ViT-B-16/laion2b_s34b_b88k")


def test_open_clip_local_checkpoint(tmp_path):
    open_clip = pytest.importorskip("open_clip")
    network = open_clip.create_model("ViT-S-32-alt").eval()
    torch.save(network.state_dict(), tmp_path / "x.pt")
    found = cx.load(f"open_clip:ViT-S-32-alt/{tmp_path / 'x.pt'}", device="cpu")
    tokens = cx.tokenize(found, TEXTS)
    assert torch.equal(tokens.long(), open_clip.get_tokenizer("ViT-S-32-alt")(TEXTS).long())
    with torch.no_grad():
        # frozen parameters take torch's fused attention, which rounds differently
        assert torch.allclose(found.network.encode_text(tokens), network.encode_text(tokens), atol=1e-4)
    assert (found.is_vit, found.image_size, found.patch_size) == (True, 224, 32)


def test_embedded_model_is_packed_unpacked_and_checked(tmp_path, monkeypatch):
    state = small_clip.state_dict(**SMALL)
    rows = torch.tensor([7, 320, 49406, 49407])
    packed = weights.pack(state, rows)
    assert all(value.dtype in (torch.float16, torch.int32) for value in packed.values())
    restored = weights.unpack(packed)
    assert restored.keys() == state.keys()
    embedding = restored["token_embedding.weight"]
    assert torch.equal(embedding[rows], state["token_embedding.weight"][rows].half())
    assert embedding.any(dim=1).sum() == len(rows)

    path = tmp_path / "models" / "tiny-vit.safetensors"
    path.parent.mkdir()
    safetensors.torch.save_file(packed, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_suffix(".json").write_text(json.dumps({"sha256": sha256}))
    monkeypatch.setenv("CLIP_EXPLAIN_DATA", str(tmp_path))
    found = cx.load("tiny-vit", device="cpu")
    assert (found.name, found.sha256, cx.available_models()[0]) == ("tiny-vit", sha256, "tiny-vit")
    assert torch.equal(found.network.token_embedding.weight, embedding.float())
    assert cx.models.absent(["tiny-vit", "tiny-resnet", "ViT-B/16", "a/path.pt"]) == ["tiny-resnet"]

    path.with_suffix(".json").write_text(json.dumps({"sha256": "0" * 64}))
    with pytest.raises(errors.WeightsError, match="expected 0000"):
        cx.load("tiny-vit")
    path.unlink()
    with pytest.raises(errors.ModelError, match="CLIP_EXPLAIN_DATA"):
        cx.load("tiny-vit")


def test_fp32_weights_keep_their_precision_and_training_wrappers_come_off(tmp_path, loaded):
    state = small_clip.state_dict(**SMALL)
    wrapped = {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}}
    torch.save(wrapped, tmp_path / "checkpoint.pt")
    found = cx.load(str(tmp_path / "checkpoint.pt"), device="cpu", heads=(2, 1), activation="quick_gelu")
    for key, value in found.network.state_dict().items():
        assert torch.equal(value, state[key]) and torch.equal(value, loaded.network.state_dict()[key]), key


@pytest.mark.parametrize("dtype", ["fp16", "bf16", torch.bfloat16])
def test_half_precision_keeps_layer_norms_and_features(small, loaded, dtype):
    half = cx.load(small, device="cpu", dtype=dtype)
    assert half.dtype == DTYPES.get(dtype, dtype)
    assert half.network.ln_final.weight.dtype == torch.float32
    for encode, source in [(cx.encode_image, photo()), (cx.encode_text, TEXTS)]:
        cosine = (encode(half, source) * encode(loaded, source)).sum(dim=-1)
        assert cosine.min() > 0.999


def test_a_clip_is_frozen(loaded):
    assert not loaded.network.training
    assert not any(parameter.requires_grad for parameter in loaded.network.parameters())
    with pytest.raises(AttributeError):
        loaded.name = "other"


def test_features_have_unit_length(loaded):
    images, texts = cx.encode_image(loaded, [photo(), photo(seed=1)]), cx.encode_text(loaded, TEXTS)
    assert images.shape == texts.shape == (2, 64)
    assert torch.allclose(torch.cat([images, texts]).norm(dim=1), torch.ones(4))


def test_tokens_equal_clip(loaded):
    texts = [*TEXTS, "cube " * 75]
    assert torch.equal(cx.tokenize(loaded, texts), clip.tokenize(texts))
    longer = "cube " * 76 + "ball"
    assert torch.equal(cx.tokenize(loaded, longer, truncate=True), clip.tokenize(longer, truncate=True))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(300, 200), (64, 64), (65, 401), (17, 30), (1, 1)])
def test_crop_equals_clip(loaded, size, mode):
    image = photo(*size).convert(mode)
    assert torch.equal(cx.preprocess(loaded, image, "crop")[0], clip.clip._transform(64)(image))


@pytest.mark.parametrize(
    ("size", "grid"), [((300, 200), (4, 6)), ((200, 300), (6, 4)), ((64, 64), (4, 4)), ((99, 100), (4, 4))]
)
def test_full_keeps_the_whole_image_and_its_aspect(loaded, size, grid):
    pixels = cx.preprocess(loaded, photo(*size), fit="full")
    assert pixels.shape == (1, 3, grid[0] * 16, grid[1] * 16)


def test_squash_and_full_show_the_edges_that_crop_cuts(loaded):
    image = Image.new("RGB", (300, 100), "black")
    image.paste("white", (0, 0, 50, 100))
    whitest = {fit: float(cx.preprocess(loaded, image, fit=fit).max()) for fit in images.FITS}
    assert whitest["crop"] < 0 < 1 < min(whitest["full"], whitest["squash"])
    assert cx.preprocess(loaded, image, fit="squash").shape == (1, 3, 64, 64)


def test_lists_paths_and_tensors_are_the_same_images(loaded, tmp_path):
    photo().save(tmp_path / "a.png")
    pixels = cx.preprocess(loaded, [photo(), tmp_path / "a.png", str(tmp_path / "a.png")])
    assert torch.equal(pixels, pixels[:1].expand(3, -1, -1, -1))
    assert torch.equal(cx.preprocess(loaded, pixels), pixels)


def test_an_image_is_shrunk_for_drawing_whole_and_undistorted():
    image = Image.new("RGB", (300, 100))
    assert images.shrunk(image).size == (300, 100) and images.shrunk(image, longest=150).size == (150, 50)


def test_a_vit_sees_the_whole_image_by_default_and_a_resnet_its_middle(loaded):
    wide = Image.new("RGB", (300, 100))
    assert images.default_fit(loaded) == "full" and cx.preprocess(loaded, wide).shape == (1, 3, 64, 192)
    narrow = small_clip.wrap(clip.model.CLIP(64, 64, (1, 1, 1, 1), 8, None, 9, 100, 64, 1, 1).eval())
    assert images.default_fit(narrow) == "crop" and cx.preprocess(narrow, wide).shape == (1, 3, 64, 64)
