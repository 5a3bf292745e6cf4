"""The training curve that is shipped beside a card, drawn from the log of the training."""

import json
from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt

from clip_explain.papers.saving import png, write
from clip_explain.plots.charts import training


def read_losses(log: Path) -> dict[int, float]:
    """The loss of each step that was logged; of a step that was taken again after a break, the later one."""
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    found = {row["step"]: row["loss"] for row in rows}
    return {step: found[step] for step in sorted(found)}


def save_curve(folder: Path, plan: Mapping, path: Path) -> None:
    """Draw the log of a training in `folder`, by a plan as its `plan.json` has it, as a PNG."""
    figure, ax = plt.subplots(figsize=(6.3, 2.6), layout="constrained")
    training(read_losses(folder / "log.jsonl"), {stage["name"]: stage["steps"] for stage in plan["stages"]}, ax)
    write(path, png(figure))
    plt.close(figure)
