"""Models of open_clip, of whichever version is installed: the trace is the model's own forward, or it is refused.

Run with 2.24 (sequence-first) and with the newest version (batch-first); skipped where the package is absent.
"""

import json

import pytest
import torch

import clip_explain as cx
from clip_explain import errors
from clip_explain.models import open_clip as open_clip_models
from clip_explain.models.model import image_features, unit
from clip_explain.request import make_request
from small_clip import pixels, relative_error

open_clip = pytest.importorskip("open_clip")

TEXTS = ["a red cube", "a photo of two dogs on a beach"]
ARCHITECTURES = ("ViT-S-32-alt", "ViT-B-32-quickgelu", "RN50", "RN50-quickgelu")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def checkpoint(request, tmp_path_factory):
    """Random weights of an architecture, as a local checkpoint."""
    torch.manual_seed(0)
    network = open_clip.create_model(request.param).eval()
    path = tmp_path_factory.mktemp("weights") / "x.pt"
    torch.save(network.state_dict(), path)
    return request.param, path, network


def test_the_trace_is_the_models_own_forward_and_gives_maps(checkpoint):
    arch, path, network = checkpoint
    model = cx.load(f"open_clip:{arch}/{path}", device="cpu")
    image = pixels(0, 224, 224)
    tokens = cx.tokenize(model, TEXTS)
    assert torch.equal(tokens.long(), open_clip.get_tokenizer(arch)(TEXTS).long())
    with torch.no_grad():
        assert relative_error(image_features(model, image), network.encode_image(image)) < 1e-5
        assert relative_error(model.embed_tokens(tokens), unit(network.encode_text(tokens))) < 1e-5
    fitting = ("self_attention", "maskclip", "grad_cam") + ("rollout", "game", "grad_eclip") * model.is_vit
    for method in fitting:
        maps = cx.explain(model, image, TEXTS, method)
        assert maps.shape == (1, 2, 7, 7) and maps.isfinite().all() and maps.any(), method
    if not model.is_vit:
        with pytest.raises(errors.MethodError, match="is a ResNet, for which fit"):
            cx.explain(model, image, TEXTS, "rollout")
    words, weights = cx.explain_words(model, image, TEXTS[0], "grad_eclip")[0]
    assert words == ["a", "red", "cube"] and weights.shape == (1, 3)
    before = network.state_dict()
    assert all(torch.equal(value, before[key]) for key, value in model.network.state_dict().items())


def test_a_tower_that_computes_something_else_is_refused():
    network = open_clip.create_model("ViT-S-32-alt").eval().requires_grad_(False)
    tokenizer = open_clip.get_tokenizer("ViT-S-32-alt")
    model = cx.Model(network, "ours", "", tokenizer)
    open_clip_models.check_agreement(model.network, model.name)
    network.visual.pool_type = "avg"
    with pytest.raises(errors.ModelError, match="the image tower of ours .* computes something else"):
        open_clip_models.check_agreement(model.network, model.name)
    network.visual.pool_type = "tok"
    network.text_pool_type, network.attn_mask = "argmax", None
    with pytest.raises(errors.ModelError, match="the text tower of ours .* computes something else"):
        open_clip_models.check_agreement(model.network, model.name)


VISION = dict(image_size=32, patch_size=8, width=64, layers=2, head_width=32)
POOLED = dict(attentional_pool=True, attn_pooler_heads=2, attn_pooler_queries=4, output_tokens=True)
TEXT = dict(context_length=16, vocab_size=49408, width=64, heads=2, layers=2)
CONFIGS = {
    "coca": dict(
        embed_dim=64,
        vision_cfg=VISION | POOLED,
        text_cfg=TEXT | dict(embed_cls=True, output_tokens=True),
        multimodal_cfg=TEXT | dict(attn_pooler_heads=2),
        custom_text=True,
    ),
    "mean": dict(embed_dim=64, vision_cfg=VISION | dict(pool_type="avg"), text_cfg=TEXT),
    "apart": dict(embed_dim=64, vision_cfg=VISION, text_cfg=TEXT, custom_text=True),
}


@pytest.mark.skipif(not hasattr(open_clip.transformer, "AttentionalPooler"), reason="before open_clip had CoCa")
@pytest.mark.parametrize(("kind", "encoder"), [("coca", "attention"), ("mean", "mean"), ("apart", "class")])
def test_a_training_checkpoint_of_another_layout_is_its_network(tmp_path, kind, encoder):
    """By a config of one's own, as `open_clip.add_model_config` reads it, and the file that its training writes."""
    (tmp_path / f"small-{kind}.json").write_text(json.dumps(CONFIGS[kind]))
    open_clip.add_model_config(tmp_path)
    torch.manual_seed(1)
    network = open_clip.create_model(f"small-{kind}").eval()
    if kind == "coca":  # its decoder's projection is memory as it was found, which may hold NaN
        torch.nn.init.normal_(network.text_decoder.text_projection, std=0.01)
    state = {f"module.{key}": value for key, value in network.state_dict().items()}
    torch.save({"epoch": 1, "name": "run", "state_dict": state, "optimizer": {}}, tmp_path / "epoch_1.pt")
    model = cx.load(f"open_clip:small-{kind}/{tmp_path / 'epoch_1.pt'}", "cpu")
    image = pixels(0, 32, 32)
    with torch.no_grad():
        assert relative_error(image_features(model, image), network.encode_image(image, normalize=False)) < 1e-5
    assert model.encoder == encoder
    assert cx.explain(model, cx.pixels(model, image), TEXTS, "rise", masks=4).maps.isfinite().all()


def test_unknown_architectures_and_weights_are_said():
    with pytest.raises(errors.ModelError, match="no architecture 'ViT-B-61'.*ViT-B-16"):
        cx.load("open_clip:ViT-B-61/openai")
    with pytest.raises(errors.ModelError, match="no weights 'laion3b'.*laion2b"):
        cx.load("open_clip:ViT-B-32/laion3b")


def test_a_query_is_built_of_an_open_clip_in_half_precision(tmp_path):
    torch.save(open_clip.create_model("ViT-S-32-alt").state_dict(), tmp_path / "x.pt")
    full, half = (cx.load(f"open_clip:ViT-S-32-alt/{tmp_path / 'x.pt'}", "cpu", dtype) for dtype in ("fp32", "bf16"))
    one, other = (
        cx.METHODS["self_attention"].image(make_request(m, pixels(0, 224, 224), "a dog")) for m in (full, half)
    )
    assert half.dtype == torch.bfloat16
    assert torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1] > 0.98
