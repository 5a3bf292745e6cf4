"""Explainers that read attention and its gradient: GAME, its relatives of the EPFL report ("EP"), and LeGrad.

All take the gradient of a score towards each target, so a negated target gives the map of what speaks against it
(EP IV-C: the score 1 - cosine has the opposite gradient).
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from clip_explain.checks import checked, one_of
from clip_explain.errors import MethodError
from clip_explain.explainers.attention import layer_count, precise, propagate
from clip_explain.models.layers import join_heads
from clip_explain.models.trace import Block, Trace, gradients, on_grid, on_words, pooled_row
from clip_explain.models.vit import finish_block, project, trace_block
from clip_explain.request import Request, WordRequest, in_parts

# The most numbers of attention gradients that are held at once (512 MB in float32); more targets are done in parts.
VALUES_AT_ONCE = 2**27
POOLS = ("mean", "class")


@checked()
def game(
    request: Request, *, layers: int | None = None, scale_logits: bool = True
) -> Float[Tensor, "images targets grid_h grid_w"]:
    """GAME, generic attention explainability (Chefer et al. 2021a, eq. 5-6): the class token's row of R, raw, >= 0.

    R = I, then R = R + A' R layer by layer, with A' = mean over heads of ReLU(A * dy/dA). The score y is CLIP's logit,
    the cosine times the model's learnt scale; R is not linear in it, so `scale_logits=False` (y = the cosine, as in EP)
    gives other maps. `layers=N` reads the last N layers only (None: all). MethodError if there are fewer. Differs from
    the Grad-ECLIP authors' code in `layers`, which is 1 there.

    A target costs a backward pass through all layers read, about a forward's time, and T of them cost T: the score
    is a function of the embedding, so their gradients are T combinations of the embedding's own, of which there are
    more (512 in ViT-B/16) than targets in use.
    """
    options = dict(layers=layer_count(request, layers), start="attention")

    def both_scores() -> Float[Tensor, "scores images targets grid_h grid_w"]:
        return torch.cat([_game_maps(part, options) for part in in_parts(request, **options)], dim=1)

    # One backward serves both scores and is kept, since `all_gradients` is this method with the other score.
    return request.once(("game", options["layers"]), both_scores)[int(scale_logits)].clone()


@checked()
def game_words(
    request: WordRequest, *, layers: int | None = None, scale_logits: bool = True
) -> Float[Tensor, "texts images tokens"]:
    """As `game`, over the text blocks: the end token's row of R; zero outside the words."""
    trace = request.trace(layers=layer_count(request, layers), start="attention")
    scale = request.model.logit_scale if scale_logits else 1.0
    return on_words(_relevance(trace, request.targets, [scale])[0], trace)


@checked()
def all_gradients(request: Request) -> Float[Tensor, "images targets grid_h grid_w"]:
    """EP eq. 4-5: `game` over all layers with the cosine as the score."""
    return game(request, scale_logits=False)


@checked()
def last_gradient(request: Request) -> Float[Tensor, "images targets grid_h grid_w"]:
    """EP eq. 5-6: as `all_gradients`, with the last layer's gradient in place of every layer's own; raw, >= 0.

    The cosine depends on the last attention through the class token's row alone, so the gradient, and with it every
    A', is zero outside that row: R needs those rows and no matrices.
    """
    trace = request.trace(layers=layer_count(request, None))
    attention, embedding = _end_again(trace, trace.blocks[-1])
    slope = gradients(embedding, [attention], request.targets, request.model.similarity)[0][..., 0, :]
    row = torch.zeros_like(slope[:, :, 0])
    row[..., 0] = 1
    for block in reversed(trace.blocks):
        weighted = (slope * precise(block.attention)[:, None, :, 0]).relu().mean(dim=2)
        row = row + row[..., :1] * weighted
    return on_grid(row, trace)


@checked()
def attention_grad_cam(request: Request, *, pooled: bool = False) -> Float[Tensor, "images targets grid_h grid_w"]:
    """EP III-B, Grad-CAM on the last attention A of the class token: mean over heads of ReLU(A * dcos/dA), raw, >= 0.

    This is the authors' code. `pooled=True` is Grad-CAM to the letter (EP eq. 1-2, heads as channels): each head's
    gradient averaged over the patches, and ReLU after the heads are summed.
    """
    trace = request.trace(start="attention")
    attention = trace.blocks[-1].attention
    slope = gradients(trace.embedding, [attention], request.targets, request.model.similarity)[0][..., 0, :]
    attention = precise(attention)[:, None, :, 0]
    if pooled:
        weight = slope[..., trace.tower.prefix :].mean(dim=-1, keepdim=True)
        return on_grid((weight * attention).sum(dim=2).relu(), trace)
    return on_grid((slope * attention).relu().mean(dim=2), trace)


@checked()
def legrad(
    request: Request, *, layers: int | None = None, pool: str = "mean"
) -> Float[Tensor, "images targets grid_h grid_w"]:
    """LeGrad (Bousselham et al. 2025): mean over layers, heads and rows of ReLU(ds_l / dA_l), raw, >= 0.

    s_l is the cosine of the target and layer l's own output, pooled, then through the last layer norm and the
    projection, so that its gradient stays within layer l. `pool`: "mean" of all tokens, as the authors' code for CLIP,
    or "class", the class token. `layers=N` reads the last N layers (None: all, as the paper). MethodError for an option
    out of range. Differs from the authors' code in `layers`, which is 2 there by default, and in that each map there is
    resized and min-max scaled.

    Where a head pools the tokens, by attention (SigLIP) or by the mean, s_l is that head's embedding of layer l's
    output, and A_l the head's own attention to it; `pool` is not read.
    """
    one_of("pool", pool, POOLS)
    if request.model.encoder != "class":
        trace = request.trace(layers=layer_count(request, layers))
        entering = [block.input for block in (trace.blocks if layers else trace.blocks[1:])]
        rows = [_head_sensitivity(trace, x, request.targets) for x in entering]
        return on_grid(torch.stack(rows).mean(dim=0), trace)
    options = dict(layers=layer_count(request, layers))
    if pool == "mean":
        options |= dict(start="attention", tokens="all")
    return torch.cat([_legrad_maps(part, options, pool) for part in in_parts(request, **options)])


@checked()
def by_layer(
    request: Request, *, tokens: str = "class"
) -> tuple[Float[Tensor, "images layers grid_h grid_w"], Float[Tensor, "images targets layers grid_h grid_w"]]:
    """The attention A of every layer and its gradient dcos/dA, each the mean over heads (EP Fig 2, 3, 14-17): raw.

    `tokens="class"`: from the class token to each patch, as the authors' code shows it; "all": the mean over the rows
    of all tokens, since GAME's product reads every row. Attention is 0 to 1, the gradient has a sign; float32. The last
    layer's gradient is zero in all rows but the class token's. MethodError for other tokens.
    """
    if request.model.encoder != "class":
        raise MethodError(
            f"the rows of a class token are read by layer, and {request.model.name} has none in its layers"
        )
    trace = request.trace(layers=layer_count(request, None), start="attention", tokens=tokens)
    attentions = [block.attention for block in trace.blocks]
    found = []
    for some in _parts(request.targets, attentions):
        slopes = gradients(trace.embedding, attentions, some, trace.tower.similarity)
        found.append(torch.stack([_rows(slope, tokens) for slope in slopes], dim=2))
    seen = torch.stack([_rows(precise(attention), tokens) for attention in attentions], dim=1)
    shown, sloped = (x[..., 1:].unflatten(-1, trace.grid).float() for x in (seen, torch.cat(found, dim=1)))
    return shown, sloped


def _rows(x: Float[Tensor, "*axes heads queries tokens"], tokens: str) -> Float[Tensor, "*axes tokens"]:
    """The mean over heads of the class token's row, or of all rows."""
    return x.mean(dim=-3)[..., 0, :] if tokens == "class" else x.mean(dim=(-3, -2))


def _game_maps(request: Request, options: dict) -> Float[Tensor, "scores images targets grid_h grid_w"]:
    """GAME's maps for the cosine and for the logit as the score."""
    trace = request.trace(**options)
    return on_grid(_relevance(trace, request.targets, [1.0, request.model.logit_scale]), trace)


def _legrad_maps(request: Request, options: dict, pool: str) -> Float[Tensor, "images targets grid_h grid_w"]:
    trace = request.trace(**options)
    rows = [_sensitivity(trace, block, request.targets, pool) for block in trace.blocks]
    return on_grid(torch.stack(rows).mean(dim=0), trace)


def _relevance(
    trace: Trace, targets: Tensor, scales: list[float | Tensor]
) -> Float[Tensor, "scales images targets tokens"]:
    """The pooled token's row of R for scores that are the cosine times each of `scales`."""
    attentions = [block.attention for block in trace.blocks]
    rows = []
    for some in _parts(targets, attentions):
        slopes = gradients(trace.embedding, attentions, some, trace.tower.similarity)
        steps = [
            (slope * precise(attention)[:, None]).relu_().mean(dim=2)
            for slope, attention in zip(slopes, attentions, strict=True)
        ]
        scaled = [[step * scale for step in steps] for scale in scales]
        residual = trace.blocks[-1].layer.residual
        rows.append(torch.stack([propagate(each, trace.pooled, residual) for each in scaled]))
    return torch.cat(rows, dim=2)


def _sensitivity(trace: Trace, block: Block, targets: Tensor, pool: str) -> Float[Tensor, "images targets tokens"]:
    """LeGrad's map of one layer: the mean over heads and rows; under `pool="class"` only one row has a gradient."""
    with torch.inference_mode(False), torch.enable_grad():
        if pool == "mean":
            attention, embedding = block.attention, project(trace.tower, block.mean)
        else:
            attention, embedding = _end_again(trace, block)
    found = []
    for some in _parts(targets, [attention]):
        (slope,) = gradients(embedding, [attention], some, trace.tower.similarity)
        found.append(slope.relu_().sum(dim=(2, 3)) / (slope.shape[2] * slope.shape[-1]))
    return torch.cat(found, dim=1)


def _head_sensitivity(trace: Trace, x: Tensor, targets: Tensor) -> Float[Tensor, "images targets tokens"]:
    """LeGrad's map of the tokens `x` of one layer, pooled by the tower's head: the mean over the head's own heads."""
    head = trace.tower.layers[-1]
    with torch.inference_mode(False), torch.enable_grad():
        block = trace_block(head, x.detach(), head.heads, False, trace.pooled, "attention")
        embedding = project(trace.tower, block.output[:, 0])
    (slope,) = gradients(embedding, [block.attention], targets, trace.tower.similarity)
    return slope.relu_().mean(dim=2)[..., 0, :]


def _end_again(trace: Trace, block: Block) -> tuple[Float[Tensor, "images heads one tokens"], Tensor]:
    """A block's attention of the pooled token, as a leaf of a graph, and the embedding computed from it."""
    with torch.inference_mode(False), torch.enable_grad():
        attention = pooled_row(block.attention.detach(), trace.pooled).unsqueeze(-2).requires_grad_()
        own = pooled_row(block.input.detach(), trace.pooled)[:, None]
        output = finish_block(block.layer, own, join_heads(attention @ block.v.detach()))
        return attention, project(trace.tower, output[:, 0])


def _parts(targets: Tensor, attentions: list[Tensor]) -> Iterator[Tensor]:
    """The targets in parts whose gradients for all these attentions fit into memory."""
    return iter(targets.split(max(1, VALUES_AT_ONCE // sum(attention.numel() for attention in attentions))))
