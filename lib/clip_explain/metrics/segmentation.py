"""How well a map separates the object from the background: accuracy, average precision, IoU, ICLIP's mMIoU and mFMB.

Above masks.py, which has the rules for degenerate maps, empty masks and ignored pixels.
"""

from collections.abc import Hashable

import numpy as np
import torch
from jaxtyping import Float
from sklearn.metrics import average_precision_score
from torch import Tensor

from clip_explain.checks import checked
from clip_explain.errors import MethodError, TensorError
from clip_explain.maps import normalize, resize
from clip_explain.metrics.intervals import Labels, listed
from clip_explain.metrics.masks import (
    Ignored,
    Maps,
    Masks,
    MasksOfOne,
    PerMap,
    count_pixels,
    defined,
    on_masks,
    share,
)

RULES = ("fixed", "mean", "searched")


# -- maps cut at a threshold, and maps as scores


@checked()
def pixel_accuracy(
    maps: Maps,
    masks: Masks,
    threshold: str = "mean",
    at: int | float = 0.5,
    over: str = "image",
    ignore: Ignored = None,
) -> PerMap:
    """Share of the pixels that the map, cut at a threshold, puts on the right side, 0 to 1. Higher is better.

    `threshold` and `at` are those of `marked`. With `over="image"` all pixels count, as in Chefer et al. 2021, whose
    protocol Grad-ECLIP (Tab. 3) names; a map that marks no pixel then scores the background's share, which is high for
    small objects. With `over="mask"` only the mask's pixels count: this is recall. Grad-ECLIP prints no formula, and
    values as low as 0.03. MethodError for another `over` or `threshold`.
    """
    if over not in ("image", "mask"):
        raise MethodError(f"got over={over!r}, expected 'image' or 'mask'")
    heat, inside, counted = on_masks(maps, masks, ignore)
    right = marked(heat, threshold, at) == inside
    counted = inside if over == "mask" else counted
    return defined(share(count_pixels(right & counted), count_pixels(counted)), inside)


@checked()
def average_precision(maps: Maps, masks: Masks, classes: str = "foreground", ignore: Ignored = None) -> PerMap:
    """Average precision of the map's values as scores for "this pixel is in the mask", by scikit-learn, 0 to 1.

    A degenerate map scores the mask's share of the pixels. With `classes="both"` the result is the mean of this and of
    the background's average precision under the negated map, as in Chefer et al. 2021, and NaN without a background.
    Higher is better. MethodError for other `classes`.
    """
    if classes not in ("foreground", "both"):
        raise MethodError(f"got classes={classes!r}, expected 'foreground' or 'both'")
    heat, inside, counted = on_masks(maps, masks, ignore)
    parts = zip(*(_rows(each).cpu().numpy() for each in (heat, inside, counted)), strict=True)
    values = [_average_precision(scores[some], truth[some], classes == "both") for scores, truth, some in parts]
    return torch.tensor(values, dtype=heat.dtype, device=heat.device).reshape(heat.shape[:-2])


@checked()
def mask_iou(
    maps: Maps,
    masks: Masks,
    threshold: str = "fixed",
    at: int | float = 0.5,
    classes: Labels | None = None,
    mode: str = "bilinear",
    ignore: Ignored = None,
) -> PerMap:
    """Intersection over union of the mask and of the pixels that the map marks, 0 to 1 (Grad-ECLIP 4.2, "maskIoU").

    `threshold` names the rule. "fixed" and "mean" are those of `marked`. "searched" chooses for each class the one
    threshold, on a grid of step 0.01, that gives its maps the best mean (ICLIP 2.2); `classes` then names the class of
    each map, in order. The searched threshold is the best on the very maps that it is measured on. Grad-ECLIP does not
    say its rule, and another rule can change the result much: always report which one was used.
    """
    if threshold == "searched":
        if classes is None:
            raise MethodError("threshold='searched' needs classes, one for each map")
        curves = iou_curves(maps, masks, mode=mode, ignore=ignore)
        return searched_iou(curves.reshape(-1, curves.shape[-1]), classes)[0].reshape(curves.shape[:-1])
    heat, inside, counted = on_masks(maps, masks, ignore, mode)
    found = marked(heat, threshold, at) & counted
    return defined(share(count_pixels(found & inside), count_pixels(found | inside)), inside)


@checked()
def marked(heat: Float[Tensor, "*axes height width"], threshold: str = "fixed", at: int | float = 0.5) -> Tensor:
    """The pixels above a threshold: "fixed", above `at` of the map scaled to [0, 1]; "mean", above the map's mean."""
    if threshold not in ("fixed", "mean"):
        raise MethodError(f"got threshold={threshold!r}, expected one of {', '.join(map(repr, RULES))}")
    heat = normalize(heat)
    return heat > (at if threshold == "fixed" else heat.mean(dim=(-2, -1), keepdim=True))


# -- ICLIP's metrics


@checked()
def iou_curves(
    maps: Maps, masks: Masks, step: float = 0.01, mode: str = "bicubic", ignore: Ignored = None
) -> Float[Tensor, "*axes thresholds"]:
    """IoU of the mask and of the map M above t, for each threshold t = 0, step, 2 step, ... below 1 (ICLIP eq. 7).

    M is the map resized bicubically to the mask and then scaled to [0, 1] (ICLIP 2.1). MethodError for a step of 0 or
    less, or above 1.
    """
    if not 0 < step <= 1:
        raise MethodError(f"got step={step}, expected a step above 0 and up to 1")
    heat, inside, counted = on_masks(maps, masks, ignore, mode)
    heat, steps = normalize(heat), round(1 / step)
    limits = (torch.arange(steps, dtype=torch.float64) / steps).to(heat)
    passed = torch.searchsorted(limits, heat.contiguous())  # how many thresholds lie strictly below each pixel
    areas = _pixels_above(passed, steps, counted)
    shared = _pixels_above(passed, steps, inside)
    union = areas + count_pixels(inside)[..., None] - shared
    return torch.where(count_pixels(inside)[..., None] > 0, share(shared, union), torch.nan)


@checked()
def searched_iou(
    curves: Float[Tensor, "maps thresholds"], classes: Labels
) -> tuple[Float[Tensor, " maps"], dict[Hashable, float]]:
    """The IoU of each map at the threshold of its class, and these thresholds.

    The threshold of a class is the one with the best mean IoU over its maps; of equally good ones, the lowest. `curves`
    are those of `iou_curves`, of all images together. A class without any mask has threshold NaN.
    """
    values, thresholds = curves.new_full((len(curves),), torch.nan), {}
    for label, rows in _by_class(classes, len(curves)).items():
        means = curves[rows].nanmean(dim=0)
        best = int(means.argmax())
        values[rows] = curves[rows, best]
        thresholds[label] = float("nan") if means.isnan().any() else best / curves.shape[1]
    return values, thresholds


@checked()
def mmiou(curves: Float[Tensor, "maps thresholds"], classes: Labels) -> float:
    """mMIoU, ICLIP eq. 7: the mean of `searched_iou` over the maps of each class, then over classes, 0 to 1.

    The double sum of the equation has no divisor. We read "mean" as in mean IoU: each class counts the same.
    """
    return mean_over_classes(searched_iou(curves, classes)[0], classes)


@checked()
def levels_on(maps: Float[Tensor, "maps grid_h grid_w"], masks: MasksOfOne) -> Float[Tensor, "maps masks"]:
    """The mean of each map on each mask of one image: maps resized bicubically and scaled to [0, 1] (ICLIP 2.1).

    An empty mask has the level NaN.
    """
    inside = torch.as_tensor(masks).flatten(1).to(maps)
    heat = normalize(resize(maps, masks.shape[1:], "bicubic")).flatten(1)
    return heat @ inside.T / inside.sum(1)


@checked()
def foreground_minus_background(maps: Maps, masks: Masks, mode: str = "bicubic", ignore: Ignored = None) -> PerMap:
    """The bracket of ICLIP eq. 8: the map's mean in its mask minus its mean outside, -1 to 1. Higher is better.

    The map is resized and scaled to [0, 1] as in `iou_curves`. The result is NaN also for a mask without background.
    """
    heat, inside, counted = on_masks(maps, masks, ignore, mode)
    heat, outside = normalize(heat), counted & ~inside
    front = share((heat * inside).sum(dim=(-2, -1)), count_pixels(inside))
    back = share((heat * outside).sum(dim=(-2, -1)), count_pixels(outside))
    return defined(defined(front - back, inside), outside)


@checked()
def mfmb(differences: Float[Tensor, " maps"], classes: Labels) -> float:
    """mFMB, ICLIP eq. 8: the mean of `foreground_minus_background` over each class, then over classes, -1 to 1."""
    return mean_over_classes(differences, classes)


@checked()
def mean_over_classes(values: Float[Tensor, " maps"], classes: Labels) -> float:
    """The mean over classes of each class's mean, NaN left out. TensorError if nothing is left."""
    means = torch.stack([values[rows].nanmean() for rows in _by_class(classes, len(values)).values()])
    if means.isnan().all():
        raise TensorError(f"all of the {len(values)} values are NaN: no mask has anything to find")
    return float(means.nanmean())


# -- small steps


def _average_precision(scores: np.ndarray, truth: np.ndarray, both: bool) -> float:
    if not truth.any() or (both and truth.all()):
        return float("nan")
    front = float(average_precision_score(truth, scores))
    return (front + float(average_precision_score(~truth, -scores))) / 2 if both else front


def _pixels_above(passed: Tensor, steps: int, counted: Tensor) -> Float[Tensor, "*axes thresholds"]:
    """The number of counted pixels above each threshold, from the number of thresholds that each pixel passes."""
    found = torch.zeros(*passed.shape[:-2], steps + 1, device=passed.device, dtype=torch.float32)
    found.scatter_add_(-1, passed.flatten(-2), counted.flatten(-2).to(found))
    return found.flip(-1).cumsum(-1).flip(-1)[..., 1:]


def _rows(pixels: Tensor) -> Tensor:
    """A row for each map."""
    return pixels.reshape(-1, pixels.shape[-2] * pixels.shape[-1])


def _by_class(classes: Labels, count: int) -> dict[Hashable, list[int]]:
    """The indices of each class's maps."""
    labels = listed(classes)
    if len(labels) != count or not count:
        raise TensorError(f"got {len(labels)} classes for {count} maps, expected one a map and at least one")
    rows = {label: [] for label in labels}
    for row, label in enumerate(labels):
        rows[label].append(row)
    return rows
