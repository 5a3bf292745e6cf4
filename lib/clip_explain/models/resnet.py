"""OpenAI's ModifiedResNet written out, with the tensors that explainers read, as vit.py does for a transformer.

The network is only read. Any input size whose sides are multiples of 32 is allowed: the pool's positions are resized.
"""

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clip_explain.errors import MethodError
from clip_explain.models.layers import evaluated, join_heads, linear, split_heads
from clip_explain.models.stages import Stages, stage_embedding, stage_output
from clip_explain.models.towers import Layer, Tower
from clip_explain.models.trace import Trace
from clip_explain.models.vit import project, resize_positions, trace_block

STAGES = 4


@dataclass(frozen=True)
class Pooling:
    """Attention pooling over the last stage: token 0 is the mean over the grid, then every cell.

    `output` is each token's own pooling, in the embedding space; the model returns that of token 0. With
    `tokens="class"` there are queries, and so output, of token 0 alone. `v` has no attention in it.
    """

    attention: Float[Tensor, "images heads queries tokens"]
    v: Float[Tensor, "images heads tokens width"]
    output: Float[Tensor, "images queries embedding"]


def resnet_stage(
    visual: nn.Module, pixels: Float[Tensor, "images 3 height width"], stage: int = STAGES
) -> Float[Tensor, "images channels grid_h grid_w"]:
    """The output of stage 1 to 4 of OpenAI's (or open_clip's) ModifiedResNet, as in evaluation mode."""
    with evaluated(visual):
        return trained_stage(visual, pixels, stage)


def trained_stage(
    visual: nn.Module, pixels: Float[Tensor, "images 3 height width"], stage: int = STAGES
) -> Float[Tensor, "images channels grid_h grid_w"]:
    """`resnet_stage` in the mode that the network is in, for its training."""
    return stage_output(resnet_stages(visual), pixels, stage)


def resnet_embedding(
    visual: nn.Module, features: Float[Tensor, "images channels grid_h grid_w"], stage: int = STAGES
) -> Float[Tensor, "images embedding"]:
    """From a stage's output to what `encode_image` returns, not normalised."""
    with evaluated(visual):
        return stage_embedding(resnet_stages(visual), features, stage)


def resnet_stages(visual: nn.Module) -> Stages:
    """The network in parts: its stem, its four stages, its pool."""
    stages = tuple(getattr(visual, f"layer{number}") for number in range(1, STAGES + 1))
    return Stages(
        partial(_stem, visual), stages, lambda features: attention_pool(visual.attnpool, features).output[:, 0]
    )


def stages_of(network: nn.Module) -> Stages:
    """The stages of a convolutional image encoder, of whichever library."""
    family = getattr(network, "family", None)
    return resnet_stages(network.visual) if family is None else family.stages(network.whole)


def _stem(visual: nn.Module, pixels: Tensor) -> Tensor:
    x = pixels.to(visual.conv1.weight)
    for number in (1, 2, 3):
        x = getattr(visual, f"bn{number}")(getattr(visual, f"conv{number}")(x)).relu()
    return visual.avgpool(x)


def attention_pool(
    pool: nn.Module, features: Float[Tensor, "images channels grid_h grid_w"], tokens: str = "class"
) -> Pooling:
    """A ResNet's last step: the mean over the grid attends to itself and to every cell; see `Pooling`."""
    x = _pool_tokens(pool, features)
    queries = x if tokens == "all" else x[:, :1]
    q, k, v = (
        split_heads(linear(source, part), pool.num_heads)
        for source, part in ((queries, pool.q_proj), (x, pool.k_proj), (x, pool.v_proj))
    )
    attention = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1)
    return Pooling(attention, v, project_values(pool, attention @ v))


def trace_resnet(
    network: nn.Module,
    pixels: Float[Tensor, "images 3 height width"],
    *,
    heads: str = "native",
    layers: int = 1,
    start: str | None = None,
    similarity: str = "cosine",
) -> Trace:
    """The last pooling of a ResNet as a `Trace` of one block, whose class token is the mean over the grid.

    Options as in `trace_image`. Its values and attention are those of the pool; the stages before it carry no graph.
    """
    if layers != 1:
        raise MethodError(f"got layers={layers}, expected 1: a ResNet has attention in its last pooling alone")
    pool = network.visual.attnpool
    parts = (pool.q_proj, pool.k_proj, pool.v_proj)
    layer = Layer(pool, pool.num_heads, None, parts, pool.c_proj, residual=False)
    tower = Tower(None, (layer,), "attention", None, None, similarity=similarity)
    with torch.inference_mode(False), torch.set_grad_enabled(start is not None):
        with torch.no_grad():
            features = resnet_stage(network.visual, pixels.detach())
        x = _pool_tokens(pool, features)
        pooled = torch.zeros(len(x), dtype=torch.long, device=x.device)
        block = trace_block(layer, x, 1 if heads == "single" else layer.heads, False, pooled, start)
        own = (torch.arange(x.shape[1], device=x.device) > 0).expand(len(x), -1)
        embedding = project(tower, block.output[:, 0])
    return Trace(embedding, (block,), pooled, tuple(features.shape[-2:]), tower, own)


def _pool_tokens(pool: nn.Module, features: Tensor) -> Float[Tensor, "images tokens channels"]:
    """The mean over the grid and every cell, each with its position."""
    cells = features.flatten(2).transpose(1, 2)
    position = resize_positions(pool.positional_embedding.detach(), tuple(features.shape[-2:])).to(cells)
    return torch.cat([cells.mean(dim=1, keepdim=True), cells], dim=1) + position


def project_values(
    pool: nn.Module, values: Float[Tensor, "images heads tokens width"]
) -> Float[Tensor, "images tokens embedding"]:
    """The pool's output projection: values, or sums of values, into the embedding space."""
    return linear(join_heads(values), pool.c_proj)
