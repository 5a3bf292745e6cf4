"""Explainers that integrate gradients along a path through one layer: NIB.

Only the blocks after the layer run again, at each point of the path; see `embed_from` in m2ib.py.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from clip_explain.checks import check_counts, checked, out_of_memory
from clip_explain.errors import MethodError
from clip_explain.explainers.attention import precise
from clip_explain.explainers.m2ib import embed_from
from clip_explain.models.adapted import image_tower, text_tower
from clip_explain.models.trace import Trace, gradients, on_grid, on_words
from clip_explain.request import Request, WordRequest


@checked()
def nib(request: Request, *, layer: int = 9, steps: int = 10) -> Float[Tensor, "images targets grid_h grid_w"]:
    """NIB of the image (Zhu et al., ICLR 2025): gradients along a narrowing bottleneck, summed over channels; signed.

    The tokens h entering block `layer` (counted from 0) are let through in part: lambda h, with lambda from 1/`steps`
    to 1. The map is sum_c h_c times the mean over lambda of d cos / d (lambda h_c). No noise is drawn and nothing is
    trained, in contrast to `m2ib`. MethodError for a layer that is not there, or fewer than one step.

    Differs from the authors' code in that it returns the raw map; there it is scaled to [0, 1].
    """
    trace = request.trace(layers=blocks_from(request, layer))
    return on_grid(integrated(trace, request.targets, steps), trace)


@checked()
def nib_words(request: WordRequest, *, layer: int = 9, steps: int = 10) -> Float[Tensor, "texts images tokens"]:
    """NIB of the words: as `nib`, in the text tower, with an image's embedding as the target; raw, signed, float32.

    Start and end token are zero here; the authors' code scales them to [0, 1] with the words.
    """
    trace = request.trace(layers=blocks_from(request, layer))
    return on_words(integrated(trace, request.targets, steps), trace)


def integrated(
    trace: Trace, targets: Float[Tensor, "targets embedding"], steps: int
) -> Float[Tensor, "images targets tokens"]:
    """Features of the trace's first layer times their mean gradient along the path from 0, summed over channels."""
    check_counts(steps=steps)
    features = precise(trace.blocks[0].input)
    total = features.new_zeros(len(features), len(targets), features.shape[1])
    with out_of_memory(len(features), "{} images at once"), torch.inference_mode(False):
        for step in range(1, steps + 1):
            slope = gradient_at(trace, features * (step / steps), targets, trace.tower.similarity)
            total += (features[:, None] * slope).sum(dim=-1)
    return total / steps


def gradient_at(
    trace: Trace,
    features: Float[Tensor, "images tokens channels"],
    targets: Float[Tensor, "targets embedding"],
    score: str,
) -> Float[Tensor, "images targets tokens channels"]:
    """d score / d features of the trace's first layer, where they enter it; `score` as in `gradients`."""
    start = features.detach().clone().requires_grad_()
    with torch.enable_grad():
        embedding = embed_from(trace, start, trace.pooled)
    return gradients(embedding, [start], targets, score)[0]


@checked()
def blocks_from(request: Request | WordRequest, layer: int) -> int:
    """The number of blocks from block `layer` to the last."""
    tower = image_tower if isinstance(request, Request) else text_tower
    depth = len(tower(request.model.network).layers)
    if not 0 <= layer < depth:
        raise MethodError(f"got layer={layer}, expected 0 to {depth - 1}: the tower has {depth} layers")
    return depth - layer
