"""Semantic shift (ICLIP, "IC", 3.1 and 4.3): from which patch each channel of a pooled feature comes, thing or ground.

Beside localization.py; pure functions on tokens, and on masks of what is foreground.
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

MOVES = ("B2F", "F2B", "B2B/F2F")  # as IC Tab. 6 names them: from background to foreground, back, neither


def nearest_patches(
    tokens: Float[Tensor, "images patches channels"], pooled: Float[Tensor, "images channels"]
) -> Int[Tensor, "images channels"]:
    """For each channel the patch whose value is nearest to the pooled one, IC 3.1 and Fig. 3; the first of equals.

    Under max pooling it is the patch that the maximum was taken from.
    """
    return (tokens - pooled[:, None]).abs().argmin(dim=1)


def foreground_patches(
    masks: Bool[Tensor, "images height width"] | Bool[np.ndarray, "images height width"],
    grid: tuple[int, int],
    share: float = 0.5,
) -> Bool[Tensor, "images patches"]:
    """Which patches lie on the foreground: at least `share` of their pixels do. The paper does not say its rule."""
    inside = torch.as_tensor(masks, dtype=torch.float32)
    return (F.adaptive_avg_pool2d(inside[:, None], grid)[:, 0] >= share).flatten(1)


def moves(
    before: Bool[Tensor, "images channels"], after: Bool[Tensor, "images channels"]
) -> dict[str, Int[Tensor, " images"]]:
    """How many channels move between background and foreground, IC Tab. 6, by the names of MOVES; they sum to all.

    `before`, `after`: is a channel's nearest patch foreground under the one pooling (max, in the paper) and under the
    other (average)? B2F - F2B is by how many more are on the foreground after than before.
    """
    counts = (~before & after).sum(dim=1), (before & ~after).sum(dim=1), (before == after).sum(dim=1)
    return dict(zip(MOVES, counts, strict=True))


def distinct(places: Int[Tensor, "images channels"]) -> Int[Tensor, " images"]:
    """In how many different patches an image's channels lie: few where points are "aggregated", IC 3.1."""
    return (places.sort(dim=1).values.diff(dim=1) > 0).sum(dim=1) + 1
