"""EPFL's positive and negative saliency (IV-C, Figures 7 to 10): maps of both signs, and rows of where they lie."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from clip_explain.datasets import Record
from clip_explain.explainers import METHODS
from clip_explain.maps import resize
from clip_explain.metrics.concentration import overlap
from clip_explain.metrics.pointing import energy_pointing_game
from clip_explain.metrics.segmentation import pixel_accuracy
from clip_explain.models.model import Model
from clip_explain.papers.asked import Directions, maps_towards
from clip_explain.papers.tables import measured
from clip_explain.request import make_request

SIGNS = ("target", "negated target", "random direction")

Maps = Float[Tensor, "texts grid_h grid_w"]
Heat = Float[Tensor, "texts height width"]
Masks = Bool[Tensor, "texts height width"]
Rows = list[dict[str, Any]]


def maps_of_both_signs(
    model: Model, method: str, records: Sequence[Record], directions: Directions
) -> dict[str, list[Float[Tensor, "_ _ _"]]]:
    """By sign, "+" and "-", the maps of each record's texts towards their directions, and towards the negated ones."""
    negated = {text: -direction for text, direction in directions.items()}
    found = {}
    for sign, towards in (("+", directions), ("-", negated)):
        found[sign] = maps_towards(model, [method], records, towards, "full")[method]
    return found


def rows_of_both_signs(
    model: Model,
    method: str,
    asked: Sequence[Record],
    records: Sequence[Record],
    directions: Directions,
    names: tuple[str, str],
    source: torch.Generator,
) -> Rows:
    """`both_signs` of all that is `asked` of the `records`: by texts' directions, their negation, and random ones.

    `names`: what the rows call the model and the kind of target. `source` draws the random directions.
    """
    whole, rows = {record.id: record for record in records}, []
    for record in tqdm(asked, desc=f"maps of {model.name}, {names[1]}"):
        target = torch.stack([directions[text] for text in record.texts])
        nothing = torch.randn(target.shape, generator=source).to(target)
        request = make_request(model, record.image, torch.cat([target, -target, nothing]), fit="full")
        own, negated, random = METHODS[method].image(request)[0].cpu().chunk(3)
        rows += both_signs(record, whole[record.id], (own, negated, random), *names)
    return rows


def both_signs(record: Record, whole: Record, maps: tuple[Maps, Maps, Maps], model: str, kind: str) -> Rows:
    """Rows of a model's maps of a record's texts, for the directions of SIGNS; the setting is "MODEL, KIND".

    `record` holds the texts that were asked, `whole` all that the image shows. For each sign: the share of the positive
    values on the object named ("energy_pointing_game") and on the image's other objects, and the share of the named
    object's pixels where the map reaches half of its maximum ("coverage"). "chance" is what part of the image the
    objects are. For the model, under KIND: what its map for the target covers of the object, and its map for the
    negated target of the rest. Then `overlaps`.
    """
    own = torch.tensor(record.masks)
    others = torch.tensor(whole.masks).any(dim=0) & ~own
    setting, rows = f"{model}, {kind}", []
    for sign, heat in zip(SIGNS, maps, strict=True):
        values = {"energy_pointing_game": energy_pointing_game(heat, own)}
        values["energy_on_others"] = energy_pointing_game(heat, others)
        values["coverage"] = _covered(heat, own)
        rows += measured(record.id, sign, values, setting)
    areas = {"energy_pointing_game": own.float().mean(dim=(1, 2)), "energy_on_others": others.float().mean(dim=(1, 2))}
    rows += measured(record.id, "chance", areas, setting)
    covered = {"coverage": _covered(maps[0], own), "coverage_of_rest": _covered(maps[1], ~own)}
    rows += measured(record.id, model.lower(), covered, kind)
    positive, negative = (resize(heat, own.shape[1:]) for heat in maps[:2])
    return rows + overlaps(record.id, positive, negative, model, kind)


def overlaps(image: str, positive: Heat, negative: Heat, model: str, kind: str) -> Rows:
    """Rows of the mass that two maps share: of a text's target and its negation, and of two texts of the image.

    Maps are resized to the image. 0 for disjoint maps, 1 for equal ones. An image of one text has no rows.
    """
    if len(positive) < 2:
        return []
    metric, setting = f"overlap, {model}", f"{model}, {kind}"
    rows = measured(image, "target and negated target", {metric: overlap(positive, negative)}, setting)
    return rows + measured(image, "two targets", {metric: overlap(positive, positive.roll(1, 0))}, setting)


def _covered(heat: Maps, masks: Masks) -> Float[Tensor, " texts"]:
    """The share of each mask's pixels where the map reaches half of its maximum."""
    return pixel_accuracy(heat, masks, "fixed", over="mask")
