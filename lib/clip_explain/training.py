"""Trains the embedded models on the embedded world: `python -m clip_explain.training tiny-vit`.

CLIP's symmetric contrastive loss and nothing else: no masks and no labels of patches. Resumable, on a CPU or a GPU.
"""

import argparse
import json
import math
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Int8
from torch import Tensor, nn
from tqdm import tqdm

from clip_explain.model import MEAN, STD
from clip_explain.scenes import captions as cap
from clip_explain.scenes.pool import Pool, make_pool
from clip_explain.weights import clip


@dataclass(frozen=True)
class Stage:
    """Some steps of the curriculum.

    `window`: side in pixels of the part of the 224-pixel picture that is looked at, whole patches. They
    keep their own positional embeddings, so a model trained on windows needs no resizing for whole pictures.
    `scale`: lowest and highest magnification of the pool's pictures. `grey`: share of pictures without colour.
    `late`: share of steps in which the class token attends to the patches only from a random block of LATE on (before
    it, to itself), and in a share `last` of these only in the last one. Else a small model gathers what it needs in
    its first blocks, and its last values, which Grad-ECLIP reads, say little. At other steps, and whenever it is used,
    the network runs as it is.
    `keep`: share of patches that is looked at, drawn anew for each picture, as FLIP does.
    `apart`: share of steps in which patches attend only to those of their own cell, the picture being cut by chance
    into 2 x 2 to 4 x 4 cells; else each thing's patches tell of the others too.
    `peak`: a new cosine begins here, at this rate.
    `swaps`: beside its true caption each picture gets one that mixes up two of its things.
    `shares`: what kinds of captions are drawn. `close`: extra weight of scenes with one or two things.
    """

    steps: int
    batch: int
    window: int
    scale: tuple[float, float]
    grey: float
    close: float
    shares: dict[str, float] = field(hash=False)
    pool: tuple[str, int, int] = ("train", 1, 4550)  # recipe, seed, scenes
    swaps: bool = False
    late: float = 0.0
    last: float = 0.0
    keep: float = 1.0
    apart: float = 0.0
    peak: float | None = None


@dataclass(frozen=True)
class Plan:
    """All that decides a training: the architecture, the curriculum and the optimiser's settings."""

    vision_width: int
    vision_layers: int
    text_width: int
    text_layers: int
    embed: int
    patch: int
    stages: tuple[Stage, ...]
    seed: int = 1
    rate: float = 1e-3
    warmup: int = 200
    decay: float = 0.05
    notes: str = ""


LATE = (4, 12)  # of the twelve blocks, where a class token that reads late may begin
FIRST = {"single": 0.6, "double": 0.4}
SECOND = {"single": 0.3, "double": 0.5, "full": 0.2}
THIRD = {"single": 0.2, "double": 0.4, "full": 0.2, "pair": 0.1, "relation": 0.05, "triple": 0.05}
FOURTH = {"single": 0.15, "double": 0.35, "full": 0.15, "place": 0.05, "pair": 0.1, "relation": 0.05, "triple": 0.15}
WHOLE = ("whole", 2, 6000)
PLANS = {
    "tiny-vit": Plan(
        vision_width=128, vision_layers=12, text_width=128, text_layers=12, embed=128, patch=16,
        stages=(
            Stage(2400, 96, 80, (0.7, 1.5), 0.4, 4.0, FIRST),
            Stage(700, 96, 112, (0.7, 1.4), 0.3, 1.0, SECOND),
            Stage(157, 64, 160, (0.85, 1.3), 0.25, 0.7, THIRD, WHOLE),
            Stage(255, 64, 160, (0.85, 1.3), 0.25, 0.7, THIRD, WHOLE, late=0.6),
            Stage(288, 64, 160, (0.85, 1.3), 0.2, 0.7, THIRD, WHOLE, swaps=True, late=0.6),
            Stage(83, 64, 224, (1.0, 1.2), 0.15, 0.7, FOURTH, WHOLE, swaps=True, late=0.6),
            Stage(720, 64, 224, (1.0, 1.2), 0.15, 0.7, FOURTH, WHOLE, swaps=True, late=0.7, last=0.5, keep=0.5),
            Stage(
                900, 64, 224, (1.0, 1.2), 0.1, 0.7, FOURTH, WHOLE,
                swaps=True, late=0.7, last=0.6, keep=0.5, apart=0.7, peak=6e-4,
            ),
        ),
        notes="Steered by hand while it ran: the later stages were settled on the way, so the learning rate up to step "
        "4,603 fell along cosines of 4,983 to 5,800 steps, and the renderer's edges were mended after the first pools. "
        "A rerun follows this plan; it will not give the same bits.",
    ),
}  # fmt: skip


# -- the model


def build(plan: Plan, seed: int) -> nn.Module:
    """OpenAI's CLIP with random weights at 224 pixels; the seed decides them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vision = (224, plan.vision_layers, plan.vision_width, plan.patch)
        return clip.model.CLIP(plan.embed, *vision, 77, 49408, plan.text_width, plan.text_width // 64, plan.text_layers)


def run_blocks(
    blocks: nn.Module,
    x: Float[Tensor, "images tokens channels"],
    causal: bool,
    reads_from: int = 0,
    may: Tensor | None = None,
) -> Float[Tensor, "images tokens channels"]:
    """OpenAI's residual blocks, batch first, for any number of tokens; trace.py has the one that keeps its parts.

    In blocks before `reads_from` the first token attends to itself alone; `may` says which token may attend to which.
    """
    for index, block in enumerate(blocks):
        heads = block.attn.num_heads
        qkv = F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias)
        q, k, v = qkv.view(*x.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, may, is_causal=causal)
        if index < reads_from:
            attended = torch.cat([v[:, :, :1], attended[:, :, 1:]], 2)
        x = x + block.attn.out_proj(attended.transpose(1, 2).reshape(x.shape))
        x = x + block.mlp(block.ln_2(x))
    return x


def embed_windows(
    visual: nn.Module,
    pixels: Float[Tensor, "images 3 height width"],
    corner: tuple[int, int],
    reads_from: int = 0,
    kept: Tensor | None = None,
    cells: Tensor | None = None,
) -> Float[Tensor, "images embedding"]:
    """Image embeddings of windows whose top left patch is `corner` (row, column) of the model's own grid.

    `kept` (images, patches): which of the window's patches are looked at; all when None. `cells` (patches,): patches
    attend only to those of the same number; when None to all, and to the class token.
    """
    patches = visual.conv1(pixels)
    rows, columns = patches.shape[2:]
    side = math.isqrt(len(visual.positional_embedding) - 1)
    grid = visual.positional_embedding[1:].view(side, side, -1)
    here = grid[corner[0] : corner[0] + rows, corner[1] : corner[1] + columns].flatten(0, 1)
    tokens = patches.flatten(2).transpose(1, 2) + here
    if kept is not None:
        tokens = tokens.gather(1, kept[..., None].expand(-1, -1, tokens.shape[-1]))
    first = (visual.class_embedding + visual.positional_embedding[0]).expand(len(pixels), 1, -1)
    x = visual.ln_pre(torch.cat([first, tokens], 1))
    may = None if cells is None else within_cells(cells, kept)
    return visual.ln_post(run_blocks(visual.transformer.resblocks, x, False, reads_from, may)[:, 0]) @ visual.proj


def within_cells(cells: Int[Tensor, " patches"], kept: Tensor | None) -> Bool[Tensor, "images 1 tokens tokens"]:
    """Which token may attend to which: the class token to all, a patch to those of its own cell."""
    own = cells[None] if kept is None else cells[kept]
    may = F.pad(own[:, :, None] == own[:, None, :], (1, 0, 1, 0), value=False)
    may[:, 0] = True
    return may[:, None]


def embed_texts(network: nn.Module, tokens: Int[Tensor, "texts context"]) -> Float[Tensor, "texts embedding"]:
    """Text embeddings; trailing padding is cut off, which changes nothing under a causal mask."""
    last = tokens.argmax(1)
    tokens = tokens[:, : int(last.max()) + 1]
    x = network.token_embedding(tokens) + network.positional_embedding[: tokens.shape[1]]
    x = network.ln_final(run_blocks(network.transformer.resblocks, x, True))
    return x[torch.arange(len(x), device=x.device), last] @ network.text_projection


def contrastive_loss(logits: Float[Tensor, "images texts"], truth: Int[Tensor, "images texts"]) -> Float[Tensor, ""]:
    """CLIP's symmetric loss where an image may have several true captions, and a caption several images.

    `truth`: 1 true, 0 false, -1 left out. Each true pair is told from all false ones of its row (and of its column):
    -log(e^p / (e^p + sum of e^n)). With one true pair a row it is CLIP's own loss.
    """
    return (_one_side(logits, truth) + _one_side(logits.T, truth.T)) / 2


def _one_side(logits: Tensor, truth: Tensor) -> Tensor:
    false = logits.masked_fill(truth != 0, -1e4).logsumexp(1, keepdim=True)
    true = (truth == 1).float()
    each = (F.softplus(false - logits) * true).sum(1) / true.sum(1).clamp(min=1)
    return each.sum() / (true.sum(1) > 0).sum().clamp(min=1)


# -- batches


@dataclass(frozen=True)
class Batch:
    """Windows, captions and which is true of which; `corner` is the window's place in the model's grid, in patches."""

    pixels: Float[Tensor, "images 3 height width"]
    tokens: Int[Tensor, "texts context"]
    truth: Int8[Tensor, "images texts"]
    corner: tuple[int, int]
    reads_from: int  # the first block in which the class token attends to patches
    kept: Int[Tensor, "images patches"] | None
    cells: Int[Tensor, " grid"] | None


def draw_batch(pool: Pool, weights: np.ndarray, stage: Stage, patch: int, rng: np.random.Generator) -> Batch:
    """Windows at random magnification, flipped or not, with captions true of them; all from `rng`."""
    picked = rng.choice(len(pool), stage.batch, p=weights)
    scale = np.exp(rng.uniform(*np.log(stage.scale), stage.batch))
    flip, grey = rng.random(stage.batch) < 0.5, rng.random(stage.batch) < stage.grey
    span = stage.window / scale  # the window's side in the pool's pixels
    left, top = place_windows(pool, picked, span, rng)
    facts = window_facts(pool, picked, np.stack([left, top, span, scale], 1), flip, ~grey)
    drawn = [cap.draw_caption(facts, i, stage.shares, rng) for i in range(stage.batch)]
    drawn += [cap.draw_swap(facts, i, rng) for i in range(stage.batch) if stage.swaps]
    said = [caption for caption in drawn if caption]
    pixels = jitter(cut(pool, picked, left, top, span, flip, stage.window), grey, rng)
    spare = (pool.ids.shape[1] - stage.window) // patch
    corner = (int(rng.integers(spare + 1)), int(rng.integers(spare + 1)))
    texts = clip.tokenize([cap.say(c, rng) for c in said])
    truth = torch.from_numpy(cap.truth(said, facts))
    reads_from, kept = draw_reading(stage, rng), draw_patches(stage, patch, rng)
    return Batch(pixels, texts, truth, corner, reads_from, kept, draw_cells(stage, patch, rng))


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
        part = np.ascontiguousarray(pool.images[i, y : y + side, x : x + side, :][:, :: -1 if flip[row] else 1])
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


# -- training


def train(plan: Plan, folder: Path, device: str = "cpu", until: int | None = None) -> nn.Module:
    """Run a plan from the checkpoint in `folder`, if any, to its end or to `until` steps; returns the network."""
    network = build(plan, plan.seed).to(device)
    optimizer = make_optimizer(network, plan)
    start = resume(network, optimizer, folder / "checkpoint.pt")
    steps = sum(stage.steps for stage in plan.stages)
    end = min(until or steps, steps)
    saved = time.time()
    bar = tqdm(one_ahead(draw_batches(plan, folder, start, end)), initial=start, total=steps, unit="step")
    for step, batch in enumerate(bar, start):
        set_rate(optimizer, rate(plan, step))
        figures = take_step(network, optimizer, batch, device)
        log(folder, {"step": step, "window": batch.pixels.shape[-1], "reads_from": batch.reads_from, **figures})
        bar.set_postfix(figures)
        if time.time() - saved > 120 or step == end - 1:
            checkpoint(network, optimizer, step + 1, folder / "checkpoint.pt")
            saved = time.time()
    return network


def draw_batches(plan: Plan, folder: Path, start: int, end: int) -> Iterator[Batch]:
    """The batches of some steps; each is decided by the plan's seed and its step alone."""
    stages = [stage for stage in plan.stages for _ in range(stage.steps)]
    pool, weights, drawn_for = None, None, None
    for step in range(start, end):
        stage = stages[step]
        if stage is not drawn_for:
            pool = open_stage_pool(folder, stage)
            weights, drawn_for = scene_weights(pool, stage.close), stage
        yield draw_batch(pool, weights, stage, plan.patch, np.random.default_rng([plan.seed, step]))


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


def take_step(network: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, device: str) -> dict[str, float]:
    """One step of AdamW; returns the loss and how often a true caption is the image's best."""
    truth = batch.truth.to(device)
    kept, cells = (None if x is None else x.to(device) for x in (batch.kept, batch.cells))
    with torch.autocast(torch.device(device).type, torch.bfloat16):
        images = embed_windows(network.visual, batch.pixels.to(device), batch.corner, batch.reads_from, kept, cells)
        texts = embed_texts(network, batch.tokens.to(device))
    scale = network.logit_scale.exp()
    logits = scale * F.normalize(images.float(), dim=-1) @ F.normalize(texts.float(), dim=-1).T
    loss = contrastive_loss(logits, truth)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    network.logit_scale.data.clamp_(0, math.log(100))
    best = truth.gather(1, logits.masked_fill(truth < 0, -1e4).argmax(1, keepdim=True))
    return {
        "loss": round(loss.item(), 4),
        "best": round((best == 1).float().mean().item(), 3),
        "scale": round(scale.item(), 1),
    }


def make_optimizer(network: nn.Module, plan: Plan) -> torch.optim.AdamW:
    """AdamW, without decay for biases, norms, embeddings and the temperature."""
    matrices = [p for n, p in network.named_parameters() if p.ndim > 1 and "embedding" not in n]
    rest = [p for n, p in network.named_parameters() if p.ndim <= 1 or "embedding" in n]
    groups = [{"params": matrices, "weight_decay": plan.decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.98), eps=1e-6, fused=True)


def rate(plan: Plan, step: int) -> float:
    """The learning rate: warm-up and half a cosine down to a hundredth, once more from each stage that has a `peak`."""
    begins, peak, first = 0, plan.rate, 0
    for stage in plan.stages:
        if stage.peak is not None and first <= step:
            begins, peak = first, stage.peak
        first += stage.steps
    ends = [sum(s.steps for s in plan.stages[:i]) for i, stage in enumerate(plan.stages) if stage.peak is not None]
    end = min([e for e in ends if e > step], default=first)
    return peak * schedule(step - begins, end - begins, plan.warmup if begins == 0 else plan.warmup // 4)


def schedule(step: int, steps: int, warmup: int) -> float:
    """Linear warm-up, then half a cosine to a hundredth."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.01 + 0.99 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))) / 2


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def scene_weights(pool: Pool, close: float) -> np.ndarray:
    """Chance of each scene: those with one or two things are `close` times as likely."""
    few = (pool.attributes[:, :, 0] >= 0).sum(1) <= 2
    weights = np.where(few, close, 1.0)
    return weights / weights.sum()


def checkpoint(network: nn.Module, optimizer: torch.optim.Optimizer, step: int, path: Path) -> None:
    """Write all that is needed to go on, by way of a temporary file."""
    state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


def resume(network: nn.Module, optimizer: torch.optim.Optimizer, path: Path) -> int:
    """Load a checkpoint if there is one; returns the step to go on with."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"]


def log(folder: Path, row: dict) -> None:
    with open(folder / "log.jsonl", "a") as file:
        file.write(json.dumps(row) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train an embedded model, or go on with its training.")
    parser.add_argument("model", choices=list(PLANS))
    parser.add_argument("--folder", type=Path, default=None, help="checkpoints and pools; default runs/MODEL")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--until", type=int, default=None, help="stop after so many steps in all")
    args = parser.parse_args()
    folder = args.folder or Path("runs") / args.model
    folder.mkdir(parents=True, exist_ok=True)
    plan = PLANS[args.model]
    (folder / "plan.json").write_text(json.dumps(asdict(plan), indent=1))
    train(plan, folder, args.device, args.until)


if __name__ == "__main__":
    main()
