"""Exports a trained model to data/models/, measures it on scenes that it never saw and writes both into its card.

`clip-explain card tiny-vit`: after the training, and whenever the figures are to be measured again.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors.torch import save
from torch import nn

from clip_explain.embedded.cards.curve import save_curve
from clip_explain.embedded.cards.figures import Figures, measure_clip
from clip_explain.embedded.training.plans import PLANS
from clip_explain.embedded.training.towers import build
from clip_explain.errors import WeightsError
from clip_explain.metrics.intervals import Interval
from clip_explain.models import load
from clip_explain.models.embedded import embedded_path
from clip_explain.models.weights import pack
from clip_explain.papers.saving import write


def read_checkpoint(folder: Path) -> dict:
    """The newest checkpoint of a training. WeightsError if there is none, or it cannot be read."""
    path = folder / "checkpoint.pt"
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, ValueError) as error:
        raise WeightsError(f"no checkpoint of a training at {str(path)!r}: {error}") from error
    except (RuntimeError, EOFError, UnpicklingError) as error:
        raise WeightsError(f"{path} cannot be read as a checkpoint: {str(error).splitlines()[0]}") from error


def export(name: str, folder: Path) -> dict:
    """Pack the newest checkpoint of a training into data/models/, its curve beside it.

    Returns its card, still without figures.
    """
    plan = PLANS[name]
    state = read_checkpoint(folder)
    network = build(plan, plan.seed)
    start = network.token_embedding.weight
    learned = state["network"]["token_embedding.weight"]
    rows = ((learned != start) | (start == 0)) & (learned != 0)  # tokens in no caption keep their start values
    rows = rows.any(1).nonzero()[:, 0]
    path = embedded_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = save(pack(state["network"], rows), {"format": "pt", **heads_of(network)})
    write(path, content)
    followed = json.loads((folder / "plan.json").read_text())
    save_curve(folder, followed, path.with_suffix(".png"))
    done = {"seed": plan.seed, "steps": state["step"], "samples": samples_after(followed, state["step"])}
    return {
        "name": name,
        "sha256": hashlib.sha256(content).hexdigest(),
        **done,
        "tokens_learned": len(rows),
        "plan": followed,
    }


def heads_of(network: nn.Module) -> dict[str, str]:
    """The heads of each transformer, as a weights file's metadata have them."""
    towers = {"vision_heads": network.visual, "text_heads": network}
    transformers = {name: tower.transformer for name, tower in towers.items() if hasattr(tower, "transformer")}
    return {name: str(blocks.resblocks[0].attn.num_heads) for name, blocks in transformers.items()}


def samples_after(plan: Mapping, steps: int) -> int:
    """Pictures seen in the first so many steps of a plan as its `plan.json` has it."""
    return sum([stage["batch"] for stage in plan["stages"] for _ in range(stage["steps"])][:steps])


def measure(name: str, folder: Path, scenes: int = 2000) -> Figures:
    """All figures of the card, on `scenes` held-out pictures for each."""
    return measure_clip(load(name, device="cpu"), folder, scenes)


def noted(found: Mapping[str, Interval | float]) -> dict[str, dict]:
    """Figures as a card holds them: under "figures" their means; under "intervals" bounds (95 %) and counts."""
    means = {key: round(one.mean, 4) if isinstance(one, Interval) else one for key, one in found.items()}
    bounds = {
        key: [round(one.low, 4), round(one.high, 4), one.count]
        for key, one in found.items()
        if isinstance(one, Interval)
    }
    return {"figures": means, "intervals": bounds}


def write_card(name: str, card: dict) -> None:
    """Write data/models/NAME.json, whole or not at all."""
    write(embedded_path(name).with_suffix(".json"), (json.dumps(card, indent=1) + "\n").encode())
