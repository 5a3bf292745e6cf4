"""What ICLIP ("IC", 2.2) measures, as rows of the long table: mMIoU and mFMB of maps, and mAP of a model's scores.

Above metrics/segmentation.py and metrics/recognition.py, which have the numbers, and tables.py. The maps and the scores
are those of asked.py.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
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
    classes = _texts(records)
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


def qualities_of_classes(
    maps: Sequence[Float[Tensor, "_ _ _"]],
    ious: Float[Tensor, " maps"],
    scores: Float[Tensor, "images classes"],
    records: Sequence[Record],
    classes: Sequence[str],
) -> pd.DataFrame:
    """How well each class is explained and recognized: a row a class, the points of ICLIP's Figure 9.

    "IoU" and "FMB" are means over the class's maps (of "IoU" given by `maps_by_class`), "size" its objects' mean share
    of the image, "AP" its average precision by `scores`. Classes are texts; one that no image has is left out.
    """
    both = zip(maps, records, strict=True)
    gaps = torch.cat([foreground_minus_background(some, record.masks, ignore=record.ignore) for some, record in both])
    table = pd.DataFrame({"class": _texts(records), "IoU": ious, "FMB": gaps})
    shares = [record.masks.mean(axis=(1, 2)) for record in records if record.masks is not None]
    table["size"] = np.concatenate(shares)
    precision = class_average_precision(scores, present_in(records, len(classes)))
    return table.groupby("class").mean().join(pd.Series(precision, classes, name="AP")).dropna()


def halves_by_score(
    ious: Float[Tensor, " maps"],
    scores: Float[Tensor, "images classes"],
    records: Sequence[Record],
    classes: Sequence[str],
) -> pd.DataFrame:
    """Mean IoU in the "higher half by score" and the "lower half by score" of each class's images: a row a class.

    An image is in the higher half if more than half of the class's images have no higher score. Classes are texts; one
    with an empty half is left out.
    """
    texts = _texts(records)
    image_of = [number for number, record in enumerate(records) for _ in record.texts]
    own = scores[image_of, [list(classes).index(text) for text in texts]]
    higher = pd.Series(own.numpy()).groupby(texts).rank(pct=True) > 0.5
    halves = higher.map({True: "higher half by score", False: "lower half by score"})
    means = pd.DataFrame({"class": texts, "half": halves, "IoU": ious}).groupby(["class", "half"])["IoU"].mean()
    return pd.DataFrame(means.unstack()).dropna()


def _texts(records: Sequence[Record]) -> list[str]:
    return [text for record in records for text in record.texts]
