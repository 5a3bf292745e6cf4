"""Operations on raw maps, between an explainer and a metric or a plot: resizing, scaling, placing on the image.

All functions take any leading axes: (height, width), (images, targets, grid_h, grid_w) and so on.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from clip_explain.checks import checked, finite, one_of
from clip_explain.errors import MethodError, TensorError, nearest

FITS = ("crop", "full", "squash")  # which part of an image a model sees: see images.pixels
LONGEST = 20_000  # the largest side of a resized map
MODES = ("bilinear", "bicubic", "nearest")


@checked()
def resize(maps: Float[Tensor, "*axes grid_h grid_w"], size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """Maps at another size (height, width): (*axes, height, width). A bicubic map may overshoot its range."""
    one_of("mode", mode, MODES)
    if min(size) < 1 or max(size) > LONGEST:
        raise TensorError(f"got size={tuple(size)}, expected a height and a width from 1 to {LONGEST}")
    planes = maps.reshape(-1, 1, *maps.shape[-2:])
    corners = {} if mode == "nearest" else {"align_corners": False}
    return F.interpolate(planes, size=tuple(size), mode=mode, **corners).reshape(*maps.shape[:-2], *size)


@checked()
def on_source(
    maps: Float[Tensor, "*axes grid_h grid_w"], size: tuple[int, int], fit: str | None = None
) -> Float[Tensor, "*axes height width"]:
    """Maps on the whole image of this size (height, width), resized bilinearly to the part that they cover.

    Under `fit` "full" and "squash", and for None (pixels given as the model takes them), a map covers the whole image.
    Under "crop" it covers the middle square, whose side is the image's shorter one; outside it is NaN, not covered.
    """
    if fit is not None and fit not in FITS:
        raise MethodError(f"unknown fit {fit!r}: {nearest(fit, FITS)}")
    if fit != "crop":
        return resize(maps, size)
    top, left, side = middle_square(size)
    placed = maps.new_full((*maps.shape[:-2], *size), float("nan"))
    placed[..., top : top + side, left : left + side] = resize(maps, (side, side))
    return placed


@checked()
def middle_square(size: tuple[int, int]) -> tuple[int, int, int]:
    """Top, left and side of the largest square in the middle of an image (height, width), which CLIP's crop covers."""
    side = min(size)
    return round((size[0] - side) / 2), round((size[1] - side) / 2), side


@checked()
def has_sign(map: Float[Tensor, "*axes grid_h grid_w"]) -> bool:
    """Whether a map has values below zero, beyond rounding (8 ulp of its largest magnitude)."""
    return bool(map.min() < -8 * torch.finfo(map.dtype).eps * map.abs().max())


@checked()
def normalize(maps: Float[Tensor, "*axes grid_h grid_w"]) -> Float[Tensor, "*axes grid_h grid_w"]:
    """Min-max scaling of each map to [0, 1]; a degenerate map becomes zeros. TensorError if any value is not finite."""
    finite("maps", maps)
    low, high = maps.amin(dim=(-2, -1), keepdim=True), maps.amax(dim=(-2, -1), keepdim=True)
    flat = degenerate(maps)[..., None, None]
    return torch.where(flat, 0.0, (maps - low) / torch.where(flat, 1.0, high - low))


@checked()
def centred(maps: Float[Tensor, "*axes grid_h grid_w"]) -> Float[Tensor, "*axes grid_h grid_w"]:
    """Each map less its mean: where an image is more, and where it is less like a text than on average."""
    return maps - maps.mean(dim=(-2, -1), keepdim=True)


@checked()
def degenerate(maps: Float[Tensor, "*axes grid_h grid_w"]) -> Bool[Tensor, "*axes"]:
    """True for each constant map, also of zeros: equal up to rounding (8 ulp of its largest magnitude)."""
    low, high = maps.amin(dim=(-2, -1)), maps.amax(dim=(-2, -1))
    return high - low <= 8 * torch.finfo(maps.dtype).eps * torch.maximum(low.abs(), high.abs())
