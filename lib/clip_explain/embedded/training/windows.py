"""Windows cut out of a pool's pictures, and what each tells of the objects in it.

Below batches.py, dino.py and views.py. Pixels are uint8 until `jitter` makes them what CLIP's preprocessing hands on.
"""

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from clip_explain.embedded.scenes import captions as cap
from clip_explain.embedded.scenes.domains import WITHOUT_COLOR
from clip_explain.embedded.scenes.pool import NAMES, Pool
from clip_explain.models.model import MEAN, STD

GRAIN = 64  # the noise of a batch's pictures is cut out of one field, so many pixels larger than they are
COLORLESS = [NAMES.index(name) for name in WITHOUT_COLOR]


@dataclass(frozen=True)
class Windows:
    """Square parts of a pool's pictures, each to be shown `side` pixels wide.

    picked: indices into the pool; left, top, span: in the pool's pixels; flip: mirrored; grey: shown without colour.
    """

    side: int
    picked: Int[np.ndarray, " images"]
    left: Float[np.ndarray, " images"]
    top: Float[np.ndarray, " images"]
    span: Float[np.ndarray, " images"]
    flip: Bool[np.ndarray, " images"]
    grey: Bool[np.ndarray, " images"]


def draw_windows(
    pool: Pool,
    picked: Int[np.ndarray, " images"],
    side: int,
    magnification: tuple[float, float],
    grey: float,
    rng: np.random.Generator,
) -> Windows:
    """Windows at random magnification, each around the middle of one object, flipped or not; a share of them grey."""
    count = len(picked)
    span = side / np.exp(rng.uniform(*np.log(magnification), count))
    flip, without_color = rng.random(count) < 0.5, rng.random(count) < grey
    left, top = place_windows(pool, picked, span, rng)
    return Windows(side, picked, left, top, span, flip, without_color)


def select(windows: Windows, part: slice) -> Windows:
    """Some of the windows, in order."""
    return Windows(windows.side, *(getattr(windows, field.name)[part] for field in fields(Windows)[1:]))


def scene_weights(pool: Pool, close: float) -> Float[np.ndarray, " scenes"]:
    """Chance of each scene: those with one or two objects are `close` times as likely."""
    few = (pool.attributes[:, :, 0] >= 0).sum(1) <= 2
    weights = np.where(few, close, 1.0)
    return weights / weights.sum()


def place_windows(pool: Pool, picked: np.ndarray, span: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Left and top of windows that each hold the middle of one object, drawn by lot among the picture's own."""
    objects = (rng.random(len(picked)) * (pool.attributes[picked, :, 0] >= 0).sum(1)).astype(int)
    corners = pool.centers[picked, objects].T - span * rng.uniform(0.2, 0.8, (2, len(picked)))
    return np.clip(corners, 0, np.maximum(pool.ids.shape[1] - span, 0)).astype(np.float32)


def window_facts(pool: Pool, windows: Windows) -> cap.Facts:
    """What windows tell: an object is seen if 45 % of it and 150 pixels are inside."""
    shape = (len(windows.picked), pool.attributes.shape[1])
    seen, across = np.zeros(shape, np.int8), np.zeros(shape)
    scale = windows.side / windows.span
    for row, i in enumerate(windows.picked):
        left, top, span = windows.left[row], windows.top[row], windows.span[row]
        inside = pool.ids[i, int(top) : math.ceil(top + span), int(left) : math.ceil(left + span)]
        count, middle = _count(inside, shape[1])
        share, pixels = count / np.maximum(pool.areas[i], 1), count * scale[row] ** 2
        seen[row] = np.where((share >= 0.45) & (pixels >= 150), 1, np.where((share < 0.08) | (pixels < 12), 0, -1))
        across[row] = 1 - middle if windows.flip[row] else middle
    along = pool.along[windows.picked] * np.where(windows.flip, -1, 1)[:, None, None] ** np.array([1, 0])
    reach = pool.zoom[windows.picked] * scale
    color = ~windows.grey & ~np.isin(pool.domain[windows.picked], COLORLESS)
    return cap.Facts(pool.attributes[windows.picked], seen, along, across, color, (reach > 1.95) & (reach < 3.0))


def _count(ids: np.ndarray, objects: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of each object, and their mean horizontal place from 0 to 1."""
    flat = ids.ravel().astype(np.int64) + 1
    x = np.broadcast_to((np.arange(ids.shape[1]) + 0.5) / ids.shape[1], ids.shape).ravel()
    count = np.bincount(flat, minlength=objects + 1)[1 : objects + 1]
    return count, np.bincount(flat, x, objects + 1)[1 : objects + 1] / np.maximum(count, 1)


def cut(pool: Pool, windows: Windows) -> UInt8[Tensor, "images 3 height width"]:
    """The windows' pixels, resampled bilinearly."""
    out = torch.empty(len(windows.picked), 3, windows.side, windows.side, dtype=torch.uint8)
    for row, i in enumerate(windows.picked):
        span, x, y = (round(float(at[row])) for at in (windows.span, windows.left, windows.top))
        part = pool.images[i, y : y + span, x : x + span, :][:, :: -1 if windows.flip[row] else 1]
        part = torch.from_numpy(np.array(part, order="C")).permute(2, 0, 1)[None]
        out[row] = F.interpolate(part, (windows.side, windows.side), mode="bilinear", antialias=True)[0]
    return out


def window_ids(pool: Pool, windows: Windows, row: int) -> Int[np.ndarray, "height width"]:
    """Which object (or -1) each pixel of a window shows."""
    steps = (np.arange(windows.side) + 0.5) * (windows.span[row] / windows.side)
    last = pool.ids.shape[1] - 1
    down, right = (np.minimum(at[row] + steps, last).astype(int) for at in (windows.top, windows.left))
    ids = pool.ids[windows.picked[row]][down[:, None], right]
    return ids[:, ::-1] if windows.flip[row] else ids


def jitter(
    pixels: UInt8[Tensor, "images 3 height width"], grey: Bool[np.ndarray, " images"], rng: np.random.Generator
) -> Float[Tensor, "images 3 height width"]:
    """Exposure, contrast, a cast, blur and noise, so small that colour names stay true; then CLIP's scaling."""
    out = exposed(pixels, grey, rng)
    soften(out, rng)
    add_grain(out, rng)
    return normalized(out.clamp_(0, 1))


def exposed(
    pixels: UInt8[Tensor, "images 3 height width"], grey: Bool[np.ndarray, " images"], rng: np.random.Generator
) -> Float[Tensor, "images 3 height width"]:
    """Pixels of about 0 to 1 by `draw_curves`, those of `grey` pictures without colour, and of other contrast."""
    out, curves = torch.empty(pixels.shape), draw_curves(len(pixels), grey, rng)
    for image, row, without_color, curve in zip(pixels.numpy(), out.numpy(), grey, curves, strict=True):
        if without_color:
            image = np.tensordot(np.float32([0.299, 0.587, 0.114]), image, 1).astype(np.uint8)[None].repeat(3, 0)
        middle = np.mean([levels[channel[::4, ::4]].mean() for levels, channel in zip(curve, image, strict=True)])
        contrast = np.float32(rng.uniform(0.8, 1.2))
        for channel, levels, target in zip(image, curve, row, strict=True):
            np.take((middle + (levels - middle) * contrast).astype(np.float32), channel, out=target)
    return out


def soften(pixels: Float[Tensor, "images 3 height width"], rng: np.random.Generator) -> None:
    """Blur or sharpen two in five pictures a little, in place."""
    some = np.flatnonzero(rng.random(len(pixels)) < 0.4)
    if len(some):
        amount = torch.from_numpy(rng.uniform(-0.5, 1.0, (len(some), 1, 1, 1)).astype(np.float32))
        soft = F.avg_pool2d(pixels[some], 3, 1, 1, count_include_pad=False)
        pixels[some] = torch.lerp(pixels[some], soft, amount)


def add_grain(pixels: Float[Tensor, "images 3 height width"], rng: np.random.Generator) -> None:
    """Add noise to half of the pictures, in place; each has its own part of one field."""
    side = pixels.shape[-1]
    field = torch.from_numpy(rng.standard_normal((3, side + GRAIN, side + GRAIN), np.float32))
    for i in np.flatnonzero(rng.random(len(pixels)) < 0.5).tolist():
        y, x = rng.integers(GRAIN, size=2)
        pixels[i].add_(field[:, y : y + side, x : x + side], alpha=rng.uniform(0, 0.04))


def draw_curves(
    count: int, grey: Bool[np.ndarray, " images"], rng: np.random.Generator
) -> Float[np.ndarray, "images 3 256"]:
    """For each image and channel what each of the 256 levels becomes: a power, a gain and a cast (none for grey)."""
    levels = np.arange(256, dtype=np.float32) / 255
    power, gain = rng.uniform(0.75, 1.3, (count, 1, 1)), rng.uniform(0.8, 1.2, (count, 1, 1))
    cast = np.where(grey[:, None, None], 1, rng.uniform(0.95, 1.05, (count, 3, 1)))
    return (levels**power * gain * cast).astype(np.float32)


def normalized(pixels: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images 3 height width"]:
    """Pixels of 0 to 1 as CLIP's preprocessing hands them on."""
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
