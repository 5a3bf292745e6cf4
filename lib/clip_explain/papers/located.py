"""One record's maps by several methods against its masks, as rows of the long table, and the level of chance beside.

Above asked.py, which does it for many records by one method.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clip_explain.datasets import Record
from clip_explain.metrics.pointing import energy_pointing_game
from clip_explain.metrics.segmentation import foreground_minus_background, levels_on
from clip_explain.papers.asked import localized
from clip_explain.papers.tables import measured
from clip_explain.sweep.measures import visible_masks

LIKENESS = ("the object named", "objects like it", "other objects")
POINTING = ("pointing_game", "energy_pointing_game", "average_precision")  # those that need no threshold

Rows = list[dict[str, Any]]


def located(
    record: Record,
    maps: Mapping[str, Float[Tensor, "texts grid_h grid_w"]],
    setting: str = "",
    metrics: Sequence[str] = POINTING,
) -> Rows:
    """Rows of each method's raw maps of the whole image, one map for each text of the record."""
    rows = []
    for name, heat in maps.items():
        rows += localized([record], name, [heat], metrics, setting)
    return rows


def chance(record: Record, setting: str = "", metrics: Sequence[str] = POINTING, fit: str = "full") -> Rows:
    """Rows of the method "chance": the share of what is seen that each object covers, what noise scores in POINTING."""
    share = visible_masks(record, fit).mean(axis=(1, 2))
    return measured(record.id, "chance", dict.fromkeys(metrics, share), setting)


def on_part(
    record: Record,
    maps: Float[Tensor, "three grid_h grid_w"],
    methods: Sequence[str],
    part: Bool[np.ndarray, "height width"],
    whole: Bool[np.ndarray, "height width"] | None = None,
    setting: str = "",
    target: int = 0,
) -> Rows:
    """Rows of maps for three texts: of a whole, of a part in the whole, and of the part alone (ICLIP, Figure 7).

    "energy_pointing_game" is the share of each map, scaled to [0, 1], on the part. With a mask of the whole there is
    also "foreground_minus_background" of the first map on the whole and of the last on the part.
    """
    rows = []
    shares = energy_pointing_game(maps, np.stack([part] * 3), energy="minmax")
    for method, share in zip(methods, shares, strict=True):
        rows += measured(record.id, method, {"energy_pointing_game": share}, setting, [target])
    if whole is not None:
        gaps = foreground_minus_background(maps[[0, 2]], np.stack([whole, part]))
        for method, gap in zip((methods[0], methods[2]), gaps, strict=True):
            rows += measured(record.id, method, {"foreground_minus_background": gap}, setting, [target])
    return rows


def likeness(asked: str, other: str) -> str:
    """Which of LIKENESS another text's object is, when `asked` is named: objects alike share a word that is no "a"."""
    if other == asked:
        return LIKENESS[0]
    return LIKENESS[1] if set(asked.split()) & set(other.split()) - {"a"} else LIKENESS[2]


def levels_by_likeness(record: Record, maps: Float[Tensor, "texts grid_h grid_w"], setting: str = "") -> Rows:
    """Rows of "level of the map" for each text: the mean of its map, scaled to [0, 1], on LIKENESS (ICLIP, Figure 8).

    What a record has not, as objects like the one named, is NaN.
    """
    rows = []
    for number, (asked, levels) in enumerate(zip(record.texts, levels_on(maps, record.masks), strict=True)):
        kinds = np.array([likeness(asked, other) for other in record.texts])
        for kind in LIKENESS:
            here = levels[torch.from_numpy(kinds == kind)]
            mean = here.nanmean() if len(here) else torch.nan
            rows += measured(record.id, kind, {"level of the map": mean}, setting, [number])
    return rows
