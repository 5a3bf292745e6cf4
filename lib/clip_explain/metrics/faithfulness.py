"""Deletion, insertion and perturbation curves and their areas: whether the score depends on the pixels of a map.

Embeds perturbed images in batches on the device; word_faithfulness.py does the same for words. The way of the data:
maps -> `ranks` -> `over_steps` (perturbed images, embedded) -> readouts.py (one number a point) -> `auc`.

Degenerate input: pixels of equal value, so all of a constant map, are taken in an order drawn by the seed, or as `ties`
says; a tie with a wrong candidate is a miss; NaN is an error.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clip_explain.checks import check_counts, checked, one_of, out_of_memory
from clip_explain.errors import MethodError, TensorError, nearest
from clip_explain.images import preprocess
from clip_explain.maps import normalize, resize
from clip_explain.metrics.fills import FILLS, fill
from clip_explain.metrics.pixel_order import ranks, tie_breaker
from clip_explain.metrics.readouts import Readout, change
from clip_explain.models.model import Model


@dataclass(frozen=True)
class Perturbation:
    """From the image `start` to `finish` (names of `fill`): the pixels changed by each point of the curve.

    `counts` gives them for a height and width. The highest values go first, or the lowest.
    """

    start: str
    finish: str
    counts: Callable[[int, int], list[int]]
    lowest_first: bool = False


@checked()
def half_in_100(height: int, width: int) -> list[int]:
    """100 steps of 0.5 % of the pixels, rounded down, at least one."""
    area = height * width
    return [min(area, step * max(1, area // 200)) for step in range(101)]


@checked()
def half_then_all(height: int, width: int) -> list[int]:
    """The same at every tenth step from the tenth on, and then all pixels."""
    return half_in_100(height, width)[10::10] + [height * width]


@checked()
def rows(height: int, width: int) -> list[int]:
    """As many pixels a step as a row has (224 of 224 x 224), to the last."""
    return [step * width for step in range(height + 1)]


@checked()
def tenths(height: int, width: int) -> list[int]:
    """0 %, 10 %, ... 90 % of the pixels, rounded down."""
    return [height * width * tenth // 10 for tenth in range(10)]


PROTOCOLS: dict[str, dict[str, Perturbation]] = {
    "grad_eclip": {
        "deletion": Perturbation("image", "noise", half_in_100),
        "insertion": Perturbation("black", "image", half_in_100),
    },
    "grad_eclip_released": {
        "deletion": Perturbation("image", "noise", lambda height, width: half_in_100(height, width)[::10]),
        "insertion": Perturbation("black", "image", half_then_all),
    },
    "rise": {
        "deletion": Perturbation("image", "mean", rows),
        "insertion": Perturbation("blur", "image", rows),
    },
    "chefer": {
        "positive": Perturbation("image", "black", tenths),
        "negative": Perturbation("image", "black", tenths, lowest_first=True),
    },
}
# The area under a curve that stays at 1.
AREAS = {"grad_eclip": 1.0, "grad_eclip_released": 1.0, "rise": 1.0, "chefer": 90.0}


@checked()
def curves(
    model: Model,
    pixels: Float[Tensor, "images 3 height width"],
    maps: Float[Tensor, "images maps grid_h grid_w"],
    readouts: Mapping[str, Readout],
    protocol: str = "grad_eclip",
    mode: str = "deletion",
    **options: Any,
) -> dict[str, Float[Tensor, "images maps points"]]:
    """Each readout's curve while the pixels of an image are changed in the order of a map, one curve for each map.

    `pixels` are preprocessed, `maps` raw, of any grid and any number for each image (targets, methods, or both); they
    are resized bilinearly. `readouts`: see `classification` and `retrieval` of readouts.py; all share the forwards, so
    ask for all at once. `options`: those of `perturbed_embeddings`. Protocols and modes:

    - "grad_eclip" (GE 4.2, Tab 1, Fig 5, Tab 5): 100 steps of 0.5 %, so to half of the pixels. "deletion" to uniform
      RGB noise, image i's drawn by `seed` + i, the same for all its maps; "insertion" of the image into black.
    - "grad_eclip_released": the same as in the authors' code, at every tenth step; its insertion starts at 5 % and has
      the whole image for its last point.
    - "rise" (Petsiuk et al. 2018): a row's worth of pixels a step, to the end. "deletion" to 0 in preprocessed pixels,
      CLIP's mean colour; "insertion" into the blurred image (see `blur`). Its readout is "probability", of the class
      predicted for the whole image.
    - "chefer" (Chefer et al. 2021, and the perturbation test of EPFL VI-D, which gives no steps of its own): black, 0 %
      to 90 % in tenths; "positive" from the highest value down, "negative" from the lowest up. Its readout is "top1".

    Differs from the code of Grad-ECLIP and Chefer in that preprocessed pixels are changed, at the model's size; GE's
    changes the image file's own, up to 640 px, which CLIP's resize then averages. For that, put a function that
    resizes and embeds into `over_steps`.
    """
    embeddings = perturbed_embeddings(model, pixels, maps, protocol, mode, **options)
    return {name: readout(embeddings) for name, readout in readouts.items()}


@checked()
def perturbed_embeddings(
    model: Model,
    pixels: Float[Tensor, "images 3 height width"],
    maps: Float[Tensor, "images maps grid_h grid_w"],
    protocol: str = "grad_eclip",
    mode: str = "deletion",
    *,
    every: int = 1,
    at: Sequence[int] | None = None,
    ties: str = "random",
    signed: Float[Tensor, "images maps grid_h grid_w"] | None = None,
    filled: str | None = None,
    batch_size: int = 64,
    seed: int = 0,
    embed: Callable[[Tensor], Tensor] | None = None,
) -> Float[Tensor, "images maps points *outputs"]:
    """Unit embeddings of the perturbed images, for your own readouts; protocols as in `curves`.

    Point 0 is before any change. Only each `every`-th point is looked at, which must reach the last one (10 is how
    often Grad-ECLIP's code looks); or those numbered in `at`, as [0, 1, 2, 5, 10, 30, 100], fine at the start.
    `ties`: pixels of equal value go in an order drawn by `seed` + i for image i, patch by patch ("random"), from the
    top left ("raster", a stable sort; the argsort of the authors' code promises no order), or as the maps were before
    a ReLU ("signed", with those maps). `filled`: another of `FILLS` in the place of the protocol's. At most
    `batch_size` images are embedded at once. `embed`: another function of images in the place of the model's, such as
    torch.clone for the perturbed images themselves. Raises TensorError (shapes, NaN) and MethodError (unknown names,
    counts below 1, points that are not there, out of memory).
    """
    how = perturbation(protocol, mode)
    check_counts(every=every, batch_size=batch_size)
    pixels = preprocess(model, pixels)
    size = (pixels.shape[-2], pixels.shape[-1])
    counts = how.counts(*size)
    looked_at = points(len(counts), every, at)
    breaker = tie_breaker(ties, len(pixels), size, model.patch_size, seed, signed)
    breaker = breaker if breaker is None else breaker.to(pixels.device)
    order = ranks(check_maps(maps, pixels), size, how.lowest_first, breaker)
    start, finish = (fill(name, pixels, model.mean, model.std, seed) for name in ends(how, filled))
    with torch.no_grad(), out_of_memory(batch_size):
        counts = [counts[point] for point in looked_at]
        return over_steps(embed or model.embed_images, start, finish, order, counts, batch_size)


@checked()
def points(count: int, every: int = 1, at: Sequence[int] | None = None) -> list[int]:
    """The numbers of the points of a curve that are looked at, of `count`; MethodError for what is not there."""
    if at is None:
        if (count - 1) % every:
            raise MethodError(f"got every={every}, expected a divisor of the {count - 1} steps of this protocol")
        return list(range(0, count, every))
    numbers = list(at)
    if len(numbers) < 2 or numbers != sorted(set(numbers)) or numbers[0] < 0 or numbers[-1] >= count:
        raise MethodError(f"got at={numbers}, expected two or more rising numbers from 0 to {count - 1}")
    return numbers


@checked()
def ends(how: Perturbation, filled: str | None = None) -> tuple[str, str]:
    """From which `fill` to which the pixels are changed, with `filled` in the place of the one other than the image."""
    if filled is None:
        return how.start, how.finish
    one_of("filled", filled, FILLS)
    return (how.start, filled) if how.start == "image" else (filled, how.finish)


@checked()
def auc(
    curve: Float[Tensor, "*axes points"], protocol: str = "grad_eclip", at: Sequence[int] | None = None
) -> Float[Tensor, "*axes"]:
    """Area under curves, (*axes), by the trapezoidal rule: one number a curve.

    The points stand at equal distances, or where the numbers `at` say. The x axis has length 1, so it is a mean
    height, between 0 and 1 for accuracies (RISE's own rule; GE prints no rule, its code ends with the curve).
    "chefer": in percent, over an axis from 0 to 0.9 (the authors' `np.trapz(y, x) * 100`), so 90 at most. The area of
    a mean curve is the mean of the areas. TensorError for fewer than two points, NaN, or another number of `at`.
    """
    check_protocol(protocol)
    places = _places(curve, at)
    return AREAS[protocol] * torch.trapezoid(curve, places) / (places[-1] - places[0])


@checked()
def auc_until(
    curve: Float[Tensor, "*axes points"], until: Float[Tensor, "*axes"], at: Sequence[int | float]
) -> Float[Tensor, "*axes"]:
    """The mean height of curves from their first point to the place `until`, between the points by a straight line.

    `at` says where the points stand, in the unit of `until`: with the shares of pixels that are changed, and the
    `untied_share` of the maps, it is the area that the order of tied pixels does not move. A place beyond the last
    point counts as that point; NaN where it is not beyond the first one. Raises as `auc`.
    """
    places = _places(curve, at)
    until = until.to(curve).clamp(places[0], places[-1])[..., None]
    before = (until >= places).sum(dim=-1, keepdim=True).sub(1).clamp(max=len(places) - 2)
    left, right = curve.gather(-1, before), curve.gather(-1, before + 1)
    start, width = places[before], places[before + 1] - places[before]
    height = left + (right - left) * (until - start) / width
    areas = torch.cat([torch.zeros_like(curve[..., :1]), torch.cumulative_trapezoid(curve, places)], dim=-1)
    area = areas.gather(-1, before) + (until - start) * (left + height) / 2
    return (area / (until - places[0]))[..., 0]  # 0 / 0 is NaN


def _places(curve: Tensor, at: Sequence[int | float] | None) -> Float[Tensor, " points"]:
    """Where the points of a curve stand; TensorError for a curve that has no area, or for other places than points."""
    if curve.ndim < 1 or curve.shape[-1] < 2 or not torch.isfinite(curve).all():
        raise TensorError(f"got a curve of shape {tuple(curve.shape)}, expected at least two points, all finite")
    places = torch.arange(curve.shape[-1]) if at is None else torch.tensor(list(at))
    if len(places) != curve.shape[-1] or not (places.diff() > 0).all():
        raise TensorError(f"got at={list(at or ())}, expected {curve.shape[-1]} rising numbers, one a point")
    return places.to(curve)


@checked()
def perturbation(protocol: str, mode: str) -> Perturbation:
    """One entry of PROTOCOLS; MethodError for an unknown name."""
    check_protocol(protocol)
    modes = PROTOCOLS[protocol]
    if mode not in modes:
        raise MethodError(f"protocol {protocol!r} has no mode {mode!r}: {nearest(mode, modes)}")
    return modes[mode]


@checked()
def check_protocol(protocol: str) -> None:
    if protocol not in PROTOCOLS:
        raise MethodError(f"unknown protocol {protocol!r}: {nearest(protocol, PROTOCOLS)}")


@checked()
def perturbed(
    start: Float[Tensor, "images 3 height width"],
    finish: Float[Tensor, "images 3 height width"],
    order: Int[Tensor, "images maps pixels"],
    counts: list[int],
    batch_size: int,
) -> Iterator[Float[Tensor, "batch 3 height width"]]:
    """Images with the first `counts` pixels of each map's order taken from `finish`, the others from `start`.

    In batches on the device, which may hold several images, maps and points: a map's points one after another, then
    the image's next map.
    """
    images, maps = order.shape[:2]
    order, device = order.flatten(0, 1), order.device
    changed = torch.tensor(counts, device=device)
    pairs = torch.cartesian_prod(torch.arange(images * maps, device=device), torch.arange(len(counts), device=device))
    for pair in pairs.split(batch_size):
        row, point = pair.T
        taken = (order[row] < changed[point, None]).unflatten(-1, start.shape[-2:])[:, None]
        yield torch.where(taken, finish[row // maps], start[row // maps])


@checked()
def over_steps(
    function: Callable[[Tensor], Tensor],
    start: Float[Tensor, "images 3 height width"],
    finish: Float[Tensor, "images 3 height width"],
    order: Int[Tensor, "images maps pixels"],
    counts: list[int],
    batch_size: int,
) -> Float[Tensor, "images maps points *outputs"]:
    """`function` (from images to whatever, an image a row) of all the `perturbed` images.

    An image before any change is the same for all its maps, so it is done once.
    """
    left = counts[1:] if counts[0] == 0 and len(counts) > 1 else counts
    batches = perturbed(start, finish, order, left, batch_size)
    found = torch.cat([function(batch) for batch in batches]).unflatten(0, (*order.shape[:2], len(left)))
    if len(left) == len(counts):
        return found
    first = torch.cat([function(batch) for batch in start.split(batch_size)])[:, None, None]
    return torch.cat([first.expand_as(found[:, :, :1]), found], dim=2)


@checked()
def check_maps(maps: Tensor, pixels: Tensor) -> Tensor:
    """Maps for these images, on their device. TensorError for another shape."""
    if maps.ndim != 4 or len(maps) != len(pixels) or not maps.numel() or not maps.is_floating_point():
        raise TensorError(
            f"got maps of shape {tuple(maps.shape)}, {maps.dtype}, expected floats ({len(pixels)}, maps, grid_h, "
            f"grid_w), as many as images"
        )
    return maps.detach().to(pixels.device)


@checked()
def confidence(
    model: Model,
    pixels: Float[Tensor, "images 3 height width"],
    maps: Float[Tensor, "images maps grid_h grid_w"],
    directions: Float[Tensor, "images #maps embedding"],
    batch_size: int = 64,
) -> dict[str, Float[Tensor, "images maps"]]:
    """Confidence "drop" and "increase" when an image is weighted with its map, as M2IB (Wang et al. 2024) does it.

    Preprocessed pixels times the resized map, scaled to 0 to 1: hidden is CLIP's mean colour. "drop" is
    max(0, s - s'), "increase" 1 where s' > s else 0, with the cosine s of the image and s' of the weighted one. Their
    code prints both times 100; Chattopadhyay et al. 2018 divide the drop by s. A constant map hides everything.
    Raises as `curves`.
    """
    check_counts(batch_size=batch_size)
    pixels = preprocess(model, pixels)
    weights = normalize(resize(check_maps(maps, pixels).float(), (pixels.shape[-2], pixels.shape[-1])))
    weights = torch.cat([torch.ones_like(weights[:, :1]), weights], dim=1)  # first, the whole image
    images, columns = weights.shape[:2]
    with torch.no_grad(), out_of_memory(batch_size):
        embedded = torch.cat(
            [
                model.embed_images(pixels[part // columns] * weights.flatten(0, 1)[part, None].to(pixels))
                for part in torch.arange(images * columns, device=pixels.device).split(batch_size)
            ]
        ).unflatten(0, (images, columns))
    directions = directions.to(embedded)
    whole = (embedded[:, :1] * directions).sum(dim=-1)
    return change((embedded[:, 1:] * directions).sum(dim=-1), whole)
