"""Small random networks of open_clip's own classes, one of each kind that people have."""

import pytest
import torch
from torch import nn
from torchvision import transforms

import hub_models

open_clip = pytest.importorskip("open_clip")
timm = pytest.importorskip("timm")
HFTokenizer = open_clip.tokenizer.HFTokenizer

VISION = dict(image_size=32, patch_size=8, width=64, layers=2, head_width=32)
TEXT = dict(context_length=16, vocab_size=49408, width=64, heads=2, layers=2)
PREPROCESS = transforms.Compose(
    [
        transforms.Resize(32),
        transforms.CenterCrop(32),
        transforms.ToTensor(),
        transforms.Normalize([0.5] * 3, [0.25] * 3),
    ]
)


def trunk(name, **options):
    return timm.create_model(name, img_size=32, patch_size=8, embed_dim=64, depth=2, num_heads=2, **options)


def with_trunk(made, text=TEXT, side=32):
    """open_clip's CLIP of timm's trunk: built of a small one, which `made` takes the place of."""
    vision = dict(timm_model_name="convnext_atto", timm_pool="avg", timm_proj="linear", image_size=side)
    network = open_clip.CustomTextCLIP(64, vision, text)
    network.visual.trunk, network.visual.head = made, nn.Sequential()
    return network


def siglip(folder):
    hub_models.gemma_tokenizer().save_pretrained(folder)
    tokenizer = HFTokenizer(str(folder), context_length=16, clean="canonicalize")
    text = dict(TEXT, vocab_size=len(tokenizer.tokenizer), no_causal_mask=True, proj_bias=True, pool_type="last")
    made = trunk("vit_base_patch16_siglip_224", num_classes=0, init_values=0.5)
    network = with_trunk(made, text)
    network.logit_bias = nn.Parameter(torch.tensor(-10.0))
    return network, tokenizer


def plain(_):
    return open_clip.CLIP(64, open_clip.CLIPVisionCfg(**VISION), open_clip.CLIPTextCfg(**TEXT)), tokenizer_of_clip()


def layer_scale(_):
    vision, text = open_clip.CLIPVisionCfg(**VISION, ls_init_value=0.3), open_clip.CLIPTextCfg(**TEXT)
    return open_clip.CLIP(64, vision, text), tokenizer_of_clip()


def resnet(_):
    vision = open_clip.CLIPVisionCfg(image_size=64, layers=(1, 1, 1, 1), width=8, head_width=32)
    return open_clip.CLIP(64, vision, open_clip.CLIPTextCfg(**TEXT)), tokenizer_of_clip()


def coca(_):
    vision = dict(VISION, attentional_pool=True, attn_pooler_heads=2, attn_pooler_queries=4, output_tokens=True)
    text = dict(TEXT, embed_cls=True, output_tokens=True)
    decoder = dict(TEXT, attn_pooler_heads=2)
    return open_clip.CoCa(64, decoder, text, vision), tokenizer_of_clip()


def convnext(_):
    vision = dict(timm_model_name="convnext_atto", timm_pool="", timm_proj="linear", image_size=64)
    return open_clip.CustomTextCLIP(64, vision, TEXT), tokenizer_of_clip()


def behind_convolutions(_):
    """MobileCLIP-B: a ViT behind three convolutions with batch norms, which give it its width."""
    made = timm.create_model("vit_base_mci_224", img_size=64, depth=2, num_classes=64, global_pool="token")
    return with_trunk(made, side=64), tokenizer_of_clip()


def vitamin(_):
    """ViTamin-S: a ViT behind convolutional stages, pooled by the mean; gated MLPs with a norm of their own."""
    made = timm.create_model("vitamin_small_224", img_size=64, depth=2, num_classes=64)
    return with_trunk(made, side=64), tokenizer_of_clip()


def swin(_):
    """A network of timm's that is not described."""
    made = timm.create_model("swin_tiny_patch4_window7_224", img_size=32, window_size=1, embed_dim=16, depths=(1, 1))
    made.reset_classifier(64)
    return with_trunk(made), tokenizer_of_clip()


def mobile(_):
    """MobileCLIP-S: FastViT, and a text without a mask, pooled at its end."""
    vision = dict(timm_model_name="fastvit_mci0", timm_pool="avg", timm_proj=None, image_size=64)
    return open_clip.CustomTextCLIP(64, vision, dict(TEXT, no_causal_mask=True)), tokenizer_of_clip()


def eva(_):
    """EVA02: rotary positions, SwiGLU with norms, no bias of keys."""
    return with_trunk(trunk("eva02_base_patch16_clip_224", num_classes=64)), tokenizer_of_clip()


def eva_1(_):
    """EVA01-g: no rotary positions, and a bias of q and v that is no part of their map."""
    return with_trunk(trunk("eva_giant_patch14_224", num_classes=64, global_pool="token")), tokenizer_of_clip()


def eva_enormous(_):
    """EVA02-E: norms behind attention and MLP."""
    return with_trunk(trunk("eva02_enormous_patch14_clip_224", num_classes=64)), tokenizer_of_clip()


def perception(_):
    """Meta's Perception Encoder: rotary positions, and a head that pools all tokens, the class token too."""
    made = trunk("vit_pe_core_base_patch16_224", num_classes=64, attn_pool_num_heads=2)
    return with_trunk(made), tokenizer_of_clip()


def averaged(_):
    """The mean of the patches, after the last norm."""
    vision = open_clip.CLIPVisionCfg(**VISION, pool_type="avg")
    return open_clip.CLIP(64, vision, open_clip.CLIPTextCfg(**TEXT)), tokenizer_of_clip()


def clipa(_):
    """CLIPA's: the mean of the patches, then the last norm; a text without a mask, pooled at its last token."""
    vision = open_clip.CLIPVisionCfg(**VISION, pool_type="avg", final_ln_after_pool=True, no_ln_pre=True)
    text = open_clip.CLIPTextCfg(**TEXT, no_causal_mask=True, pool_type="last")
    return open_clip.CLIP(64, vision, text), tokenizer_of_clip()


def averaged_of_timm(_):
    made = trunk("vit_base_patch16_224", num_classes=64, global_pool="avg", class_token=False)
    return with_trunk(made), tokenizer_of_clip()


def pooled_apart(_):
    """A head that pools the patches alone, beside a class token."""
    return with_trunk(trunk("vit_base_patch16_224", num_classes=64, global_pool="map")), tokenizer_of_clip()


def class_token_of_timm(_):
    return with_trunk(trunk("vit_base_patch16_224", num_classes=64)), tokenizer_of_clip()


def roberta(folder):
    """A text tower of Hugging Face's, from a folder."""
    import transformers

    config = transformers.RobertaConfig(vocab_size=60, max_position_embeddings=40, **hub_models.TEXT)
    transformers.RobertaModel(config).save_pretrained(folder)
    hub_models.xlm_tokenizer().save_pretrained(folder)
    text = dict(hf_model_name=str(folder), hf_tokenizer_name=str(folder), hf_pooler_type="mean_pooler")
    network = open_clip.CustomTextCLIP(64, VISION, dict(text, hf_model_pretrained=False))
    return network, callable_tokenizer(HFTokenizer(str(folder), context_length=16))


def callable_tokenizer(tokenizer):
    """A tokenizer; the test is skipped where open_clip's, before 3.3, does not work with transformers 5."""
    try:
        tokenizer(["a"])
    except AttributeError as error:
        pytest.skip(f"open_clip is older than 3.3, and transformers is not: {error}")
    return tokenizer


def tokenizer_of_clip():
    return open_clip.SimpleTokenizer(context_length=16)


# What makes a network of open_clip -> its image encoder, and whether its words are explained.
NETWORKS = {
    plain: ("class", True),
    layer_scale: ("class", True),
    resnet: ("resnet", True),
    siglip: ("attention", True),
    coca: ("attention", False),
    averaged: ("mean", True),
    clipa: ("mean", True),
    averaged_of_timm: ("mean", True),
    class_token_of_timm: ("class", True),
    pooled_apart: ("attention", True),
    perception: ("attention", True),
    roberta: ("class", False),
    convnext: ("convolutional", True),
    mobile: ("convolutional", True),
    eva: ("class", True),
    eva_1: ("class", True),
    eva_enormous: ("class", True),
    behind_convolutions: ("class", True),
    vitamin: ("mean", True),
    swin: ("other", True),
}


def made(make, folder):
    """A network of a kind in evaluation mode, with no zero biases and no flat probe, and its tokenizer."""
    torch.manual_seed(0)
    network, tokenizer = make(folder)
    for parameter in network.eval().parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    return network, tokenizer
