"""Do concepts add up (GE 4.4, Figure 6)? Texts about two objects of a scene, their parts, and rows of how they compose.

Above attributes.py; notebook 09 measures and looks. The first object of a scene is named by its first text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from clip_explain.datasets import Record
from clip_explain.embedded.scenes.world import COLORS, SHAPES
from clip_explain.explainers.grad_eclip import grad_eclip
from clip_explain.metrics.concentration import map_correlation
from clip_explain.metrics.pointing import energy_in
from clip_explain.models.model import Model
from clip_explain.papers.attributes import known_masks
from clip_explain.papers.tables import measured
from clip_explain.request import make_request

# A whole and its kind of parts -> the two parts.
SUMS = {
    ("phrase", "own parts"): ("adjective", "noun"),
    ("relation", "own parts"): ("phrase", "other"),
    ("phrase", "strange parts"): ("strange adjective", "strange noun"),
    ("relation", "strange parts"): ("strange phrase", "strange other"),
}

Rows = list[dict[str, Any]]
Maps = Mapping[str, Float[Tensor, "grid_h grid_w"]]  # by the part that is mapped
Vectors = Mapping[str, Float[Tensor, " embedding"]]


@dataclass(frozen=True, eq=False)
class Composition:
    """A scene, the number of its second object, and the texts about both by their part, as `parts_of` names them."""

    record: Record
    second: int
    texts: Mapping[str, str]

    @property
    def of_shape(self) -> int:
        """How many objects of the scene have the first one's shape."""
        return sum(each["shape"] in self.texts["noun"] for each in self.record.facts["objects"])

    @property
    def swapped_is_there(self) -> bool:
        """Whether some object is what the text "swapped" names."""
        return self.texts["swapped"] in [f"a {each['color']} {each['shape']}" for each in self.record.facts["objects"]]


# -- the texts


def compositions(records: Sequence[Record], seed: int) -> list[Composition]:
    """Of each scene the first object and the next one of another color and another shape; other scenes are left out.

    Absent and strange words are drawn by `seed`.
    """
    random = np.random.default_rng(seed)
    pairs = [(record, second) for record in records if (second := _second(record)) is not None]
    known = [parts_of(record, second, random) for record, second in pairs]
    strange = [_strange(texts, random) for texts in known]
    found = []
    for (record, second), texts, others in zip(pairs, known, strange, strict=True):
        found.append(Composition(record, second, texts | others | _relation(record, second, texts)))
    return found


def _second(record: Record) -> int | None:
    _, color, shape = record.texts[0].split()
    for number, text in enumerate(record.texts):
        if color not in text and shape not in text:
            return number
    return None


def parts_of(record: Record, second: int, random: np.random.Generator) -> dict[str, str]:
    """The texts about a scene by part: "phrase" names the first object, "adjective" and "noun" are its parts.

    "other" names the second object; "swapped" has the first one's shape and the second one's color. The color of
    "absent" and of "absent pair", which has the first one's shape, is nowhere in the scene.
    """
    phrase, other = record.texts[0], record.texts[second]
    (_, color, shape), (_, color_2, _) = phrase.split(), other.split()
    seen = {each["color"] for each in record.facts["objects"]}
    absent = random.choice([name for name in COLORS if name not in seen])
    texts = {"phrase": phrase, "adjective": f"a {color} thing", "noun": f"a {shape}", "other": other}
    return texts | {
        "swapped": f"a {color_2} {shape}",
        "absent": f"a {absent} thing",
        "absent pair": f"a {absent} {shape}",
    }


def _strange(texts: Mapping[str, str], random: np.random.Generator) -> dict[str, str]:
    """Parts of words that are in neither object's text."""
    both = texts["phrase"] + texts["other"]
    colors = random.permutation([name for name in COLORS if name not in both])
    shapes = random.permutation([name for name in SHAPES if name not in both])
    found = {"strange adjective": f"a {colors[0]} thing", "strange noun": f"a {shapes[0]}"}
    return found | {"strange phrase": f"a {colors[0]} {shapes[0]}", "strange other": f"a {colors[1]} {shapes[1]}"}


def _relation(record: Record, second: int, texts: Mapping[str, str]) -> dict[str, str]:
    """ "relation": where the first object stands beside the second one; "place" has that alone; and "reversed"."""
    masks = known_masks(record)
    first_at, second_at = (masks[number].any(axis=0).nonzero()[0].mean() for number in (0, second))
    place = "left of" if first_at < second_at else "right of"
    relation, reverse = f"{texts['phrase']} {place} {texts['other']}", f"{texts['other']} {place} {texts['phrase']}"
    return {"place": place, "relation": relation, "reversed": reverse}


# -- maps and numbers


def maps_of_parts(model: Model, found: Sequence[Composition]) -> tuple[list[Maps], list[Vectors]]:
    """For each composition Grad-ECLIP's raw maps and the unit embeddings of its texts, by part, on the CPU.

    The whole image is seen.
    """
    maps, vectors = [], []
    for each in tqdm(found, desc="maps"):
        request = make_request(model, each.record.image, list(each.texts.values()), fit="full")
        maps.append(dict(zip(each.texts, grad_eclip(request)[0].cpu(), strict=True)))
        vectors.append(dict(zip(each.texts, request.targets.cpu(), strict=True)))
    return maps, vectors


def rows_of_sums(composition: Composition, maps: Maps, vectors: Vectors) -> Rows:
    """Rows of each whole (the setting) and kind of parts (the method) of SUMS, from 0 to 1.

    "explained": the share of the variance of the whole's map that the sum of its parts' maps explains, their squared
    correlation. "in the plane": the share of the whole's squared length in the plane of its parts' embeddings.
    """
    rows = []
    for (whole, kind), (one, two) in SUMS.items():
        plane = torch.linalg.qr(torch.stack([vectors[one], vectors[two]]).T).Q
        values = {"explained": map_correlation(maps[whole], maps[one] + maps[two]) ** 2}
        values["in the plane"] = (vectors[whole] @ plane).square().sum()
        rows += measured(composition.record.id, kind, values, whole)
    return rows


def rows_of_mixed(composition: Composition, maps: Maps) -> Rows:
    """Rows of what texts that mix objects do: a swapped text, an adjective that has something to pick, an absent color.

    "energy above chance" of a swapped text that fits no object: the share of its map's energy on the object of its
    shape ("noun kept") and on that of its color, less the object's share of the image. "energy_pointing_game", where
    two objects have the shape: the share on the first object, by the noun and by the phrase. "peak": the highest value
    of the map of an absent color as a share of the highest one of the first object's.
    """
    image, masks = composition.record.id, known_masks(composition.record)[[0, composition.second]]
    rows = []
    if not composition.swapped_is_there:
        above = energy_in(maps["swapped"][None], masks)[0] - torch.from_numpy(masks.mean(axis=(1, 2)))
        rows += measured(image, "noun kept", {"energy above chance": above[0]})
        rows += measured(image, "color kept", {"energy above chance": above[1]})
    if composition.of_shape > 1:
        for name, part in {"noun": "noun", "adjective and noun": "phrase"}.items():
            energy = energy_in(maps[part][None], masks[:1])[0]
            rows += measured(image, name, {"energy_pointing_game": energy}, "two of a shape")
    peak = maps["absent"].max() / maps["adjective"].max().clamp_min(1e-9)
    return rows + measured(image, "absent color", {"peak": peak})
