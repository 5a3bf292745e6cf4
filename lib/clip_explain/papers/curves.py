"""Perturbation curves of one image as rows of the long table: their areas, and their heights at each point.

Above metrics/faithfulness.py, which draws the curves, and tables.py.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clip_explain.errors import TensorError
from clip_explain.maps import resize
from clip_explain.metrics.faithfulness import auc, auc_until, curves
from clip_explain.metrics.pixel_order import untied_share
from clip_explain.metrics.readouts import Readout
from clip_explain.models.model import Model
from clip_explain.papers.tables import measured
from clip_explain.request import Request

# What a readout adds to the name of a metric: the area under "top5" in deletion is "deletion_top5".
ENDINGS = {"top1": "", "top5": "_top5", "top10": "_top10", "score": "_score"}

Rows = list[dict[str, Any]]


def deletion_and_insertion(
    image: str,
    model: Model,
    pixels: Float[Tensor, "1 3 height width"],
    maps: Mapping[str, Float[Tensor, "_ _ _"]],
    readouts: Mapping[str, Readout],
    setting: str = "",
    at: Sequence[int] = tuple(range(0, 101, 10)),
    endings: Sequence[str] = ("",),
    signed: Mapping[str, Float[Tensor, "_ _ _"]] | None = None,
    **options: Any,
) -> tuple[Rows, Rows]:
    """Both of Grad-ECLIP's curves of an image for each method's maps: the rows of their areas, and of their heights.

    `maps` are raw, by method, each (targets, grid_h, grid_w) of a grid of its own. `endings` names the targets: the
    areas of target i are called "deletion" and endings[i] and what the readout adds, as "deletion_predicted_top5"; one
    map serves for all endings. Of the first target there are also the heights, called "deletion curve_top5" and so on,
    whose targets are the shares of pixels; and by the first readout the areas "deletion to the untied share" and
    "insertion to ...", and the "untied share" itself. `at`: which of the 100 steps are looked at; `signed`, the maps
    before the ReLU, and `options` as in `curves`. TensorError for maps of other numbers of targets.
    """
    stacked = on_one_grid(maps, model, pixels)
    if stacked.shape[1] not in (1, len(endings)):
        raise TensorError(f"got maps of {stacked.shape[1]} targets, expected {len(endings)}: {', '.join(endings)}")
    before = None if signed is None else on_one_grid(signed, model, pixels).flatten(0, 1)[None]
    untied = untied_share(stacked[:, 0], (pixels.shape[-2], pixels.shape[-1]))
    areas_found, heights_found, shares = [], [], [step / 200 for step in at]
    for mode in ("deletion", "insertion"):
        given = {"mode": mode, "at": at, "signed": before, **options}
        drawn = curves(model, pixels, stacked.flatten(0, 1)[None], readouts, **given)
        by_target = {name: curve[0].unflatten(0, stacked.shape[:2]) for name, curve in drawn.items()}
        for number, ending in enumerate(endings):
            of_target = {name: curve[:, min(number, curve.shape[1] - 1)] for name, curve in by_target.items()}
            areas_found += areas(image, list(maps), of_target, mode + ending, setting, at)
        for name, curve in by_target.items():
            heights_found += heights(image, list(maps), curve[:, 0], f"{mode} curve{_ending(name)}", shares, setting)
        first = next(iter(by_target.values()))[:, 0]
        for method, area in zip(maps, auc_until(first, untied, shares), strict=True):
            areas_found += measured(image, method, {f"{mode} to the untied share": area}, setting)
    for method, share in zip(maps, untied, strict=True):
        areas_found += measured(image, method, {"untied share": share}, setting)
    return areas_found, heights_found


def on_one_grid(
    maps: Mapping[str, Float[Tensor, "_ _ _"]], model: Model, pixels: Float[Tensor, "1 3 height width"]
) -> Float[Tensor, "methods targets grid_h grid_w"]:
    """The maps in one tensor: as they are if all have the model's grid of patches, else resized to the image's pixels.

    TensorError where one has other targets than the rest.
    """
    height, width = pixels.shape[-2:]
    if len({len(each) for each in maps.values()}) != 1:
        raise TensorError(f"got maps of {[len(each) for each in maps.values()]} targets, expected as many for each")
    grid = (height // model.patch_size, width // model.patch_size)
    if all(each.shape[-2:] == grid for each in maps.values()):
        return torch.stack([each.to(pixels.device).float() for each in maps.values()])
    return torch.stack([resize(each.to(pixels.device).float(), (height, width)) for each in maps.values()])


def areas(
    image: str,
    methods: Sequence[str],
    curves: Mapping[str, Float[Tensor, "methods points"]],
    metric: str,
    setting: str = "",
    at: Sequence[int] | None = None,
    protocol: str = "grad_eclip",
) -> Rows:
    """The area under each method's curve of an image, for each readout, as rows; arguments `at`, `protocol` of `auc`.

    The metric is called `metric` and what ENDINGS says, or an underscore and the readout's name: "deletion_ir@1".
    """
    rows = []
    for readout, drawn in curves.items():
        name = metric + _ending(readout)
        for method, area in zip(methods, auc(drawn, protocol, at).tolist(), strict=True):
            rows += measured(image, method, {name: area}, setting)
    return rows


def _ending(readout: str) -> str:
    return ENDINGS.get(readout, f"_{readout.lower()}")


def heights(
    image: str,
    methods: Sequence[str],
    drawn: Float[Tensor, "methods points"],
    metric: str,
    at: Sequence[int | float],
    setting: str = "",
) -> Rows:
    """The heights of each method's curve of an image, as rows whose targets are the places `at` of the points.

    So `summarize(table, ["metric", "method", "target"])` is the mean curve, which `plots.lines` draws.
    """
    rows = []
    for method, heights_of in zip(methods, drawn, strict=True):
        rows += measured(image, method, {metric: heights_of.tolist()}, setting, targets=at)
    return rows


def perturbation_areas(
    image: str,
    request: Request,
    maps: Mapping[str, Float[Tensor, "1 _ _"]],
    readout: Mapping[str, Readout],
    setting: str,
) -> Rows:
    """Rows of "positive_perturbation" and "negative_perturbation" (EP VI-D) of an image, by each method's one map.

    Pixels go by tenths, the highest or the lowest first; `readout` is that of the accuracy, "top1".
    """
    rows, heats = [], torch.stack(list(maps.values()), dim=1).to(request.pixels.device)
    for mode in ("positive", "negative"):
        drawn = curves(request.model, request.pixels, heats, readout, "chefer", mode)
        drawn = {name: curve[0] for name, curve in drawn.items()}
        rows += areas(image, list(maps), drawn, f"{mode}_perturbation", setting, protocol="chefer")
    return rows
