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
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from clip_explain.embedded.scenes.pool import make_pool
from clip_explain.embedded.training.graphs import moved, recorded
from clip_explain.embedded.training.loop import LOGGED, make_optimizer, note_plan, resume, run_steps, schedule, set_rate
from clip_explain.embedded.training.losses import descend
from clip_explain.embedded.training.plans import DinoPlan, DinoStage
from clip_explain.embedded.training.towers import run_blocks
from clip_explain.embedded.training.windows import normalized
from clip_explain.models.dino import new_visual
from clip_explain.models.vit import resize_positions

GLOBALS = 2
GREY = (0.299, 0.587, 0.114)


class Head(nn.Module):
    """DINO's projection head: three layers, unit length, then the cosine with each prototype (K outputs)."""

    def __init__(self, width: int, hidden: int, bottleneck: int, prototypes: int):
        super().__init__()
        gelu = nn.GELU()
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), gelu, nn.Linear(hidden, hidden), gelu, nn.Linear(hidden, bottleneck)
        )
        self.prototypes = nn.Parameter(torch.randn(prototypes, bottleneck))

    def forward(self, x: Float[Tensor, "*rows channels"]) -> Float[Tensor, "*rows prototypes"]:
        return F.linear(F.normalize(self.mlp(x), dim=-1), F.normalize(self.prototypes, dim=-1))


class Pair(nn.Module):
    """Student and teacher, each a vision transformer and a head; the centers of the teacher's outputs for pictures and
    for patches; and what the student sees in place of a hidden patch."""

    def __init__(self, plan: DinoPlan):
        super().__init__()
        visual = new_visual(plan.width, plan.layers, plan.patch)
        head = Head(plan.width, plan.hidden, plan.bottleneck, plan.prototypes)
        self.student = nn.ModuleDict({"visual": visual, "head": head})
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.student.register_parameter("hidden_embedding", nn.Parameter(torch.zeros(plan.width)))
        self.register_buffer("center", torch.zeros(plan.prototypes))
        self.register_buffer("patch_center", torch.zeros(plan.prototypes))


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
    every = LOGGED if device.startswith("cuda") else 1
    figures = torch.zeros(4, device=device)
    step = partial(take_step, pair, optimizer, plan, figures)
    run = recorded(step, optimizer, device) if device.startswith("cuda") else lambda parts: step(*parts)

    def take(number: int, parts: list[Tensor | None]) -> dict[str, float]:
        set_rate(optimizer, plan.rate * schedule(number, steps, plan.warmup))
        momentum = 1 - (1 - plan.momentum) * (1 + math.cos(math.pi * number / steps)) / 2
        run([*parts, moved(torch.tensor(momentum), device)])
        return {} if number % every else named(figures)

    run_steps(pair, optimizer, draw_batches(plan, folder, start, end, device), take, folder, range(start, end), steps)
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
    pairs = 1 - torch.eye(*each.shape, device=each.device)
    return (each * pairs).sum() / pairs.sum()


def patch_loss(
    student: Float[Tensor, "crops hidden prototypes"],
    teacher: Float[Tensor, "crops hidden prototypes"],
    center: Float[Tensor, " prototypes"],
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
) -> Float[Tensor, ""]:
    """iBOT (Zhou et al. 2022) eq. 2: the same cross-entropy for each hidden patch, its mean over patches and crops.

    The teacher sees the crop whole, the student sees it without these patches.
    """
    target = ((teacher - center) / teacher_temperature).softmax(-1).detach()
    return -(target * (student / student_temperature).log_softmax(-1)).sum(-1).mean()


def new_center(
    center: Float[Tensor, " prototypes"], teacher: Float[Tensor, "crops images prototypes"], momentum: float | Tensor
) -> Float[Tensor, " prototypes"]:
    """DINO eq. 4: the running mean of the teacher's outputs."""
    return momentum * center + (1 - momentum) * teacher.mean((0, 1))


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float | Tensor) -> None:
    """The teacher's weights move towards the student's: momentum x teacher + (1 - momentum) x student."""
    fast = dict(student.named_parameters())
    for name, slow in teacher.named_parameters():
        slow.lerp_(fast[name], 1 - momentum)


def take_step(
    pair: Pair,
    optimizer: torch.optim.Optimizer,
    plan: DinoPlan,
    figures: Float[Tensor, "4"],
    whole: Float[Tensor, "crops 3 side side"],
    local: Float[Tensor, "more_crops 3 local_side local_side"] | None,
    hidden: Int[Tensor, "crops hidden"] | None,
    momentum: Float[Tensor, ""],
) -> None:
    """One step; nothing in it waits for a GPU.

    `figures` become the loss, the part of it that patches have, and the mean entropy of the teacher's outputs and the
    entropy of their mean (0 or log K of either means a collapse).
    """
    sharpness = (plan.student_temperature, plan.teacher_temperature)
    with torch.autocast(whole.device.type, torch.bfloat16, cache_enabled=False):
        with torch.no_grad():
            teacher, teacher_patches = outputs(pair.teacher, whole, hidden)
        student, student_patches = outputs(pair.student, whole, hidden, pair.student.hidden_embedding)
        more = [] if local is None else [outputs(pair.student, local)[0]]
    teacher = teacher.unflatten(0, (GLOBALS, -1))
    student = torch.cat([student, *more]).unflatten(0, (-1, teacher.shape[1]))
    loss, of_patches = dino_loss(student, teacher, pair.center, *sharpness), figures.new_zeros(())
    if student_patches is not None and teacher_patches is not None:
        of_patches = patch_loss(student_patches, teacher_patches, pair.patch_center, *sharpness)
        pair.patch_center.copy_(new_center(pair.patch_center, teacher_patches, plan.centering))
    descend(pair.student, optimizer, loss + of_patches)
    follow(pair.teacher, pair.student, momentum)
    sharp = ((teacher - pair.center) / plan.teacher_temperature).softmax(-1)
    pair.center.copy_(new_center(pair.center, teacher, plan.centering))
    entropies = torch.special.entr(sharp).sum(-1).mean(), torch.special.entr(sharp.mean((0, 1))).sum()
    figures.copy_(torch.stack([loss.detach(), of_patches.detach(), *entropies]))


def named(figures: Float[Tensor, "4"]) -> dict[str, float]:
    """A step's figures for the log."""
    values = [round(value, 4) for value in figures.tolist()]
    return dict(zip(("loss", "loss of patches", "entropy", "of mean"), values, strict=True))


def outputs(
    network: nn.ModuleDict,
    pixels: Float[Tensor, "images 3 height width"],
    hidden: Int[Tensor, "images hidden"] | None = None,
    instead: Float[Tensor, " channels"] | None = None,
) -> tuple[Float[Tensor, "images prototypes"], Float[Tensor, "images hidden prototypes"] | None]:
    """A network's outputs for crops of one size, and for their `hidden` patches, which it sees unless told `instead`
    of what."""
    tokens = embed_crops(network["visual"], pixels, hidden if instead is not None else None, instead)
    whole = network["head"](tokens[:, 0]).float()
    if hidden is None:
        return whole, None
    rows = (hidden + 1)[..., None].expand(-1, -1, tokens.shape[-1])
    return whole, network["head"](tokens.gather(1, rows)).float()


def embed_crops(
    visual: nn.Module,
    pixels: Float[Tensor, "images 3 height width"],
    hidden: Int[Tensor, "images hidden"] | None = None,
    instead: Float[Tensor, " channels"] | None = None,
) -> Float[Tensor, "images tokens channels"]:
    """All tokens after the last layer norm; positional embeddings are resized to the crop's grid, as in DINO.

    Patches with the numbers `hidden` are replaced by the embedding `instead`; their positions stay.
    """
    patches = visual.conv1(pixels)
    grid = patches.flatten(2).transpose(1, 2)
    if hidden is not None and instead is not None:
        gone = torch.zeros(grid.shape[:2], device=grid.device).scatter(1, hidden, 1.0)[..., None]
        grid = grid * (1 - gone) + instead * gone
    tokens = torch.cat([visual.class_embedding.expand(len(pixels), 1, -1), grid], 1)
    x = tokens + resize_positions(visual.positional_embedding, tuple(patches.shape[2:]))
    return visual.ln_post(run_blocks(visual.transformer.resblocks, visual.ln_pre(x), False))


# -- crops


def draw_batches(
    plan: DinoPlan, folder: Path, start: int, end: int, device: str = "cpu"
) -> Iterator[list[Tensor | None]]:
    """Global crops, local ones, and hidden patches of some steps, cut on the device.

    Each step's depend only on the plan's seed and the step's number.
    """
    recipe, seed, scenes = plan.pool
    pool = make_pool(folder / f"pool-{recipe}-{seed}", scenes, seed, recipe)
    images = torch.from_numpy(np.array(pool.images)).to(device)
    stages = [stage for stage in plan.stages for _ in range(stage.steps)]
    for step in range(start, end):
        rng = np.random.default_rng([plan.seed, step])
        yield draw_parts(images, plan, stages[step], rng)


def draw_parts(
    images: UInt8[Tensor, "scenes height width 3"], plan: DinoPlan, stage: DinoStage, rng: np.random.Generator
) -> list[Tensor | None]:
    """Crops of random pictures, two global ones of each, then the local ones; and patches to hide of each global."""
    picked = rng.choice(len(images), stage.batch, replace=len(images) < stage.batch)
    seen = images[torch.from_numpy(picked).to(images.device)].permute(0, 3, 1, 2).float() / 255
    draw = partial(draw_crops, seen, grey=plan.grey, light=stage.light, rng=rng)
    whole = draw(count=GLOBALS, area=plan.global_area, side=stage.global_side)
    local = draw(count=plan.locals, area=plan.local_area, side=stage.local_side) if plan.locals else None
    patches = (stage.global_side // plan.patch) ** 2
    hidden = draw_hidden(len(whole), patches, plan.hidden_share, rng)
    return [whole, local, None if hidden is None else moved(hidden, str(images.device))]


def draw_hidden(crops: int, patches: int, share: float, rng: np.random.Generator) -> Int[Tensor, "crops hidden"] | None:
    """The numbers of as many random patches of each crop, or None for a share of 0."""
    order = rng.permuted(np.tile(np.arange(patches), (crops, 1)), axis=1)
    return torch.from_numpy(order[:, : round(patches * share)].copy()) if share else None


def draw_crops(
    images: Float[Tensor, "images 3 height width"],
    count: int,
    area: tuple[float, float],
    side: int,
    grey: float,
    light: float,
    rng: np.random.Generator,
) -> Float[Tensor, "crops 3 side side"]:
    """`count` random square crops of each image, those of all images first to last, each in another light."""
    made = [relit(crop(images, area, side, rng), grey, light, rng) for _ in range(count)]
    return normalized((torch.cat(made) * 255).round().byte())


def crop(
    images: Float[Tensor, "images 3 height width"], area: tuple[float, float], side: int, rng: np.random.Generator
) -> Float[Tensor, "images 3 side side"]:
    """A random square of each image, of a share `area` of it, mirrored or not, resampled bilinearly to `side`."""
    span = np.sqrt(rng.uniform(*area, len(images)))
    middle = rng.uniform(-1, 1, (2, len(images))) * (1 - span)
    flip = rng.choice([-1.0, 1.0], len(images))
    zeros = np.zeros(len(images))
    affine = np.stack([np.stack([span * flip, zeros, middle[0]], 1), np.stack([zeros, span, middle[1]], 1)], 1)
    moves = torch.from_numpy(affine.astype(np.float32)).to(images.device)
    grid = F.affine_grid(moves, [len(images), 3, side, side], align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def relit(
    pixels: Float[Tensor, "images 3 height width"], grey: float, light: float, rng: np.random.Generator
) -> Float[Tensor, "images 3 height width"]:
    """Pixels from 0 to 1 with other exposure, brightness, contrast, saturation and sharpness, and a share of them grey.

    DINO's own changes, weaker: the hue stays, since colours tell our objects apart.
    """
    count, device = len(pixels), pixels.device

    def draw(low: float, high: float) -> Float[Tensor, "images 1 1 1"]:
        return torch.from_numpy(rng.uniform(low, high, (count, 1, 1, 1)).astype(np.float32)).to(device)

    pixels = pixels.clamp(1e-3, 1) ** draw(0.75, 1.3) * draw(0.8 * (1 - light), 1.2 * (1 + light))
    pixels = torch.lerp(pixels.mean((1, 2, 3), keepdim=True), pixels, draw(0.8 * (1 - light), 1.2 * (1 + light)))
    shade = torch.einsum("c,ichw->ihw", torch.tensor(GREY, device=device), pixels)[:, None]
    saturation = draw(1 - light, 1 + light) * (draw(0.0, 1.0) >= grey)
    pixels = torch.lerp(shade, pixels, saturation)
    blurred = F.avg_pool2d(pixels, 3, 1, 1, count_include_pad=False)
    return torch.lerp(pixels, blurred, draw(-0.5, 1.0) * (draw(0.0, 1.0) < 0.4)).clamp(0, 1)
