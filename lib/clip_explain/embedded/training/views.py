"""A frozen image encoder's pooled features of random windows, computed once, and the facts about each window.

Below training/iclip.py. A picture's features under each pooling are one row, so training costs little beside the texts.
"""

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision.transforms.functional as TF
from jaxtyping import Float16, Int8
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from clip_explain import datasets
from clip_explain.embedded.scenes import captions as cap
from clip_explain.embedded.scenes.pool import make_pool
from clip_explain.embedded.training.plans import IclipPlan
from clip_explain.embedded.training.windows import (
    cut,
    draw_windows,
    jitter,
    normalized,
    scene_weights,
    select,
    window_facts,
)
from clip_explain.errors import ImageError
from clip_explain.models.iclip import features
from clip_explain.models.model import MEAN, STD, Model
from clip_explain.models.pooling import POOLINGS, pool
from clip_explain.papers.saving import write

AT_ONCE = 50


@dataclass(frozen=True)
class Views:
    """Pooled features, one row for each of POOLINGS; `say` (views, generator) draws captions, and which is true of
    which: 1, 0, or -1 where the view does not tell."""

    pooled: Float16[np.ndarray, "views poolings channels"]
    say: Callable[[np.ndarray, np.random.Generator], tuple[list[str], Int8[Tensor, "views texts"]]]


def make_views(plan: IclipPlan, cache: Path, encoder: Model, root: Path | None = None) -> Views:
    """A plan's views, seen by its encoder now unless they are in `cache`; an interrupted run goes on where it was."""
    draw, say, count = (dataset_views if plan.dataset else scene_views)(plan, cache, encoder, root)
    keys = ("encoder", "views", "dataset", "table", "pool", "scale", "grey", "close", "seed")
    made = {key: getattr(plan, key) for key in keys} | {"sha256": encoder.sha256, "poolings": POOLINGS}
    key = hashlib.sha256(json.dumps(made).encode()).hexdigest()[:8]
    pooled = see(cache / f"views-{Path(plan.encoder).name}-{key}", draw, count, encoder)
    return Views(pooled, say)


def see(folder: Path, draw: Callable[[int, int], Tensor], count: int, encoder: Model) -> np.ndarray:
    """The encoder's features of `draw(start, stop)` under each pooling, fp16, on disk; NaN where the pixels are."""
    note, path = folder / "done.json", folder / "pooled.npy"
    done = json.loads(note.read_text())["done"] if note.exists() else 0
    folder.mkdir(parents=True, exist_ok=True)
    shape = (count, len(POOLINGS), int(encoder.network.visual.conv1.weight.shape[0]))
    out = np.lib.format.open_memmap(path, "r+" if done else "w+", np.float16, shape)
    for start in tqdm(range(done, count, AT_ONCE), f"{encoder.name} looks", disable=done >= count):
        stop = min(start + AT_ONCE, count)
        pixels = draw(start, stop)
        broken = ~torch.isfinite(pixels).flatten(1).all(1)
        tokens, mask = features(encoder, pixels.nan_to_num().to(encoder.device, encoder.dtype))
        rows = torch.stack([pool(tokens, mask, how) for how in POOLINGS], 1)
        rows[broken.to(rows.device)] = torch.nan
        out[start:stop] = rows.half().cpu().numpy()
        out.flush()
        write(note, json.dumps({"done": stop}).encode())
    return np.load(path, mmap_mode="r")


# -- scenes


def scene_views(plan: IclipPlan, cache: Path, encoder: Model, root: Path | None) -> tuple[Any, Any, int]:
    """Random windows of the plan's pool: functions that draw their pixels and their captions."""
    recipe, seed, scenes = plan.pool
    made = make_pool(cache / f"pool-{recipe}-{seed}", scenes, seed, recipe)
    rng, count, side = np.random.default_rng([plan.seed, 0]), plan.views, made.ids.shape[1]
    picked = rng.choice(len(made), count, p=scene_weights(made, plan.close))
    windows = draw_windows(made, picked, side, plan.scale, plan.grey, rng)
    facts = window_facts(made, windows)

    def draw(start: int, stop: int) -> Tensor:
        some = select(windows, slice(start, stop))
        pixels = cut(made, replace(some, side=encoder.image_size))
        changed = jitter(pixels, some.grey, np.random.default_rng([plan.seed, 1, start]))
        return _rescaled(normalized(changed), encoder)

    def say(chosen: np.ndarray, rng: np.random.Generator) -> tuple[list[str], Tensor]:
        here = cap.Facts(*(getattr(facts, field)[chosen] for field in cap.Facts.__dataclass_fields__))
        drawn = [cap.draw_caption(here, i, plan.shares, rng) for i in range(len(chosen))]
        said = [caption for caption in drawn if caption]
        return [cap.say(caption, rng) for caption in said], torch.from_numpy(cap.truth(said, here))

    return draw, say, count


def _rescaled(pixels: Tensor, encoder: Model) -> Tensor:
    """Pixels scaled as CLIP's, as the encoder's."""
    if (encoder.mean, encoder.std) == (MEAN, STD):
        return pixels
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in (MEAN, STD))
    return TF.normalize(pixels * std + mean, encoder.mean, encoder.std)


# -- a dataset with captions


def dataset_views(plan: IclipPlan, cache: Path, encoder: Model, root: Path | None) -> tuple[Any, Any, int]:
    """Random square crops of a dataset's images, as in CLIP's training, equally many of each image."""
    dataset = datasets.load(plan.dataset, root=root, **({"table": plan.table} if plan.table else {}))
    texts = [record.texts for record in dataset]
    count = max(plan.views, len(dataset))

    def draw(start: int, stop: int) -> Tensor:
        places = np.random.default_rng([plan.seed, 1, start]).random((stop - start, 2))
        records = (dataset[i % len(dataset)] for i in range(start, stop))
        with ThreadPoolExecutor() as workers:  # images are decoded side by side
            return torch.stack(list(workers.map(_crop, records, repeat(encoder), places)))

    def say(chosen: np.ndarray, rng: np.random.Generator) -> tuple[list[str], Tensor]:
        own = [texts[i % len(texts)] for i in chosen]
        said = [str(rng.choice(each)) for each in own]
        return said, torch.tensor([[text in each for text in said] for each in own], dtype=torch.int8)

    return draw, say, count


def _crop(record: datasets.Record, encoder: Model, place: np.ndarray) -> Tensor:
    """CLIP's only augmentation: short side to the model's size, then a random square; NaN if it cannot be read."""
    size = encoder.image_size
    try:
        image = TF.resize(record.image, size, TF.InterpolationMode.BICUBIC)
    except ImageError:
        return torch.full((3, size, size), torch.nan)
    return TF.normalize(TF.to_tensor(_square(image, size, place)), encoder.mean, encoder.std)


def _square(image: Image.Image, size: int, place: np.ndarray) -> Image.Image:
    left, top = (round(float(x) * (side - size)) for x, side in zip(place, image.size, strict=True))
    return image.crop((left, top, left + size, top + size))
