"""Raw maps resized to their masks, for all metrics of localization, and the types of both.

The base of pointing.py and segmentation.py, which share these rules:

- A degenerate map (all its values equal) counts as all zero: it has no peak and marks no pixel.
- A metric that is undefined is NaN, and means leave it out: for an empty mask, or without background where the metric
  compares with the background.
- `ignore` marks pixels that the annotators left undecided (VOC's outlines, ImageNet-S's code 1000). They are not
  counted, neither as the object nor as the rest, and no peak is looked for there. A map is still scaled, and cut at a
  threshold, by all of its pixels.
- Maps are resized to their masks. TensorError for leading axes that differ, for maps finer than their masks, and for
  values that are not finite.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clip_explain.checks import checked
from clip_explain.errors import TensorError
from clip_explain.maps import degenerate, resize

Maps = Float[Tensor, "*axes grid_h grid_w"]
Masks = Bool[Tensor, "*axes height width"] | Bool[np.ndarray, "*axes height width"]
PerMap = Float[Tensor, "*axes"]
Ignored = Bool[Tensor, "*#axes height width"] | Bool[np.ndarray, "*#axes height width"] | None
MasksOfOne = Bool[Tensor, "masks height width"] | Bool[np.ndarray, "masks height width"]


@checked()
def check_masks(masks: Masks, size: tuple[int, int]) -> None:
    """TensorError, naming both sizes, unless the masks have an image's size (height, width)."""
    if tuple(masks.shape[-2:]) != tuple(size):
        raise TensorError(f"got masks of {_by(masks.shape[-2:])} pixels for an image of {_by(size)} (height x width)")


@checked()
def on_masks(
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
    maps = finite(maps).to(torch.promote_types(maps.dtype, torch.float32))
    heat = resize(maps, (inside.shape[-2], inside.shape[-1]), mode)
    counted = _counted(inside, ignore)
    return torch.where(degenerate(maps)[..., None, None], 0.0, heat), inside & counted, counted


def _counted(inside: Tensor, ignore: Tensor | np.ndarray | None) -> Tensor:
    if ignore is None:
        return torch.ones_like(inside)
    check_masks(ignore, (inside.shape[-2], inside.shape[-1]))
    return ~torch.as_tensor(ignore, device=inside.device).expand_as(inside)


@checked()
def all_masks(masks: Tensor | np.ndarray, maps: Tensor) -> Tensor:
    if not len(maps) or not len(masks):
        raise TensorError(f"got {len(maps)} maps and {len(masks)} masks, expected at least one of each")
    finite(maps)
    return torch.as_tensor(masks, device=maps.device)


@checked()
def finite(maps: Tensor) -> Tensor:
    if not torch.isfinite(maps).all():
        raise TensorError("got maps with NaN or infinite values, expected finite ones")
    return maps


@checked()
def defined(values: Tensor, needed: Tensor) -> Tensor:
    """The values, but NaN where a metric lacks the pixels that it needs."""
    return torch.where(needed.flatten(-2).any(dim=-1), values, torch.nan)


@checked()
def count_pixels(pixels: Tensor) -> Tensor:
    return pixels.sum(dim=(-2, -1))


@checked()
def share(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole, and 0 where the whole is 0."""
    return part / torch.where(whole > 0, whole, 1)


def _by(size: Sequence[int]) -> str:
    return " x ".join(str(int(side)) for side in size)
