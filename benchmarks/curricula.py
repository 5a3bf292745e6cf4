"""Compares ways of training a small CLIP at equal time, from nothing: `python benchmarks/curricula.py`.

Each way changes one setting of the same short curriculum (tiny-vit's first and third stage, for towers of half its
depth) and takes as many steps as fit the same CPU time of one core, drawing included. All are measured on the same
held-out pictures; the two runs of the curriculum as it is, with two seeds, show how much is chance. Seconds a step are
measured first, all ways in turn, and kept, so that a comparison that was stopped goes on as it began.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

warnings.filterwarnings("ignore", message="pkg_resources is deprecated")

from clip_explain import files  # noqa: E402
from clip_explain.embedded.cards.clip import noted  # noqa: E402
from clip_explain.embedded.cards.figures import (  # noqa: E402
    Figures,
    held_out,
    named,
    pointing,
    recognition,
    removals,
    retrieval,
)
from clip_explain.embedded.training.batches import SIDE, Batch, draw_batches, open_stage_pool  # noqa: E402
from clip_explain.embedded.training.loop import make_optimizer, take_step, train  # noqa: E402
from clip_explain.embedded.training.losses import descend  # noqa: E402
from clip_explain.embedded.training.plans import CURRICULUM, TINY_VIT, Plan  # noqa: E402
from clip_explain.embedded.training.towers import build, grid_of, places_in_grid, run_blocks  # noqa: E402
from clip_explain.embedded.training.windows import cut, draw_windows, jitter, normalized, scene_weights  # noqa: E402
from clip_explain.models import load  # noqa: E402
from clip_explain.models.model import Model  # noqa: E402

POOL = ("training", 1, 4000)
SHARES = (0.6, 0.4)  # of the time for the first and the second stage
HIDDEN = 0.6  # of the patches, as SimMIM has it
FEW = dict(batch=96, pool=POOL, art=0)
SHORT = replace(
    TINY_VIT,
    vision_layers=6,
    text_layers=4,
    warmup=50,
    stages=(replace(CURRICULUM[0], **FEW), replace(CURRICULUM[2], **FEW, rate=2e-5)),
)
SHOWN = {  # the table's columns
    "zero-shot color x shape": "colour and shape",
    "zero-shot material": "material",
    "color x shape, the object alone on black": "object alone on black",
    "color x shape, 20 % of single pixels black": "20 % of pixels black",
    "color x shape, 50 % of patches black": "50 % of patches black",
    "text-to-image recall@1 of 100": "text to image, 1 of 100",
    "pointing game": "pointing game of Grad-ECLIP",
    "pointing game, within 8 pixels": "within 8 pixels",
    "pointing game, legrad": "of LeGrad",
}


@dataclass(frozen=True)
class Way:
    """One way to train: what the plan and each of its stages have otherwise, and the share of the time that goes into
    guessing hidden patches before the image tower sees any caption."""

    plan: Mapping = field(default_factory=dict)
    stages: tuple[Mapping, Mapping] = ({}, {})
    guessing: float = 0.0


def width(channels: int) -> Way:
    """Towers so wide, with heads of 32 channels."""
    heads = channels // 32
    return Way(dict(vision_width=channels, text_width=channels, vision_heads=heads, text_heads=heads))


WAYS = {
    "as it is": Way(),
    "six captions a picture": Way(stages=(dict(captions=6),) * 2),
    "patches apart from the first stage on": Way(stages=(dict(patch_isolation=0.6), {})),
    "hidden patches guessed first": Way(guessing=0.25),
    "towers 192 wide": width(192),
    "towers 96 wide": width(96),
    "as it is, another seed": Way(dict(seed=2)),
}


def plan_of(way: Way) -> Plan:
    """The plan of a way, its steps still to be set."""
    stages = tuple(replace(stage, **changes) for stage, changes in zip(SHORT.stages, way.stages, strict=True))
    return replace(SHORT, stages=stages, **way.plan)


# -- equal time


def seconds_a_step(plan: Plan, folder: Path, count: int) -> list[float]:
    """CPU seconds of a step of each stage, drawing included; the first step is not counted."""
    network = build(plan, plan.seed)
    optimizer, found, first = make_optimizer(network, plan), [], 0
    for stage in plan.stages:
        batches = draw_batches(plan, folder, first, first + count + 1)
        take_step(network, optimizer, next(batches), "cpu")
        start = time.process_time()
        for batch in batches:
            take_step(network, optimizer, batch, "cpu")
        found.append((time.process_time() - start) / count)
        first += stage.steps
    return found


def measured_seconds(ways: Mapping[str, Way], folder: Path, count: int) -> dict[str, list[float]]:
    """Seconds a step of each way's stages, the lower of two rounds; kept in the folder.

    Guessing has its own as a third number, of one stage.
    """
    note = folder / "seconds.json"
    known = json.loads(note.read_text()) if note.exists() else {}
    missing = {name: way for name, way in ways.items() if name not in known}
    rounds = [{name: seconds_of(way, folder, count) for name, way in missing.items()} for _ in range(2)]
    for name in missing:
        known[name] = np.min([each[name] for each in rounds], axis=0).round(4).tolist()
    files.write(note, lambda place: place.write_text(json.dumps(known, indent=1)))
    return known


def seconds_of(way: Way, folder: Path, count: int) -> list[float]:
    """Seconds a step of a way's two stages, and of guessing, if it guesses."""
    plan = plan_of(way)
    found = seconds_a_step(plan, folder, count)
    if way.guessing:
        start = time.process_time()
        guess(build(plan, plan.seed), plan, folder, count)
        found.append((time.process_time() - start) / count)
    return found


def timed(plan: Plan, way: Way, seconds: list[float], budget: float) -> tuple[Plan, int]:
    """The plan with as many steps as fit `budget` CPU seconds, and the steps of guessing before it."""
    left, stages = budget * (1 - way.guessing), []
    for stage, share, each in zip(plan.stages, SHARES, seconds[: len(SHARES)], strict=True):
        stages.append(replace(stage, steps=max(1, round(left * share / each))))
    guesses = round(budget * way.guessing / seconds[-1]) if way.guessing else 0
    return replace(plan, stages=tuple(stages)), guesses


# -- guessing hidden patches


class Guesser(nn.Module):
    """An image tower that sees a learnt token in place of hidden patches and guesses their pixels.

    As SimMIM (Xie et al. 2022, section 3): the whole tower reads all tokens, and the head is linear.
    """

    def __init__(self, visual: nn.Module, patch: int) -> None:
        super().__init__()
        channels = len(visual.class_embedding)
        self.visual, self.token = visual, nn.Parameter(torch.zeros(channels))
        self.head = nn.Linear(channels, 3 * patch * patch)

    def forward(self, pixels: Tensor, corner: tuple[int, int], hidden: Tensor) -> Tensor:
        """The guessed pixels of all patches (images, patches, 3 x patch x patch); `hidden` is (images, patches)."""
        visual = self.visual
        places = places_in_grid(len(visual.positional_embedding), corner, grid_of(visual, pixels.shape[2:]))
        tokens = visual.conv1(pixels).flatten(2).transpose(1, 2)
        tokens = torch.where(hidden[..., None], self.token.to(tokens), tokens) + visual.positional_embedding[places]
        own = (visual.class_embedding + visual.positional_embedding[0]).expand(len(pixels), 1, -1)
        x = run_blocks(visual.transformer.resblocks, visual.ln_pre(torch.cat([own, tokens], 1)), False)
        return self.head(visual.ln_post(x[:, 1:]))


def patches_of(pixels: Tensor, patch: int) -> Tensor:
    """Each patch's pixels less their mean, over their deviation (He et al. 2022, "normalized pixels")."""
    found = F.unfold(pixels, patch, stride=patch).transpose(1, 2)
    return (found - found.mean(-1, keepdim=True)) / (found.var(-1, keepdim=True) + 1e-6).sqrt()


def guess(network: nn.Module, plan: Plan, folder: Path, steps: int) -> list[float]:
    """Train the image tower to guess hidden patches of the first stage's windows; returns the losses."""
    guesser, losses = Guesser(network.visual, plan.patch), []
    optimizer = make_optimizer(guesser, plan)
    for pixels, corner, hidden in drawn_windows(plan, folder, steps):
        with torch.autocast("cpu", torch.bfloat16):
            guessed = guesser(pixels, corner, hidden)
        loss = F.mse_loss(guessed.float()[hidden], patches_of(pixels, plan.patch)[hidden])
        descend(guesser, optimizer, loss)
        losses.append(loss.item())
    return losses


def drawn_windows(plan: Plan, folder: Path, steps: int) -> Iterator[tuple[Tensor, tuple[int, int], Tensor]]:
    """For each step a batch of the first stage's windows, their corner in the tower's grid, and the hidden patches."""
    stage = plan.stages[0]
    pool, side = open_stage_pool(folder, stage), stage.window // plan.patch
    for step in range(steps):
        rng = np.random.default_rng([plan.seed, 1, step])
        picked = rng.choice(len(pool), stage.batch, p=scene_weights(pool, stage.close))
        windows = draw_windows(pool, picked, stage.window, stage.magnification, stage.grey, rng)
        pixels = normalized(jitter(cut(pool, windows), windows.grey, rng))
        row, column = rng.integers(SIDE // plan.patch - side + 1, size=2).tolist()
        hidden = torch.from_numpy(rng.random((stage.batch, side * side)) < HIDDEN)
        yield pixels, (row, column), hidden


def build_guessed(folder: Path, guesses: int, plan: Plan, seed: int) -> nn.Module:
    """A network whose image tower has guessed so many batches; kept, so that a training that goes on does not again."""
    network, kept = build(plan, seed), folder / "guessed.pt"
    if not kept.exists():
        guess(network, plan, folder.parent, guesses)
        files.write(kept, lambda place: torch.save(network.state_dict(), place))
    network.load_state_dict(torch.load(kept, weights_only=True))
    return network


# -- measuring


def run(name: str, seconds: list[float], minutes: float, folder: Path, pictures: int) -> dict:
    """Train one way and measure it; returns its row, which is kept in the way's folder."""
    way, own = WAYS[name], folder / name.replace(" ", "-").replace(",", "")
    note = own / "figures.json"
    if note.exists():
        return json.loads(note.read_text())
    plan, guesses = timed(plan_of(way), way, seconds, 60 * minutes)
    own.mkdir(parents=True, exist_ok=True)
    make: Callable[[Plan, int], nn.Module] = partial(build_guessed, own, guesses) if guesses else build
    start = time.process_time()
    network = train(plan, own, "cpu", workers=0, make=make, draw=partial(draw_shared, folder))
    spent = time.process_time() - start
    steps = {"guessing": guesses} | {stage.name: stage.steps for stage in plan.stages}
    row = {"steps": steps, "CPU minutes": round(spent / 60, 1), **noted(measured(model_of(network), folder, pictures))}
    files.write(note, lambda place: place.write_text(json.dumps(row, indent=1)))
    return row


def draw_shared(shared: Path, plan: Plan, _: Path, *steps: int) -> Iterator[Batch]:
    """A plan's batches for some steps from the pool that all ways share, not from one of its own."""
    return draw_batches(plan, shared, *steps)


def model_of(network: nn.Module) -> Model:
    """The network as a model to explain."""
    like = load("tiny-vit", "cpu", "fp32")
    return replace(like, network=network.eval().requires_grad_(False), name="a small CLIP", sha256="")


def measured(model: Model, folder: Path, pictures: int) -> Figures:
    """Recognition, removals and retrieval on `pictures` each, and pointing on half as many."""
    one, three = (held_out(folder, recipe, pictures) for recipe in ("one", "three"))
    several = held_out(folder, "several", pictures // 2)
    found = recognition(model, one) | removals(model, one) | retrieval(model, three)
    found |= named("pointing game", pointing(model, several))
    return found | named("pointing game, legrad", pointing(model, several, "legrad"))


def markdown(rows: Mapping[str, Mapping]) -> str:
    """The table: for each way its steps, and each figure in percent with half of its interval's width."""
    lines = ["| way | steps | " + " | ".join(SHOWN.values()) + " |", "|---" * (len(SHOWN) + 2) + "|"]
    for name, row in rows.items():
        steps = " + ".join(str(count) for count in row["steps"].values() if count)
        lines.append(f"| {name} | {steps} | " + " | ".join(percent(row, figure) for figure in SHOWN) + " |")
    return "\n".join(lines)


def percent(row: Mapping, figure: str) -> str:
    """A figure and half of the width of its interval, in percent."""
    low, high, _ = row["intervals"][figure]
    return f"{100 * row['figures'][figure]:.1f} ± {50 * (high - low):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ways", nargs="*", metavar="way", help=f"by default all: {'; '.join(WAYS)}")
    parser.add_argument("--minutes", type=float, default=10, help="CPU time of each way's training")
    parser.add_argument("--pictures", type=int, default=1000, help="to measure on; half as many for the pointing game")
    parser.add_argument("--folder", type=Path, default=Path("runs/curricula"), help="pools, checkpoints and figures")
    options = parser.parse_args()
    if unknown := set(options.ways) - set(WAYS):
        parser.error(f"got {', '.join(sorted(unknown))}, expected some of: {'; '.join(WAYS)}")
    if options.pictures < 200:
        parser.error(f"got {options.pictures} pictures, expected 200 or more: retrieval is among 100")
    torch.set_num_threads(1)
    seconds = measured_seconds(WAYS, options.folder, 5)
    chosen = options.ways or list(WAYS)
    rows = {name: run(name, seconds[name], options.minutes, options.folder, options.pictures) for name in chosen}
    print(markdown(rows))


if __name__ == "__main__":
    main()
