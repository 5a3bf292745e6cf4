"""The image embedding decomposed into the contributions of each head of each layer (Gandelsman et al., ICLR 2024).

The class token that leaves the last block is a sum: of what entered the first block and of the contributions of all
attention heads and MLPs. The last layer norm and the projection act on each summand, so the score is a sum, too.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clip_explain.checks import checked
from clip_explain.errors import MethodError
from clip_explain.explainers.attention import layer_count, precise
from clip_explain.models.layers import layer_norm, linear, scaled
from clip_explain.models.trace import Block, Trace, on_grid, pooled_row
from clip_explain.request import Request


@checked()
def head_effects(
    request: Request, *, layers: int | None = None, head: int | None = None
) -> Float[Tensor, "images targets grid_h grid_w"]:
    """The contribution of each patch to the score through the attention of the last `layers` blocks; raw, signed.

    Contributions are summed over heads, or taken from one `head`; `layers=None` takes all blocks. They are float32 and
    have the unit of the cosine. MethodError for an option out of range.
    """
    trace = request.trace(layers=layer_count(request, layers))
    effects = effects_by_head(trace, request.targets)
    heads = effects.shape[3]
    if head is not None and not 0 <= head < heads:
        raise MethodError(f"got head={head}, expected 0 to {heads - 1}")
    chosen = effects if head is None else effects[:, :, :, head : head + 1]
    return on_grid(chosen.sum(dim=(2, 3)), trace)


def effects_by_head(
    trace: Trace, targets: Float[Tensor, "targets embedding"]
) -> Float[Tensor, "images targets layers heads tokens"]:
    """The contribution of each token to the score through each head of each kept layer.

    Head h of layer l adds sum_i A_hi W_h v_hi to the class token: one summand for each token i. The
    output's bias belongs to no head and is left out.
    """
    towards = score_directions(trace, targets)
    rows = [block_effects(block, trace, towards) for block in trace.blocks]
    return torch.stack(rows, dim=2)


def block_effects(
    block: Block, trace: Trace, towards: Float[Tensor, "images targets channels"]
) -> Float[Tensor, "images targets heads tokens"]:
    """A_hi (W_h v_hi . direction) for the pooled token's row of attention in one block."""
    attention = precise(pooled_row(block.attention, trace.pooled))  # images heads tokens
    v = precise(block.v)  # images heads tokens width
    layer, attended = block.layer, pooled_row(block.attended, trace.pooled).detach()
    read = scaled(towards.to(v), layer.scale_1)
    output: Any = layer.out
    if layer.after_1 is not None:
        read = before_norm(read, precise(linear(layer_norm(attended, layer.norm_out), layer.out)), layer.after_1)
    read = read @ output.weight.detach().to(v)
    if layer.norm_out is not None:
        read = before_norm(read, precise(attended), layer.norm_out)
    by_head = read.unflatten(-1, (v.shape[1], v.shape[3]))  # images targets heads width
    return torch.einsum("ihn,ithw,ihnw->ithn", attention, by_head, v)


def score_directions(
    trace: Trace, targets: Float[Tensor, "targets embedding"]
) -> Float[Tensor, "images targets channels"]:
    """The direction in the channels along which a part of the class token adds to the score.

    Through the last layer norm, then the projection, the target, and for a cosine the embedding's length.
    """
    tower = trace.tower
    if tower.norm is None or tower.projection is None:
        raise MethodError("head effects need a tower that ends in a layer norm and a projection")
    last = precise(pooled_row(trace.blocks[-1].output, trace.pooled))
    projected = targets.to(last) @ tower.projection.detach().to(last).T
    length = precise(trace.embedding).norm(dim=-1) if tower.similarity == "cosine" else torch.ones_like(last[:, 0])
    return before_norm(projected.expand(len(last), -1, -1), last, tower.norm) / length[:, None, None]


def before_norm(
    direction: Float[Tensor, "images targets channels"], whole: Float[Tensor, "images channels"], norm: nn.Module
) -> Float[Tensor, "images targets channels"]:
    """The direction before a layer norm that is `direction` after it, for the parts that `whole` is a sum of.

    The norm subtracts a part's own mean over channels and divides by the whole's deviation; then comes its weight.
    """
    deviation = (whole.var(dim=-1, unbiased=False) + norm.eps).sqrt()
    weight: Any = norm.weight
    weighed = direction * weight.detach().to(direction)
    return (weighed - weighed.mean(dim=-1, keepdim=True)) / deviation[:, None, None]
