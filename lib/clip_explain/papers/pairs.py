"""Images and sentences explained from both sides (GE Figures 4, 13, 14): maps, words, pictures, and rows of numbers.

Above plots/, which draws, and metrics/sentences.py, which compares the sides; notebooks 03 and 13 measure and look.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from clip_explain import plots
from clip_explain.datasets import Record, photos
from clip_explain.explainers import explain, explain_words
from clip_explain.metrics.pointing import energy_in, points_at
from clip_explain.metrics.sentences import sides_agree, words_above
from clip_explain.models.model import Model
from clip_explain.papers.attributes import known_masks
from clip_explain.papers.tables import measured
from clip_explain.papers.variants import maps_by_name
from clip_explain.request import make_request

NOBODY = "a photo of nothing"  # the stranger where no other record has one

Rows = list[dict[str, Any]]
Options = Mapping[str, Mapping[str, Any]]  # by method
Weighed = tuple[Sequence[str], Float[Tensor, "_"]]  # a text's words and their weights


@dataclass(frozen=True, eq=False)
class Pair:
    """An image and a text that it is explained for, with the masks of what the text names, if they are known."""

    image: Image.Image
    text: str
    masks: Bool[np.ndarray, "named height width"] | None = None

    @property
    def first_mask(self) -> Bool[np.ndarray, "height width"] | None:
        """The mask of the first object that the text names."""
        return None if self.masks is None else self.masks[0]


# -- which pairs


def pairs_of_photos(images: str | Sequence[str], texts: str | Sequence[str]) -> list[Pair]:
    """Every one of your images (a path, paths or a folder) with every text; none for an empty `images`.

    Raises as `datasets.photos`.
    """
    if not images:
        return []
    return [Pair(photo.image, text) for photo in photos(images, texts) for text in photo.texts]


def pairs_of_records(records: Sequence[Record], texts: Sequence[str] | None = None, named: int = 1) -> list[Pair]:
    """Each record's image with its text, by default the record's first; it names the record's first `named` objects."""
    texts = [record.texts[0] for record in records] if texts is None else texts
    found = []
    for record, text in zip(records, texts, strict=True):
        found.append(Pair(record.image, text, None if record.masks is None else record.masks[:named]))
    return found


def captions_of_two(records: Sequence[Record], filler: Collection[str]) -> tuple[list[str], list[str]]:
    """For each record a caption of its first two objects, "a red cube and a blue ring", and one with a stranger.

    The stranger stands in the place of the second object: the first text of the records behind it, and then of those
    before it, that shares no word with this record's texts but `filler`. In every other record the order is turned.
    """
    captions, mixed = [], []
    for number, record in enumerate(records):
        first, second = record.texts[:2]
        stranger = _stranger(record, [*records[number + 1 :], *records[:number]], filler)
        turn = -1 if number % 2 else 1
        captions.append(" and ".join([first, second][::turn]))
        mixed.append(" and ".join([first, stranger][::turn]))
    return captions, mixed


def _stranger(record: Record, others: Sequence[Record], filler: Collection[str]) -> str:
    named = set(" ".join(record.texts).split()) - set(filler)
    for other in others:
        for text in other.texts:
            if named.isdisjoint(text.split()):
                return text
    return NOBODY


# -- maps and words


def weighed_words(
    model: Model, image: Image.Image, texts: str | Sequence[str], method: str = "grad_eclip", **options: Any
) -> list[Weighed]:
    """For each text its words and their weights, on the CPU; the whole image is seen."""
    found = explain_words(model, image, texts, method, fit="full", per="word", **options)
    return [(words, weights[0].cpu()) for words, weights in found]


def both_sides(
    model: Model, pair: Pair, methods: Sequence[str], options: Options | None = None
) -> tuple[list[Float[Tensor, "grid_h grid_w"]], list[Weighed]]:
    """A pair's map and its weighed words by each method, as a row of `plots.pairs`; the whole image is seen.

    `options`: further ones under a method's name.
    """
    maps, words = [], []
    for method in methods:
        given = (options or {}).get(method, {})
        maps.append(explain(model, pair.image, pair.text, method, fit="full", **given)[0, 0].cpu())
        words += weighed_words(model, pair.image, pair.text, method, **given)
    return maps, words


def random_sides(
    heat: Float[Tensor, "texts grid_h grid_w"], words: Sequence[Weighed], generator: torch.Generator
) -> tuple[Float[Tensor, "texts grid_h grid_w"], list[Weighed]]:
    """Uniform noise in the place of a map and of the words' weights: what a method must beat."""
    drawn = [(spelled, torch.rand(len(spelled), generator=generator)) for spelled, _ in words]
    return torch.rand(heat.shape, generator=generator), drawn


# -- numbers and pictures


def rows_of_sides(
    record: Record,
    method: str,
    heat: Float[Tensor, "1 grid_h grid_w"],
    words: Sequence[Weighed],
    filler: Collection[str],
) -> Rows:
    """Rows of one record and method, of the captions of `captions_of_two`: the first one's map, and both ones' words.

    "pointing_game": is the map's maximum on one of the two objects? "named words above filler": how often a word that
    names something outweighs one of `filler`. "words of what is there": how often one of the first object outweighs
    one of the stranger. "sides agree": does the object on which the map is stronger per pixel have the heavier words?
    The last three are 0.5 by chance. DatasetError for a record without masks.
    """
    (caption, weights), (with_stranger, others) = words
    first, second = (set(text.split()) - set(filler) for text in record.texts[:2])
    masks = known_masks(record)[:2]
    strengths = energy_in(heat, masks)[0] / torch.tensor(masks).float().mean(dim=(1, 2))
    found = {"pointing_game": float(points_at(heat, masks).any())}
    found["named words above filler"] = words_above(caption, weights, first | second, filler)
    strange = set(with_stranger) - first - set(filler)
    found["words of what is there"] = words_above(with_stranger, others, first, strange)
    found["sides agree"] = sides_agree(caption, weights, first, second, strengths)
    return measured(record.id, method, found)


def draw_by_method(model: Model, pairs: Sequence[Pair], titles: Mapping[str, str]) -> np.ndarray:
    """A `plots.comparison` of pairs, a column for each method, which may spell options: `titles` has its title.

    The first column is outlined by the pair's first mask, if there is one. The whole image is seen. Returns the axes.
    """
    heats = []
    for pair in pairs:
        found = maps_by_name(make_request(model, pair.image, pair.text, fit="full"), list(titles))
        heats.append([heat[0].cpu() for heat in found.values()])
    images, texts = [pair.image for pair in pairs], [pair.text for pair in pairs]
    axes = plots.comparison(images, texts, heats, list(titles.values()))
    plots.outline_rows(axes[:, :1], [pair.first_mask for pair in pairs], 0.7)
    return axes


def draw_pairs(model: Model, pairs: Sequence[Pair], columns: int = 2) -> np.ndarray:
    """A `plots.gallery` of pairs by Grad-ECLIP, outlined by their masks; the figure's axes, (rows, 2 * columns)."""
    heats, words = [], []
    for pair in pairs:
        maps, weighed = both_sides(model, pair, ["grad_eclip"])
        heats += maps
        words += weighed
    axes = plots.gallery([pair.image for pair in pairs], heats, words, columns)
    for panels, pair in zip(axes.reshape(-1, 2), pairs, strict=False):
        for mask in () if pair.masks is None else pair.masks:
            plots.outline(mask, panels[0], 0.7)
            plots.outline(mask, panels[1], 0.7)
    return axes
