"""Semantic shift (ICLIP, "IC", 3.1 and 4.3): whether each channel of a pooled feature comes from the object.

Beside segmentation.py; pure functions of tokens and of masks of the foreground.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clip_explain.checks import checked
from clip_explain.models.pooling import pool

MOVES = ("B2F", "F2B", "B2B/F2F")  # as IC Tab. 6 names them: from background to foreground, back, neither


@dataclass(frozen=True)
class Channels:
    """Where the channels of one image's pooled feature come from.

    `values`: the pooled feature. `places`: the patch nearest to each channel's value. `inside`: is that foreground?
    """

    values: Float[Tensor, " channels"]
    places: Int[Tensor, " channels"]
    inside: Bool[Tensor, " channels"]


def channels_of(
    tokens: Float[Tensor, "1 tokens channels"],
    mask: Float[Tensor, "1 patches"],
    how: str,
    foreground: Bool[Tensor, " patches"],
) -> Channels:
    """The channels of an image's tokens (class token first), pooled as `how` of `models.pooling` says.

    Under "masked_max" a patch's value is its feature times its mask, as ICLIP pools them (IC eq. 10).
    """
    weighted = tokens[:, 1:] * mask[..., None] if how == "masked_max" else tokens[:, 1:]
    pooled = pool(tokens, mask, how)
    places = nearest_patches(weighted, pooled)[0].cpu()
    return Channels(pooled[0].cpu(), places, foreground.cpu()[places])


@checked()
def nearest_patches(
    tokens: Float[Tensor, "images patches channels"], pooled: Float[Tensor, "images channels"]
) -> Int[Tensor, "images channels"]:
    """For each channel, the patch whose value is nearest to the pooled value (IC 3.1 and Fig. 3).

    Of equally near patches the first counts. Under max pooling this is the patch that holds the maximum.
    """
    return (tokens - pooled[:, None]).abs().argmin(dim=1)


@checked()
def foreground_patches(
    masks: Bool[Tensor, "images height width"] | Bool[np.ndarray, "images height width"],
    grid: tuple[int, int],
    share: float = 0.5,
) -> Bool[Tensor, "images patches"]:
    """The patches of which at least `share` of the pixels lie on the foreground. The paper does not say its rule."""
    inside = torch.as_tensor(masks, dtype=torch.float32)
    return (F.adaptive_avg_pool2d(inside[:, None], grid)[:, 0] >= share).flatten(1)


@checked()
def moves(
    before: Bool[Tensor, "images channels"], after: Bool[Tensor, "images channels"]
) -> dict[str, Int[Tensor, " images"]]:
    """How many channels move between background and foreground (IC Tab. 6), by the names of MOVES.

    `before` and `after` say whether a channel's nearest patch lies on the foreground under the first pooling (in the
    paper, max) and under the second (average). The three counts sum to the number of channels; B2F - F2B is the number
    that the foreground gains.
    """
    counts = (~before & after).sum(dim=1), (before & ~after).sum(dim=1), (before == after).sum(dim=1)
    return dict(zip(MOVES, counts, strict=True))


@checked()
def distinct(places: Int[Tensor, "images channels"]) -> Int[Tensor, " images"]:
    """The number of different patches in which an image's channels lie; small if points are "aggregated" (IC 3.1)."""
    return (places.sort(dim=1).values.diff(dim=1) > 0).sum(dim=1) + 1
