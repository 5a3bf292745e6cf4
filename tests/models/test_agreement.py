"""What is explained is the model: its own forward is compared with ours, whatever a user did to its modules."""

import copy
import gc
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import clip_explain as cx
import small_clip
from clip_explain.errors import ModelError
from clip_explain.models import agreement
from clip_explain.models.adapted import image_tower
from clip_explain.models.agreement import check_agreement, example_pixels, fingerprint
from clip_explain.models.torchvision import vit_classifier
from clip_explain.request import Request, WordRequest

PIXELS = small_clip.pixels(1, 64, 64)
TARGET = nn.functional.normalize(torch.ones(1, 64), dim=-1)


class Lora(nn.Module):
    """A low-rank adapter around a linear layer, which shows the weights of what it wraps, as peft's does."""

    def __init__(self, base: nn.Linear, rank: int = 2):
        super().__init__()
        self.base = base
        self.down = nn.Parameter(torch.randn(rank, base.in_features) * 0.05)
        self.up = nn.Parameter(torch.randn(base.out_features, rank) * 0.05)

    @property
    def weight(self):
        return self.base.weight

    @property
    def bias(self):
        return self.base.bias

    def forward(self, x):
        return self.base(x) + x @ self.down.T @ self.up.T


class OtherBlock(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.mix = nn.Linear(width, width)

    def forward(self, x):
        return x + self.mix(x)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return small_clip.wrap(small_clip.build(vocab=100, **small_clip.SMALL).eval().requires_grad_(False))


def image_block(model, index=1):
    return model.network.visual.transformer.resblocks[index]


def text_block(model, index=1):
    return model.network.transformer.resblocks[index]


def explain(model):
    return Request(model, PIXELS, TARGET).trace().embedding


def shift(module, inputs, output):
    """Adds something that differs from channel to channel: a norm would take a constant out again."""
    return output + torch.arange(output.shape[-1]) / output.shape[-1]


def hook_on_a_block(model):
    image_block(model).register_forward_hook(shift)


def hook_on_a_norm(model):
    image_block(model).ln_2.register_forward_hook(shift)


def input_hook_on_the_mlp(model):
    image_block(model).mlp.c_proj.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 2,))


def hook_on_the_image_encoder(model):
    model.network.visual.register_forward_hook(lambda module, inputs, output: output * torch.arange(64.0))


def forward_of_its_own(model):
    block = image_block(model)
    block.mlp.forward = lambda x: x


def replaced_block(model):
    model.network.visual.transformer.resblocks[1] = OtherBlock(128)


def overridden_encode_image(model):
    original = model.network.encode_image
    model.network.encode_image = lambda pixels: original(pixels.flip(-1))


def hook_on_a_text_block(model):
    text_block(model).register_forward_hook(shift)


def mask_of_another_kind(model):
    text_block(model).attn_mask = None


CHANGES = {
    hook_on_a_block: "image tower.*first in block 1.*resblocks.1 has a forward hook",
    hook_on_a_norm: "image tower.*first in block 1.*resblocks.1.ln_2 has a forward hook",
    input_hook_on_the_mlp: "image tower.*first in block 1.*resblocks.1.mlp.c_proj has a forward hook",
    hook_on_the_image_encoder: "image tower.*after the last block.*visual has a forward hook",
    forward_of_its_own: "image tower.*first in block 1.*resblocks.1.mlp has a forward of its own",
    replaced_block: "image tower.*not laid out like a CLIP's.*resblocks.1 is a OtherBlock",
    overridden_encode_image: "image tower.*the network has a forward of its own",
    hook_on_a_text_block: "text tower.*first in block 1.*resblocks.1 has a forward hook",
    mask_of_another_kind: "text tower.*first in block 1",
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_model_that_computes_something_else_is_refused(model, change):
    change(model)
    with pytest.raises(ModelError, match=f"(?s){CHANGES[change]}"):
        explain(model)
    with pytest.raises(ModelError):
        model.embed_images(PIXELS)
    with pytest.raises(ModelError):
        WordRequest(model, torch.tensor([[98, 5, 99] + [0] * 74]), TARGET).trace()


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_after_the_first_explanation_is_seen(model, change):
    request = Request(model, PIXELS, TARGET)
    request.trace()
    change(model)
    with pytest.raises(ModelError):
        request.trace(layers=2)


def test_lora_is_explained_or_refused_but_never_ignored(model):
    """Around the MLP's layers it is called; the attention reads weights alone, in the model itself, too."""
    plain = explain(model)
    image_block(model).mlp.c_fc = Lora(image_block(model).mlp.c_fc)
    adapted = explain(model)
    with torch.no_grad():
        assert small_clip.relative_error(adapted, model.network.encode_image(PIXELS)) < 1e-5
    assert small_clip.relative_error(adapted, plain) > 1e-3
    image_block(model).attn = LoraAttention(image_block(model).attn)
    with pytest.raises(ModelError, match="(?s)first in block 1.*resblocks.1.attn is a LoraAttention"):
        explain(model)


class LoraAttention(nn.Module):
    """Attention whose output goes through an adapter; its weights are those of what it wraps."""

    def __init__(self, base: nn.MultiheadAttention):
        super().__init__()
        self.base, self.adapter = base, nn.Linear(base.embed_dim, base.embed_dim)

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.base, name)

    def forward(self, *inputs, **options):
        attended, weights = self.base(*inputs, **options)
        return attended + self.adapter(attended), weights


def test_a_lora_merged_into_the_weights_is_explained(model):
    plain = explain(model)
    weight = image_block(model).attn.in_proj_weight
    weight.data += torch.randn(weight.shape) * 0.05
    merged = explain(model)
    with torch.no_grad():
        assert small_clip.relative_error(merged, model.network.encode_image(PIXELS)) < 1e-5
    assert small_clip.relative_error(merged, plain) > 1e-3


class Scale(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(width))

    def forward(self, x):
        return x * self.gamma


def test_layer_scale_is_computed(model):
    """open_clip's blocks: x + ls_1(attention), then x + ls_2(mlp)."""
    for block in model.network.visual.transformer.resblocks:
        block.ls_1, block.ls_2 = Scale(128), Scale(128)
        block.forward = lambda x, block=block: _with_scale(block, x)
    with torch.no_grad():
        assert small_clip.relative_error(explain(model), model.network.encode_image(PIXELS)) < 1e-5


def _with_scale(block, x):
    x = x + block.ls_1(block.attention(block.ln_1(x)))
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def test_another_activation_and_number_of_heads_are_the_models_own(model):
    plain = explain(model)
    for block in model.network.visual.transformer.resblocks:
        block.mlp.gelu, block.attn.num_heads = nn.GELU(), 4
    found = explain(model)
    with torch.no_grad():
        assert small_clip.relative_error(found, model.network.encode_image(PIXELS)) < 1e-5
    assert small_clip.relative_error(found, plain) > 1e-3


def test_a_network_put_in_place_of_a_models_is_checked(model):
    explain(model)
    mine = copy.deepcopy(model.network)
    mine.visual.transformer.resblocks[0].register_forward_hook(shift)
    with pytest.raises(ModelError, match="first in block 0 or before it"):
        explain(replace(model, network=mine))
    explain(model)


def test_hooks_that_only_look_and_parametrizations_are_welcome(model):
    seen = []
    image_block(model).register_forward_hook(lambda module, inputs, output: seen.append(output))
    nn.utils.parametrizations.orthogonal(image_block(model).mlp.c_fc)
    with torch.no_grad():
        assert small_clip.relative_error(explain(model), model.network.encode_image(PIXELS)) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_small_change_is_not_lost_in_half_precision(dtype):
    model = small_clip.wrap(small_clip.half(small_clip.build(vocab=100, **small_clip.SMALL).eval(), dtype))
    check_agreement(model.network, model.name)
    image_block(model).mlp.register_forward_hook(lambda module, inputs, output: output * 1.005)
    with pytest.raises(ModelError, match="first in block 1"):
        check_agreement(model.network, model.name)


@pytest.mark.parametrize("allowed", ["high", "medium"])
def test_products_of_less_precision_are_allowed(model, allowed):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(allowed)
    try:
        check_agreement(model.network, model.name)
        assert torch.get_float32_matmul_precision() == allowed
    finally:
        torch.set_float32_matmul_precision(before)


def test_the_check_leaves_no_trace_and_is_made_once(model, monkeypatch):
    model.network.visual.train()
    before = {key: value.clone() for key, value in model.network.state_dict().items()}
    check_agreement(model.network, model.name)
    assert [module.training for module in model.network.visual.modules()].count(False) == 0
    assert not model.network.transformer.training
    assert not any(module._forward_hooks for module in model.network.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.network.state_dict().items())
    monkeypatch.setattr(agreement, "_sides", lambda *given: pytest.fail("checked again"))
    check_agreement(model.network, model.name)
    explain(model)


def test_a_failed_check_removes_its_hooks(model):
    hook_on_a_block(model)
    count = sum(len(module._forward_hooks) for module in model.network.modules())
    with pytest.raises(ModelError):
        check_agreement(model.network, model.name)
    assert sum(len(module._forward_hooks) for module in model.network.modules()) == count == 1


def test_a_checked_network_can_be_forgotten(model):
    check_agreement(model.network, model.name)
    gc.collect()
    count = len(agreement._agreed)
    network = copy.deepcopy(model.network)
    check_agreement(network, model.name)
    assert len(agreement._agreed) == count + 1
    del network
    gc.collect()
    assert len(agreement._agreed) == count


def test_a_request_computes_anew_what_other_weights_made(model):
    """A deeper trace goes on from a shallower one that is kept, but not from one of the weights before."""
    request = Request(model, PIXELS, TARGET)
    request.trace(layers=2, start="attention", tokens="all")
    with torch.no_grad():
        model.network.visual.conv1.weight.mul_(-2)
        expected = model.network.encode_image(PIXELS)
    assert small_clip.relative_error(request.trace(layers=1, heads="single").embedding, expected) > 1e-3
    for options in ({"layers": 1}, {"layers": 2, "start": "input"}):
        assert small_clip.relative_error(request.trace(**options).embedding, expected) < 1e-5


def test_weights_changed_in_place_are_checked_anew(model):
    before = fingerprint(model.network)
    with torch.no_grad():
        model.network.visual.proj.mul_(2)
    assert fingerprint(model.network) != before
    before = fingerprint(model.network)
    model.network.visual.proj.data = model.network.visual.proj.data.clone()
    assert fingerprint(model.network) != before


# -- every loader


@pytest.mark.parametrize("name", ["tiny-vit", "tiny-resnet", "iclip", "iclip:clip", "torchvision:vit_b_32/random"])
def test_every_loaders_model_agrees(name):
    model = cx.load(name, "cpu", "fp32")
    check_agreement(model.network, model.name)


def test_a_hook_in_a_torchvision_classifier_is_seen():
    import torchvision

    torch.manual_seed(0)
    network = torchvision.models.VisionTransformer(32, 16, 2, 2, 64, 128, num_classes=3).eval()
    model = vit_classifier(network)
    check_agreement(model.network, model.name)
    network.encoder.layers[1].register_forward_hook(shift)
    with pytest.raises(ModelError, match="first in block 1"):
        check_agreement(model.network, model.name)


def test_a_hook_in_a_dinos_own_layers_is_seen():
    transformers = pytest.importorskip("transformers")
    from clip_explain.models.dino import dino

    config = transformers.ViTConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128, image_size=32, patch_size=16
    )
    network = transformers.ViTModel(config, add_pooling_layer=False).eval()
    model = dino(network)
    check_agreement(model.network, model.name)
    list(network.layers.children())[1].register_forward_hook(
        lambda module, inputs, output: (
            (shift(module, inputs, output[0]), *output[1:])
            if isinstance(output, tuple)
            else shift(module, inputs, output)
        )
    )
    with pytest.raises(ModelError, match="first in block 1"):
        check_agreement(model.network, model.name)


@pytest.mark.parametrize("family", ["clip", "metaclip_2", "siglip", "siglip2", "chinese_clip", "altclip"])
def test_a_hook_in_a_layer_of_a_hub_model_is_seen(family, tmp_path):
    pytest.importorskip("transformers")
    import hub_models

    getattr(hub_models, family)(tmp_path)
    model = cx.load(f"hf:{tmp_path}", "cpu")
    check_agreement(model.network, model.name)
    image_tower(model.network).layers[1].module.register_forward_hook(
        lambda module, inputs, output: (
            (shift(module, inputs, output[0]), *output[1:])
            if isinstance(output, tuple)
            else shift(module, inputs, output)
        )
    )
    with pytest.raises(ModelError, match="image tower.*first in block 1.*has a forward hook"):
        check_agreement(model.network, model.name)


# -- ResNets


def resnet():
    from clip.model import CLIP

    torch.manual_seed(0)
    network = CLIP(64, 64, (1, 1, 1, 1), 8, None, 77, 100, 64, 1, 1).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return small_clip.wrap(network.requires_grad_(False))


def test_a_resnet_in_train_mode_is_run_as_in_eval_and_left_as_it_was():
    model = resnet()
    targets = torch.nn.functional.normalize(torch.randn(2, 64), dim=-1)
    expected = {name: cx.explain(model, cx.preprocess(model, PIXELS), targets, method=name) for name in RESNET_METHODS}
    features = cx.encode_image(model, cx.preprocess(model, PIXELS))
    model.network.train()
    before = {key: value.clone() for key, value in model.network.state_dict().items()}
    for name in RESNET_METHODS:
        found = cx.explain(model, cx.preprocess(model, PIXELS), targets, method=name)
        assert np.array_equal(np.asarray(found), np.asarray(expected[name])), name
    assert torch.equal(cx.encode_image(model, cx.preprocess(model, PIXELS)), features)
    assert all(module.training for module in model.network.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.network.state_dict().items())


RESNET_METHODS = ("grad_cam", "self_attention", "maskclip", "rise")


def test_a_change_of_a_resnets_pooling_is_seen():
    model = resnet()
    check_agreement(model.network, model.name)
    model.network.visual.attnpool.register_forward_hook(shift)
    with pytest.raises(ModelError, match="(?s)image tower.*after the last block.*attnpool has a forward hook"):
        check_agreement(model.network, model.name)


def test_dropout_in_train_mode_does_not_enter(model):
    expected = explain(model)
    for block in model.network.visual.transformer.resblocks:
        block.attn.dropout = 0.5
        block.mlp.c_fc = Lora(block.mlp.c_fc)
        block.mlp.c_fc.base = nn.Sequential(block.mlp.c_fc.base, nn.Dropout(0.5))
        block.mlp.c_fc.base.weight, block.mlp.c_fc.base.bias = torch.zeros(1), None
        block.mlp.c_fc.up.data.zero_()
    model.network.train()
    assert small_clip.relative_error(explain(model), expected) < 1e-5


def test_pixels_of_the_check_are_always_the_same(model):
    assert torch.equal(example_pixels(model.network), example_pixels(model.network))
