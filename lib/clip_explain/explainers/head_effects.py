"""The image embedding taken apart into what each head of each layer adds to it (Gandelsman et al., ICLR 2024).

The class token leaves the last block as a sum: what entered the first block, and what every attention head and every
MLP added. Each part goes through the last layer norm and the projection on its own, so the score is a sum, too.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from clip_explain.checks import checked
from clip_explain.errors import MethodError
from clip_explain.explainers.attention import layer_count, on_grid, precise
from clip_explain.models.vit import Block, Trace, pooled_row
from clip_explain.request import Request


@checked()
def head_effects(
    request: Request, *, layers: int | None = None, head: int | None = None
) -> Float[Tensor, "images targets grid_h grid_w"]:
    """What each patch adds to the score through the attention of the last `layers` blocks; raw, signed, float32.

    Summed over heads, or of one `head` alone; None for `layers` takes all. In the units of the score: of the cosine.
    MethodError for an option out of range.
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
    """What each token adds to the score through each head of each kept layer.

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
    scale = 1.0 if block.layer.scale_1 is None else block.layer.scale_1.detach().to(v)[:, None]
    weight = block.layer.out.weight.detach().to(v) * scale
    by_head = weight.T.unflatten(0, (v.shape[1], v.shape[3]))  # heads width channels
    read = torch.einsum("itc,hwc->ithw", towards.to(v), by_head)
    return torch.einsum("ihn,ithw,ihnw->ithn", attention, read, v)


def score_directions(
    trace: Trace, targets: Float[Tensor, "targets embedding"]
) -> Float[Tensor, "images targets channels"]:
    """The direction in the channels along which a part of the class token adds to the score.

    The last layer norm subtracts the part's own mean over channels and divides by the whole token's deviation; then
    come its weight, the projection, the target, and for a cosine the embedding's length.
    """
    tower = trace.tower
    if tower.norm is None or tower.projection is None:
        raise MethodError("head effects need a tower that ends in a layer norm and a projection")
    last = precise(pooled_row(trace.blocks[-1].output, trace.pooled))
    deviation = (last.var(dim=-1, unbiased=False) + tower.norm.eps).sqrt()
    projected = targets.to(last) @ tower.projection.detach().to(last).T * tower.norm.weight.detach().to(last)
    centred = projected - projected.mean(dim=-1, keepdim=True)
    length = precise(trace.embedding).norm(dim=-1) if tower.score == "cosine" else torch.ones_like(deviation)
    return centred[None] / (deviation * length)[:, None, None]
