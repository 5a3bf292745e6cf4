"""Exports tiny-dino, ICLIP and its ablations to data/models/, and measures them for their cards.

Beside card.py, whose command `clip-explain card NAME` calls it.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from clip_explain import datasets
from clip_explain.directions import targets
from clip_explain.embedded.cards.clip import read_checkpoint
from clip_explain.embedded.cards.figures import AT_ONCE, HELD_OUT, pixels_of
from clip_explain.embedded.scenes.pool import Pool, make_pool
from clip_explain.embedded.training.dino import build as build_pair
from clip_explain.embedded.training.iclip import build as build_text
from clip_explain.embedded.training.iclip import packed
from clip_explain.embedded.training.plans import DINO_PLANS, ICLIP_PLANS
from clip_explain.explainers import METHODS, explain
from clip_explain.images import encode_image
from clip_explain.metrics.pointing import energy_pointing_game
from clip_explain.metrics.recognition import mean_average_precision
from clip_explain.metrics.segmentation import foreground_minus_background, iou_curves, mfmb, mmiou
from clip_explain.models import load
from clip_explain.models.dino import load_dino
from clip_explain.models.embedded import embedded_path
from clip_explain.models.iclip import as_clip, load_encoder, poolings_of, recognition
from clip_explain.models.model import Model
from clip_explain.papers.saving import write
from clip_explain.request import Request

MAPS = {"": ("iclip", {}), ", norm of each token": ("iclip", {"norm": "token"}), ", without mask": ("itsm", {})}


def export(name: str, folder: Path) -> dict:
    """Write data/models/NAME.safetensors from the newest checkpoint; returns the card, still without figures."""
    state = read_checkpoint(folder)
    content = (dino_content if name in DINO_PLANS else iclip_content)(name, state["network"])
    write(embedded_path(name), content)
    plan = (DINO_PLANS | ICLIP_PLANS)[name]
    sha256 = hashlib.sha256(content).hexdigest()
    losses = losses_of(folder / "log.jsonl")  # a rerun from the seed repeats them
    made = {"seed": plan.seed, "steps": state["step"], "loss at step": losses}
    return {"name": name, "sha256": sha256, **made, "plan": asdict(plan)}


def losses_of(log: Path) -> dict[int, float]:
    """The logged losses at the first step, at the fiftieth or the next that was logged, and at the last."""
    losses = {row["step"] + 1: row["loss"] for row in map(json.loads, log.read_text().splitlines())}
    fiftieth = min((step for step in losses if step >= 50), default=max(losses))
    return {step: losses[step] for step in (min(losses), fiftieth, max(losses))}


def dino_content(name: str, state: dict[str, Tensor]) -> bytes:
    """The teacher's vision transformer in fp16, as DINO's authors evaluate it; no head, no projection."""
    pair = build_pair(DINO_PLANS[name])
    pair.load_state_dict(state)
    visual = pair.teacher["visual"].state_dict()
    return save({key: value.half().contiguous() for key, value in visual.items() if key != "proj"}, {"format": "pt"})


def iclip_content(name: str, state: dict[str, Tensor]) -> bytes:
    plan = ICLIP_PLANS[name]
    text = build_text(plan, state["image_projection"].shape[1])
    text.load_state_dict(state)
    return packed(plan, text, load_encoder(plan.encoder))


def measure(name: str, folder: Path, scenes: int) -> dict[str, float]:
    """All figures of a card, on scenes that no training saw."""
    if name in DINO_PLANS:
        return separation(
            load_dino(name), make_pool(folder / f"held-out-several-{scenes}", scenes, HELD_OUT, "several")
        )
    model, plan = load("iclip" + name.removeprefix("iclip").replace("-", ":", 1), "cpu"), ICLIP_PLANS[name]
    own = model.network
    start = build_text(plan, own.text.image_projection.shape[1]).eval()
    untrained = as_clip(own.encoder, start, poolings_of(plan.pooling, plan.dual))
    before = {f"before training: {key}": value for key, value in maps_and_recognition(untrained, scenes).items()}
    return {**maps_and_recognition(model, scenes), **before}


def separation(model: Model, pool: Pool) -> dict[str, float]:
    """How much of the last block's class-token attention, mean over heads, lies on objects, beside their area."""
    direction = torch.eye(model.embedding_size)[:1]
    energies, areas = [], []
    for start in tqdm(range(0, len(pool), AT_ONCE), "attention", leave=False):
        part = slice(start, min(start + AT_ONCE, len(pool)))
        maps = METHODS["self_attention"].image(Request(model, pixels_of(pool, part), direction))[:, 0]
        inside = np.asarray(pool.ids[part]) >= 0
        energies += energy_pointing_game(maps, inside).tolist()
        areas += inside.mean((1, 2)).tolist()
    ratios = np.divide(energies, areas)
    figures = {
        "attention on objects": np.mean(energies),
        "objects' share of the area": np.mean(areas),
        "ratio": np.mean(energies) / np.mean(areas),
        "ratio in the middle scene": np.median(ratios),
        "scenes with a ratio of 2 or more": np.mean(ratios >= 2),
    }
    return {key: round(float(value), 4) for key, value in figures.items()}


def maps_and_recognition(model: Model, scenes: int) -> dict[str, float]:
    """mAP of the recognition branch, and mMIoU and mFMB of the maps, of ICLIP and with its parts left out."""
    dataset = datasets.load("scenes", scenes)
    scored, names = recognition(model), list(dataset.classes)
    directions, own = targets(model, names), targets(scored, names)
    scores, present, classes = [], torch.zeros(scenes, len(names), dtype=torch.bool), []
    curves, differences = {key: [] for key in MAPS}, {key: [] for key in MAPS}
    for i, record in enumerate(tqdm(dataset, "maps", leave=False)):
        scores.append(encode_image(scored, record.image) @ own.T)
        present[i, list(record.labels)] = True
        asked = [names.index(text) for text in record.texts]
        classes += asked
        for key, (method, options) in MAPS.items():
            maps = explain(model, record.image, directions[asked], method, **options)[0]
            curves[key].append(iou_curves(maps, record.masks))
            differences[key].append(foreground_minus_background(maps, record.masks))
    figures = {"mAP": mean_average_precision(torch.cat(scores), present)}
    for key in MAPS:
        figures[f"mMIoU{key}"] = mmiou(torch.cat(curves[key]), classes)
        figures[f"mFMB{key}"] = mfmb(torch.cat(differences[key]), classes)
    return {key: round(float(value), 4) for key, value in figures.items()}
