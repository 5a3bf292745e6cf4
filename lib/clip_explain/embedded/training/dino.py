"""DINO (Caron et al. 2021) on the embedded scenes: no captions, no masks, no labels; `... training tiny-dino`.

A student learns to predict from any crop the output of its own running mean, the teacher, for the whole picture. Above
plans.py.
"""

import copy
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from clip_explain.embedded.scenes.pool import Pool, make_pool
from clip_explain.embedded.training.loop import make_optimizer, note_plan, resume, run_steps, schedule, set_rate
from clip_explain.embedded.training.losses import descend
from clip_explain.embedded.training.plans import DinoPlan, DinoStage
from clip_explain.embedded.training.towers import run_blocks
from clip_explain.embedded.training.windows import Windows, cut, jitter, normalized
from clip_explain.models.dino import new_visual
from clip_explain.models.vit import resize_positions

GLOBALS = 2


class Head(nn.Module):
    """DINO's projection head: three layers, unit length, then the cosine with each prototype (K outputs)."""

    def __init__(self, width: int, hidden: int, bottleneck: int, prototypes: int):
        super().__init__()
        gelu = nn.GELU()
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), gelu, nn.Linear(hidden, hidden), gelu, nn.Linear(hidden, bottleneck)
        )
        self.prototypes = nn.Parameter(torch.randn(prototypes, bottleneck))

    def forward(self, x: Float[Tensor, "images channels"]) -> Float[Tensor, "images prototypes"]:
        return F.linear(F.normalize(self.mlp(x), dim=-1), F.normalize(self.prototypes, dim=-1))


class Pair(nn.Module):
    """Student and teacher, each a vision transformer and a head, and the center of the teacher's outputs."""

    def __init__(self, plan: DinoPlan):
        super().__init__()
        visual = new_visual(plan.width, plan.layers, plan.patch)
        head = Head(plan.width, plan.hidden, plan.bottleneck, plan.prototypes)
        self.student = nn.ModuleDict({"visual": visual, "head": head})
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.register_buffer("center", torch.zeros(plan.prototypes))


def build(plan: DinoPlan) -> Pair:
    """The pair with random weights from the plan's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        return Pair(plan)


def train_dino(plan: DinoPlan, folder: Path, device: str = "cpu", until: int | None = None) -> Pair:
    """Run a plan from the checkpoint in `folder`, if any, to its end or to `until` steps; returns both networks."""
    note_plan(plan, folder)
    pair = build(plan).to(device)
    optimizer = make_optimizer(pair.student, plan)
    start = resume(pair, optimizer, folder / "checkpoint.pt")
    steps = sum(stage.steps for stage in plan.stages)
    end = min(until or steps, steps)

    def take(step: int, crops: list[Tensor]) -> dict[str, float]:
        set_rate(optimizer, plan.rate * schedule(step, steps, plan.warmup))
        momentum = 1 - (1 - plan.momentum) * (1 + math.cos(math.pi * step / steps)) / 2
        return take_step(pair, optimizer, [crop.to(device) for crop in crops], plan, momentum)

    run_steps(pair, optimizer, draw_batches(plan, folder, start, end), take, folder, range(start, end), steps)
    return pair


# -- the loss


def dino_loss(
    student: Float[Tensor, "crops images prototypes"],
    teacher: Float[Tensor, "globals images prototypes"],
    center: Float[Tensor, " prototypes"],
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
) -> Float[Tensor, ""]:
    """DINO eq. 1-3: cross-entropy of the teacher's centered, sharpened softmax and the student's, the mean over images
    and over all pairs of a global crop (teacher) and another crop (student).

    The first of the student's crops are the teacher's global ones, in the same order. No gradient enters the teacher.
    """
    target = ((teacher - center) / teacher_temperature).softmax(-1).detach()
    said = (student / student_temperature).log_softmax(-1)
    each = -torch.einsum("gik,cik->gc", target, said) / student.shape[1]
    same = torch.eye(*each.shape, dtype=torch.bool, device=each.device)
    return each[~same].mean()


def new_center(
    center: Float[Tensor, " prototypes"], teacher: Float[Tensor, "globals images prototypes"], momentum: float
) -> Float[Tensor, " prototypes"]:
    """DINO eq. 4: the running mean of the teacher's outputs."""
    return momentum * center + (1 - momentum) * teacher.mean((0, 1))


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """The teacher's weights move towards the student's: momentum x teacher + (1 - momentum) x student."""
    for slow, fast in zip(teacher.parameters(), student.parameters(), strict=True):
        slow.lerp_(fast, 1 - momentum)


def take_step(
    pair: Pair, optimizer: torch.optim.Optimizer, crops: list[Tensor], plan: DinoPlan, momentum: float
) -> dict[str, float]:
    """One step; returns the loss and the mean entropy of the teacher's outputs (0 or log K means a collapse)."""
    with torch.autocast(crops[0].device.type, torch.bfloat16):
        with torch.no_grad():
            teacher = embed(pair.teacher, crops[:1]).float().unflatten(0, (GLOBALS, -1))
        both = [embed(pair.student, [crop]) for crop in crops]
    student = torch.cat([out.float().unflatten(0, (-1, teacher.shape[1])) for out in both])
    temperatures = (plan.student_temperature, plan.teacher_temperature)
    loss = dino_loss(student, teacher, pair.center, *temperatures)
    descend(pair.student, optimizer, loss)
    follow(pair.teacher, pair.student, momentum)
    sharp = ((teacher - pair.center) / plan.teacher_temperature).softmax(-1)
    pair.center.copy_(new_center(pair.center, teacher, plan.centering))
    entropy = torch.special.entr(sharp).sum(-1).mean()
    mean = torch.special.entr(sharp.mean((0, 1))).sum()
    return {"loss": round(loss.item(), 4), "entropy": round(entropy.item(), 3), "of mean": round(mean.item(), 3)}


def embed(network: nn.ModuleDict, crops: list[Tensor]) -> Float[Tensor, "images prototypes"]:
    """A network's outputs for crops of one size."""
    return network["head"](class_tokens(network["visual"], torch.cat(crops)))


def class_tokens(visual: nn.Module, pixels: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images channels"]:
    """Class tokens after the last layer norm; positional embeddings are resized to the crop's grid, as in DINO."""
    patches = visual.conv1(pixels)
    tokens = torch.cat([visual.class_embedding.expand(len(pixels), 1, -1), patches.flatten(2).transpose(1, 2)], 1)
    x = tokens + resize_positions(visual.positional_embedding, tuple(patches.shape[2:]))
    return visual.ln_post(run_blocks(visual.transformer.resblocks, visual.ln_pre(x), False)[:, 0])


# -- crops


def draw_batches(plan: DinoPlan, folder: Path, start: int, end: int) -> Iterator[list[Tensor]]:
    """The crops of some steps, each of which depends only on the plan's seed and the step's number."""
    recipe, seed, scenes = plan.pool
    pool = make_pool(folder / f"pool-{recipe}-{seed}", scenes, seed, recipe)
    stages = [stage for stage in plan.stages for _ in range(stage.steps)]
    for step in range(start, end):
        yield draw_crops(pool, plan, stages[step], np.random.default_rng([plan.seed, step]))


def draw_crops(pool: Pool, plan: DinoPlan, stage: DinoStage, rng: np.random.Generator) -> list[Tensor]:
    """Random square crops of as many pictures: two global ones, then the local ones, each (crops x images, 3, ...)."""
    picked = rng.choice(len(pool), stage.batch, replace=len(pool) < stage.batch)
    kinds = ((GLOBALS, plan.global_area, stage.global_side), (plan.locals, plan.local_area, stage.local_side))
    draw = partial(_crops, pool, grey=plan.grey, light=stage.light, rng=rng)
    return [draw(np.tile(picked, count), area, side) for count, area, side in kinds if count]


def _crops(
    pool: Pool, picked: np.ndarray, area: tuple[float, float], side: int, grey: float, light: float, rng
) -> Tensor:
    count, whole = len(picked), pool.ids.shape[1]
    span = whole * np.sqrt(rng.uniform(*area, count))
    left, top = rng.uniform(0, 1, (2, count)) * (whole - span)
    flip, without_color = rng.random(count) < 0.5, rng.random(count) < grey
    windows = Windows(side, picked, left, top, span, flip, without_color)
    return normalized(jitter(relit(cut(pool, windows), light, rng), without_color, rng))


def relit(
    levels: UInt8[Tensor, "images 3 height width"], light: float, rng: np.random.Generator
) -> UInt8[Tensor, "images 3 height width"]:
    """Pixels with other brightness, contrast and saturation, each drawn for each image: DINO's own jitter."""
    if not light:
        return levels
    pixels = levels.float() / 255
    brightness, contrast, saturation = torch.from_numpy(
        rng.uniform(1 - light, 1 + light, (3, len(pixels), 1, 1, 1)).astype(np.float32)
    )
    pixels = (pixels * brightness).clamp(0, 1)
    pixels = torch.lerp(pixels.mean((1, 2, 3), keepdim=True), pixels, contrast).clamp(0, 1)
    pixels = torch.lerp(pixels.mean(1, keepdim=True), pixels, saturation).clamp(0, 1)
    return (pixels * 255).round().byte()
