"""Perturbation curves of images as rows of the long table: their areas, and their heights at each point.

Above metrics/faithfulness.py, which draws the curves, and tables.py. `curves_of` draws those of many `Explained`
images, `deletion_and_insertion` those of one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from clip_explain.errors import TensorError
from clip_explain.images import colours
from clip_explain.maps import resize
from clip_explain.metrics.faithfulness import auc, auc_until, curves, perturbed_embeddings
from clip_explain.metrics.pixel_order import untied_share
from clip_explain.metrics.readouts import Readout, classification, cosines
from clip_explain.models.model import Model
from clip_explain.papers.tables import measured
from clip_explain.papers.variants import maps_by_name, signed_by_name
from clip_explain.request import Request

# What a readout adds to the name of a metric: the area under "top5" in deletion is "deletion_top5".
ENDINGS = {"top1": "", "top5": "_top5", "top10": "_top10", "score": "_score"}

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Explained:
    """An image, its raw maps by method, and what they are held against.

    `image` is its name in the long table; `maps` are (targets, grid_h, grid_w) each, for the request's targets or for
    the first of them; `readouts` by name say what the model makes of the changed image; `seed` draws its noise. Of the
    request a copy is kept without the traces that it holds, which take 100 MB and more an image.
    """

    image: str
    request: Request
    maps: Mapping[str, Float[Tensor, "_ _ _"]]
    readouts: Mapping[str, Readout]
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "request", replace(self.request))


def curves_of(
    explained: Sequence[Explained],
    setting: str = "",
    methods: Sequence[str] = (),
    readouts: Sequence[str] = (),
    endings: Sequence[str] = ("",),
    ties: str = "random",
    **options: Any,
) -> tuple[Rows, Rows]:
    """`deletion_and_insertion` of several images: the rows of all areas, and of all heights.

    `methods` and `readouts` choose among those of each image; none means all. Of the maps those of the first targets
    count, one for each of `endings`. With `ties="signed"` tied pixels go as in `signed_by_name`.
    """
    rows, points = [], []
    for each in tqdm(explained, desc=setting):
        maps = {name: each.maps[name][: len(endings)] for name in methods or each.maps}
        read = {name: each.readouts[name] for name in readouts or each.readouts}
        signed = None
        if ties == "signed":
            whole = signed_by_name(replace(each.request), list(maps))
            signed = {name: heat[: len(endings)] for name, heat in whole.items()}
        given = {"endings": endings, "ties": ties, "signed": signed, "seed": each.seed, **options}
        asked = (each.image, each.request.model, each.request.pixels)
        found, drawn = deletion_and_insertion(*asked, maps, read, setting, **given)
        rows, points = rows + found, points + drawn
    return rows, points


def score_areas(
    image: str,
    request: Request,
    maps: Mapping[str, Float[Tensor, "_ _ _"]],
    every: int = 1,
    seed: int = 0,
    setting: str = "",
) -> Rows:
    """Rows of "deletion_score" and "insertion_score" alone: areas of the cosine with the request's one target.

    Of each method's maps the first counts; of the 100 steps every so many are looked at.
    """
    heats = torch.stack([heat[0] for heat in maps.values()])[None]
    rows = []
    for mode in ("deletion", "insertion"):
        seen = perturbed_embeddings(request.model, request.pixels, heats, mode=mode, every=every, seed=seed)
        heights_of = cosines(seen, request.targets[None])[0]
        rows += areas(image, list(maps), {"score": heights_of}, mode, setting)
    return rows


def perturbed_pictures(
    explained: Explained, methods: Sequence[str], at: Sequence[int]
) -> tuple[Float[Tensor, "pictures height width 3"], list[str]]:
    """What deletion and then insertion make of an image at some points, by some methods' maps for its first target.

    The colours, 0 to 1, mode by mode, method by method and point by point. The title of each says how many of the
    pixels are changed, and the cosine with the target.
    """
    model, pixels = explained.request.model, explained.request.pixels
    heats = torch.stack([explained.maps[name][0] for name in methods])[None]
    changed = []
    for mode in ("deletion", "insertion"):
        given = {"mode": mode, "at": at, "seed": explained.seed, "embed": torch.clone}
        changed.append(perturbed_embeddings(model, pixels, heats, **given).flatten(0, 2))
    pictures = torch.cat(changed)
    scores = model.embed_images(pictures) @ explained.request.targets[0]
    shares = [step / 200 for step in at] * (2 * len(methods))
    titles = [f"{share:.0%}\n{score:.2f}" for share, score in zip(shares, scores.tolist(), strict=True)]
    return colours(model, pictures).cpu(), titles


def positive_perturbation(
    explained: Sequence[Explained], methods: Sequence[str], setting: str = "", every: int = 3
) -> Rows:
    """EP's perturbation test (VI-D) of the methods' maps for the first target, by the readout "top1", as rows.

    The protocol is "chefer" of `curves`, of which every so many points are looked at.
    """
    rows = []
    for each in tqdm(explained, desc="positive perturbation"):
        maps = maps_by_name(replace(each.request), methods, seed=each.seed)
        heats = torch.stack([heat[0] for heat in maps.values()])[None]
        asked = (each.request.model, each.request.pixels, heats, {"top1": each.readouts["top1"]})
        drawn = curves(*asked, "chefer", "positive", every=every, seed=each.seed)
        areas_of = {"top1": drawn["top1"][0]}
        rows += areas(each.image, methods, areas_of, "positive_perturbation", setting, protocol="chefer")
    return rows


def true_and_predicted(
    image: str,
    request: Request,
    classes: Float[Tensor, "classes embedding"],
    labels: tuple[int, int],
    setting: str = "",
    at: Sequence[int] | None = None,
    seed: int = 0,
) -> Rows:
    """Deletion by Grad-ECLIP's maps of an image's true class and of the class that the model prefers (GE Tab 1).

    `labels` are the two classes' numbers, and the request's two targets their directions. "deletion" is measured in the
    accuracy of the true class, by "grad_eclip for the true class" and "... the predicted class". An image that the
    model gets wrong has the true class not first from the start; so "deletion_score" is the cosine with a class, the
    mean of both classes, by the map "for its own class" and by the map "for the other class".
    """
    maps = maps_by_name(request, ["grad_eclip"])["grad_eclip"][None]
    asked = [torch.tensor([[label] * 2], device=maps.device) for label in labels]
    true, predicted = (classification(classes, label) for label in asked)
    read = {"top1": true["top1"], "true": true["score"], "predicted": predicted["score"]}
    drawn = curves(request.model, request.pixels, maps, read, at=at, seed=seed)
    both = (drawn["true"][0] + drawn["predicted"][0].flip(0)) / 2  # a class's own map first, then the other's
    names = [f"grad_eclip for the {which} class" for which in ("true", "predicted", "other")]
    rows = areas(image, names[:2], {"top1": drawn["top1"][0]}, "deletion", setting, at)
    return rows + areas(image, ["grad_eclip for its own class", names[2]], {"score": both}, "deletion", setting, at)


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
