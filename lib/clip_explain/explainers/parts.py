"""Grad-ECLIP taken apart into the factors of GE eq. 7, as in the paper's Fig 2: to be looked at one by one.

Built of the same functions as `grad_eclip`, which multiplies the factors without keeping them.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from clip_explain.explainers.grad_eclip import channel_weight, spatial_weight
from clip_explain.query import Query, compared
from clip_explain.trace import gradients


@dataclass(frozen=True)
class Parts:
    """The factors of H_i = ReLU(sum_c w_c w_i v_ic) in the last block, raw, float32; with a single head, heads = 1.

    `v`: the values, GE's feature map. `w_c`: d cos / d o_c. `w_i`: q_cls k_i^T scaled to [0, 1] over the patches.
    `attention`: the softmax that GE puts w_i in place of; less than 1 in sum, since the class token also attends to
    itself. `unplaced`: sum_c w_c v_ic. `signed`: sum_c w_c w_i v_ic; its ReLU is the map. `score`: the cosine that is
    explained, with these heads.
    """

    v: Float[Tensor, "images heads width grid_h grid_w"]
    w_c: Float[Tensor, "images targets heads width"]
    w_i: Float[Tensor, "images heads grid_h grid_w"]
    attention: Float[Tensor, "images heads grid_h grid_w"]
    unplaced: Float[Tensor, "images targets grid_h grid_w"]
    signed: Float[Tensor, "images targets grid_h grid_w"]
    score: Float[Tensor, "images targets"]


def grad_eclip_parts(query: Query, *, heads: str = "single") -> Parts:
    """The parts of `grad_eclip(query, heads=heads)`."""
    trace = query.trace(heads=heads, layers=1, start="attended")
    block = trace.blocks[0]
    (slope,) = gradients(trace.embedding, [block.attended], query.targets, query.model.score)
    with torch.no_grad():
        patches = (torch.arange(block.k.shape[-2], device=slope.device) > 0).expand(len(slope), -1)
        w_c = channel_weight(slope, block, trace).float()
        w_i, attention = (spatial_weight(block, trace, rule, patches)[..., 1:].float() for rule in ("loose", "softmax"))
        v = block.v[..., 1:, :].float()
        by_head = torch.einsum("ithw,ihnw->ithn", w_c, v)
        rows = (v.transpose(-2, -1), w_i, attention, by_head.sum(dim=2), (by_head * w_i[:, None]).sum(dim=2))
        v, w_i, attention, unplaced, signed = (row.unflatten(-1, trace.grid) for row in rows)
        score = (compared(trace.embedding, query.model.score) @ query.targets.T).float()
    return Parts(v, w_c, w_i, attention, unplaced, signed, score)
