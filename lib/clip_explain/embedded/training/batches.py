"""Random batches: windows of scenes, paintings and faces, captions, and which caption is true of which picture.

A batch depends only on the plan's seed and its step, so that several processes can draw ahead. Between plans.py and
loop.py.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int, Int8, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from clip_explain.embedded.scenes import captions as cap
from clip_explain.embedded.scenes.faces import other_mood
from clip_explain.embedded.scenes.pool import Art, Pool, make_art, make_pool
from clip_explain.embedded.training.plans import Plan, Stage
from clip_explain.embedded.training.removals import draw_removal, fill_in, still_seen
from clip_explain.embedded.training.windows import (
    Windows,
    cut,
    draw_windows,
    jitter,
    scene_weights,
    window_facts,
    window_ids,
)
from clip_explain.models.weights import clip

SIDE = 224  # of all embedded models' pictures, in pixels


@dataclass(frozen=True)
class Shown:
    """Windows of scenes, paintings and faces, captions, and which is true of which."""

    pixels: UInt8[Tensor, "images 3 height width"]
    texts: list[str]
    tokens: Int[Tensor, "texts context"]
    truth: Int8[Tensor, "images texts"]


@dataclass(frozen=True)
class Batch:
    """The pictures and captions of a step, and how a network reads them.

    corner: (row, column) of the windows' top left patch in the model's own grid. reads_from: the class token reads
    patches only in the blocks after this share of all (0: in all), as the end token of texts reads words. kept: the
    patches that the network sees; None means all. cells: patches attend only to those of the same number, if given.
    """

    shown: Shown
    corner: tuple[int, int]
    reads_from: float
    kept: Int[Tensor, "images patches"] | None
    cells: Int[Tensor, " grid"] | None


class Batches(Dataset):
    """A plan's batches by step; its pools are rendered first if they are not there yet.

    With several `plans` that show and say the same, each step has one batch for each: drawn once, read by each network
    in its plan's own way.
    """

    def __init__(self, plans: Sequence[Plan], folder: Path, first: int = 0) -> None:
        self.plans = plans
        self.stages = steps_of(plans[0])
        coming = {plans[0].stages[number] for number in self.stages[first:]}
        self.pools = {stage.pool: open_stage_pool(folder, stage) for stage in plans[0].stages if stage in coming}
        self.art = make_art(folder / "art-1", plans[0].art, 1) if any(stage.art for stage in coming) else None

    def __len__(self) -> int:
        return len(self.stages)

    def __getitem__(self, step: int) -> list[Batch]:
        number, plan = self.stages[step], self.plans[0]
        stage = plan.stages[number]
        rng = np.random.default_rng([plan.seed, step])
        shown = draw_pictures(self.pools[stage.pool], self.art if stage.art else None, stage, rng)
        return [read_pictures(shown, plan.stages[number], plan.patch, copy.deepcopy(rng)) for plan in self.plans]


def steps_of(plan: Plan) -> list[int]:
    """The number of each step's stage."""
    return [number for number, stage in enumerate(plan.stages) for _ in range(stage.steps)]


def draw_batches(plan: Plan, folder: Path, start: int, end: int, workers: int = 0) -> Iterator[Batch]:
    """The batches of some steps, drawn ahead by several processes."""
    return (batch for (batch,) in draw_for_each([plan], folder, start, end, workers))


def draw_for_each(plans: Sequence[Plan], folder: Path, start: int, end: int, workers: int = 0) -> Iterator[list[Batch]]:
    """For some steps a batch for each plan, all of the same pictures and captions."""
    batches = Batches(plans, folder, start)
    return iter(DataLoader(batches, batch_size=None, sampler=range(start, end), num_workers=workers))


def what_is_shown(plan: Plan) -> tuple:
    """The part of a plan that determines pictures and captions, without architecture, rates and ways of reading."""
    alike = {"rate": 0.0, "patch_keep": 1.0, "patch_isolation": 0.0, "class_token_delay": 0.0, "class_token_last": 0.0}
    return plan.seed, plan.art, tuple((replace(stage, **alike), stage.shares) for stage in plan.stages)


def open_stage_pool(folder: Path, stage: Stage) -> Pool:
    """The stage's scenes, rendered first if they are not there yet."""
    recipe, seed, scenes = stage.pool
    return make_pool(folder / f"pool-{recipe}-{seed}", scenes, seed, recipe)


def draw_pictures(pool: Pool, art: Art | None, stage: Stage, rng: np.random.Generator) -> Shown:
    """Windows of scenes and, after them, whole paintings and faces, with captions true of them; all from `rng`."""
    pixels, said, true = draw_scenes(pool, stage, rng)
    if art is not None:
        other, also, known = draw_art(art, stage, rng)
        pixels, said = torch.cat([pixels, other]), said + also
        true = torch.block_diag(true, known).to(torch.int8)
    return Shown(pixels, said, tokens_of(said), true)


def read_pictures(shown: Shown, stage: Stage, patch: int, rng: np.random.Generator) -> Batch:
    """The pictures with their place in the network's grid, and a random way of reading them."""
    spare = (SIDE - stage.window) // patch
    corner = (int(rng.integers(spare + 1)), int(rng.integers(spare + 1)))
    reads_from, kept = draw_reading(stage, rng), draw_patches(stage, patch, rng)
    return Batch(shown, corner, reads_from, kept, draw_cells(stage, patch, rng))


def tokens_of(texts: list[str]) -> Int[Tensor, "texts context"]:
    """Token numbers of a text, kept for its next use."""
    return torch.stack([_tokens_of(text) for text in texts])


@lru_cache(200_000)
def _tokens_of(text: str) -> Tensor:
    return clip.tokenize(text)[0]


def draw_scenes(pool: Pool, stage: Stage, rng: np.random.Generator) -> tuple[Tensor, list[str], Tensor]:
    """Windows of scenes, some with parts removed, their captions, and which is true of which."""
    picked = rng.choice(len(pool), stage.batch - stage.art, p=scene_weights(pool, stage.close))
    windows = draw_windows(pool, picked, stage.window, stage.magnification, stage.grey, rng)
    pixels = jitter(cut(pool, windows), windows.grey, rng)
    facts = window_facts(pool, windows)
    facts = remove_parts(pixels, facts, pool, windows, stage.removals, rng)
    said = draw_captions(facts, stage, rng)
    return pixels, list(said), torch.from_numpy(cap.truth(list(said.values()), facts))


def remove_parts(
    pixels: Tensor, facts: cap.Facts, pool: Pool, windows: Windows, share: float, rng: np.random.Generator
) -> cap.Facts:
    """Remove parts of a share of the pictures, in place; returns the facts that are still true of them."""
    seen = facts.seen.copy()
    for row in np.flatnonzero(rng.random(len(pixels)) < share).tolist():
        ids = window_ids(pool, windows, row)
        removal = draw_removal(ids, rng)
        pixels[row] = fill_in(pixels[row], removal.gone, removal.fill, rng)
        seen[row] = still_seen(seen[row], ids, removal)
    return replace(facts, seen=seen)


def draw_captions(facts: cap.Facts, stage: Stage, rng: np.random.Generator) -> dict[str, cap.Caption]:
    """The batch's captions by their words: some true of each picture, some that mix it up, and all pairs.

    Captions in the same words are one.
    """
    drawn = []
    for i in range(len(facts.seen)):
        drawn += [cap.draw_caption(facts, i, stage.shares, rng) for _ in range(stage.captions)]
        mixed_up = (cap.draw_swap, cap.draw_confusion)
        drawn += [mixed_up[int(rng.random() < 0.6)](facts, i, rng) for _ in range(stage.hard_negatives)]
    drawn += cap.all_pairs() if stage.all_pairs else []
    return {cap.say_freely(caption, rng): caption for caption in drawn if caption}


def draw_art(art: Art, stage: Stage, rng: np.random.Generator) -> tuple[Tensor, list[str], Tensor]:
    """Paintings and faces, flipped or not, a caption or two of each (and its opposite), and which is true of which."""
    picked = rng.choice(len(art), stage.art, replace=False)
    images = np.stack([art.images[i][:, :: rng.choice([-1, 1])] for i in picked])
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    pixels = F.interpolate(pixels, (stage.window, stage.window), mode="bilinear", antialias=True).contiguous()
    said = [str(text) for i in picked for text in rng.choice(art.captions[i], 2)]
    said += [opposite for caption in said if stage.hard_negatives and (opposite := other_mood(caption))]
    said = list(dict.fromkeys(said))
    true = torch.tensor([[caption in art.captions[i] for caption in said] for i in picked], dtype=torch.int8)
    return jitter(pixels, np.zeros(len(picked), bool), rng), said, true


def draw_reading(stage: Stage, rng: np.random.Generator) -> float:
    """After which share of the blocks the class token reads: 0 as a rule, see `Stage.class_token_delay`."""
    if rng.random() >= stage.class_token_delay:
        return 0.0
    return 1.0 if rng.random() < stage.class_token_last else float(rng.uniform(1 / 3, 1))


def draw_patches(stage: Stage, patch: int, rng: np.random.Generator) -> Tensor | None:
    """For each picture the patches that the network sees, or None for all."""
    if stage.patch_keep == 1:
        return None
    patches = (stage.window // patch) ** 2
    order = rng.permuted(np.tile(np.arange(patches), (stage.batch, 1)), axis=1)
    return torch.from_numpy(order[:, : round(patches * stage.patch_keep)].copy())


def draw_cells(stage: Stage, patch: int, rng: np.random.Generator) -> Tensor | None:
    """The cell of each patch of the window, or None if the picture is not cut."""
    if rng.random() >= stage.patch_isolation:
        return None
    side = stage.window // patch
    cuts = [np.sort(rng.choice(np.arange(1, side), rng.integers(1, min(4, side)), replace=False)) for _ in range(2)]
    rows, columns = (np.searchsorted(cut, np.arange(side), side="right") for cut in cuts)
    return torch.from_numpy((rows[:, None] * side + columns).ravel())
