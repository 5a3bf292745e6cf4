"""The training itself: CLIP's loss where captions can be true of several pictures, AdamW, checkpoints, a log.

Above plans.py, towers.py and batches.py; `clip-explain train` calls it.
"""

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from clip_explain import files
from clip_explain.embedded.training.batches import Batch, draw_batches
from clip_explain.embedded.training.graphs import inputs_of, parts_of, recorded, step_by_parts
from clip_explain.embedded.training.losses import learn
from clip_explain.embedded.training.plans import DinoPlan, IclipPlan, Plan
from clip_explain.embedded.training.towers import build, embed_images, embed_texts
from clip_explain.embedded.training.windows import normalized
from clip_explain.errors import OutputError
from clip_explain.models import load
from clip_explain.models.model import Model

LOGGED = 10  # of recorded steps every tenth is logged: to read its figures is to wait for the GPU


def embed_batch(network: nn.Module, batch: Batch, device: str) -> tuple[Tensor, Tensor]:
    """A CLIP's embeddings of a batch's pictures and of its captions."""
    kept, cells = (None if x is None else x.to(device) for x in (batch.kept, batch.cells))
    reading = {"reads_from": batch.reads_from, "kept": kept, "cells": cells}
    images = embed_images(network.visual, normalized(batch.shown.pixels.to(device)), batch.corner, **reading)
    return images, embed_texts(network, batch.shown.tokens.to(device), batch.reads_from)


def train(
    plan: Plan,
    folder: Path,
    device: str = "cpu",
    until: int | None = None,
    workers: int | None = None,
    make: Callable[[Plan, int], nn.Module] = build,
    embed: Callable[[nn.Module, Batch, str], tuple[Tensor, Tensor]] = embed_batch,
    draw: Callable[[Plan, Path, int, int, int], Iterator[Batch]] = draw_batches,
) -> nn.Module:
    """Run a plan from the checkpoint in `folder`, if any, to its end or to `until` steps; returns the network.

    `make` (plan, seed) gives the network, with a `logit_scale`; `embed` its embeddings of a batch; `draw` the batches,
    with the arguments of `draw_batches`. Raises OutputError where another plan was trained in the folder.
    """
    note_plan(plan, folder)
    network = make(plan, plan.seed).to(device)
    optimizer = make_optimizer(network, plan)
    start = resume(network, optimizer, folder / "checkpoint.pt")
    steps, end = extent(plan, until)
    figures, can_record = torch.zeros(3, device=device), device.startswith("cuda") and embed is embed_batch
    run = recorded(partial(step_by_parts, network, optimizer, figures), optimizer, device) if can_record else None

    def take(number: int, batch: Batch) -> dict[str, int | float]:
        set_rate(optimizer, rate(plan, number))
        reading = {"window": batch.shown.pixels.shape[-1], "reads_from": batch.reads_from}
        if run is None:
            return {**reading, **take_step(network, optimizer, batch, device, embed)}
        run(parts_of(inputs_of(network, batch, device)))
        return {} if number % LOGGED else {**reading, **named(figures)}

    batches = draw(plan, folder, start, end, workers_for(device) if workers is None else workers)
    run_steps(network, optimizer, batches, take, folder, range(start, end), steps)
    return network


def extent(plan: Plan, until: int | None) -> tuple[int, int]:
    """How many steps a plan has, and before which one a training ends that goes no further than `until`."""
    steps = sum(stage.steps for stage in plan.stages)
    return steps, min(until or steps, steps)


def workers_for(device: str) -> int:
    """The default number of processes that draw batches: one next to a CPU, and all cores except two next to a GPU."""
    return 1 if device == "cpu" else max(1, (os.cpu_count() or 1) - 2)


def note_plan(plan: Plan | DinoPlan | IclipPlan, folder: Path) -> None:
    """Write the plan into the folder. OutputError if the folder has a checkpoint of another plan."""
    folder.mkdir(parents=True, exist_ok=True)
    note, written = folder / "plan.json", json.dumps(asdict(plan), indent=1)
    if (folder / "checkpoint.pt").exists() and note.exists() and note.read_text() != written:
        raise OutputError(f"{folder} holds a training by another plan (see {note}): give another folder, or empty it")
    files.write(note, lambda place: place.write_text(written))


def run_steps(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator,
    take: Callable[[int, Any], dict[str, int | float]],
    folder: Path,
    steps: range,
    total: int,
) -> None:
    """Take these of `total` steps, one batch each: a row of the log for all that have figures, a checkpoint every two
    minutes."""
    saved = time.time()
    bar = tqdm(batches, initial=steps.start, total=total, unit="step")
    for step, batch in zip(steps, bar, strict=True):
        if figures := take(step, batch):
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


def take_step(
    network: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, device: str, embed: Callable = embed_batch
) -> dict[str, float]:
    """One step of AdamW; returns the loss and how often a true caption is the image's best."""
    truth = batch.shown.truth.to(device)
    with torch.autocast(torch.device(device).type, torch.bfloat16):
        images, texts = embed(network, batch, device)
    return named(learn(network, optimizer, images, texts, truth))


def named(figures: Float[Tensor, "3"]) -> dict[str, float]:
    """A step's figures for the log."""
    loss, best, scale = figures.tolist()
    return {"loss": round(loss, 4), "best": round(best, 3), "scale": round(scale, 1)}


def make_optimizer(network: nn.Module, plan: Plan | DinoPlan | IclipPlan) -> torch.optim.AdamW:
    """AdamW without weight decay for biases, norms, embeddings and the temperature."""
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
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def checkpoint(network: nn.Module, optimizer: torch.optim.Optimizer, step: int, path: Path) -> None:
    """Write everything that is needed to resume. Raises OutputError, as files.py does."""
    state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
    files.write(path, lambda place: torch.save(state, place))


def steps_done(path: Path) -> int:
    """The number of steps before a checkpoint, 0 if there is none."""
    return torch.load(path, weights_only=True, map_location="meta")["step"] if path.exists() else 0


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
