"""ICLIP ("IC") 3.2: the mask from attention, masked max pooling, and the similarity map of masked tokens.

Meant for its own models, `load("iclip")` (see iclip.py), and readable on any ViT.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from clip_explain.errors import MethodError, nearest
from clip_explain.explainers.attention import precise
from clip_explain.maps import normalize
from clip_explain.query import Query, unit
from clip_explain.trace import project

NORMS = ("image", "token")
POOLINGS = ("attention", "average", "max", "masked_max")


def attention_mask(
    attention: Float[Tensor, "images heads patches"], grid: tuple[int, int]
) -> Float[Tensor, "images patches"]:
    """IC eq. 9: attention of the class token to the patches, mean over heads, min-max scaled to [0, 1] in each image.

    The same number for all channels (the paper's Expand). An attention that is flat masks everything: zeros.
    """
    return normalize(attention.mean(dim=1).unflatten(-1, grid)).flatten(-2)


def masked_max_pool(
    tokens: Float[Tensor, "images patches channels"], mask: Float[Tensor, "images patches"]
) -> Float[Tensor, "images channels"]:
    """Masked max pooling, IC eq. 10: for each channel the largest of the patches' features, each times its mask."""
    return (tokens * mask[..., None]).amax(dim=1)


def pool(
    tokens: Float[Tensor, "images tokens channels"], mask: Float[Tensor, "images patches"], how: str
) -> Float[Tensor, "images channels"]:
    """The pooled features of an image (class token first): one of POOLINGS.

    "attention" is the class token, as in CLIP; "average" and "max" are over patches; "masked_max" is eq. 10.
    """
    patches = tokens[:, 1:]
    if how == "attention":
        return tokens[:, 0]
    if how == "average":
        return patches.mean(dim=1)
    if how == "max":
        return patches.amax(dim=1)
    if how == "masked_max":
        return masked_max_pool(patches, mask)
    raise MethodError(f"unknown pooling {how!r}: {nearest(how, POOLINGS)}")


def iclip(query: Query, *, norm: str = "image") -> Float[Tensor, "images targets grid_h grid_w"]:
    """ICLIP's image-text similarity map, IC eq. 9, 12 and 3: (f(x) * A) projection . text; raw, -1 to 1.

    f(x) are the patch tokens after the last layer norm, A is the mean attention of the last block's class token to the
    patches, min-max scaled (eq. 9). Eq. 1 then divides by a norm and does not say of what. `norm="image"`: of the whole
    matrix of an image's patches, as written, so that A weighs the map. `norm="token"`: of each token, as in CLIP; then
    A cancels out and the map is `itsm`, but for 0 where A is 0. On a model with one projection, such as any CLIP, it is
    that CLIP's own map so masked; ICLIP's weights are those of `load("iclip")`.
    """
    if norm not in NORMS:
        raise MethodError(f"got norm={norm!r}, expected one of {', '.join(map(repr, NORMS))}")
    trace = query.trace(tokens="all")
    block = trace.blocks[-1]
    with torch.no_grad():
        mask = attention_mask(precise(block.attention[:, :, 0, 1:]), trace.grid)
        tokens = precise(project(trace.tower, block.output))[:, 1:] * mask[..., None]
        tokens = unit(tokens) if norm == "token" else unit(tokens.flatten(1)).unflatten(1, tokens.shape[1:])
        similarity = torch.einsum("ine,te->itn", tokens, query.targets.to(tokens))
    return similarity.unflatten(-1, trace.grid).float()
