"""BLIP's image-text contrast (ITC), presented so that the forward of vit.py runs it."""

import os
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clip_explain.checks import import_extra
from clip_explain.errors import ModelError, TextError
from clip_explain.models.adapters import Renamed, first_line, hub_checksum, module_of
from clip_explain.models.embedded import embedded_folder
from clip_explain.models.layers import evaluated
from clip_explain.models.model import Model, place

BLIP = "Salesforce/blip-itm-base-coco"


def load_blip(name: str, device: torch.device, dtype: torch.dtype) -> Model:
    """ "blip:NAME": `BlipForImageTextRetrieval` of transformers: "tiny-blip", a name on the hub or a local folder.

    The default is BLIP's base model for COCO, as in GE Fig 12. Its text encoder stays in float32. BLIP's own
    preprocessing is `fit="squash"`.
    """
    transformers = import_extra("transformers", "hugging-face", repr(name))
    name = f"blip:{name.removeprefix('blip:') or BLIP}"
    embedded = embedded_folder() / name.removeprefix("blip:")
    source = str(embedded) if os.path.isdir(embedded) else name.removeprefix("blip:")
    try:
        network = transformers.BlipForImageTextRetrieval.from_pretrained(source)
        tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    except Exception as error:  # the hub's client, the config and the weights each have their own
        raise ModelError(
            f"{name!r} could not be loaded as a BLIP for image-text retrieval: {first_line(error)} Expected a local "
            f"folder with its config, weights and tokenizer, or a name on the hub such as {BLIP!r}, and a network."
        ) from error
    network = place(network, device, torch.float32)
    for part in (network.vision_model, network.vision_proj):
        place(part, device, dtype)
    return blip(network, tokenizer, name, hub_checksum(transformers, source))


def blip(network: nn.Module, tokenizer: Any, name: str = "blip", sha256: str = "") -> Model:
    """A `BlipForImageTextRetrieval`, read where it is; `tokenizer` is its own, of transformers.

    The score is the ITC similarity; there is no learnt scale in it, so `scale_logits` changes nothing. Raises
    ModelError for a network without BLIP's parts. In training mode it is run as in evaluation.
    """
    absent = [
        part for part in ("vision_model", "vision_proj", "text_encoder", "text_proj") if not hasattr(network, part)
    ]
    if absent:
        raise ModelError(f"got a {type(network).__name__} without {', '.join(absent)}, expected BLIP for retrieval")
    vision = network.vision_model
    visual = module_of(
        conv1=vision.embeddings.patch_embedding,
        class_embedding=vision.embeddings.class_embedding.detach()[0, 0],
        positional_embedding=vision.embeddings.position_embedding.detach()[0],
        ln_pre=nn.Identity(),
        transformer=module_of(resblocks=nn.ModuleList(map(_blip_block, vision.encoder.layers.children()))),
        ln_post=vision.post_layernorm,
        proj=network.vision_proj.weight.detach().T,
        proj_bias=network.vision_proj.bias.detach(),
        image_size=vision.config.image_size,
    )
    return Model(
        Renamed(network, visual, _features),
        name,
        sha256,
        None,
        text_encoder=lambda *given: _embed_texts(network, tokenizer, *given),
    )


def _features(network: nn.Module, pixels: Tensor) -> Tensor:
    """The ITC features of an image, not normalised, by the network's own forward."""
    return network.vision_proj(network.vision_model(pixel_values=pixels)[0][:, 0])


def _blip_block(layer: nn.Module) -> nn.Module:
    own = layer.self_attn
    attn = module_of(
        in_proj_weight=own.qkv.weight, in_proj_bias=own.qkv.bias, out_proj=own.projection, num_heads=own.num_heads
    )
    mlp = module_of(c_fc=layer.mlp.fc1, gelu=layer.mlp.activation_fn, c_proj=layer.mlp.fc2)
    return module_of(own=layer, ln_1=layer.layer_norm1, attn=attn, ln_2=layer.layer_norm2, mlp=mlp)


def _embed_texts(
    network: nn.Module, tokenizer: Any, texts: list[str], truncate: bool
) -> Float[Tensor, "texts embedding"]:
    """BLIP's ITC features of texts, not normalised: `text_proj` of [CLS]."""
    limit = network.text_encoder.config.max_position_embeddings
    cut = {"truncation": True, "max_length": limit} if truncate else {}
    tokens = tokenizer(texts, padding=True, return_tensors="pt", **cut)
    count = tokens["input_ids"].shape[1]
    if count > limit:
        raise TextError(f"a text has {count} tokens, the model takes {limit}: shorten it, or truncate=True")
    tokens = {key: tokens[key].to(network.text_proj.weight.device) for key in ("input_ids", "attention_mask")}
    with torch.no_grad(), evaluated(network):
        return network.text_proj(network.text_encoder(**tokens)[0][:, 0])
