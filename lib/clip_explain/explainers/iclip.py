"""ICLIP's image-text similarity map of masked tokens ("IC", 3.2).

Meant for its own models, `load("iclip")`, and readable on any ViT; the pooling is in models/pooling.py.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from clip_explain.checks import checked, one_of
from clip_explain.explainers.attention import precise
from clip_explain.models.model import unit
from clip_explain.models.pooling import attention_mask
from clip_explain.models.vit import project
from clip_explain.request import Request

NORMS = ("image", "token")


@checked()
def iclip(request: Request, *, norm: str = "image") -> Float[Tensor, "images targets grid_h grid_w"]:
    """ICLIP's image-text similarity map, IC eq. 9, 12 and 3: (f(x) * A) projection . text; raw, -1 to 1.

    f(x) are the patch tokens after the last layer norm, A is the mean attention of the last block's class token to the
    patches, min-max scaled (eq. 9). Eq. 1 then divides by a norm and does not say of what. `norm="image"`: of the whole
    matrix of an image's patches, as written, so that A weighs the map. `norm="token"`: of each token, as in CLIP; then
    A cancels out and the map is `itsm`, except that it is 0 where A is 0. On a model with one projection, such as any
    CLIP, the map is that of the CLIP, masked in this way; ICLIP's weights are those of `load("iclip")`.
    """
    one_of("norm", norm, NORMS)
    trace = request.trace(tokens="all")
    block = trace.blocks[-1]
    with torch.no_grad():
        mask = attention_mask(precise(block.attention[:, :, 0, 1:]), trace.grid)
        tokens = precise(project(trace.tower, block.output))[:, 1:] * mask[..., None]
        tokens = unit(tokens) if norm == "token" else unit(tokens.flatten(1)).unflatten(1, tokens.shape[1:])
        similarity = torch.einsum("ine,te->itn", tokens, request.targets.to(tokens))
    return similarity.unflatten(-1, trace.grid).float()
