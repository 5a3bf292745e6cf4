"""Phrases that join two attributes, "a small cube": their parts, their maps, and what their words weigh (GE Figure 7).

Above attributes.py, which has the texts of one attribute; notebook 10 measures what comes out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from clip_explain import plots
from clip_explain.datasets import Record
from clip_explain.explainers import explain_words
from clip_explain.images import pixels
from clip_explain.metrics.concentration import overlap
from clip_explain.metrics.pointing import energy_in
from clip_explain.models.model import Model
from clip_explain.papers.attributes import ATTRIBUTES, known_masks
from clip_explain.papers.pairs import Weighed
from clip_explain.papers.tables import measured

PHRASES = ("size and shape", "color and position")  # the kinds of phrases

Rows = list[dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Phrase:
    """A phrase of a record, the word that decides it alone, and the comparative alone: texts, maps and weights.

    `texts` are the three in this order, `maps` theirs; `kind` is one of PHRASES. `places` are those of the deciding
    word and of the comparative in the phrase. `mask` is of what the whole phrase is true of.
    """

    record: Record
    kind: str
    texts: tuple[str, str, str]
    maps: Float[Tensor, "three grid_h grid_w"]
    places: tuple[int, int]
    mask: Bool[np.ndarray, "height width"]


def phrase_parts(text: str) -> tuple[str, str, tuple[int, int]]:
    """A phrase's two parts, that of the deciding word and that of the comparative, and the places of these words.

    "a small cube" has the parts "a cube" and "a small thing", and the deciding word is the last of three; "a red thing
    on the left" has "a red thing" and "a thing on the left", and the deciding word is the second.
    """
    article, one, two, *place = text.split()
    if place:
        return f"{article} {one} {two}", " ".join([article, two, *place]), (1, -1)
    return f"{article} {two}", f"{article} {one} thing", (2, 1)


def phrases_in(record: Record, maps: Float[Tensor, "texts grid_h grid_w"]) -> list[Phrase]:
    """All phrases among a record's texts, each with its parts; the record asks these too, so `maps` has theirs."""
    found = []
    for i, (kind, text) in enumerate(zip(record.facts["kinds"], record.texts, strict=True)):
        if kind not in ATTRIBUTES:
            deciding, comparative, places = phrase_parts(text)
            three = [i, record.texts.index(deciding), record.texts.index(comparative)]
            found.append(
                Phrase(record, kind, (text, deciding, comparative), maps[three], places, known_masks(record)[i])
            )
    return found


def spoken(model: Model, phrases: Sequence[Phrase]) -> list[list[Weighed]]:
    """For each phrase the words of its three texts and their weights by Grad-ECLIP, on the CPU.

    The whole image is seen. An image that has several phrases is embedded once.
    """
    embedded, found = {}, []
    for phrase in tqdm(phrases, desc="words"):
        record = phrase.record
        if record.id not in embedded:
            embedded[record.id] = model.embed_images(pixels(model, record.image, "full"))
        said = explain_words(model, embedded[record.id], list(phrase.texts), per="word")
        found.append([(words, weights[0].cpu()) for words, weights in said])
    return found


def rows_of_phrase(phrase: Phrase, said: Sequence[Weighed]) -> Rows:
    """Rows of one phrase; `said` of `spoken`.

    Of the methods "phrase" and "deciding word alone": the "energy_pointing_game" on what the phrase is true of. Of
    "deciding word" and "comparative": the "shared energy" of its map with the phrase's, 1 for equal maps, and the
    "weight of the word" in the phrase.
    """
    alike, energy = overlap(phrase.maps[[0, 0]], phrase.maps[1:]), energy_in(phrase.maps[:2], phrase.mask[None])[:, 0]
    weights = said[0][1][list(phrase.places)]
    found = {"phrase": {"energy_pointing_game": energy[0]}, "deciding word alone": {"energy_pointing_game": energy[1]}}
    found["deciding word"] = {"shared energy": alike[0], "weight of the word": weights[0]}
    found["comparative"] = {"shared energy": alike[1], "weight of the word": weights[1]}
    rows = []
    for name, numbers in found.items():
        rows += measured(phrase.record.id, name, numbers, phrase.kind, targets=[phrase.texts[0]])
    return rows


def draw_phrases(phrases: Sequence[Phrase], said: Sequence[Sequence[Weighed]], of_each: int = 2) -> np.ndarray:
    """A `plots.pairs` of the first phrases of each kind, outlined by what the phrase is true of; the figure's axes.

    TensorError where there are no phrases.
    """
    shown = []
    for kind in PHRASES:
        shown += [(phrase, words) for phrase, words in zip(phrases, said, strict=True) if phrase.kind == kind][:of_each]
    pictures, heats = [phrase.record.image for phrase, _ in shown], [list(phrase.maps) for phrase, _ in shown]
    titles = ["the phrase", "the deciding word", "the comparative"]
    axes = plots.pairs(pictures, heats, [words for _, words in shown], titles)
    plots.outline_rows(axes, [phrase.mask for phrase, _ in shown], 1.0)
    return axes
