"""ICLIP's semantic shift (Figure 3, Tables 6 and 7) as rows: how channels move, and what noise would score."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clip_explain import plots
from clip_explain.datasets import Record
from clip_explain.metrics.channel_shift import Channels, channels_of, moves
from clip_explain.metrics.segmentation import foreground_minus_background
from clip_explain.papers.tables import measured

# The metrics of `channel_moves`, and the shares of the image that the foreground covers, as IC's Table 6 has them.
SIZES = {
    "channels, share to 0.25": "(0, 0.25]",
    "channels, share 0.25 to 0.75": "(0.25, 0.75]",
    "channels, share above 0.75": "(0.75, 1]",
    "channels": "(0, 1]",
}

Rows = list[dict[str, Any]]


def channel_moves(image: str, view: str, share: float, before: Channels, after: Channels, setting: str) -> Rows:
    """Rows of the shares of an image's channels that move between background and foreground (IC, Table 6).

    `share` of the image is foreground: it picks the metric of SIZES. Of the view "whole" the last of them, all sizes,
    is measured, too, since IC's sizes are of photos. The methods are those of `channel_shift.MOVES`.
    """
    size, rows = list(SIZES)[int(np.searchsorted([0.25, 0.75], share))], []
    for move, count in moves(before.inside[None], after.inside[None]).items():
        moved = float(count) / len(before.inside)
        found = {size: moved, "channels": moved} if view == "whole" else {size: moved}
        rows += measured(image, move, found, setting, targets=[view])
    return rows


def null_channels(
    spaces: Mapping[str, Float[Tensor, "1 tokens _"]],
    mask: Float[Tensor, "1 patches"],
    foreground: Bool[Tensor, " patches"],
    generator: torch.Generator,
) -> dict[tuple[str, str], Channels]:
    """ICLIP's channels if its mask or its tokens said nothing, by (space, name): what IC's Table 7 is held against.

    "shuffled mask": its own tokens under its mask with the patches in random order. "Gaussian tokens": noise in place
    of the tokens, under its own mask.
    """
    shuffled, found = mask[:, torch.randperm(mask.shape[1], generator=generator)], {}
    for space, tokens in spaces.items():
        noise = torch.randn(tokens.shape, generator=generator)
        found[space, "shuffled mask"] = channels_of(tokens, shuffled, "masked_max", foreground)
        found[space, "Gaussian tokens"] = channels_of(noise, mask, "masked_max", foreground)
    return found


def points_of_channels(poolings: Mapping[str, Channels]) -> list[tuple]:
    """A row of `plots.scattered`: places, values and colours of the channels under each pooling (IC, Figure 3).

    Last come the channels that are on the other side under "average" than under "max": one colour for those that move
    to the foreground, one for those that leave it.
    """
    row: list[tuple] = [(each.places, each.values, plots.LINES[2]) for each in poolings.values()]
    before, after = poolings["max"], poolings["average"]
    moved = before.inside != after.inside
    colours = np.where(after.inside[moved], plots.LINES[0], plots.LINES[1])
    return [*row, (after.places[moved], after.values[moved], colours)]


def foreground_gaps(records: Sequence[Record], maps: Sequence[Float[Tensor, "_ _ _"]]) -> pd.Series:
    """How much more each image's maps mark the objects than the rest: the bracket of IC's equation 8, by record id.

    The mean over an image's texts; an image for which no text has one is left out.
    """
    gaps = {}
    for record, heat in zip(records, maps, strict=True):
        gaps[record.id] = float(foreground_minus_background(heat, record.masks, ignore=record.ignore).nanmean())
    return pd.Series(gaps).dropna()
