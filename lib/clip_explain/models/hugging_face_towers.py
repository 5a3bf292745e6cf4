"""The towers of transformers' CLIPs, SigLIPs and their relatives, described for the forward of vit.py.

All of them are built of the same parts under the same names; they differ in the class token, in how tokens are pooled
and in the projections.

| | image pooled by | text pooled at | text's mask | projections |
|---|---|---|---|---|
| CLIPModel, MetaClip2Model | class token | end token | causal | of both, without a bias |
| ChineseCLIPModel, AltCLIPModel | class token | a BERT's first token | | of both, without a bias |
| SiglipModel, Siglip2Model | attention head | last token, padding included | none | of the text, with a bias |
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clip_explain.models.adapted import Family
from clip_explain.models.layers import Affine
from clip_explain.models.tokenizer import Vocabulary
from clip_explain.models.towers import Layer, Patches, Sizes, Tokens, Tower, one_map, square

LEGACY_END = 2  # in CLIP's configs before transformers 4.31; the end token is then the largest number


def clip_image(network: nn.Module) -> Tower:
    """The image tower of a CLIPModel and its relatives: pooled at the class token."""
    vision = network.vision_model
    return Tower(
        _patches(vision, norm=vision.pre_layrnorm),
        _layers(vision),
        "class",
        vision.post_layernorm,
        network.visual_projection.weight.detach().T,
    )


def clip_text(network: nn.Module, vocabulary: Vocabulary) -> Tower:
    """The text tower of a CLIPModel: pooled at its end token."""
    text = network.text_model
    end = text.config.eos_token_id
    legacy = end == LEGACY_END and text.config.model_type.startswith("clip")
    projection = network.text_projection.weight.detach().T
    return Tower(
        _tokens(text, end=None if legacy else end),
        _layers(text),
        "end",
        text.final_layer_norm,
        projection,
        causal=True,
    )


def siglip_image(network: nn.Module) -> Tower:
    """SigLIP's image tower: a head whose only query is learnt pools all patches; it is the last layer."""
    vision = network.vision_model
    return Tower(_patches(vision), (*_layers(vision), _head(vision)), "attention", None, None)


def siglip_text(network: nn.Module, vocabulary: Vocabulary) -> Tower:
    """SigLIP's text tower: no mask, pooled at the last token, which may be padding."""
    text = network.text_model
    projection, bias = text.head.weight.detach().T, text.head.bias.detach()
    return Tower(
        _tokens(text, special=vocabulary.special), _layers(text), "last", text.final_layer_norm, projection, bias
    )


def _patches(vision: nn.Module, norm: nn.Module | None = None) -> Patches:
    embeddings = vision.embeddings
    patch, positions = embeddings.patch_embedding, embeddings.position_embedding.weight.detach()
    class_token = getattr(embeddings, "class_embedding", None)
    kernel = _kernel(patch.weight.detach(), vision.config.patch_size)
    return Patches(
        embed=one_map(kernel, patch.bias),
        patch=tuple(kernel.shape[-2:]),
        class_token=None if class_token is None else class_token.detach().flatten(),
        positions=positions,
        grid=square(len(positions) - (class_token is not None)),
        norm=norm,
        antialias=isinstance(patch, nn.Linear),
    )


def _kernel(weight: Tensor, patch: int) -> Float[Tensor, "channels colours patch patch"]:
    """A convolution's kernel; Siglip2's is a linear map of pixels, colours last."""
    return weight if weight.ndim == 4 else weight.unflatten(1, (patch, patch, -1)).permute(0, 3, 1, 2)


def _tokens(text: nn.Module, end: int | None = None, special: tuple[int, ...] = ()) -> Tokens:
    embeddings = text.embeddings
    numbers, positions = embeddings.token_embedding.weight.detach(), embeddings.position_embedding.weight.detach()
    return Tokens(numbers, positions, numbers.dtype, end, special)


def _layers(model: nn.Module) -> tuple[Layer, ...]:
    return tuple(_layer(layer) for layer in model.encoder.layers)


def _layer(layer: nn.Module) -> Layer:
    attention = layer.self_attn
    return Layer(
        module=layer,
        heads=attention.num_heads,
        norm_1=layer.layer_norm1,
        qkv=(attention.q_proj, attention.k_proj, attention.v_proj),
        out=attention.out_proj,
        norm_2=layer.layer_norm2,
        up=layer.mlp.fc1,
        activation=layer.mlp.activation_fn,
        down=layer.mlp.fc2,
    )


def _head(vision: nn.Module) -> Layer:
    """The pooling head: its keys and values are the tokens after the last norm, its query a learnt probe."""
    head = vision.head
    return Layer(
        module=head,
        heads=head.attention.num_heads,
        norm_1=vision.post_layernorm,
        qkv=(Affine(head.attention.in_proj_weight, head.attention.in_proj_bias),),
        out=head.attention.out_proj,
        norm_2=head.layernorm,
        up=head.mlp.fc1,
        activation=head.mlp.activation_fn,
        down=head.mlp.fc2,
        query=head.probe.detach()[0],
        residual=False,
    )


# -- the networks' own forwards


def encode_image(network: nn.Module, pixels: Float[Tensor, "images 3 height width"]) -> Tensor:
    """The network's own image features; of any size, its positions resized as it does itself."""
    return _pooled(network.get_image_features(pixel_values=pixels, interpolate_pos_encoding=True))


def encode_patches(network: nn.Module, pixels: Float[Tensor, "images 3 height width"]) -> Tensor:
    """Siglip2's own image features: it takes patches of any grid as rows of pixels, colours last."""
    patch = network.vision_model.config.patch_size
    grid = (pixels.shape[-2] // patch, pixels.shape[-1] // patch)
    cells = pixels.unflatten(-1, (grid[1], patch)).unflatten(-3, (grid[0], patch))
    rows = cells.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
    shapes = torch.tensor(grid, device=pixels.device).expand(len(pixels), -1)
    seen = torch.ones(rows.shape[:2], dtype=torch.long, device=pixels.device)
    return _pooled(network.get_image_features(pixel_values=rows, pixel_attention_mask=seen, spatial_shapes=shapes))


def encode_text(network: nn.Module, tokens: Tensor) -> Tensor:
    """The network's own text features, of token numbers without a mask of the padding."""
    return _pooled(network.get_text_features(input_ids=tokens.long()))


def _pooled(found) -> Tensor:
    """The features themselves: transformers 5 returns them with all hidden states, 4 alone."""
    return getattr(found, "pooler_output", found)


def sizes(network: nn.Module) -> Sizes:
    """Read off the image tower's own weights: Siglip2 has no image size in its config."""
    vision = network.vision_model
    patch, positions = vision.config.patch_size, vision.embeddings.position_embedding.weight
    side = square(len(positions) - hasattr(vision.embeddings, "class_embedding"))[0]
    projection = getattr(network, "visual_projection", None)
    channels = positions.shape[1] if projection is None else len(projection.weight)
    return Sizes((side * patch, side * patch), patch, channels)


_CLIP = dict(sizes=sizes, encode_image=encode_image, image=clip_image)
_SIGLIP = dict(sizes=sizes, encode_text=encode_text, image=siglip_image, text=siglip_text, pooling="attention")

# model_type of the network's config -> how it is read. The texts of the BERTs are targets, their words are not read.
FAMILIES: dict[str, Family] = {
    "clip": Family("CLIPModel", **_CLIP, encode_text=encode_text, text=clip_text),
    "metaclip_2": Family("MetaClip2Model", **_CLIP, encode_text=encode_text, text=clip_text),
    "chinese_clip": Family("ChineseCLIPModel", **_CLIP),
    "altclip": Family("AltCLIPModel", **_CLIP),
    "siglip": Family("SiglipModel", **_SIGLIP, encode_image=encode_image),
    "siglip2": Family("Siglip2Model", **_SIGLIP, encode_image=encode_patches),
}
