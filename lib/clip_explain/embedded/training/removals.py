"""Removal of parts of pictures: patches, blobs, single pixels or all but one object, filled in one of five ways.

A model that is trained on such pictures is not out of its domain when a metric removes parts of a picture.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from clip_explain.models.model import MEAN

PARTS = {"patches": 0.35, "blobs": 0.2, "pixels": 0.3, "surroundings": 0.15}
FILLS = {"black": 0.35, "white": 0.1, "noise": 0.15, "blur": 0.1, "mean": 0.3}
SHARE = (0.05, 0.8)  # the share of the picture that is removed
SIDES = (8, 16, 16, 32)  # of the patches, in pixels


@dataclass(frozen=True)
class Removal:
    """The removed part of a picture and its filling; `part` is one of `PARTS`."""

    gone: Bool[np.ndarray, "height width"]
    part: str
    fill: str


def draw_removal(ids: Int[np.ndarray, "height width"], rng: np.random.Generator) -> Removal:
    """A random removal from a picture; `ids` says which object (or -1) each pixel shows."""
    part = str(rng.choice(list(PARTS), p=list(PARTS.values())))
    fill = str(rng.choice(list(FILLS), p=list(FILLS.values())))
    share = rng.uniform(*SHARE)
    if part == "surroundings":
        gone = surroundings(ids, int(rng.integers(2, 25)), rng)
    else:
        gone = {"patches": patches, "blobs": blobs, "pixels": pixels}[part](len(ids), share, rng)
    return Removal(gone, part, fill)


def patches(side: int, share: float, rng: np.random.Generator) -> Bool[np.ndarray, "height width"]:
    """Squares of a randomly placed grid, each removed with the probability `share`."""
    square = int(rng.choice(SIDES))
    cells = rng.random((side // square + 2, side // square + 2)) < share
    top, left = rng.integers(square, size=2)
    return np.kron(cells, np.ones((square, square), bool))[top : top + side, left : left + side]


def blobs(side: int, share: float, rng: np.random.Generator) -> Bool[np.ndarray, "height width"]:
    """Where a smooth random field is low, `share` of the picture in all."""
    coarse = torch.from_numpy(rng.random((1, 1, *rng.integers(3, 9, 2)), np.float32))
    field = F.interpolate(coarse, (side, side), mode="bicubic")[0, 0].numpy()
    return field < np.quantile(field[::4, ::4], share)


def pixels(side: int, share: float, rng: np.random.Generator) -> Bool[np.ndarray, "height width"]:
    """Single pixels, each removed with the probability `share`."""
    return rng.random((side, side), np.float32) < share


def surroundings(
    ids: Int[np.ndarray, "height width"], margin: int, rng: np.random.Generator
) -> Bool[np.ndarray, "height width"]:
    """All but one of the objects and what lies within a box `margin` pixels around it."""
    objects = np.unique(ids[ids >= 0])
    return all_but(ids == rng.choice(objects), margin) if len(objects) else np.ones(ids.shape, bool)


def all_but(mask: Bool[np.ndarray, "height width"], margin: int) -> Bool[np.ndarray, "height width"]:
    """True outside the box `margin` pixels around a mask."""
    rows, columns = np.nonzero(mask)
    gone = np.ones(mask.shape, bool)
    top, left = max(rows.min() - margin, 0), max(columns.min() - margin, 0)
    gone[top : rows.max() + margin + 1, left : columns.max() + margin + 1] = False
    return gone


def still_seen(
    seen: Int[np.ndarray, " objects"], ids: Int[np.ndarray, "height width"], removal: Removal
) -> Int[np.ndarray, " objects"]:
    """Which objects are seen once a removal is made: 1 clearly, 0 not at all, -1 hardly.

    An object goes on being clearly seen with 40 % of its pixels (of single pixels 20 %) and 100 of them; below 5 % it
    is gone, unless its place is only blurred.
    """
    objects = len(seen)
    both = np.bincount((ids + 1 + removal.gone * (objects + 1)).ravel(), minlength=2 * objects + 2)
    left, gone_too = both[1 : objects + 1], both[objects + 2 :]
    count = left + gone_too
    share = left / np.maximum(count, 1)
    clear = (share >= (0.2 if removal.part == "pixels" else 0.4)) & (left >= 100)
    gone = (share < 0.05) & (removal.fill != "blur") & (removal.part != "pixels")
    return np.where(seen == 0, 0, np.where(clear, seen, np.where(gone, 0, -1)))


def fill_in(
    image: UInt8[Tensor, "3 height width"], gone: Bool[np.ndarray, "height width"], fill: str, rng: np.random.Generator
) -> UInt8[Tensor, "3 height width"]:
    """The image with the removed part filled by one of `FILLS`; "mean" is the mean of CLIP's preprocessing."""
    if fill == "blur":
        coarse = F.interpolate(image[None].float(), (6, 6), mode="area")
        filling = F.interpolate(coarse, image.shape[1:], mode="bilinear")[0].round().byte().numpy()
    elif fill == "noise":
        filling = rng.integers(256, size=image.shape, dtype=np.uint8)
    else:
        level = {"black": (0.0,) * 3, "white": (1.0,) * 3, "mean": MEAN}[fill]
        filling = (np.array(level) * 255).round().astype(np.uint8)[:, None, None]
    filled = image.numpy().copy()
    np.copyto(filled, filling, where=gone)
    return torch.from_numpy(filled)
