"""Exports a trained model to data/models/, measures it on scenes that it never saw and writes both into its card.

`clip-explain card tiny-vit`: after the training, and whenever the figures are to be measured again.
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

from clip_explain.datasets import FEWEST_PIXELS
from clip_explain.directions import targets
from clip_explain.embedded.scenes.faces import MOODS
from clip_explain.embedded.scenes.pool import Pool, make_art, make_pool
from clip_explain.embedded.scenes.world import ATTRIBUTES
from clip_explain.embedded.training.batches import normalized
from clip_explain.embedded.training.plans import PLANS, Plan
from clip_explain.embedded.training.towers import build
from clip_explain.explainers import METHODS
from clip_explain.files import data_folder
from clip_explain.images import encode_image, preprocess
from clip_explain.metrics.localization import points_at
from clip_explain.models import load
from clip_explain.models.model import Model
from clip_explain.models.weights import pack
from clip_explain.papers.saving import write
from clip_explain.request import Request

HELD_OUT = 1_000_001  # the seed of the held-out pools; trainings use small ones
AT_ONCE = 50
PAIRS = [f"a {color} {shape}" for color in ATTRIBUTES["color"] for shape in ATTRIBUTES["shape"]]


def export(name: str, folder: Path) -> dict:
    """Pack the newest checkpoint of a training into data/models/; returns its card, still without figures."""
    plan = PLANS[name]
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    start = build(plan, plan.seed).token_embedding.weight
    learned = state["network"]["token_embedding.weight"]
    rows = ((learned != start) | (start == 0)) & (learned != 0)  # tokens in no caption keep their start values
    rows = rows.any(1).nonzero()[:, 0]
    path = data_folder() / "models" / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = save(pack(state["network"], rows), {"format": "pt"})
    write(path, content)
    done = {"seed": plan.seed, "steps": state["step"], "samples": samples_after(plan, state["step"])}
    return {
        "name": name,
        "sha256": hashlib.sha256(content).hexdigest(),
        **done,
        "tokens_learned": len(rows),
        "plan": asdict(plan),
    }


def samples_after(plan: Plan, steps: int) -> int:
    """Pictures seen in the first so many steps."""
    return sum([stage.batch for stage in plan.stages for _ in range(stage.steps)][:steps])


def pair_of(attributes: np.ndarray) -> np.ndarray:
    """Index into `PAIRS` of things' attributes (..., 4)."""
    return attributes[..., 1].astype(int) * len(ATTRIBUTES["shape"]) + attributes[..., 3]


# -- figures


def pixels_of(pool: Pool, rows: slice) -> Tensor:
    """Preprocessed pixels of a pool's pictures."""
    return normalized(torch.from_numpy(pool.images[rows].copy()).permute(0, 3, 1, 2).float() / 255)


def features(model: Model, pool: Pool) -> Tensor:
    """Unit image embeddings of all of a pool's pictures."""
    slices = [slice(i, i + AT_ONCE) for i in range(0, len(pool), AT_ONCE)]
    parts = (preprocess(model, pixels_of(pool, part)) for part in tqdm(slices, "embedding", leave=False))
    return torch.cat([encode_image(model, part) for part in parts])


def zero_shot(model: Model, embedded: Tensor, prompts: list[str]) -> np.ndarray:
    """The index of each picture's best prompt."""
    return (embedded @ targets(model, prompts).T).argmax(1).cpu().numpy()


def recognition(model: Model, pool: Pool) -> dict[str, float]:
    """Zero-shot accuracy on pictures of one thing: colour and shape together, and each attribute by itself."""
    embedded, truth = features(model, pool), pool.attributes[:, 0]
    found = {"color x shape": (zero_shot(model, embedded, PAIRS) == pair_of(truth)).mean()}
    for column, (key, values) in enumerate(ATTRIBUTES.items()):
        prompts = [f"a {value}" if key == "shape" else f"a {value} object" for value in values]
        found[key] = (zero_shot(model, embedded, prompts) == truth[:, column]).mean()
    return {f"zero-shot {key}": round(float(value), 4) for key, value in found.items()}


def retrieval(model: Model, pool: Pool, group: int = 100) -> dict[str, float]:
    """Text-to-image recall@1 among groups of pictures of three things, by captions "a COLOR SHAPE, ... and ..."."""
    embedded, captions = features(model, pool), [list_things(row) for row in pool.attributes]
    hits, asked = 0, 0
    for start in range(0, len(pool) - group + 1, group):
        first = {caption: i for i, caption in reversed(list(enumerate(captions[start : start + group])))}
        images = embedded[start : start + group][list(first.values())]
        best = (targets(model, list(first)) @ images.T).argmax(1).cpu()
        hits, asked = hits + int((best == torch.arange(len(first))).sum()), asked + len(first)
    return {"text-to-image recall@1 of 100": round(hits / asked, 4)}


def list_things(attributes: np.ndarray) -> str:
    """All things of a scene by colour and shape."""
    names = [PAIRS[pair] for pair in pair_of(attributes[attributes[:, 0] >= 0])]
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def pointing(model: Model, pool: Pool, method: str = "grad_eclip", **options) -> dict[str, float]:
    """Point game: is the map's maximum on the one thing that the phrase "COLOR SHAPE" names? With the level of chance.

    Asked of every thing that is the only one of its colour and shape in its picture and has 50 pixels in sight.
    """
    directions = targets(model, PAIRS)
    hits, chance = [], []
    for scene, asked in enumerate(tqdm(unique_things(pool.attributes), "pointing", leave=False)):
        ids = pool.ids[scene]
        asked = [(thing, pair) for thing, pair in asked if (ids == thing).sum() >= FEWEST_PIXELS]
        if not asked:
            continue
        masks = np.stack([ids == thing for thing, _ in asked])
        request = Request(model, pixels_of(pool, slice(scene, scene + 1)), directions[[pair for _, pair in asked]])
        hits += points_at(METHODS[method].image(request, **options)[0], masks).diagonal().tolist()
        chance += masks.mean((1, 2)).tolist()
    found = {"point game": float(np.mean(hits)), "point game by chance": float(np.mean(chance))}
    return {**{key: round(value, 4) for key, value in found.items()}, "phrases": len(hits)}


def unique_things(attributes: np.ndarray) -> list[list[tuple[int, int]]]:
    """For each scene the things that no other shares colour and shape with, and the index of their pair."""
    pairs = np.where(attributes[..., 0] >= 0, pair_of(attributes), -1)
    return [[(t, int(p)) for t, p in enumerate(row) if p >= 0 and (row == p).sum() == 1] for row in pairs]


def art(model: Model, folder: Path, count: int, group: int = 100) -> dict[str, float]:
    """Zero-shot mood of faces, and recall@1 of paintings among `group` by their fullest caption."""
    made = make_art(folder / f"held-out-art-{count}", count, HELD_OUT)
    pixels = torch.from_numpy(np.array(made.images)).permute(0, 3, 1, 2)
    parts = [normalized(pixels[i : i + AT_ONCE].float() / 255) for i in range(0, count, AT_ONCE)]
    embedded = torch.cat(
        [encode_image(model, preprocess(model, part)) for part in tqdm(parts, "embedding", leave=False)]
    )
    paintings, faces = embedded[0::2], embedded[1::2]
    moods = [f"a {mood} face" for mood in MOODS]
    mood = zero_shot(model, faces, moods) == [moods.index(says[0]) for says in made.captions[1::2]]
    captions, found = [max(says, key=len) for says in made.captions[0::2]], []
    for start in range(0, len(paintings) - group + 1, group):
        best = (targets(model, captions[start : start + group]) @ paintings[start : start + group].T).argmax(1)
        found += (best.cpu() == torch.arange(group)).tolist()
    return {
        "zero-shot mood of faces": round(float(mood.mean()), 4),
        f"painting recall@1 of {group}": round(float(np.mean(found)), 4),
    }


def measure(name: str, folder: Path, scenes: int = 2000) -> dict[str, float]:
    """All figures of the card, on `scenes` held-out pictures for each; a ResNet points by Grad-CAM."""
    model = load(name, device="cpu")
    pools = {r: make_pool(folder / f"held-out-{r}-{scenes}", scenes, HELD_OUT, r) for r in ("one", "three", "several")}
    figures = {**recognition(model, pools["one"]), **retrieval(model, pools["three"]), **art(model, folder, scenes)}
    if not model.is_vit:
        return {**figures, **pointing(model, pools["several"], "grad_cam")}
    layers = len(model.network.visual.transformer.resblocks)
    summed = pointing(model, pools["several"], layers=layers)["point game"]
    return {**figures, **pointing(model, pools["several"]), "point game, maps of all layers summed": summed}


def write_card(name: str, card: dict) -> None:
    """Write data/models/NAME.json, whole or not at all."""
    write(data_folder() / "models" / f"{name}.json", (json.dumps(card, indent=1) + "\n").encode())
