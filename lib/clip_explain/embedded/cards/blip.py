"""Exports the embedded BLIP to data/models/, as transformers reads it, and measures it for its card."""

from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from clip_explain.embedded.cards.clip import read_checkpoint, samples_after
from clip_explain.embedded.cards.figures import Figures, chance, held_out, named, pointing, recognition, retrieval
from clip_explain.embedded.training.blip import PLAN, build_blip, vocabulary
from clip_explain.embedded.training.plans import Plan
from clip_explain.models import load
from clip_explain.models.embedded import embedded_folder
from clip_explain.models.weights import checksum
from clip_explain.papers.saving import write


def export(name: str, folder: Path, plan: Plan = PLAN) -> dict:
    """Write the newest checkpoint to data/models/NAME/, in fp16, as transformers reads it; returns its card."""
    state = read_checkpoint(folder)
    network: Any = build_blip(plan, plan.seed)
    network.load_state_dict(state["network"])
    del network.logit_scale  # no part of BLIP's own
    target = embedded_folder() / name
    with TemporaryDirectory() as made:
        network.half().save_pretrained(made)
        Path(made, "vocab.txt").write_text("\n".join(vocabulary()) + "\n")
        for file in ("model.safetensors", "vocab.txt", "config.json"):
            write(target / file, Path(made, file).read_bytes())
    sha256 = checksum(target / "model.safetensors")
    started = load(plan.start).sha256 if plan.start else None
    done = {"seed": plan.seed, "steps": state["step"], "samples": samples_after(asdict(plan), state["step"])}
    return {"name": name, "sha256": sha256, "start_sha256": started, **done, "plan": asdict(plan)}


def measure(name: str, folder: Path, scenes: int) -> Figures:
    """The card's figures on unseen scenes: those of tiny-vit without paintings, faces and words."""
    model = load(f"blip:{name}", "cpu")
    one, three, several = (held_out(folder, recipe, scenes) for recipe in ("one", "three", "several"))
    layers = len(model.network.visual.transformer.resblocks)
    found = recognition(model, one) | retrieval(model, three)
    found |= named("pointing game by chance", chance(several))
    found |= named("pointing game", pointing(model, several))
    return found | named("pointing game, maps of all layers summed", pointing(model, several, layers=layers))
