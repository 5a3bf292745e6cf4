"""The training itself: CLIP's loss where captions can be true of several pictures, AdamW, checkpoints, a log.

Above plans.py, towers.py and batches.py; `clip-explain train` calls it.
"""

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from clip_explain import files
from clip_explain.embedded.training.batches import Batch, draw_batches
from clip_explain.embedded.training.plans import DinoPlan, IclipPlan, Plan
from clip_explain.embedded.training.towers import build, embed_images, embed_texts
from clip_explain.models import load
from clip_explain.models.model import Model


def embed_batch(network: nn.Module, batch: Batch, device: str) -> tuple[Tensor, Tensor]:
    """A CLIP's embeddings of a batch's pictures and of its captions."""
    kept, cells = (None if x is None else x.to(device) for x in (batch.kept, batch.cells))
    reading = {"reads_from": batch.reads_from, "kept": kept, "cells": cells}
    images = embed_images(network.visual, batch.pixels.to(device), batch.corner, **reading)
    return images, embed_texts(network, batch.tokens.to(device), batch.reads_from)


def train(
    plan: Plan,
    folder: Path,
    device: str = "cpu",
    until: int | None = None,
    workers: int | None = None,
    make: Callable[[Plan, int], nn.Module] = build,
    embed: Callable[[nn.Module, Batch, str], tuple[Tensor, Tensor]] = embed_batch,
) -> nn.Module:
    """Run a plan from the checkpoint in `folder`, if any, to its end or to `until` steps; returns the network.

    `make` (plan, seed) gives the network, with a `logit_scale`; `embed` its embeddings of a batch.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files.write(folder / "plan.json", lambda place: place.write_text(json.dumps(asdict(plan), indent=1)))
    network = make(plan, plan.seed).to(device)
    optimizer = make_optimizer(network, plan)
    start = resume(network, optimizer, folder / "checkpoint.pt")
    steps = sum(stage.steps for stage in plan.stages)
    end = min(until or steps, steps)

    def take(step: int, batch: Batch) -> dict[str, int | float]:
        set_rate(optimizer, rate(plan, step))
        reading = {"window": batch.pixels.shape[-1], "reads_from": batch.reads_from}
        return {**reading, **take_step(network, optimizer, batch, device, embed)}

    if workers is None:
        workers = 1 if device == "cpu" else max(1, (os.cpu_count() or 1) - 2)
    batches = draw_batches(plan, folder, start, end, workers)
    run_steps(network, optimizer, batches, take, folder, range(start, end), steps)
    return network


def run_steps(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator,
    take: Callable[[int, Any], dict[str, int | float]],
    folder: Path,
    steps: range,
    total: int,
) -> None:
    """Take these of `total` steps, one batch each: a row of the log for each, a checkpoint every two minutes."""
    saved = time.time()
    bar = tqdm(batches, initial=steps.start, total=total, unit="step")
    for step, batch in zip(steps, bar, strict=True):
        figures = take(step, batch)
        log(folder, {"step": step, **figures})
        bar.set_postfix(figures)
        if time.time() - saved > 120 or step == steps.stop - 1:
            checkpoint(network, optimizer, step + 1, folder / "checkpoint.pt")
            saved = time.time()


def finetune(plan: Plan, device: str = "cpu") -> Model:
    """The model that a plan's `start` names, trained by the plan; pools and checkpoints are not kept."""
    with TemporaryDirectory() as folder:
        network = train(plan, Path(folder), device)
    original = load(plan.start, device, "fp32")
    return replace(original, network=network.eval().requires_grad_(False), name=f"{original.name} finetuned", sha256="")


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


def take_step(
    network: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, device: str, embed: Callable = embed_batch
) -> dict[str, float]:
    """One step of AdamW; returns the loss and how often a true caption is the image's best."""
    truth = batch.truth.to(device)
    with torch.autocast(torch.device(device).type, torch.bfloat16):
        images, texts = embed(network, batch, device)
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


def make_optimizer(network: nn.Module, plan: Plan | DinoPlan | IclipPlan) -> torch.optim.AdamW:
    """AdamW, without decay for biases, norms, embeddings and the temperature."""
    matrices = [p for n, p in network.named_parameters() if p.ndim > 1 and "embedding" not in n]
    rest = [p for n, p in network.named_parameters() if p.ndim <= 1 or "embedding" in n]
    groups = [{"params": matrices, "weight_decay": plan.decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.98), eps=1e-6, fused=True)


def rate(plan: Plan, step: int) -> float:
    """The learning rate: a linear warm-up, then in each stage a straight line to the stage's own rate."""
    first, begins = 0, plan.rate
    for stage in plan.stages:
        if step < first + stage.steps:
            break
        first, begins = first + stage.steps, stage.rate
    along = (step - first) / stage.steps
    return min(1, (step + 1) / plan.warmup) * (begins + (stage.rate - begins) * along)


def schedule(step: int, steps: int, warmup: int) -> float:
    """Linear warm-up, then half a cosine to a hundredth."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.01 + 0.99 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))) / 2


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def checkpoint(network: nn.Module, optimizer: torch.optim.Optimizer, step: int, path: Path) -> None:
    """Write all that is needed to go on. Raises OutputError, as files.py does."""
    state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
    files.write(path, lambda place: torch.save(state, place))


def resume(network: nn.Module, optimizer: torch.optim.Optimizer, path: Path) -> int:
    """Load a checkpoint if there is one; returns the step to go on with."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True, map_location="cpu")
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"]


def log(folder: Path, row: dict) -> None:
    with open(folder / "log.jsonl", "a") as file:
        file.write(json.dumps(row) + "\n")
