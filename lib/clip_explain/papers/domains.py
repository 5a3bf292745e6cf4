"""Images of several domains (GE Figure 11): which records, pictures of the methods, and rows of what a model knows.

The i-th image of each domain is called "object i" in the long table, since rendered domains show the same objects.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from clip_explain import plots
from clip_explain.datasets import DATASETS, Record, load
from clip_explain.directions import targets
from clip_explain.explainers import explain
from clip_explain.explainers.registry import title_of
from clip_explain.metrics.concentration import overlap
from clip_explain.metrics.pointing import energy_in, points_at
from clip_explain.models.model import Model
from clip_explain.papers.attributes import color_part_of_words
from clip_explain.papers.tables import measured
from clip_explain.papers.variants import object_share

Rows = list[dict[str, Any]]
Heats = Sequence[Float[Tensor, "1 grid_h grid_w"]]  # a map an image


def records_of_domains(domains: Sequence[str], dataset: str, count: int, seed: int) -> dict[str, list[Record]]:
    """The first records of each domain: of the dataset that is called so, or else of `dataset` drawn in that domain."""
    found = {}
    for name in domains:
        where, options = (name, {}) if name in DATASETS else (dataset, {"domain": name})
        found[name] = list(tqdm(load(where, count, seed, **options), desc=name))
    return found


def color_and_shape(records: Sequence[Record]) -> list[str]:
    """Each record's first text; "a COLOR SHAPE" if all have both as facts, also where the color does not show."""
    if all({"color", "shape"} <= set(record.facts) for record in records):
        return [f"a {record.facts['color']} {record.facts['shape']}" for record in records]
    return [record.texts[0] for record in records]


def largest_object(records: Sequence[Record], texts: Sequence[str], word: str) -> Record:
    """Of the records whose text has the word, or else of all, the one whose object covers most of the image."""
    with_word = [record for record, text in zip(records, texts, strict=True) if word in text]
    return max(with_word or records, key=lambda record: object_share(record, "full"))


def draw_domains(model: Model, chosen: Mapping[str, Record], methods: Sequence[str]) -> np.ndarray:
    """A `plots.comparison` of a record of each domain by several methods, its first text and the cosine above it.

    The picture is outlined by its first mask, if there is one. Returns the axes of a new figure.
    """
    labels, heats, masks = [], [], []
    for name, record in tqdm(chosen.items(), desc="images shown"):
        found = [explain(model, record.image, record.texts[0], method, fit="full") for method in methods]
        labels.append(f"{name}: {record.texts[0]}, {float(found[0].scores):.3f}")
        heats.append([each.maps[0, 0].cpu() for each in found])
        masks.append(None if record.masks is None else record.masks[0])
    images = [record.image for record in chosen.values()]
    axes = plots.comparison(images, labels, heats, [title_of(method) for method in methods])
    plots.outline_rows(axes[:, :1], masks)
    return axes


def own_text_best(model: Model, records: Sequence[Record], method: str) -> tuple[Rows, list[Tensor]]:
    """Rows of "own text best", and Grad-ECLIP's map of each image for its own text, (1, grid_h, grid_w), on the CPU.

    1 where the image's cosine with its first text is above those with the first texts of all records, 0 otherwise;
    "METHOD shuffled" asks the same of the next image's text.
    """
    texts, rows, maps = [record.texts[0] for record in records], [], []
    choices = sorted(set(texts))
    directions = targets(model, choices)
    for i, record in enumerate(records):
        found = explain(model, record.image, directions, fit="full")
        best, own = choices[int(found.scores[0].argmax())], choices.index(texts[i])
        rows += measured(f"object {i}", method, {"own text best": best == texts[i]})
        rows += measured(f"object {i}", f"{method} shuffled", {"own text best": best == texts[(i + 1) % len(texts)]})
        maps.append(found.maps[0, own : own + 1].cpu())
    return rows, maps


def on_object(records: Sequence[Record], maps: Heats, method: str) -> Rows:
    """Rows of "pointing above chance" and "energy above chance", less the share of the image that the object covers.

    Records without masks have none.
    """
    rows = []
    for i, (record, heat) in enumerate(zip(records, maps, strict=True)):
        if record.masks is not None:
            masks = record.masks[:1]
            found = {"pointing above chance": points_at(heat, masks).float()[0, 0] - masks.mean()}
            found["energy above chance"] = energy_in(heat, masks)[0, 0] - masks.mean()
            rows += measured(f"object {i}", method, found)
    return rows


def maps_moved(maps: Heats, before: Heats, method: str) -> Rows:
    """Rows of "map moved": the share of a map's energy that lies elsewhere than before, 0 to 1."""
    rows = []
    for i, (heat, earlier) in enumerate(zip(maps, before, strict=True)):
        rows += measured(f"object {i}", method, {"map moved": 1 - overlap(heat, earlier)})
    return rows


def color_in_words(model: Model, records: Sequence[Record], texts: Sequence[str], method: str) -> Rows:
    """Rows of "color's part of the words", as `color_part_of_words`; none for a record whose facts lack either."""
    rows = []
    for i, (record, text) in enumerate(zip(records, texts, strict=True)):
        part = color_part_of_words(model, record, text)
        if part is not None:
            rows += measured(f"object {i}", method, {"color's part of the words": part})
    return rows
