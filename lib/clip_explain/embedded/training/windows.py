"""Windows cut out of a pool's pictures, and the facts that each shows about its objects.

Below batches.py, dino.py and views.py. Pixels are uint8, as in files; `normalized` applies CLIP's preprocessing on the
network's device.
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
    """Left and top of windows that each hold the middle of one object, chosen at random among the picture's own."""
    objects = (rng.random(len(picked)) * (pool.attributes[picked, :, 0] >= 0).sum(1)).astype(int)
    corners = pool.centers[picked, objects].T - span * rng.uniform(0.2, 0.8, (2, len(picked)))
    return np.clip(corners, 0, np.maximum(pool.ids.shape[1] - span, 0)).astype(np.float32)


def window_facts(pool: Pool, windows: Windows) -> cap.Facts:
    """The facts that windows show: an object is seen if 45 % of it and 150 pixels are inside."""
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
    width = ids.shape[1]
    columns = np.arange(width)
    cells = (ids.astype(np.int64) + 1) * width + columns
    table = np.bincount(cells.ravel(), minlength=(objects + 1) * width).reshape(objects + 1, width)[1:]
    count = table.sum(1)
    return count, table @ ((columns + 0.5) / width) / np.maximum(count, 1)


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
) -> UInt8[Tensor, "images 3 height width"]:
    """Pixels of other exposure, contrast, cast, sharpness and noise, all so small that colour names stay true.

    Two in five are blurred or sharpened a little, half are noisy; each has its own part of one field of noise.
    """
    out, side = exposed(pixels, grey, rng), pixels.shape[-1]
    amounts = np.where(rng.random(len(out)) < 0.4, rng.uniform(-0.5, 1.0, len(out)), 0.0)
    noises = np.where(rng.random(len(out)) < 0.5, rng.uniform(0, 0.04, len(out)), 0.0)
    field = torch.from_numpy(rng.standard_normal((3, side + GRAIN, side + GRAIN), np.float32))
    for image, amount, noise in zip(out, amounts.tolist(), noises.tolist(), strict=True):
        if amount or noise:
            y, x = rng.integers(GRAIN, size=2)
            changed = softened(image / 255, amount).add_(field[:, y : y + side, x : x + side], alpha=noise)
            image.copy_(changed.clamp_(0, 1).mul_(255).round_())
    return out


def exposed(
    pixels: UInt8[Tensor, "images 3 height width"], grey: Bool[np.ndarray, " images"], rng: np.random.Generator
) -> UInt8[Tensor, "images 3 height width"]:
    """Pixels changed by `draw_curves`, those of `grey` pictures without colour, and of other contrast."""
    out, curves = torch.empty_like(pixels), draw_curves(len(pixels), grey, rng)
    for image, row, without_color, curve in zip(pixels.numpy(), out.numpy(), grey, curves, strict=True):
        if without_color:
            image = np.tensordot(np.float32([0.299, 0.587, 0.114]), image, 1).astype(np.uint8)[None].repeat(3, 0)
        middle = np.mean([levels[channel[::4, ::4]].mean() for levels, channel in zip(curve, image, strict=True)])
        levels = middle + (curve - middle) * rng.uniform(0.8, 1.2)
        tables = (levels.clip(0, 1) * 255).round().astype(np.uint8)
        for channel, table, target in zip(image, tables, row, strict=True):
            looked_up = channel.tobytes().translate(table.tobytes())  # several times faster than indexing
            target[:] = np.frombuffer(looked_up, np.uint8).reshape(channel.shape)
    return out


def softened(image: Float[Tensor, "3 height width"], amount: float) -> Float[Tensor, "3 height width"]:
    """The image between itself (0) and the mean of each pixel's 3 x 3 neighbours (1); below 0 it is sharpened."""
    if not amount:
        return image
    total, counts = image, torch.ones(image.shape[1:])
    for axis in (-1, -2):
        total, counts = sum_of_three(total, axis), sum_of_three(counts, axis)
    return image.lerp(total / counts, amount)


def sum_of_three(values: Float[Tensor, "*axes"], axis: int) -> Float[Tensor, "*axes"]:
    """Each value with its two neighbours along an axis, or with the one that it has."""
    out, most = values.clone(), values.shape[axis] - 1
    out.narrow(axis, 1, most).add_(values.narrow(axis, 0, most))
    out.narrow(axis, 0, most).add_(values.narrow(axis, 1, most))
    return out


def draw_curves(
    count: int, grey: Bool[np.ndarray, " images"], rng: np.random.Generator
) -> Float[np.ndarray, "images 3 256"]:
    """For each image and channel what each of the 256 levels becomes: a power, a gain and a cast (none for grey)."""
    levels = np.arange(256, dtype=np.float32) / 255
    power, gain = rng.uniform(0.75, 1.3, (count, 1, 1)), rng.uniform(0.8, 1.2, (count, 1, 1))
    cast = np.where(grey[:, None, None], 1, rng.uniform(0.95, 1.05, (count, 3, 1)))
    return (levels**power * gain * cast).astype(np.float32)


def normalized(pixels: UInt8[Tensor, "images 3 height width"]) -> Float[Tensor, "images 3 height width"]:
    """Pixels as CLIP's preprocessing returns them."""
    mean, std = (torch.tensor(numbers, device=pixels.device).view(3, 1, 1) for numbers in (MEAN, STD))
    return (pixels / 255 - mean) / std
