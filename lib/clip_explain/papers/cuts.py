"""Mask IoU at the best threshold of each class, for several methods on the same images.

Above metrics/segmentation.py, which has the formula, and tables.py, whose rows come out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from clip_explain.datasets import Record
from clip_explain.explainers import METHODS
from clip_explain.metrics.segmentation import iou_curves, searched_iou
from clip_explain.models.model import Model
from clip_explain.papers.tables import measured
from clip_explain.request import make_request
from clip_explain.sweep.measures import visible, visible_masks


@dataclass(frozen=True)
class Cut:
    """A method whose maps are cut: the setting and name that its rows have, and its options."""

    setting: str
    name: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)


def iou_at_best_cuts(
    model: Model, records: Sequence[Record], methods: Sequence[Cut], fit: str = "full", seed: int = 0
) -> list[dict]:
    """Rows of the metric "iou_searched" for each method, and for noise as the method "random" of the first's setting.

    Thresholds are searched in steps of 0.01, for each class on these very maps (`searched_iou`). With few images a
    threshold fits its few maps too well: noise shows by how much.
    """
    noise = torch.Generator().manual_seed(seed)
    curves = {(each.setting, each.name): [] for each in methods} | {(methods[0].setting, "random"): []}
    for record in tqdm(records, desc="thresholds"):
        request = make_request(model, record.image, record.texts, fit)
        for each in methods:
            maps = METHODS[each.method].image(request, **each.options)[0].cpu()
            curves[each.setting, each.name].append(curves_of(maps, record, fit))
        drawn = torch.rand(maps.shape, generator=noise)
        curves[methods[0].setting, "random"].append(curves_of(drawn, record, fit))
    return [row for key, found in curves.items() for row in rows_of(*key, found, records)]


def curves_of(maps: Tensor, record: Record, fit: str) -> Float[Tensor, "maps thresholds"]:
    """IoU by threshold of a record's maps, one for each of its masks."""
    masks = torch.as_tensor(visible_masks(record, fit))
    ignore = None if record.ignore is None else visible(record.ignore, record, fit)
    return iou_curves(maps, masks, mode="bilinear", ignore=ignore)


def rows_of(setting: str, name: str, curves: Sequence[Tensor], records: Sequence[Record]) -> list[dict]:
    """Rows of the IoU at the best thresholds of all records' classes."""
    classes = [text for record in records for text in record.texts]
    values = searched_iou(torch.cat(list(curves)), classes)[0].split([len(record.texts) for record in records])
    rows = []
    for record, some in zip(records, values, strict=True):
        rows += measured(record.id, name, {"iou_searched": some}, setting)
    return rows
