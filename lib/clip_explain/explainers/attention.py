"""Explainers that read only attention, without gradients and without the target.

They show where the model looks, not why a text fits. The product over layers that rollout and GAME share is here, too.
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

    The row is multiplied by one matrix after another, so no two matrices are multiplied. Only the pooled token's row of
    the last layer is read. A last layer that pools has no `residual`; its factor is then M_n instead of I + M_n.
    """
    row = pooled_row(steps[-1], pooled)
    if residual:
        row = row + F.one_hot(pooled, row.shape[-1]).to(row)[:, None]
    for step in reversed(steps[:-1]):
        row = row + (row[..., None, :] @ step)[..., 0, :]
    return row


@checked()
def layer_count(request: Request | WordRequest, layers: int | None) -> int:
    """The number of layers to read; None means all. The trace checks the range."""
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
    """The tensor, detached from the graph, in float32 or a wider format."""
    return x.detach().to(torch.promote_types(x.dtype, torch.float32))
