"""Grad-ECLIP (Zhao et al.), the paper "GE": values of the last attention, weighted by channel and by place; eq. 5-8.

Reads a trace: of an image (`grad_eclip`), or of a text with its end token as the class token (`grad_eclip_words`).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from clip_explain.checks import checked, one_of
from clip_explain.errors import MethodError
from clip_explain.models.layers import join_heads, linear, split_heads
from clip_explain.models.model import compared
from clip_explain.models.trace import Block, Trace, gradients, on_grid, on_words, pooled_row
from clip_explain.request import Request, WordRequest

SPATIAL = ("loose", "softmax", "none", "released", "cosine")
RELU = ("sum", "layer")


@checked()
def grad_eclip(
    request: Request,
    *,
    heads: str = "single",
    layers: int = 1,
    spatial: str = "loose",
    head: int | None = None,
    relu: str = "sum",
) -> Float[Tensor, "images targets grid_h grid_w"]:
    """Grad-ECLIP of the image: H_i = ReLU(sum_c w_c w_i v_ic), GE eq. 7, raw, >= 0, float32, on the patch grid.

    v: the values of the last attention. w_c = d cos / d o_c, o being the attention's output for the class token before
    the output projection. w_i, by `spatial`: "loose", q_cls k_i^T scaled to [0, 1] over the patches (eq. 8; all 1 where
    it is constant); "softmax", the attention itself; "none", 1.

    `heads`: "single", as the paper: the last block attends with one head, so its cosine is not the model's own;
    "native": the model untouched, with o, v and w_i inside each head (eq. 5), summed over heads. `head=i` keeps that
    head's part of the native map alone (GE appendix C). `layers=N` sums the maps of the last N blocks, all of them
    single or native: `relu="sum"`, the signed ones, before the ReLU; `relu="layer"`, each after its own ReLU, as
    appendix B reads ("recursively processing each layer with Eq. 7"). MethodError for an option out of range.

    Where a head pools the tokens by attention (SigLIP's, and the last pooling of a ResNet), GE's derivation holds at
    that head, and `layers` is 1. It has one query q for the whole image, its output is o = sum_i softmax(q k_i^T) v_i,
    and what follows (an output projection, an MLP, a norm) sees nothing of the image but o. So to first order the
    score is linear in the values, as in GE eq. 6: d cos = sum_c w_c sum_i a_i dv_ic with w_c = d cos / d o_c. v, k and
    q are the head's own: q is learnt (SigLIP), or that of the mean over the grid (ResNet). Where the tokens' mean is
    taken (CLIPA), a_i is the same for all: v are the tokens, w_i is 1 and heads are not read.

    Differs from the authors' code in w_i, the cosine of q_cls and k_i there, all heads joined, scaled to [0, 1]. Their
    script takes both after the output projection with its bias: `spatial="released"`. Their notebook takes them before
    it, and the ReLU in each layer: `spatial="cosine", relu="layer"`.
    """
    _check(spatial, head, relu)
    if request.model.encoder != "class" and layers != 1:
        raise MethodError(
            f"got layers={layers}, expected 1: {request.model.name} pools its tokens in its last layer alone"
        )
    trace = request.trace(heads="native" if head is not None else heads, layers=layers, start="attended")
    maps = block_maps(trace, request.targets, spatial, head, trace.own)
    return on_grid(positive_sum(maps, relu), trace)


@checked()
def grad_eclip_words(
    request: WordRequest,
    *,
    heads: str = "single",
    layers: int = 8,
    spatial: str = "loose",
    head: int | None = None,
    relu: str = "sum",
) -> Float[Tensor, "texts images tokens"]:
    """Grad-ECLIP of the words: as `grad_eclip`, with the end token in place of the class token; raw, >= 0, float32.

    The paper sums the last 8 blocks. Weights of the start token, the end token and the padding are zero. "loose" is
    scaled over the tokens that the end token sees, itself and the start included. Differs from the authors' code there:
    `spatial="released"` takes the cosine after the output projection and scales it over all 77 tokens, so that padding,
    which the model never sees, moves the weights. Their code also divides by the sum, and returns NaN where that is 0.
    """
    _check(spatial, head, relu)
    released = spatial == "released"
    trace = request.trace(
        heads="native" if head is not None else heads, layers=layers, start="attended", padding=released
    )
    position = torch.arange(trace.blocks[0].k.shape[-2], device=trace.pooled.device)
    seen = (position <= trace.pooled[:, None]) | (released or not trace.tower.causal)
    return on_words(positive_sum(block_maps(trace, request.targets, spatial, head, seen), relu), trace)


def block_maps(
    trace: Trace, targets: Tensor, spatial: str, head: int | None, among: Bool[Tensor, "images tokens"]
) -> Float[Tensor, "layers images targets tokens"]:
    """sum_c w_c w_i v_ic in each of the trace's blocks, with its sign. w_i is scaled `among` these tokens."""
    slopes = gradients(trace.embedding, [block.attended for block in trace.blocks], targets, trace.tower.similarity)
    with torch.no_grad():
        parts = []
        for block, slope in zip(trace.blocks, slopes, strict=True):
            channel = channel_weight(slope, block, trace)
            place = spatial_weight(block, trace, spatial, among)
            by_head = torch.einsum("ithw,ihnw->ithn", channel, block.v.to(channel)) * place[:, None].to(channel)
            parts.append(by_head.sum(dim=2) if head is None else by_head[:, :, _checked_head(head, block)])
        return torch.stack(parts)


def positive_sum(
    maps: Float[Tensor, "layers images targets tokens"], relu: str
) -> Float[Tensor, "images targets tokens"]:
    """The ReLU of the blocks' sum, or the sum of each block's own ReLU; see `grad_eclip`."""
    return maps.relu().sum(dim=0) if relu == "layer" else maps.sum(dim=0).relu()


def channel_weight(
    slope: Float[Tensor, "images targets queries channels"], block: Block, trace: Trace
) -> Float[Tensor, "images targets heads width"]:
    """w_c = d cos / d o_c of the pooled token (GE eq. 8), cut into heads."""
    return split_heads(pooled_row(slope, trace.pooled)[..., None, :], block.v.shape[1])[..., 0, :]


def spatial_weight(
    block: Block, trace: Trace, spatial: str, among: Bool[Tensor, "images tokens"]
) -> Float[Tensor, "images heads_or_one tokens"]:
    """w_i = Phi(q k_i^T) of the pooled token (GE eq. 8), in each head; other rules as `grad_eclip` says."""
    precise = torch.promote_types(block.v.dtype, torch.float32)
    if spatial == "none":
        return torch.ones_like(among, dtype=precise)[:, None]
    if spatial == "softmax":
        return pooled_row(block.attention, trace.pooled).to(precise)
    if spatial in ("released", "cosine"):
        q, k = join_heads(block.q), join_heads(block.k)
        if spatial == "released":
            q, k = linear(q, block.layer.out), linear(k, block.layer.out)
        q, k = q.to(precise), k.to(precise)
        return scale(F.cosine_similarity(pooled_row(q, trace.pooled)[:, None], k, dim=-1)[:, None], among)
    q = pooled_row(block.q, trace.pooled).to(precise)
    return scale(torch.einsum("ihw,ihnw->ihn", q, block.k.to(precise)), among)


def scale(
    similarity: Float[Tensor, "images heads tokens"], among: Bool[Tensor, "images tokens"]
) -> Float[Tensor, "images heads tokens"]:
    """The paper's Phi: min-max `among` these tokens to [0, 1]; 1 everywhere where they are all the same."""
    inside = among[:, None]
    low = similarity.masked_fill(~inside, float("inf")).amin(dim=-1, keepdim=True)
    high = similarity.masked_fill(~inside, float("-inf")).amax(dim=-1, keepdim=True)
    same = high - low <= 8 * torch.finfo(similarity.dtype).eps * torch.maximum(low.abs(), high.abs())
    return torch.where(same, 1.0, (similarity - low) / torch.where(same, 1.0, high - low))


def _check(spatial: str, head: int | None, relu: str) -> None:
    one_of("relu", relu, RELU)
    one_of("spatial", spatial, SPATIAL)
    if spatial in ("released", "cosine") and head is not None:
        raise MethodError(
            f"spatial={spatial!r} joins all heads, so it has no part of one head; use 'loose' or 'softmax'"
        )


def _checked_head(head: int, block: Block) -> int:
    count = block.v.shape[1]
    if not 0 <= head < count:
        raise MethodError(f"got head={head}, expected 0 to {count - 1}: the model has {count} heads in a layer")
    return head


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


@checked()
def grad_eclip_parts(request: Request, *, heads: str = "single") -> Parts:
    """The parts of `grad_eclip(request, heads=heads)`."""
    trace = request.trace(heads=heads, layers=1, start="attended")
    block = trace.blocks[0]
    (slope,) = gradients(trace.embedding, [block.attended], request.targets, request.model.similarity)
    with torch.no_grad():
        first = trace.tower.prefix
        w_c = channel_weight(slope, block, trace).float()
        places = (spatial_weight(block, trace, rule, trace.own) for rule in ("loose", "softmax"))
        w_i, attention = (place[..., first:].float() for place in places)
        v = block.v[..., first:, :].float()
        by_head = torch.einsum("ithw,ihnw->ithn", w_c, v)
        rows = (v.transpose(-2, -1), w_i, attention, by_head.sum(dim=2), (by_head * w_i[:, None]).sum(dim=2))
        v, w_i, attention, unplaced, signed = (row.unflatten(-1, trace.grid) for row in rows)
        score = (compared(trace.embedding, request.model.similarity) @ request.targets.T).float()
    return Parts(v, w_c, w_i, attention, unplaced, signed, score)
