"""Embeddings of preprocessed images and of texts, and how a score compares them.

Above vit.py and resnet.py, whose forwards it runs in parts.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from clip_explain.checks import checked, finite
from clip_explain.models.agreement import check_agreement
from clip_explain.models.layers import evaluated
from clip_explain.models.model import Model
from clip_explain.models.resnet import resnet_embedding, resnet_stage
from clip_explain.models.tokenizer import Texts, tokenize
from clip_explain.models.vit import trace_image, trace_text


@checked()
def encode_text(model: Model, texts: Texts, truncate: bool = False) -> Float[Tensor, "texts embedding"]:
    """The model's own text features at unit length, in float32."""
    with torch.no_grad(), evaluated(model.network):
        if model.embed_texts is not None:
            embedding = model.embed_texts([texts] if isinstance(texts, str) else list(texts), truncate)
        else:
            embedding = model.network.encode_text(tokenize(model, texts, truncate))
        return nn.functional.normalize(checked_embedding(embedding).float(), dim=-1)


TEXTS_AT_ONCE = 256
IMAGES_AT_ONCE = 8  # on a CPU, whose caches hold no more: 64 at once cost a tenth (ViT-B/16) to a third (tiny-vit) more


def unit(vectors: Float[Tensor, "*axes embedding"]) -> Float[Tensor, "*axes embedding"]:
    """Vectors scaled to length 1, in float32 at least; by the largest entry first, so that no length overflows."""
    vectors = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
    largest = vectors.abs().amax(dim=-1, keepdim=True).clamp_min(torch.finfo(vectors.dtype).tiny)
    return F.normalize(vectors / largest, dim=-1)


def compared(embedding: Float[Tensor, "*axes embedding"], score: str) -> Float[Tensor, "*axes embedding"]:
    """Embeddings as the score takes them, in float32 at least: for a "cosine" at unit length, for "dot" as they are."""
    return unit(embedding) if score == "cosine" else embedding.to(torch.promote_types(embedding.dtype, torch.float32))


def checked_embedding(embedding: Float[Tensor, "*axes embedding"]) -> Float[Tensor, "*axes embedding"]:
    """The embedding itself. TensorError where it is not finite: nothing is near it, and its maps would be NaN."""
    finite(f"an embedding in {embedding.dtype}", embedding.detach())
    return embedding


def embed_tokens(model: Model, tokens: Int[Tensor, "texts context"]) -> Float[Tensor, "texts embedding"]:
    """Unit embeddings, by a trace: it is `encode_text` without the work on padding."""
    check_agreement(model)
    parts = [trace_text(model.network, part).embedding for part in tokens.split(TEXTS_AT_ONCE)]
    return unit(checked_embedding(torch.cat(parts)))


def embed_texts(model: Model, texts: list[str], truncate: bool = False) -> Float[Tensor, "texts embedding"]:
    """Unit embeddings of texts, whichever way the model's texts go."""
    if model.embed_texts is not None:
        return unit(checked_embedding(model.embed_texts(texts, truncate)))
    return embed_tokens(model, tokenize(model, texts, truncate))


def embed_images(model: Model, pixels: Tensor) -> Float[Tensor, "images embedding"]:
    """Embeddings of preprocessed pixels as the model's score takes them: at unit length, but for a classifier's."""
    check_agreement(model)
    parts = pixels.split(IMAGES_AT_ONCE) if pixels.device.type == "cpu" else [pixels]
    embedding = checked_embedding(torch.cat([image_features(model, part) for part in parts]))
    return compared(embedding, model.score)


def image_features(model: Model, pixels: Tensor) -> Float[Tensor, "images embedding"]:
    """Embeddings, not normalised, of pixels of any size that the patch, or a ResNet's stride, divides."""
    if model.is_vit:
        return trace_image(model.network, pixels).embedding
    with torch.no_grad(), evaluated(model.network):
        if model.encoder == "other":
            return model.network.encode_image(pixels)
        visual = model.network.visual
        return resnet_embedding(visual, resnet_stage(visual, pixels))
