"""open_clip's networks that are not laid out as OpenAI's, described part by part.

What cannot be described is left to the network's own forward.

| part of open_clip | read as |
|---|---|
| `VisionTransformer` with an attentional pool (CoCa) | a tower pooled by the query that open_clip keeps, the first |
| `VisionTransformer` pooled by the mean of its patches (CLIPA) | a tower pooled by the mean |
| `TimmModel` of a ViT (SigLIP, SigLIP 2, EVA01, EVA02, EVA02-E) | see timm_towers.py |
| `TimmModel` of a ViT behind convolutions (MobileCLIP-B, ViTamin) | see timm_towers.py |
| `TimmModel` of ConvNeXt or FastViT (MobileCLIP-S) | stages, see timm_towers.py |
| `TimmModel` of another network (Swin, a ViT with relative positions) | its own forward alone |
| `TextTransformer` pooled at the end or the last token, without a mask of padding | a text tower |
| other texts (Hugging Face's, CoCa's) | their own features, as targets |
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clip_explain.models.adapted import Family, image_tower
from clip_explain.models.layers import Affine
from clip_explain.models.stages import Stages
from clip_explain.models.timm_towers import CONVOLUTIONAL, describable, timm_image, timm_stages
from clip_explain.models.tokenizer import Vocabulary
from clip_explain.models.towers import Layer, Sizes, Tokens, Tower, mean_head, tower_layers


def is_plain(network: nn.Module) -> bool:
    """Whether a network of open_clip is laid out as OpenAI's, and is read as those are."""
    visual = network.visual
    vit = hasattr(visual, "class_embedding") and getattr(visual, "attn_pool", None) is None and _keeps_first(visual)
    resnet = hasattr(visual, "attnpool") and hasattr(visual, "layer4")
    return hasattr(network, "transformer") and (vit or resnet) and _is_end(network)


def open_clip_family(network: nn.Module) -> Family:
    """How a network of open_clip is read, by what its parts are."""
    image = _image_reader(network.visual)
    text = getattr(network, "text", network)
    readable = hasattr(text, "token_embedding") and getattr(text, "cls_emb", None) is None
    readable = readable and not getattr(text, "use_pad_mask", False) and _pool(text) in ("argmax", "eos", "last")
    return Family(
        type(network).__name__,
        sizes=_sizes,
        encode_image=lambda network, pixels: network.encode_image(pixels, normalize=False),  # CoCa's default is True
        encode_text=lambda network, tokens: network.encode_text(tokens, normalize=False),
        image=image,
        text=_text if readable else None,
        pooling="class" if image is None else image(network).pooling,
        stages=_stages if is_convolutional(network.visual) else None,
    )


def is_convolutional(visual: nn.Module) -> bool:
    """Whether an image encoder is one of timm's networks whose stages are read."""
    return type(getattr(visual, "trunk", None)).__name__ in CONVOLUTIONAL


def _stages(network: nn.Module) -> Stages:
    return timm_stages(network.visual.trunk, network.visual.head)


def _image_reader(visual: nn.Module) -> Callable[[nn.Module], Tower] | None:
    if hasattr(visual, "trunk"):
        return _timm if describable(visual.trunk) else None
    if not hasattr(visual, "class_embedding"):
        return None
    if getattr(visual, "attn_pool", None) is not None:
        plain = _keeps_first(visual) and getattr(visual, "attn_pool_contrastive", None) is None
        return _pooled if plain else None
    return {"tok": _plain, "avg": _averaged}.get(_pool_of_image(visual))


def _keeps_first(visual: nn.Module) -> bool:
    """Whether the embedding is that of the first token; open_clip can also take the mean of the patches."""
    return _pool_of_image(visual) == "tok"


def _pool_of_image(visual: nn.Module) -> str:
    """How an image's tokens are pooled, in open_clip's words."""
    return getattr(visual, "pool_type", "tok")


def _timm(network: nn.Module) -> Tower:
    return timm_image(network.visual.trunk, network.visual.head)


def _plain(network: nn.Module) -> Tower:
    return image_tower(network)


def _averaged(network: nn.Module) -> Tower:
    """The mean of the patches, before the last norm or after it."""
    visual, tower = network.visual, image_tower(network)
    before, after = (None, tower.norm) if getattr(visual, "final_ln_after_pool", False) else (tower.norm, None)
    head = mean_head(before, tower.layers[-1].out.weight, tower.prefix)
    return Tower(tower.stem, (*tower.layers, head), "mean", after, tower.projection)


def _pooled(network: nn.Module) -> Tower:
    """CoCa's: the pool's first query is what open_clip pools; then the last norm and the projection."""
    visual, tower = network.visual, image_tower(network)
    pool = visual.attn_pool
    head = Layer(
        module=pool,
        heads=pool.attn.num_heads,
        norm_1=pool.ln_k,
        qkv=_maps(pool.attn),
        out=pool.attn.out_proj,
        query=pool.ln_q(pool.query)[:1].detach(),
        residual=False,
    )
    return Tower(tower.stem, (*tower.layers, head), "attention", tower.norm, tower.projection)


def _maps(attention: nn.Module) -> tuple[Affine, ...]:
    """q, k and v of torch's attention, whose keys may have another width than its queries."""
    biases = attention.in_proj_bias.chunk(3)
    if attention.in_proj_weight is not None:
        return (Affine(attention.in_proj_weight, attention.in_proj_bias),)
    weights = (attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight)
    return tuple(Affine(weight, bias) for weight, bias in zip(weights, biases, strict=True))


def _text(network: nn.Module, vocabulary: Vocabulary) -> Tower:
    text = getattr(network, "text", network)
    numbers, last = text.token_embedding.weight.detach(), _pool(text) == "last"
    end = getattr(text, "eos_id", None) if _pool(text) == "eos" else None
    stem = Tokens(numbers, text.positional_embedding.detach(), numbers.dtype, end, vocabulary.special if last else ())
    projection, bias = text.text_projection, None
    if isinstance(projection, nn.Linear):
        projection, bias = projection.weight.T, projection.bias
    return Tower(
        stem,
        tower_layers(text.transformer),
        "last" if last else "end",
        text.ln_final,
        None if projection is None else projection.detach(),
        bias,
        causal=text.attn_mask is not None,
    )


def _is_end(network: nn.Module) -> bool:
    return _pool(network) == "argmax" and network.attn_mask is not None


def _pool(text: nn.Module) -> str:
    """Where a text is pooled, in open_clip's words; its CLIP itself has the setting under another name."""
    return getattr(text, "pool_type", getattr(text, "text_pool_type", "argmax"))


def _sizes(network: nn.Module) -> Sizes:
    """The image's size as open_clip tells it; a cell is a patch, the stages' stride, or about a seventh of a side."""
    side = network.visual.image_size
    side = side if isinstance(side, int) else side[0]
    reader = _image_reader(network.visual)
    if reader is not None:
        patch = reader(network).stem.patch[-1]
    elif is_convolutional(network.visual):
        patch = network.visual.trunk.feature_info[-1]["reduction"]
    else:
        patch = cell_of(side)
    return Sizes((side, side), patch, embedding_length(network, side))


def cell_of(side: int) -> int:
    """The side of a cell where only the forward is known: that which divides the image into most nearly 7 x 7."""
    return min((cell for cell in range(1, side + 1) if side % cell == 0), key=lambda cell: abs(side / cell - 7))


def embedding_length(network: nn.Module, side: int) -> int:
    """How long an embedding is, by one forward of nothing."""
    weight = next(parameter for parameter in network.parameters() if parameter.is_floating_point())
    blank: Float[Tensor, "1 3 side side"] = torch.zeros(1, 3, side, side, device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        return network.encode_image(blank).shape[-1]
