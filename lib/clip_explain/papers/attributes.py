"""Attributes of objects and the maps of the texts that name them: phrases and their parts, color against shape.

Above the explainers and metrics/pointing.py; notebooks 10 and 13 measure what comes out.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from clip_explain.datasets import Record
from clip_explain.datasets.record import box_mask
from clip_explain.errors import DatasetError
from clip_explain.explainers import explain
from clip_explain.metrics.pointing import energy_in
from clip_explain.models.model import Model


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


def phrase_parts(text: str) -> tuple[str, str, tuple[int, int]]:
    """A phrase's two parts, that of the deciding word and that of the comparative, and the places of these words.

    "a small cube" has the parts "a cube" and "a small thing", and the deciding word is the last of three; "a red thing
    on the left" has "a red thing" and "a thing on the left", and the deciding word is the second.
    """
    article, one, two, *place = text.split()
    if place:
        return f"{article} {one} {two}", " ".join([article, two, *place]), (1, -1)
    return f"{article} {two}", f"{article} {one} thing", (2, 1)


def color_over_shape(model: Model, record: Record) -> float | None:
    """How much more of a mixed text's energy lies on the object of its color than on that of its shape, -1 to 1.

    The first object of the scene, and the first other one that shares neither color nor shape with it: the map of "a
    yellow cone" for a yellow cube and a red cone, and of "a red cube", averaged, so that the objects' sizes cancel.
    None where the scene has no such object. The texts are "a color shape". DatasetError for a record without masks.
    """
    if record.masks is None:
        raise DatasetError(f"{record.id} has no masks")
    pairs = [tuple(text.split()[1:]) for text in record.texts]
    color, shape = pairs[0]
    others = [number for number, pair in enumerate(pairs) if color != pair[0] and shape != pair[1]]
    if not others:
        return None
    other = pairs[others[0]]
    maps = explain(model, record.image, [f"a {color} {other[1]}", f"a {other[0]} {shape}"], fit="full")[0].cpu()
    energy = energy_in(maps, record.masks[[0, others[0]]])
    return float(energy.diagonal().sum() - energy.fliplr().diagonal().sum()) / 2
