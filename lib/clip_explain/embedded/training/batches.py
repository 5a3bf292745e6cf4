"""Batches drawn by lot: windows of scenes, paintings and faces, captions, and which caption is true of which picture.

Each batch is decided by the plan's seed and its step alone. Between plans.py and loop.py.
"""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int8
from torch import Tensor

from clip_explain.embedded.scenes import captions as cap
from clip_explain.embedded.scenes.domains import WITHOUT_COLOR
from clip_explain.embedded.scenes.faces import other_mood
from clip_explain.embedded.scenes.pool import NAMES, Art, Pool, make_art, make_pool
from clip_explain.embedded.training.plans import LATE, Plan, Stage
from clip_explain.models.model import MEAN, STD
from clip_explain.models.weights import clip

COLORLESS = [NAMES.index(name) for name in WITHOUT_COLOR]


@dataclass(frozen=True)
class Batch:
    """Windows, captions and which is true of which; `corner` is the window's place in the model's grid, in patches."""

    pixels: Float[Tensor, "images 3 height width"]
    texts: list[str]
    tokens: Int[Tensor, "texts context"]
    truth: Int8[Tensor, "images texts"]
    corner: tuple[int, int]
    reads_from: int  # the first block in which the class token attends to patches
    kept: Int[Tensor, "images patches"] | None
    cells: Int[Tensor, " grid"] | None


def draw_batches(plan: Plan, folder: Path, start: int, end: int) -> Iterator[Batch]:
    """The batches of some steps; each is decided by the plan's seed and its step alone."""
    stages = [stage for stage in plan.stages for _ in range(stage.steps)]
    pool, art, weights, drawn_for = None, None, None, None
    for step in range(start, end):
        stage = stages[step]
        if stage is not drawn_for:
            pool = open_stage_pool(folder, stage)
            art = make_art(folder / "art-1", plan.art, 1) if stage.art else None
            weights, drawn_for = scene_weights(pool, stage.close), stage
        yield draw_batch(pool, art, weights, stage, plan.patch, np.random.default_rng([plan.seed, step]))


def one_ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches, the next one drawn in a thread while the last is used."""
    with ThreadPoolExecutor(1) as worker:
        coming = worker.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = worker.submit(next, batches, None)
            yield batch


def open_stage_pool(folder: Path, stage: Stage) -> Pool:
    """The stage's scenes, rendered first if they are not there yet."""
    recipe, seed, scenes = stage.pool
    return make_pool(folder / f"pool-{recipe}-{seed}", scenes, seed, recipe)


def scene_weights(pool: Pool, close: float) -> np.ndarray:
    """Chance of each scene: those with one or two things are `close` times as likely."""
    few = (pool.attributes[:, :, 0] >= 0).sum(1) <= 2
    weights = np.where(few, close, 1.0)
    return weights / weights.sum()


def draw_batch(pool: Pool, art: Art | None, weights: np.ndarray, stage: Stage, patch: int, rng) -> Batch:
    """Windows of scenes and, after them, whole paintings and faces, with captions true of them; all from `rng`."""
    pixels, said, true = draw_scenes(pool, weights, stage, rng)
    if art is not None:
        other, also, known = draw_art(art, stage, rng)
        pixels, said = torch.cat([pixels, other]), said + also
        true = torch.block_diag(true, known).to(torch.int8)
    spare = (pool.ids.shape[1] - stage.window) // patch
    corner = (int(rng.integers(spare + 1)), int(rng.integers(spare + 1)))
    reads_from, kept = draw_reading(stage, rng), draw_patches(stage, patch, rng)
    return Batch(pixels, said, clip.tokenize(said), true, corner, reads_from, kept, draw_cells(stage, patch, rng))


def draw_scenes(pool: Pool, weights: np.ndarray, stage: Stage, rng: np.random.Generator) -> tuple:
    """Windows of scenes at random magnification, flipped or not, their captions, and which is true of which."""
    count = stage.batch - stage.art
    picked = rng.choice(len(pool), count, p=weights)
    scale = np.exp(rng.uniform(*np.log(stage.scale), count))
    flip, grey = rng.random(count) < 0.5, rng.random(count) < stage.grey
    span = stage.window / scale  # the window's side in the pool's pixels
    left, top = place_windows(pool, picked, span, rng)
    colored = ~grey & ~np.isin(pool.domain[picked], COLORLESS)
    facts = window_facts(pool, picked, np.stack([left, top, span, scale], 1), flip, colored)
    drawn = [cap.draw_caption(facts, i, stage.shares, rng) for i in range(count)]
    drawn += [cap.draw_swap(facts, i, rng) for i in range(count) if stage.swaps]
    said = [caption for caption in drawn if caption]
    pixels = jitter(cut(pool, picked, left, top, span, flip, stage.window), grey, rng)
    return pixels, [cap.say(c, rng) for c in said], torch.from_numpy(cap.truth(said, facts))


def draw_art(art: Art, stage: Stage, rng: np.random.Generator) -> tuple:
    """Paintings and faces, flipped or not, one caption for each (and its opposite), and which is true of which."""
    picked = rng.choice(len(art), stage.art, replace=False)
    images = np.stack([art.images[i][:, :: rng.choice([-1, 1])] for i in picked])
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    pixels = F.interpolate(pixels, (stage.window, stage.window), mode="bilinear", antialias=True)
    said = [str(rng.choice(art.captions[i])) for i in picked]
    said += [opposite for caption in said if stage.swaps and (opposite := other_mood(caption))]
    true = torch.tensor([[caption in art.captions[i] for caption in said] for i in picked], dtype=torch.int8)
    return jitter(pixels, np.zeros(len(picked), bool), rng), said, true


def draw_reading(stage: Stage, rng: np.random.Generator) -> int:
    """The first block in which the class token reads: 0 as a rule, see `Stage.late`."""
    if rng.random() >= stage.late:
        return 0
    return LATE[1] - 1 if stage.last and rng.random() < stage.last else int(rng.integers(*LATE))


def draw_patches(stage: Stage, patch: int, rng: np.random.Generator) -> Tensor | None:
    """For each picture the patches that are looked at, or None for all."""
    if stage.keep == 1:
        return None
    patches = (stage.window // patch) ** 2
    order = rng.permuted(np.tile(np.arange(patches), (stage.batch, 1)), axis=1)
    return torch.from_numpy(order[:, : round(patches * stage.keep)].copy())


def draw_cells(stage: Stage, patch: int, rng: np.random.Generator) -> Tensor | None:
    """The cell of each patch of the window, or None if the picture is not cut."""
    if not stage.apart or rng.random() >= stage.apart:
        return None
    side = stage.window // patch
    cuts = [np.sort(rng.choice(np.arange(1, side), rng.integers(1, 4), replace=False)) for _ in range(2)]
    rows, columns = (np.searchsorted(cut, np.arange(side), side="right") for cut in cuts)
    return torch.from_numpy((rows[:, None] * side + columns).ravel())


def place_windows(pool: Pool, picked: np.ndarray, span: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Left and top of windows that each hold the middle of one thing, drawn by lot among the picture's own."""
    things = (rng.random(len(picked)) * (pool.attributes[picked, :, 0] >= 0).sum(1)).astype(int)
    corners = pool.centers[picked, things].T - span * rng.uniform(0.2, 0.8, (2, len(picked)))
    return np.clip(corners, 0, np.maximum(pool.ids.shape[1] - span, 0)).astype(np.float32)


def window_facts(pool: Pool, picked: np.ndarray, windows: np.ndarray, flip: np.ndarray, color: np.ndarray) -> cap.Facts:
    """What windows (left, top, span, scale) tell: a thing is seen if 45 % of it and 150 pixels are inside."""
    shape = (len(picked), pool.attributes.shape[1])
    seen, across = np.zeros(shape, np.int8), np.zeros(shape)
    for row, (i, (left, top, span, scale)) in enumerate(zip(picked, windows, strict=True)):
        inside = pool.ids[i, int(top) : math.ceil(top + span), int(left) : math.ceil(left + span)]
        count, middle = _count(inside, shape[1])
        share, pixels = count / np.maximum(pool.areas[i], 1), count * scale**2
        seen[row] = np.where((share >= 0.45) & (pixels >= 150), 1, np.where((share < 0.08) | (pixels < 12), 0, -1))
        across[row] = 1 - middle if flip[row] else middle
    along = pool.along[picked] * np.where(flip, -1, 1)[:, None, None] ** np.array([1, 0])
    reach = pool.zoom[picked] * windows[:, 3]
    return cap.Facts(pool.attributes[picked], seen, along, across, color, (reach > 1.95) & (reach < 3.0))


def _count(ids: np.ndarray, things: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of each thing, and their mean horizontal place from 0 to 1."""
    flat = ids.ravel().astype(np.int64) + 1
    x = np.broadcast_to((np.arange(ids.shape[1]) + 0.5) / ids.shape[1], ids.shape).ravel()
    count = np.bincount(flat, minlength=things + 1)[1 : things + 1]
    return count, np.bincount(flat, x, things + 1)[1 : things + 1] / np.maximum(count, 1)


def cut(pool: Pool, picked, left, top, span, flip, window: int) -> Tensor:
    """The windows' pixels, 0 to 1, resampled bilinearly to (images, 3, window, window)."""
    out = torch.empty(len(picked), 3, window, window)
    for row, i in enumerate(picked):
        side, x, y = round(float(span[row])), round(float(left[row])), round(float(top[row]))
        part = np.array(pool.images[i, y : y + side, x : x + side, :][:, :: -1 if flip[row] else 1], order="C")
        part = torch.from_numpy(part).permute(2, 0, 1)[None].float() / 255
        out[row] = F.interpolate(part, (window, window), mode="bilinear", antialias=True)[0]
    return out


def jitter(pixels: Tensor, grey: np.ndarray, rng: np.random.Generator) -> Tensor:
    """Exposure, contrast, a cast, blur and noise, so small that colour names stay true; then CLIP's scaling."""
    pixels = pixels ** _draw(rng, 0.75, 1.3, pixels) * _draw(rng, 0.8, 1.2, pixels) * _draw(rng, 0.95, 1.05, pixels, 3)
    mean = pixels.mean((1, 2, 3), keepdim=True)
    pixels = mean + (pixels - mean) * _draw(rng, 0.8, 1.2, pixels)
    luma = (pixels * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    pixels = torch.where(torch.from_numpy(grey)[:, None, None, None], luma, pixels)
    soft = F.avg_pool2d(pixels, 3, 1, 1, count_include_pad=False)
    pixels = torch.lerp(pixels, soft, _draw(rng, -0.6, 1.0, pixels).clamp(0, 1))
    noise = torch.from_numpy(rng.standard_normal(pixels.shape, np.float32)) * _draw(rng, -0.02, 0.04, pixels).clamp(0)
    return normalized((pixels + noise).clamp(0, 1))


def _draw(rng: np.random.Generator, low: float, high: float, like: Tensor, channels: int = 1) -> Tensor:
    """One number an image (or an image and channel), uniform from low to high."""
    return torch.from_numpy(rng.uniform(low, high, (len(like), channels, 1, 1)).astype(np.float32))


def normalized(pixels: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images 3 height width"]:
    """Pixels of 0 to 1 as CLIP's preprocessing hands them on."""
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
