"""ConvNeXt and MobileCLIP of open_clip: Grad-CAM on their stages, and texts without a mask."""

import pytest
import torch
import torch.nn.functional as F

import clip_explain as cx
import open_clip_models
from clip_explain.errors import MethodError
from clip_explain.explainers.grad_cam import VARIANTS
from clip_explain.explainers.registry import methods_for
from clip_explain.models.agreement import agreement_by_layer
from clip_explain.models.resnet import stages_of
from clip_explain.models.stages import stage_embedding, stage_output
from open_clip_models import PREPROCESS, convnext, mobile
from small_clip import relative_error

CONVOLUTIONAL = pytest.mark.parametrize("make", [convnext, mobile], ids=lambda make: make.__name__)


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    known = {}

    def made(make):
        if make not in known:
            network, tokenizer = open_clip_models.made(make, tmp_path_factory.mktemp(make.__name__))
            known[make] = network, cx.load(network.double(), preprocess=PREPROCESS, tokenizer=tokenizer)
        return known[make]

    return made


def pixels(height=64, width=96):
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def targets():
    drawn = torch.randn(3, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return F.normalize(drawn, dim=1)


def oracle(network, stage, image, direction):
    """ReLU(sum_k mean(dy/dA^k) A^k) by the network's own forward, A read by a hook."""
    kept = []
    handle = network.visual.trunk.stages[stage].register_forward_hook(lambda *given: kept.append(given[-1]))
    score = F.cosine_similarity(network.encode_image(image)[0], direction, dim=0)
    handle.remove()
    (slope,) = torch.autograd.grad(score, kept)
    return torch.einsum("k,khw->hw", slope[0].mean(dim=(1, 2)), kept[0][0]).relu().detach()


@CONVOLUTIONAL
def test_from_every_stage_the_embedding_is_the_networks_own(load, make):
    network, model = load(make)
    parts = stages_of(model.network)
    with torch.no_grad():
        expected = network.encode_image(pixels())
        for count in range(len(parts.stages) + 1):
            found = stage_embedding(parts, stage_output(parts, pixels(), count), count)
            assert relative_error(found, expected) < 1e-12
    assert set(agreement_by_layer(model.network)["image"]) == {"layer 0", "layer 1", "layer 2", "layer 3", "embedding"}


@CONVOLUTIONAL
@pytest.mark.parametrize("layer", [None, 0, 2])
def test_grad_cam_is_its_definition_at_each_stage(load, make, layer):
    network, model = load(make)
    found = cx.explain(model, cx.pixels(model, pixels()), targets(), "grad_cam", layer=layer).maps
    for index, image in enumerate(pixels().split(1)):
        for number, direction in enumerate(targets()):
            expected = oracle(network, 3 if layer is None else layer, image, direction)
            assert relative_error(found[index, number], expected) < 1e-6 or not expected.any()
    assert found.any()


@CONVOLUTIONAL
def test_every_variant_has_a_map(load, make):
    network, model = load(make)
    assert methods_for(model) == ["grad_cam", "rise", "shapley"] and model.patch_size == 32
    given = cx.pixels(model, pixels()[:1])
    for variant in VARIANTS:
        maps = cx.explain(model, given, targets(), "grad_cam", variant=variant, layer=2).maps
        assert maps.shape[:2] == (1, 3) and maps.isfinite().all() and maps.any(), variant
    with pytest.raises(MethodError, match="expected 0 to 3"):
        cx.explain(model, given, targets(), "grad_cam", layer=4)
    with pytest.raises(MethodError, match="for a ViT"):
        cx.explain(model, given, targets(), "grad_cam", heads="single")
    assert not network.training and not any(part._forward_hooks for part in network.modules())


def test_a_text_without_a_mask_is_seen_with_its_padding(load):
    """MobileCLIP's end token attends to the padding after it, so weights come from the whole context."""
    network, model = load(mobile)
    images = targets()
    for method in ("grad_eclip", "game", "leave_one_out", "self_attention"):
        options = dict(layers=1) if method == "grad_eclip" else {}
        longer = ["a red cube", "a photo of a blue cone here"]
        words, alone = cx.explain_words(model, images, longer[0], method, **options)[0]
        also, among = cx.explain_words(model, images, longer, method, **options)[0]
        assert words == also == ["a", "red", "cube"], method
        assert relative_error(alone, among) < 1e-6 and alone.any(), method
    tokens = cx.tokenize(model, "a red cube")
    trace = cx.request.make_word_request(model, images, "a red cube").trace()
    with torch.no_grad():
        assert trace.blocks[0].k.shape[-2] == tokens.shape[1] == 16
        assert relative_error(trace.embedding, network.encode_text(tokens)) < 1e-12
