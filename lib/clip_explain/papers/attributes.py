"""Attributes of objects and the maps of the texts that name them, value by value; color against shape.

Above the explainers and metrics/pointing.py; notebooks 10 and 13 measure what comes out.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clip_explain.datasets import Record
from clip_explain.datasets.record import box_mask
from clip_explain.errors import DatasetError
from clip_explain.explainers import explain, explain_words
from clip_explain.metrics.pointing import energy_in, points_at
from clip_explain.models.model import Model
from clip_explain.papers.tables import averaged, measured

ATTRIBUTES = ("shape", "material", "color", "size", "position")  # of one word each; phrases join two of them

Rows = list[dict[str, Any]]


def with_squares(record: Record, half_side: int) -> Record:
    """The record as it is if it has masks; else with squares around its objects' middles in the place of masks.

    `facts["points"]` has for each text the middles (x, y) of all objects that it is true of.
    """
    if record.masks is not None:
        return record
    size, masks = (record.image.height, record.image.width), []
    for points in record.facts["points"]:
        boxes = [(x - half_side, y - half_side, x + half_side, y + half_side) for x, y in points]
        masks.append(box_mask(boxes, *size))
    return replace(record, masks=np.stack(masks))


def known_masks(record: Record) -> Bool[np.ndarray, "texts height width"]:
    """The record's masks; DatasetError for a record without."""
    if record.masks is None:
        raise DatasetError(f"{record.id} has no masks, expected one for each text")
    return record.masks


def told_apart(energy: Float[Tensor, "maps masks"], kinds: Sequence[str]) -> Float[Tensor, " maps"]:
    """Whether each object of a scene has more of its own map's energy than of the maps of other values of its kind.

    `energy` of `energy_in`, of as many maps as masks; `kinds` names each text's attribute. 1 or 0, or a half where they
    are equal, and the mean over the other values; NaN for the only value of its kind.
    """
    found = []
    for i, kind in enumerate(kinds):
        rivals = [j for j, other in enumerate(kinds) if other == kind and j != i]
        found.append((1 + (energy[i, i] - energy[rivals, i]).sign()).mean() / 2)
    return torch.stack(found)


def by_attribute(kinds: Sequence[str]) -> list[int]:
    """The numbers of the texts that name one attribute, in the order of ATTRIBUTES; `kinds` names each text's."""
    return [i for attribute in ATTRIBUTES for i, kind in enumerate(kinds) if kind == attribute]


def rows_by_value(record: Record, maps: Float[Tensor, "texts grid_h grid_w"]) -> Rows:
    """Rows of one record's maps for each value of an attribute, as the method "color: red".

    The metrics: "pointing_game" and "energy_pointing_game" on what the text is true of, "chance", the share of the
    image that this covers, and "told apart" of `told_apart`. Phrases of two attributes are left out.
    """
    rows, kinds, masks = [], record.facts["kinds"], known_masks(record)
    hits, energy = points_at(maps, masks).float(), energy_in(maps, masks)
    found = {"pointing_game": hits.diagonal(), "energy_pointing_game": energy.diagonal()}
    found |= {"chance": masks.mean(axis=(1, 2)), "told apart": told_apart(energy, kinds)}
    for i, (kind, text) in enumerate(zip(kinds, record.texts, strict=True)):
        if kind in ATTRIBUTES:
            name = f"{kind}: {text.removeprefix('a ').replace('thing', '').strip()}"
            rows += measured(record.id, name, {metric: numbers[i] for metric, numbers in found.items()})
    return rows


def on_next_scene(record: Record, other: Record, maps: Float[Tensor, "texts grid_h grid_w"], kind: str) -> Rows:
    """Rows of a control: a record's maps for one attribute against the masks of another record's texts of it.

    Each number is the mean over all pairs of a map and a mask; no rows where one of the two has no such text.
    """
    mine = [i for i, each in enumerate(record.facts["kinds"]) if each == kind]
    theirs = [i for i, each in enumerate(other.facts["kinds"]) if each == kind]
    if not mine or not theirs:
        return []
    masks = known_masks(other)[theirs]
    found = {"pointing_game": points_at(maps[mine], masks).float().mean()}
    found["energy_pointing_game"] = energy_in(maps[mine], masks).mean()
    return measured(record.id, f"{kind}, next scene", found)


def with_attributes(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The table of `rows_by_value` with each attribute's mean over its values, and the names in order of reading.

    In that order each attribute stands before its values. MethodError for a table without values of an attribute.
    """
    names = sorted(name for name in table["method"].unique() if ": " in name)
    order = []
    for attribute in ATTRIBUTES:
        values = [name for name in names if name.startswith(f"{attribute}: ")]
        table = averaged(table, values, attribute)
        order += [attribute, *values]
    return table, order


def color_part_of_words(model: Model, record: Record, text: str) -> float | None:
    """What part of the weight of a text's colour and shape, by Grad-ECLIP, is the colour's, 0 to 1.

    NaN where neither has weight. None for a record whose facts name no colour and shape.
    """
    if not {"color", "shape"} <= set(record.facts):
        return None
    words, weights = explain_words(model, record.image, text, fit="full", per="word")[0]
    of_word = dict(zip(words, weights[0].tolist(), strict=True))
    color, shape = of_word[record.facts["color"]], of_word[record.facts["shape"]]
    return color / (color + shape) if color + shape > 0 else float("nan")


def color_over_shape(model: Model, record: Record) -> float | None:
    """How much more of a mixed text's energy lies on the object of its color than on that of its shape, -1 to 1.

    The first object of the scene, and the first other one that shares neither color nor shape with it: the map of "a
    yellow cone" for a yellow cube and a red cone, and of "a red cube", averaged, so that the objects' sizes cancel.
    None where the scene has no such object. The texts are "a color shape". DatasetError for a record without masks.
    """
    masks = known_masks(record)
    pairs = [tuple(text.split()[1:]) for text in record.texts]
    color, shape = pairs[0]
    others = [number for number, pair in enumerate(pairs) if color != pair[0] and shape != pair[1]]
    if not others:
        return None
    other = pairs[others[0]]
    maps = explain(model, record.image, [f"a {color} {other[1]}", f"a {other[0]} {shape}"], fit="full")[0].cpu()
    energy = energy_in(maps, masks[[0, others[0]]])
    return float(energy.diagonal().sum() - energy.fliplr().diagonal().sum()) / 2
