"""Explainers that read attention alone: no gradient, and no target, enters.

They show where the model looks, not why a text fits. Also here: the product over layers that rollout and GAME share.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from clip_explain.checks import checked
from clip_explain.errors import MethodError
from clip_explain.models.adapted import image_tower, text_tower
from clip_explain.models.resnet import attention_pool, resnet_stage
from clip_explain.models.trace import Trace, on_grid, on_words, pooled_row
from clip_explain.request import Request, WordRequest


@checked()
def self_attention(request: Request, *, heads: str = "native") -> Float[Tensor, "images targets grid_h grid_w"]:
    """Attention of the class token to the patches in the last block, mean over heads; the same map for every target.

    Range 0 to 1; a map sums to less than 1, since the class token also attends to itself. `heads="native"` is the
    model's own attention. A ResNet has attention in its last pooling alone, where the mean over the grid is the class
    token. Differs from the Grad-ECLIP authors' code, whose "raw attention" is that of one head over all channels:
    `heads="single"`, for a ViT.
    """
    if not request.model.is_vit:
        return _pooling_attention(request, heads)
    trace = request.trace(heads=heads)
    return on_grid(_last_attention(trace)[:, None], trace).repeat(1, len(request.targets), 1, 1)


@checked()
def self_attention_words(
    request: WordRequest, *, heads: str = "native", single: int = 1
) -> Float[Tensor, "texts images tokens"]:
    """As `self_attention`, of the end token to the words; zero outside the words, the same for every image.

    With `heads="single"` the last `single` text blocks have one head. Differs from the Grad-ECLIP authors' code, which
    reads the attention behind the eight single-head blocks of its own method: `heads="single", single=8`.
    """
    trace = request.trace(heads=heads, single=single)
    return on_words(_last_attention(trace)[:, None], trace).repeat(1, len(request.targets), 1)


@checked()
def rollout(request: Request, *, layers: int | None = None) -> Float[Tensor, "images targets grid_h grid_w"]:
    """Attention rollout (Abnar & Zuidema 2020, section 3): the class token's row of the product over layers.

    Factors are (A + I) / 2, A being the mean over heads: attention and the residual connection in equal parts, rows of
    sum 1. Range 0 to 1; the same map for every target. `layers=N` multiplies the last N layers only (None: all).
    MethodError if there are fewer. Differs from the Grad-ECLIP authors' code in `layers`, which is 1 there.
    """
    trace = request.trace(layers=layer_count(request, layers))
    return on_grid(_rollout(trace), trace).repeat(1, len(request.targets), 1, 1)


@checked()
def rollout_words(request: WordRequest, *, layers: int | None = None) -> Float[Tensor, "texts images tokens"]:
    """As `rollout`, over the text blocks: the end token's row; zero outside the words, the same for every image."""
    trace = request.trace(layers=layer_count(request, layers))
    return on_words(_rollout(trace), trace).repeat(1, len(request.targets), 1)


def propagate(
    steps: list[Float[Tensor, "images targets _ tokens"]], pooled: Int[Tensor, " images"], residual: bool = True
) -> Float[Tensor, "images targets tokens"]:
    """The pooled token's row of (I + M_n) ... (I + M_1), for one matrix M a layer, in order of the forward.

    As a row times one matrix after another, so that no product of two matrices is ever needed. Of the last layer only
    the pooled token's row is read: of M_n alone where that layer is a head that pools, without a `residual`.
    """
    row = pooled_row(steps[-1], pooled)
    if residual:
        row = row + F.one_hot(pooled, row.shape[-1]).to(row)[:, None]
    for step in reversed(steps[:-1]):
        row = row + (row[..., None, :] @ step)[..., 0, :]
    return row


@checked()
def layer_count(request: Request | WordRequest, layers: int | None) -> int:
    """How many layers are read: all for None. The trace checks the range."""
    if layers is not None:
        return layers
    tower = image_tower if isinstance(request, Request) else text_tower
    return len(tower(request.model.network).layers)


def _last_attention(trace: Trace) -> Float[Tensor, "images tokens"]:
    return precise(pooled_row(trace.blocks[-1].attention, trace.pooled)).mean(dim=1)


def _pooling_attention(request: Request, heads: str) -> Float[Tensor, "images targets grid_h grid_w"]:
    if heads != "native":
        raise MethodError(f"got heads={heads!r}, expected 'native': the model is a ResNet")
    visual = request.model.network.visual
    with torch.no_grad():
        features = resnet_stage(visual, request.pixels)
        attention = precise(attention_pool(visual.attnpool, features).attention)[:, :, 0, 1:].mean(dim=1)
    return attention[:, None].unflatten(-1, features.shape[-2:]).float().repeat(1, len(request.targets), 1, 1)


def _rollout(trace: Trace) -> Float[Tensor, "images one tokens"]:
    steps = [precise(block.attention).mean(dim=1)[:, None] for block in trace.blocks]
    averaged = sum(block.layer.residual for block in trace.blocks)
    return propagate(steps, trace.pooled, trace.blocks[-1].layer.residual) / 2**averaged


def precise(x: Tensor) -> Tensor:
    """Out of the graph, in float32 at least."""
    return x.detach().to(torch.promote_types(x.dtype, torch.float32))
