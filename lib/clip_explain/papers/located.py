"""One record's maps by several methods against its masks, as rows of the long table, and the level of chance beside.

Above asked.py, which does it for many records by one method.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from clip_explain.datasets import Record
from clip_explain.papers.asked import localized
from clip_explain.papers.tables import measured
from clip_explain.sweep.measures import visible_masks

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
