"""Does a map lie on the thing that its text names? Raw maps against exact masks: pointing, energy, segmentation.

Above maps.py. One rule for degenerate input, in every function here:

- A degenerate map (constant, all zero included) says nothing: it counts as all zero, has no peak and marks no pixel.
- A question without an answer is NaN, to be left out of means: nothing to find (an empty mask), or no background
  where the metric compares with it.
- Pixels that the annotators left undecided (`ignore`; VOC's outlines, ImageNet-S's code 1000) are not counted, neither
  as the thing nor as the rest, and no peak is looked for there. A map is scaled, and cut, by all of its pixels.
- Maps are resized to their masks. What is refused is leading axes that differ, maps finer than their masks, and
  values that are not finite (TensorError).
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from sklearn.metrics import average_precision_score
from torch import Tensor

from clip_explain.errors import MethodError, TensorError
from clip_explain.maps import degenerate, normalize, resize
from clip_explain.metrics.intervals import Labels, listed

Maps = Float[Tensor, "*axes grid_h grid_w"]
Masks = Bool[Tensor, "*axes height width"] | Bool[np.ndarray, "*axes height width"]
PerMap = Float[Tensor, "*axes"]
Ignored = Bool[Tensor, "*#axes height width"] | Bool[np.ndarray, "*#axes height width"] | None
MasksOfOne = Bool[Tensor, "masks height width"] | Bool[np.ndarray, "masks height width"]

RULES = ("fixed", "mean", "searched")


# -- each map against its own mask


def point_game(maps: Maps, masks: Masks, tolerance: int | float = 0, ignore: Ignored = None) -> PerMap:
    """Point game (Zhang et al. 2018; Grad-ECLIP 4.2, "PG"): 1 if the map's maximum lies in its mask, else 0.

    The maximum is taken of the map resized bilinearly to the mask; of several equal ones the first by rows counts.
    With `tolerance`, a maximum at most so many pixels (straight distance) away from the mask is a hit too; Zhang et
    al. allow 15.
    """
    heat, inside, counted = _on_masks(maps, masks, ignore)
    near = _squared_distance_from_peak(heat.masked_fill(~counted, -torch.inf)) <= tolerance**2
    hits = (inside & near).flatten(-2).any(dim=-1) & ~degenerate(maps)
    return _defined(hits.to(heat), inside)


def energy_point_game(maps: Maps, masks: Masks, energy: str = "positive", ignore: Ignored = None) -> PerMap:
    """Energy point game (Wang et al. 2020b; Grad-ECLIP 4.2, "PG-energy"): the mask's share of the map's energy, 0 to 1.

    `energy="positive"`: of the raw values above 0; a map without any scores 0. "minmax": of the map scaled to [0, 1],
    so that its least value has none. The two differ for signed maps and for maps far above 0.
    """
    if energy not in ("positive", "minmax"):
        raise MethodError(f"got energy={energy!r}, expected 'positive' or 'minmax'")
    heat, inside, counted = _on_masks(maps, masks, ignore)
    heat = (heat.relu() if energy == "positive" else normalize(heat)) * counted
    return _defined(_share((heat * inside).sum(dim=(-2, -1)), heat.sum(dim=(-2, -1))), inside)


def pixel_accuracy(
    maps: Maps,
    masks: Masks,
    threshold: str = "mean",
    at: int | float = 0.5,
    over: str = "image",
    ignore: Ignored = None,
) -> PerMap:
    """Share of pixels that the map, cut at a threshold, puts on the right side, 0 to 1; `threshold`, `at` as `marked`.

    `over="image"`: of all pixels, as Chefer et al. 2021 have it, whose protocol Grad-ECLIP (Tab. 3) names. A map that
    marks nothing then scores the background's share, which is high for small things. `over="mask"`: of the mask's
    pixels only, that is recall. Grad-ECLIP prints no formula, and values as low as 0.03.
    """
    if over not in ("image", "mask"):
        raise MethodError(f"got over={over!r}, expected 'image' or 'mask'")
    heat, inside, counted = _on_masks(maps, masks, ignore)
    right = marked(heat, threshold, at) == inside
    counted = inside if over == "mask" else counted
    return _defined(_share(_count(right & counted), _count(counted)), inside)


def average_precision(maps: Maps, masks: Masks, classes: str = "foreground", ignore: Ignored = None) -> PerMap:
    """Average precision of the map's values as scores for "this pixel is in the mask", by scikit-learn, 0 to 1.

    A degenerate map scores the mask's share of the pixels. `classes="both"`: the mean of this and of the background's
    own, with the negated map as scores, as Chefer et al. 2021 have it; NaN without a background.
    """
    if classes not in ("foreground", "both"):
        raise MethodError(f"got classes={classes!r}, expected 'foreground' or 'both'")
    heat, inside, counted = _on_masks(maps, masks, ignore)
    parts = zip(*(_rows(each).cpu().numpy() for each in (heat, inside, counted)), strict=True)
    values = [_average_precision(scores[some], truth[some], classes == "both") for scores, truth, some in parts]
    return torch.tensor(values, dtype=heat.dtype, device=heat.device).reshape(heat.shape[:-2])


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

    `threshold` names the rule: "fixed" or "mean", as in `marked`; "searched": for each class the one threshold, on
    a grid of step 0.01, that gives its maps the best mean, as ICLIP 2.2 has it: `classes` then holds each map's class
    (one for each of `maps`, in order). Its result is the best on the very maps it is measured on. Grad-ECLIP does not
    say its rule, and the same maps may score twice as much under another, so always say which.
    """
    if threshold == "searched":
        if classes is None:
            raise MethodError("threshold='searched' needs classes, one for each map")
        curves = iou_curves(maps, masks, mode=mode, ignore=ignore)
        return searched_iou(curves.reshape(-1, curves.shape[-1]), classes)[0].reshape(curves.shape[:-1])
    heat, inside, counted = _on_masks(maps, masks, ignore, mode)
    found = marked(heat, threshold, at) & counted
    return _defined(_share(_count(found & inside), _count(found | inside)), inside)


def marked(heat: Float[Tensor, "*axes height width"], threshold: str = "fixed", at: int | float = 0.5) -> Tensor:
    """Pixels above a threshold (boolean): "fixed" above `at` of the map scaled to [0, 1], "mean" above its own mean."""
    if threshold not in ("fixed", "mean"):
        raise MethodError(f"got threshold={threshold!r}, expected one of {', '.join(map(repr, RULES))}")
    heat = normalize(heat)
    return heat > (at if threshold == "fixed" else heat.mean(dim=(-2, -1), keepdim=True))


# -- ICLIP's metrics


def iou_curves(
    maps: Maps, masks: Masks, step: float = 0.01, mode: str = "bicubic", ignore: Ignored = None
) -> Float[Tensor, "*axes thresholds"]:
    """The fraction in ICLIP eq. 7 at each threshold t = 0, step, 2 step, ... below 1: IoU of (M > t) and the mask.

    M is the map resized to the mask, bicubically, and then scaled to [0, 1] (ICLIP 2.1).
    """
    if not 0 < step <= 1:
        raise MethodError(f"got step={step}, expected a step above 0 and up to 1")
    heat, inside, counted = _on_masks(maps, masks, ignore, mode)
    heat, steps = normalize(heat), round(1 / step)
    limits = (torch.arange(steps, dtype=torch.float64) / steps).to(heat)
    passed = torch.searchsorted(limits, heat.contiguous())  # how many thresholds lie strictly below each pixel
    areas = _pixels_above(passed, steps, counted)
    shared = _pixels_above(passed, steps, inside)
    union = areas + _count(inside)[..., None] - shared
    return torch.where(_count(inside)[..., None] > 0, _share(shared, union), torch.nan)


def searched_iou(
    curves: Float[Tensor, "maps thresholds"], classes: Labels
) -> tuple[Float[Tensor, " maps"], dict[Hashable, float]]:
    """Each map's IoU at its class's threshold, and those thresholds: the one with the best mean over the class's maps.

    `curves` as `iou_curves` gives them, of any number of images together. Of equally good thresholds the lowest; a
    class with no mask at all has threshold NaN.
    """
    values, thresholds = curves.new_full((len(curves),), torch.nan), {}
    for label, rows in _by_class(classes, len(curves)).items():
        means = curves[rows].nanmean(dim=0)
        best = int(means.argmax())
        values[rows] = curves[rows, best]
        thresholds[label] = float("nan") if means.isnan().any() else best / curves.shape[1]
    return values, thresholds


def mmiou(curves: Float[Tensor, "maps thresholds"], classes: Labels) -> float:
    """mMIoU, ICLIP eq. 7: `searched_iou` averaged over each class's maps, then over classes, 0 to 1.

    The equation's double sum has no divisor; "mean" is read as in mean IoU, over classes, each counting the same.
    """
    return mean_over_classes(searched_iou(curves, classes)[0], classes)


def foreground_minus_background(maps: Maps, masks: Masks, mode: str = "bicubic", ignore: Ignored = None) -> PerMap:
    """The bracket of ICLIP eq. 8: the map's mean in its mask minus its mean outside, -1 to 1; above 0 is right.

    The map is resized and scaled to [0, 1] as in `iou_curves`. NaN for a mask without background too.
    """
    heat, inside, counted = _on_masks(maps, masks, ignore, mode)
    heat, outside = normalize(heat), counted & ~inside
    front = _share((heat * inside).sum(dim=(-2, -1)), _count(inside))
    back = _share((heat * outside).sum(dim=(-2, -1)), _count(outside))
    return _defined(_defined(front - back, inside), outside)


def mfmb(differences: Float[Tensor, " maps"], classes: Labels) -> float:
    """mFMB, ICLIP eq. 8: `foreground_minus_background` averaged as in `mmiou`, -1 to 1."""
    return mean_over_classes(differences, classes)


def mean_over_classes(values: Float[Tensor, " maps"], classes: Labels) -> float:
    """The mean over classes of each class's mean, NaN left out. TensorError if nothing is left."""
    means = torch.stack([values[rows].nanmean() for rows in _by_class(classes, len(values)).values()])
    if means.isnan().all():
        raise TensorError(f"all of the {len(values)} values are NaN: no mask has anything to find")
    return float(means.nanmean())


# -- grid pointing


def image_grid(
    images: Float[Tensor, "cells channels height width"], columns: int = 2, size: tuple[int, int] | None = None
) -> Float[Tensor, "channels grid_height grid_width"]:
    """Images set side by side into one, row by row. `size`: of the whole (height, width), resized bilinearly to it.

    TensorError unless the images fill the rows and the size has room for equal cells.
    """
    if columns < 1 or not len(images) or len(images) % columns:
        raise TensorError(f"got {len(images)} images for {columns} columns, expected whole rows")
    rows = len(images) // columns
    if size is not None:
        if size[0] % rows or size[1] % columns or min(size) < 1:
            raise TensorError(f"got size={tuple(size)} for {rows} x {columns} cells, expected multiples of these")
        cell = (size[0] // rows, size[1] // columns)
        images = F.interpolate(images, size=cell, mode="bilinear", align_corners=False, antialias=True)
    return torch.cat([torch.cat(list(row), dim=-1) for row in images.split(columns)], dim=-2)


def energy_in_cells(maps: Maps, rows: int = 2, columns: int = 2) -> Float[Tensor, "*axes cells"]:
    """The share of each map's positive values in each of rows x columns equal cells, row by row, 0 to 1.

    A map's own cell that lies across a border is divided by area, so any map fits any grid. Zeros for a degenerate map
    and for one without positive values.
    """
    heat = torch.where(degenerate(_finite(maps))[..., None, None], 0.0, maps.relu())
    down, across = _overlaps(rows, heat.shape[-2]).to(heat), _overlaps(columns, heat.shape[-1]).to(heat)
    energy = (down @ heat @ across.T).flatten(-2)
    return _share(energy, energy.sum(dim=-1, keepdim=True))


def grid_pointing(maps: Maps, cells: Int[Tensor, "*axes"], rows: int = 2, columns: int = 2) -> PerMap:
    """Grid pointing (Böhle et al. 2021): the share of a map's positive values in the cell of the image it is asked of.

    `maps` explain an `image_grid`; `cells` says for each in which cell, counted row by row, what its target names is.
    0 to 1; an even map scores 1 / (rows x columns).
    """
    shares = energy_in_cells(maps, rows, columns)
    if cells.shape != shares.shape[:-1]:
        raise TensorError(f"got cells of shape {tuple(cells.shape)} for maps {tuple(maps.shape)}, expected one a map")
    if ((cells < 0) | (cells >= rows * columns)).any():
        raise TensorError(f"got cells {cells.flatten().tolist()}, expected 0 to {rows * columns - 1}")
    return shares.gather(-1, cells[..., None].to(shares.device)).squeeze(-1)


# -- every map against every mask of its image


def points_at(maps: Float[Tensor, "maps grid_h grid_w"], masks: MasksOfOne) -> Bool[Tensor, "maps masks"]:
    """Point game of all pairs: does the maximum of each map, resized bilinearly to the masks, lie in each mask?"""
    inside = _all_masks(masks, maps)
    peaks = resize(maps, inside.shape[-2:]).flatten(1).argmax(dim=1)
    return inside.flatten(1)[:, peaks].T & ~degenerate(maps)[:, None]


def energy_in(maps: Float[Tensor, "maps grid_h grid_w"], masks: MasksOfOne) -> Float[Tensor, "maps masks"]:
    """Energy point game of all pairs: the share, 0 to 1, of each map's positive mass, so resized, in each mask."""
    inside = _all_masks(masks, maps)
    heat = resize(maps, inside.shape[-2:]).relu().flatten(1) * ~degenerate(maps)[:, None]
    return _share(heat @ inside.flatten(1).T.to(heat), heat.sum(dim=1, keepdim=True))


def own_and_others(
    matrix: Float[Tensor, "maps masks"] | Bool[Tensor, "maps masks"],
) -> tuple[float, float]:
    """Means over the texts' own masks (the diagonal of one of the above) and over the others' masks (0 without any)."""
    own, count = matrix.diagonal().sum(), len(matrix)
    return float(own / count), float((matrix.sum() - own) / max(count * (count - 1), 1))


# -- the registry


@dataclass(frozen=True)
class Metric:
    """A number for each map against its mask, and which way is better."""

    score: Callable[..., Tensor]
    higher_is_better: bool = True

    def __call__(self, maps: Tensor, masks: Tensor | np.ndarray, ignore: Tensor | np.ndarray | None = None) -> Tensor:
        """(maps, masks, pixels not counted) -> one number a map, NaN where its question has no answer."""
        return self.score(maps, masks, ignore=ignore)


LOCALIZATION: dict[str, Metric] = {
    "point_game": Metric(point_game),
    "energy_point_game": Metric(energy_point_game),
    "pixel_accuracy": Metric(pixel_accuracy),
    "pixel_accuracy_mask": Metric(partial(pixel_accuracy, over="mask")),
    "average_precision": Metric(average_precision),
    "iou_fixed": Metric(partial(mask_iou, threshold="fixed")),
    "iou_mean": Metric(partial(mask_iou, threshold="mean")),
    "foreground_minus_background": Metric(foreground_minus_background),
}


# -- checks and small steps


def check_masks(masks: Masks, size: tuple[int, int]) -> None:
    """TensorError, naming both sizes, unless the masks have an image's size (height, width)."""
    if tuple(masks.shape[-2:]) != tuple(size):
        raise TensorError(f"got masks of {_by(masks.shape[-2:])} pixels for an image of {_by(size)} (height x width)")


def _on_masks(
    maps: Tensor, masks: Tensor | np.ndarray, ignore: Tensor | np.ndarray | None = None, mode: str = "bilinear"
) -> tuple[Tensor, Tensor, Tensor]:
    """Maps at their masks' size, in float32 at least, the degenerate ones all zero; masks; pixels that are counted.

    Masks are without what is not counted.
    """
    inside = torch.as_tensor(masks, device=maps.device)
    if maps.shape[:-2] != inside.shape[:-2] or not maps.numel() or not inside.numel():
        raise TensorError(f"got maps {tuple(maps.shape)} and masks {tuple(inside.shape)}, expected one mask a map")
    if maps.shape[-2] > inside.shape[-2] or maps.shape[-1] > inside.shape[-1]:
        raise TensorError(
            f"got maps of {_by(maps.shape[-2:])} cells, finer than their masks of {_by(inside.shape[-2:])} pixels"
        )
    maps = _finite(maps).to(torch.promote_types(maps.dtype, torch.float32))
    heat = resize(maps, (inside.shape[-2], inside.shape[-1]), mode)
    counted = _counted(inside, ignore)
    return torch.where(degenerate(maps)[..., None, None], 0.0, heat), inside & counted, counted


def _counted(inside: Tensor, ignore: Tensor | np.ndarray | None) -> Tensor:
    if ignore is None:
        return torch.ones_like(inside)
    check_masks(ignore, (inside.shape[-2], inside.shape[-1]))
    return ~torch.as_tensor(ignore, device=inside.device).expand_as(inside)


def _all_masks(masks: Tensor | np.ndarray, maps: Tensor) -> Tensor:
    if not len(maps) or not len(masks):
        raise TensorError(f"got {len(maps)} maps and {len(masks)} masks, expected at least one of each")
    _finite(maps)
    return torch.as_tensor(masks, device=maps.device)


def _finite(maps: Tensor) -> Tensor:
    if not torch.isfinite(maps).all():
        raise TensorError("got maps with NaN or infinite values, expected finite ones")
    return maps


def _defined(values: Tensor, needed: Tensor) -> Tensor:
    """NaN where the pixels that a metric needs are none."""
    return torch.where(needed.flatten(-2).any(dim=-1), values, torch.nan)


def _count(pixels: Tensor) -> Tensor:
    return pixels.sum(dim=(-2, -1))


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole, and 0 of nothing."""
    return part / torch.where(whole > 0, whole, 1)


def _average_precision(scores: np.ndarray, truth: np.ndarray, both: bool) -> float:
    if not truth.any() or (both and truth.all()):
        return float("nan")
    front = float(average_precision_score(truth, scores))
    return (front + float(average_precision_score(~truth, -scores))) / 2 if both else front


def _pixels_above(passed: Tensor, steps: int, counted: Tensor) -> Float[Tensor, "*axes thresholds"]:
    """How many of the counted pixels lie above each threshold, from how many thresholds each pixel passes."""
    found = torch.zeros(*passed.shape[:-2], steps + 1, device=passed.device)
    found.scatter_add_(-1, passed.flatten(-2), counted.flatten(-2).to(found))
    return found.flip(-1).cumsum(-1).flip(-1)[..., 1:]


def _squared_distance_from_peak(heat: Tensor) -> Tensor:
    """Of each pixel, in pixels, from its map's maximum (the first one by rows)."""
    height, width = heat.shape[-2:]
    peaks = heat.flatten(-2).argmax(dim=-1)[..., None]
    down = torch.arange(height, device=heat.device) - peaks // width
    across = torch.arange(width, device=heat.device) - peaks % width
    return down[..., :, None] ** 2 + across[..., None, :] ** 2


def _rows(pixels: Tensor) -> Tensor:
    """One row a map."""
    return pixels.reshape(-1, pixels.shape[-2] * pixels.shape[-1])


def _by_class(classes: Labels, count: int) -> dict[Hashable, list[int]]:
    """Which maps are of each class."""
    labels = listed(classes)
    if len(labels) != count or not count:
        raise TensorError(f"got {len(labels)} classes for {count} maps, expected one a map and at least one")
    rows = {label: [] for label in labels}
    for row, label in enumerate(labels):
        rows[label].append(row)
    return rows


def _overlaps(parts: int, cells: int) -> Float[Tensor, "parts cells"]:
    """How much of each of `cells` lies in each of `parts` equal stretches of the same side."""
    if parts < 1:
        raise TensorError(f"got {parts} rows or columns, expected at least 1")
    edges, places = torch.arange(parts + 1) * cells / parts, torch.arange(cells)
    ends = torch.minimum(edges[1:, None], places + 1.0)
    return (ends - torch.maximum(edges[:-1, None], places)).clamp_min(0)


def _by(size: Sequence[int]) -> str:
    return " x ".join(str(int(side)) for side in size)
