"""Explainers that compare each patch with the target: MaskCLIP, and ICLIP's image-text similarity map ("IC").

They take no gradient: each patch is projected into the embedding space, and its cosine with the target is the map.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from clip_explain.checks import checked
from clip_explain.errors import MethodError
from clip_explain.explainers.attention import precise
from clip_explain.models.layers import join_heads, linear
from clip_explain.models.model import unit
from clip_explain.models.resnet import attention_pool, project_values, resnet_stage
from clip_explain.models.trace import Block, on_grid
from clip_explain.models.vit import finish_block, project
from clip_explain.request import Request


@checked()
def maskclip(request: Request, *, key_weight: bool = False) -> Float[Tensor, "images targets grid_h grid_w"]:
    """MaskCLIP (Zhou et al. 2022a, section 3.2): cosine of the target and each patch's value; raw, -1 to 1.

    In the last block attention is left out: every token keeps its own value, which passes the output projection, the
    residual, the MLP, the last layer norm and the projection. Differs from the Grad-ECLIP authors' code, which
    multiplies by the cosine of the class token's and the patches' keys after the output projection: `key_weight=True`.
    On a ResNet the attention of the last pooling is left out, as in the paper: each cell's value passes the pool's
    output projection. A ResNet has no `key_weight` (MethodError).
    """
    if not request.model.is_vit:
        return _pooling_values(request, key_weight)
    trace = request.trace()
    block = trace.blocks[-1]
    with torch.no_grad():
        tokens = project(trace.tower, finish_block(block.layer, block.input, join_heads(block.v)))
        similarity = _cosines(tokens, request.targets)
        if key_weight:
            if trace.tower.pooling != "class":
                raise MethodError("key_weight=True reads the class token's key, and this model has none; leave it out")
            similarity = similarity * _key_similarity(block)[:, None]
    return on_grid(similarity, trace)


@checked()
def itsm(request: Request) -> Float[Tensor, "images targets grid_h grid_w"]:
    """Image-text similarity map, IC eq. 1-3: cosine of the target and each projected patch token; raw, -1 to 1.

    Tokens leave the last block, then pass the last layer norm and the projection. Resizing and min-max scaling (eq. 4)
    are left to `maps`. A ResNet's tokens are its last pooling's outputs, each cell attending for itself.
    """
    if not request.model.is_vit:
        return _pooling_map(request, lambda pool, features: attention_pool(pool, features, tokens="all").output)
    trace = request.trace(tokens="all")
    with torch.no_grad():
        return on_grid(_cosines(project(trace.tower, trace.blocks[-1].output), request.targets), trace)


@checked()
def reversed_itsm(request: Request) -> Float[Tensor, "images targets grid_h grid_w"]:
    """Reversed similarity map, IC eq. 5: |1 - M|; raw, 0 to 2.

    The paper's M is scaled to [0, 1] first. Here it is the raw cosine; scaled afterwards by `maps.normalize`, the map
    is the paper's.
    """
    return (1 - itsm(request)).abs()


def _pooling_values(request: Request, key_weight: bool) -> Float[Tensor, "images targets grid_h grid_w"]:
    if key_weight:
        raise MethodError("key_weight=True reads the keys of a ViT, and this model is a ResNet; leave it out")
    return _pooling_map(request, lambda pool, features: project_values(pool, attention_pool(pool, features).v))


def _pooling_map(
    request: Request, embed: Callable[[nn.Module, Tensor], Tensor]
) -> Float[Tensor, "images targets grid_h grid_w"]:
    """Cosine of the target and each cell of a ResNet, its tokens embedded by `embed` (pool, last stage's output)."""
    visual = request.model.network.visual
    with torch.no_grad():
        features = resnet_stage(visual, request.pixels)
        similarity = _cosines(embed(visual.attnpool, features), request.targets)
    return similarity[..., 1:].unflatten(-1, features.shape[-2:]).float()


def _cosines(
    tokens: Float[Tensor, "images tokens embedding"], targets: Float[Tensor, "targets embedding"]
) -> Float[Tensor, "images targets tokens"]:
    tokens = unit(tokens.detach())
    return torch.einsum("ine,te->itn", tokens, targets.to(tokens))


def _key_similarity(block: Block) -> Float[Tensor, "images tokens"]:
    """Cosine of the class token's key and every token's, heads joined, after the output projection with its bias."""
    keys = precise(linear(join_heads(block.k), block.layer.out))
    return F.cosine_similarity(keys[:, :1], keys, dim=-1)
