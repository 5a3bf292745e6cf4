"""What ICLIP ("IC", 2.2) measures, as rows of the long table: mMIoU and mFMB of maps, and mAP of a model's scores.

Above metrics/segmentation.py and metrics/recognition.py, which have the numbers, and tables.py. The maps and the scores
are those of asked.py.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clip_explain.datasets import Record
from clip_explain.errors import TensorError
from clip_explain.metrics.recognition import class_average_precision
from clip_explain.metrics.segmentation import foreground_minus_background, iou_curves, searched_iou
from clip_explain.papers.tables import measured, measured_by_class

Rows = list[dict[str, Any]]


def present_in(records: Sequence[Record], count: int) -> Bool[Tensor, "images classes"]:
    """Which of `count` classes each record shows, by its labels."""
    present = torch.zeros(len(records), count, dtype=torch.bool)
    for here, record in zip(present, records, strict=True):
        here[list(record.labels)] = True
    return present


def maps_by_class(
    method: str, maps: Sequence[Float[Tensor, "_ _ _"]], records: Sequence[Record], setting: str = ""
) -> tuple[Rows, Float[Tensor, " maps"]]:
    """Rows of ICLIP's metrics for one method's maps, one map for each text of each record; and the IoU of each map.

    The metrics: "searched_iou", whose mean is mMIoU (a class's threshold is searched on these very maps);
    "foreground_minus_background", whose mean is mFMB; "background_preferred", the share of the maps whose mean is
    higher around the object than on it. All are means over classes, which are the texts. TensorError for other numbers
    of maps than of records or texts, and where `segmentation` raises it.
    """
    if [len(each) for each in maps] != [len(record.texts) for record in records]:
        raise TensorError(f"got {sum(map(len, maps))} maps of {len(maps)} images, expected one for each text of each")
    asked = list(zip(maps, records, strict=True))
    curves = torch.cat([iou_curves(some, record.masks, ignore=record.ignore) for some, record in asked])
    gaps = torch.cat([foreground_minus_background(some, record.masks, ignore=record.ignore) for some, record in asked])
    classes = [text for record in records for text in record.texts]
    images = [record.id for record in records for _ in record.texts]
    found = {"searched_iou": searched_iou(curves, classes)[0], "foreground_minus_background": gaps}
    found["background_preferred"] = torch.where(gaps.isnan(), gaps, (gaps < 0).to(gaps))
    return measured_by_class(images, classes, method, found, setting), found["searched_iou"]


def means_by_record(values: Float[Tensor, " maps"], records: Sequence[Record]) -> list[float]:
    """Each record's mean of numbers of its maps, one for each of its texts; NaN is left out."""
    return [float(some.nanmean()) for some in values.split([len(record.texts) for record in records])]


def scores_by_class(
    method: str,
    scores: Float[Tensor, "images classes"],
    present: Bool[Tensor, "images classes"],
    names: Sequence[str],
    setting: str = "",
) -> Rows:
    """Rows of "class_average_precision" for a model's scores, whose mean is mAP; the table's images are the classes."""
    rows = []
    for name, value in zip(names, class_average_precision(scores, present).tolist(), strict=True):
        rows += measured(name, method, {"class_average_precision": value}, setting)
    return rows
