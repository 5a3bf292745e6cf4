"""Does the score rest on the pixels that a map says? Deletion, insertion and perturbation curves, and their area.

Embeds perturbed images in batches on the device; word_faithfulness.py does the same for words. The way of the data:
maps -> `ranks` -> `over_steps` (perturbed images, embedded) -> readouts.py (one number a point) -> `auc`.

Degenerate input: pixels of equal value, so all of a constant map, are taken in raster order, top left first; a tie with
a wrong candidate is a miss; NaN is an error.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
import torchvision.transforms.functional as TF
from jaxtyping import Float, Int
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from clip_explain.checks import check_counts, checked, finite, out_of_memory
from clip_explain.errors import MethodError, TensorError, nearest
from clip_explain.images import preprocess
from clip_explain.maps import degenerate, normalize, resize
from clip_explain.metrics.readouts import Readout, change
from clip_explain.models.embed import embed_images
from clip_explain.models.model import Model

BLUR_SIDE, BLUR_SIGMA = 11, 5  # RISE's, in pixels


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
    *,
    every: int = 1,
    batch_size: int = 64,
    seed: int = 0,
) -> dict[str, Float[Tensor, "images maps points"]]:
    """What each readout says while the pixels of an image are changed in the order of a map; one curve a map.

    `pixels` are preprocessed, `maps` raw, of any grid and any number for each image (targets, methods, or both); they
    are resized bilinearly. `readouts`: see `classification` and `retrieval` of readouts.py; all share the forwards, so
    ask for all at once. Point 0 is before any change. With `every`, only each such point is looked at, and it must
    reach the last one; every=10 is how often Grad-ECLIP's code looks. At most `batch_size` images are embedded at once.
    Protocols and modes:

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
    Raises TensorError (shapes, NaN) and MethodError (unknown names, counts below 1, out of memory).
    """
    embeddings = perturbed_embeddings(
        model, pixels, maps, protocol, mode, every=every, batch_size=batch_size, seed=seed
    )
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
    batch_size: int = 64,
    seed: int = 0,
) -> Float[Tensor, "images maps points embedding"]:
    """Unit embeddings of the perturbed images, for readouts of one's own; arguments and errors as in `curves`."""
    how = perturbation(protocol, mode)
    check_counts(every=every, batch_size=batch_size)
    pixels = preprocess(model, pixels)
    size = (pixels.shape[-2], pixels.shape[-1])
    counts = how.counts(*size)
    if (len(counts) - 1) % every:
        raise MethodError(f"got every={every}, expected a divisor of the {len(counts) - 1} steps of {protocol!r}")
    order = ranks(check_maps(maps, pixels), size, how.lowest_first)
    start, finish = (fill(name, pixels, model.mean, model.std, seed) for name in (how.start, how.finish))
    embed = partial(embed_images, model)
    with torch.no_grad(), out_of_memory(batch_size):
        return over_steps(embed, start, finish, order, counts[::every], batch_size)


@checked()
def auc(curve: Float[Tensor, "*axes points"], protocol: str = "grad_eclip") -> Float[Tensor, "*axes"]:
    """Area under curves, (*axes), by the trapezoidal rule over steps of equal width: one number a curve.

    The x axis has length 1, so it is a mean height, between 0 and 1 for accuracies (RISE's own rule; GE prints no
    rule, its code ends with the curve). "chefer": in percent, over an axis from 0 to 0.9 (the authors'
    `np.trapz(y, x) * 100`), so 90 at most. The area of a mean curve is the mean of the areas. TensorError for
    fewer than two points, or NaN.
    """
    check_protocol(protocol)
    if curve.ndim < 1 or curve.shape[-1] < 2 or not torch.isfinite(curve).all():
        raise TensorError(f"got a curve of shape {tuple(curve.shape)}, expected at least two points, all finite")
    return AREAS[protocol] * torch.trapezoid(curve, dim=-1) / (curve.shape[-1] - 1)


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
def ranks(
    maps: Float[Tensor, "*axes grid_h grid_w"], size: tuple[int, int], lowest_first: bool = False
) -> Int[Tensor, "*axes pixels"]:
    """Each pixel's place in the order in which it is changed, 0 first, after a bilinear resize to (height, width).

    Equal values in raster order. TensorError for NaN or infinite values.
    """
    finite("maps", maps)
    maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
    even = torch.where(degenerate(maps)[..., None, None], 0.0, maps)  # a resize would round a constant unevenly
    values = resize(even, size).flatten(-2)
    order = (values if lowest_first else -values).argsort(dim=-1, stable=True)
    places = torch.arange(order.shape[-1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, places).int()


@checked()
def fill(
    name: str,
    pixels: Float[Tensor, "images 3 height width"],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    seed: int = 0,
) -> Float[Tensor, "images 3 height width"]:
    """What pixels are changed from or to: "image", "mean", "black", "noise" or "blur", in preprocessed pixels.

    "noise" is uniform in each colour and pixel, image i's drawn by `seed` + i on the CPU, whatever the device.
    """
    if name == "image":
        return pixels
    if name == "mean":
        return torch.zeros_like(pixels)
    if name == "blur":
        return blur(pixels)
    if name == "black":
        plain = torch.zeros(pixels.shape, dtype=torch.float32)
    else:
        seeds = (torch.Generator().manual_seed(seed + index) for index in range(len(pixels)))
        shape = pixels.shape[1:]
        plain = torch.stack([torch.rand(shape, generator=seed, dtype=torch.float32) for seed in seeds])
    return TF.normalize(plain, list(mean), list(std)).to(pixels)


@checked()
def blur(pixels: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images 3 height width"]:
    """RISE's blurred image: a kernel of 11 x 11 px, CLIP's mean colour beyond the border.

    The kernel is that of the authors' code, SciPy's Gaussian filter (sigma 5) of a point in the middle of 11 x 11
    pixels. It reflects at their edges, so the kernel is flatter than a Gaussian cut to that size.
    """
    line = gaussian_filter1d(np.eye(BLUR_SIDE)[BLUR_SIDE // 2], BLUR_SIGMA)
    kernel = torch.from_numpy(line).to(pixels.device, torch.promote_types(pixels.dtype, torch.float32))
    colours, middle = pixels.shape[1], BLUR_SIDE // 2
    down = kernel.view(1, 1, -1, 1).expand(colours, 1, -1, 1)
    blurred = F.conv2d(pixels.to(kernel), down, padding=(middle, 0), groups=colours)
    return F.conv2d(blurred, down.transpose(2, 3), padding=(0, middle), groups=colours).to(pixels)


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
                embed_images(model, pixels[part // columns] * weights.flatten(0, 1)[part, None].to(pixels))
                for part in torch.arange(images * columns, device=pixels.device).split(batch_size)
            ]
        ).unflatten(0, (images, columns))
    directions = directions.to(embedded)
    whole = (embedded[:, :1] * directions).sum(dim=-1)
    return change((embedded[:, 1:] * directions).sum(dim=-1), whole)
