"""Every metric of a map by its name: its meaning, its better direction, its range, and the score of random maps.

Above all other modules of metrics/. Sweeps, charts and the papers' claims read this one list.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from torch import Tensor

from clip_explain.errors import MethodError
from clip_explain.metrics.pointing import energy_pointing_game, pointing_game
from clip_explain.metrics.segmentation import average_precision, foreground_minus_background, mask_iou, pixel_accuracy

MASK_SHARE = "the share of the image that the object covers"


class Area(NamedTuple):
    """The area under a perturbation curve of faithfulness.py: its protocol, its mode, and a name of readouts.py."""

    protocol: str
    mode: str
    readout: str


class Confidence(NamedTuple):
    """The "drop" or the "increase" of faithfulness.confidence."""

    change: str


@dataclass(frozen=True)
class Metric:
    """What is known of a metric.

    `score` computes it from maps and masks; or it names the curve, or the change of confidence, that needs the model.
    `range`: the least and the greatest value. `chance`: what random maps score on average, in words, "" if that
    depends on the images. `short`: its name on figures, where the papers have one.
    """

    says: str
    score: Callable[..., Tensor] | Area | Confidence
    better: str = "higher"
    range: tuple[float, float] = (0.0, 1.0)
    chance: str = ""
    short: str = ""

    @property
    def higher_is_better(self) -> bool:
        """Whether a greater value is better; `better` is "higher" or "lower"."""
        return self.better == "higher"

    @property
    def of_masks(self) -> bool:
        """Whether it compares maps with masks and needs no model."""
        return not isinstance(self.score, Area | Confidence)

    def __call__(self, maps: Tensor, masks: Tensor | np.ndarray, ignore: Tensor | np.ndarray | None = None) -> Tensor:
        """One number for each map from maps, masks and the pixels to `ignore`; NaN where the metric is undefined."""
        if isinstance(self.score, Area | Confidence):
            raise MethodError(f"this metric needs a model, not masks ({self.says}): ask a sweep, or faithfulness.py")
        return self.score(maps, masks, ignore=ignore)


METRICS: dict[str, Metric] = {
    "pointing_game": Metric(
        "1 if the map's maximum lies on the object, else 0", pointing_game, chance=MASK_SHARE, short="PG"
    ),
    "energy_pointing_game": Metric(
        "share of the map's positive values that lies on the object",
        energy_pointing_game,
        chance=MASK_SHARE,
        short="PG-energy",
    ),
    "pixel_accuracy": Metric(
        "share of all pixels that the map, cut at its mean, puts on the right side", pixel_accuracy, short="Pixel Acc."
    ),
    "pixel_accuracy_mask": Metric(
        "share of the object's pixels that lie above the map's mean (recall)",
        partial(pixel_accuracy, over="mask"),
        short="Pixel Acc.",
    ),
    "average_precision": Metric(
        "average precision of the map's values as scores of the object's pixels",
        average_precision,
        chance=MASK_SHARE,
        short="AP",
    ),
    "iou_fixed": Metric(
        "IoU of the object and of the map above half of its range",
        partial(mask_iou, threshold="fixed"),
        short="maskIoU",
    ),
    "iou_mean": Metric(
        "IoU of the object and of the map above its mean", partial(mask_iou, threshold="mean"), short="maskIoU"
    ),
    "foreground_minus_background": Metric(
        "the map's mean on the object less its mean elsewhere, the map scaled to [0, 1]",
        foreground_minus_background,
        range=(-1.0, 1.0),
        chance="0",
        short="mFMB",
    ),
    "deletion": Metric(
        "mean top-1 accuracy while half of the pixels become noise, the map's highest first",
        Area("grad_eclip", "deletion", "top1"),
        better="lower",
    ),
    "deletion_top5": Metric("deletion, by top-5 accuracy", Area("grad_eclip", "deletion", "top5"), better="lower"),
    "deletion_score": Metric(
        "deletion, by the cosine with the target",
        Area("grad_eclip", "deletion", "score"),
        better="lower",
        range=(-1.0, 1.0),
    ),
    "insertion": Metric(
        "mean top-1 accuracy while half of the pixels are put on black, the map's highest first",
        Area("grad_eclip", "insertion", "top1"),
    ),
    "insertion_top5": Metric("insertion, by top-5 accuracy", Area("grad_eclip", "insertion", "top5")),
    "insertion_score": Metric(
        "insertion, by the cosine with the target", Area("grad_eclip", "insertion", "score"), range=(-1.0, 1.0)
    ),
    "rise_deletion": Metric(
        "mean probability of the class while all pixels become the mean colour, the map's highest first (RISE)",
        Area("rise", "deletion", "probability"),
        better="lower",
    ),
    "rise_insertion": Metric(
        "mean probability of the class while all pixels are put on the blurred image (RISE)",
        Area("rise", "insertion", "probability"),
    ),
    "positive_perturbation": Metric(
        "area in percent under top-1 accuracy while pixels become black, the map's highest first (Chefer et al.)",
        Area("chefer", "positive", "top1"),
        better="lower",
        range=(0.0, 90.0),
    ),
    "negative_perturbation": Metric(
        "the same, the map's lowest first (Chefer et al.)", Area("chefer", "negative", "top1"), range=(0.0, 90.0)
    ),
    "confidence_drop": Metric(
        "by how much the cosine falls when the image is multiplied by its map (M2IB)",
        Confidence("drop"),
        better="lower",
        range=(0.0, 2.0),
    ),
    "confidence_increase": Metric(
        "1 if the cosine rises when the image is multiplied by its map, else 0 (M2IB)", Confidence("increase")
    ),
}

OLD_NAMES = {"point_game": "pointing_game", "energy_point_game": "energy_pointing_game"}


def current_name(name: str) -> str:
    """The name of a metric today; DeprecationWarning for one of OLD_NAMES, which goes with the next release."""
    if name not in OLD_NAMES:
        return name
    warnings.warn(f"the metric {name} is now called {OLD_NAMES[name]}", DeprecationWarning, stacklevel=2)
    return OLD_NAMES[name]
