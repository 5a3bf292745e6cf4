"""Several plans trained side by side on the same pictures, which are drawn once for all of them.

Drawing keeps many cores busy where a small network leaves a GPU half idle, so a family shares both. Above loop.py,
which carries out each plan in a process of its own; `clip-explain train tiny-vit tiny-vit-plain` calls it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from queue import Full
from typing import Any

from torch import multiprocessing

from clip_explain.embedded.training.batches import Batch, draw_for_each, what_is_shown
from clip_explain.embedded.training.loop import extent, note_plan, steps_done, train, workers_for
from clip_explain.embedded.training.plans import Plan
from clip_explain.errors import MethodError, WorkerError

AHEAD = 4  # batches that wait for each plan


@dataclass(frozen=True)
class Training:
    """One plan's process, and the queue of (step, batch) that it takes from."""

    name: str
    process: BaseProcess
    queue: Any


def train_together(
    plans: Mapping[str, Plan], folder: Path, device: str = "cpu", until: int | None = None, workers: int | None = None
) -> None:
    """Train each plan in folder/NAME, from its checkpoint if there is one, to its end or to `until` steps.

    Each plan's batches are those that it would draw alone. Raises MethodError for plans that do not show and say the
    same, WorkerError if a training ends early.
    """
    check_alike(plans)
    for name, plan in plans.items():
        note_plan(plan, folder / name)
    first = min(steps_done(folder / name / "checkpoint.pt") for name in plans)
    _, end = extent(next(iter(plans.values())), until)
    drawn = draw_for_each(list(plans.values()), folder, first, end, workers_for(device) if workers is None else workers)
    trainings = [start(name, plan, folder / name, device, end) for name, plan in plans.items()]
    for step, batches in zip(range(first, end), drawn, strict=True):
        for training, batch in zip(trainings, batches, strict=True):
            hand_on(training, (step, batch))
    for training in trainings:
        training.process.join()
        check_ended(training)


def check_alike(plans: Mapping[str, Plan]) -> None:
    """MethodError unless all plans show the same pictures and say the same of them."""
    first, *others = plans
    for name in others:
        if what_is_shown(plans[name]) != what_is_shown(plans[first]):
            raise MethodError(f"{name} does not learn from the pictures and captions of {first}: train it by itself")


def start(name: str, plan: Plan, folder: Path, device: str, end: int) -> Training:
    """Start a plan's process. A new interpreter: one forked from here could not use a GPU."""
    spawn = multiprocessing.get_context("spawn")
    queue = spawn.Queue(AHEAD)
    process = spawn.Process(target=follow, args=(plan, folder, device, end, queue), daemon=True)
    process.start()
    return Training(name, process, queue)


def follow(plan: Plan, folder: Path, device: str, end: int, queue: Any) -> None:
    """Train a plan by the batches of a queue."""
    train(plan, folder, device, end, draw=partial(received, queue))


def received(queue: Any, plan: Plan, folder: Path, first: int, end: int, workers: int) -> Iterator[Batch]:
    """The batches of some steps out of a queue, which may begin with earlier ones."""
    for _ in range(first, end):
        step, batch = queue.get()
        while step < first:
            step, batch = queue.get()
        yield batch


def hand_on(training: Training, item: tuple[int, Batch]) -> None:
    """Put a batch into a training's queue once there is room. WorkerError if the training has ended."""
    while True:
        try:
            return training.queue.put(item, timeout=5)
        except Full:
            check_ended(training)
            if not training.process.is_alive():
                return None  # it had done these steps before


def check_ended(training: Training) -> None:
    """WorkerError if a training's process has failed."""
    if training.process.exitcode:
        raise WorkerError(f"the training of {training.name} ended with exit code {training.process.exitcode}")
