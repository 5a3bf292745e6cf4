"""CLIP Surgery and GEM: a second path through the last blocks, in which tokens attend to tokens like themselves.

The model's own forward is not changed: the second path reads q, k and v of its trace and does not feed back into it.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from clip_explain.checks import checked, one_of
from clip_explain.directions import directions, empty_text, targets
from clip_explain.errors import MethodError, TensorError, TextError
from clip_explain.models.layers import join_heads, layer_norm, scaled
from clip_explain.models.model import unit
from clip_explain.models.trace import Block, Trace
from clip_explain.models.vit import project, project_attended
from clip_explain.request import Request

NORMALIZE = ("channels", "tokens")
TEMPERATURE = 2.0  # of the class weights in CLIP Surgery's feature surgery


@checked()
def clip_surgery(
    request: Request,
    *,
    layers: int = 6,
    feature_surgery: bool = True,
    redundant: Tensor | str | Sequence[str] | None = None,
    normalize: str = "channels",
) -> Float[Tensor, "images targets grid_h grid_w"]:
    """CLIP Surgery (Li et al. 2023): cosine of text and patch on a path of value-value attention, raw, on the grid.

    Architecture surgery: x' = x + the sum over the last `layers` blocks of softmax(v v^T / sqrt(width)) v, projected;
    no MLPs, and v from the unchanged path. Feature surgery subtracts what the targets have in common: with s_it the
    cosine of patch i and target t, and w_t = p_t / mean(p), p = softmax over the targets of 2 cos(class token, t), the
    map is w_t s_it minus its mean over the targets. So a map depends on the other targets of the call. From a single
    target the direction of the empty text is subtracted instead. If `redundant` (texts, "" allowed, or directions) is
    given, its mean direction is subtracted from every target.

    `feature_surgery=False` gives the cosines, -1 to 1. `layers` out of range: MethodError; an empty `redundant`:
    TextError or TensorError. The authors' first code divides the features by their norm over the tokens, not the
    channels (`norm(dim=1)`, mended on 1 March 2025): `normalize="tokens"` does so.
    """
    one_of("normalize", normalize, NORMALIZE)
    taken = _redundant(request, redundant) if feature_surgery else None
    trace = request.trace(layers=layers)
    with torch.no_grad():
        patches = second_path(trace, lambda block: F.scaled_dot_product_attention(block.v, block.v, block.v))
        features = torch.cat([trace.embedding[:, None], patches], dim=1)
        features = features.to(torch.promote_types(features.dtype, torch.float32))
        features = F.normalize(features, dim=-1 if normalize == "channels" else 1)
        directed = request.targets.to(features) - (0.0 if taken is None else taken.to(features))
        similarity = features @ directed.T
        maps = similarity[:, 1:]
        if feature_surgery and taken is None:
            chance = (TEMPERATURE * similarity[:, :1]).softmax(dim=-1)
            weighted = chance / chance.mean(dim=-1, keepdim=True) * maps
            maps = weighted - weighted.mean(dim=-1, keepdim=True)
        return maps.transpose(1, 2).unflatten(-1, trace.grid).float()


@checked()
def gem(
    request: Request, *, layers: int = 6, iterations: int = 1, temperature: float | None = None
) -> Float[Tensor, "images targets grid_h grid_w"]:
    """GEM (Bousselham et al., CVPR 2024): cosine of text and patch on a path of self-self attention, raw, -1 to 1.

    As CLIP Surgery's architecture, with the mean of q-q, k-k and v-v attention in each of the last `layers` blocks.
    For s = q, k, v: `iterations` times s <- softmax(s^ s^T^ / t) s^ with s^ = s / |s|, then softmax(s^ s^T^ / t) v.
    `temperature` t; by default the paper's adaptive one, sqrt(width) / mean over the tokens of |x|, x being the block's
    normed input. MethodError for an option out of range.

    Differs from the authors' code in the texts, which there are put into "a photo of a {}.", in their positional
    embedding at other sizes, resized with antialiasing, and in leaving the maps unscaled.
    """
    if iterations < 0:
        raise MethodError(f"got iterations={iterations}, expected 0 or more")
    if temperature is not None and not temperature > 0:
        raise MethodError(f"got temperature={temperature}, expected a number above 0, or None for the adaptive one")
    trace = request.trace(layers=layers, tokens="all")
    with torch.no_grad():
        patches = second_path(trace, lambda block: self_self_attention(block, iterations, temperature))
        maps = torch.einsum("inc,tc->itn", unit(patches), request.targets.to(unit(patches)))
        return maps.unflatten(-1, trace.grid).float()


def second_path(
    trace: Trace, attend: Callable[[Block], Float[Tensor, "images heads tokens width"]]
) -> Float[Tensor, "images patches embedding"]:
    """Patches in the embedding space, not normalised, after the trace's blocks with `attend` alone, no MLP."""
    x = trace.blocks[0].input
    for block in trace.blocks:
        x = x + scaled(project_attended(block.layer, join_heads(attend(block))), block.layer.scale_1)
    return project(trace.tower, x[:, 1:])


def self_self_attention(
    block: Block, iterations: int, temperature: float | None
) -> Float[Tensor, "images heads tokens width"]:
    """GEM's attention of one block: the mean over s = q, k, v of softmax(s^ s^T^ / t) v; see `gem`."""
    if temperature is None:
        lengths = layer_norm(block.input, block.layer.norm_1).norm(dim=-1)
        sharpness = (lengths.mean(dim=-1)[:, None, None, None] * block.v.shape[-1] ** -0.5).to(block.v.dtype)
    else:
        sharpness = 1 / temperature
    total = torch.zeros_like(block.v)
    for s in (block.q, block.k, block.v):
        for _ in range(iterations):
            s = F.normalize(s, dim=-1)
            s = F.scaled_dot_product_attention(s * sharpness, s, s, scale=1.0)
        s = F.normalize(s, dim=-1)
        total = total + F.scaled_dot_product_attention(s * sharpness, s, block.v, scale=1.0)
    return total / 3


def _redundant(request: Request, given: Tensor | str | Sequence[str] | None) -> Float[Tensor, " embedding"] | None:
    """The direction that is subtracted from every target; None if the mean over the targets is subtracted."""
    if given is None and len(request.targets) > 1:
        return None
    if isinstance(given, Tensor):
        if given.ndim and not len(given):
            raise TensorError("got redundant with no directions, expected at least one, or None for the targets' own")
        return directions(request.model, given).mean(dim=0)
    texts = [given or ""] if given is None or isinstance(given, str) else list(given)
    if not texts:
        raise TextError("got redundant with no texts, expected at least one, or None for the targets' own")
    parts = [targets(request.model, text) if text.strip() else empty_text(request.model) for text in texts]
    return torch.cat(parts).mean(dim=0)
