"""Outside the world that an embedded model was trained on: words it never learned, pictures that were not rendered.

Whether a picture belongs to that world is not guessed from its pixels: neither its embedding nor simple statistics of
its pixels separate photographs from rendered scenes and paintings. The embedded datasets mark what they render.
"""

import functools
import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from clip_explain.errors import OutsideWorldWarning
from clip_explain.models.embedded import embedded_folder
from clip_explain.models.model import Model

MARK = "clip_explain.rendered"  # a key of a picture's `info`, which Pillow's own operations keep
SHOWN = 8  # unknown words that a message names


def rendered(pixels: UInt8[np.ndarray, "height width 3"]) -> Image.Image:
    """A picture of the embedded world, marked as one."""
    image = Image.fromarray(pixels)
    image.info[MARK] = True
    return image


def is_embedded(model: Model) -> bool:
    """Whether a model's weights are those of an embedded model's card."""
    return model.sha256 in _cards(embedded_folder())


@functools.cache
def _cards(folder: Path) -> frozenset[str]:
    return frozenset(json.loads(card.read_text()).get("sha256", "") for card in folder.glob("*.json")) - {""}


def is_foreign(model: Model, image: Image.Image) -> bool:
    """Whether an embedded model is given a picture that lacks the mark of its rendered world."""
    return MARK not in image.info and is_embedded(model)


def unknown_words(model: Model, texts: Sequence[str]) -> list[str]:
    """The words of some texts that a model has never learned, each once.

    A word is unknown if the embedding of one of its tokens is zero: an embedded model has zero rows for all tokens that
    it was not trained on. Other models know all words. For a model without CLIP's tokenizer the list is empty.
    """
    embedding = getattr(model.network, "token_embedding", None)
    if model.tokenizer is None or embedding is None:
        return []
    vocabulary, found = model.vocabulary, []
    for text in texts:
        numbers = vocabulary.encode(text)
        learned = embedding.weight[numbers].any(dim=-1).tolist()
        word, known = [], True
        for number, seen, ends in zip(numbers, learned, vocabulary.ends_word(numbers), strict=True):
            word, known = [*word, number], known and seen
            if ends:
                found += [] if known else [vocabulary.decode(word).strip()]
                word, known = [], True
    return list(dict.fromkeys(found))


def outside(model: Model, images: Sequence[Image.Image] = (), texts: Sequence[str] = ()) -> list[str]:
    """Warnings, one sentence each, about pictures and texts that lie outside a model's world."""
    found = []
    if any(is_foreign(model, image) for image in images):
        found.append(
            f"{model.name} has learned from rendered scenes, paintings and faces alone: "
            "what it says of any other picture means little"
        )
    if unknown := unknown_words(model, texts):
        more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
        named = ", ".join(map(repr, unknown[:SHOWN])) + more
        found.append(f"{model.name} has never learned {named}: what it says of a text with such a word means little")
    return found


def warn_outside(model: Model, images: Sequence[Image.Image] = (), texts: Sequence[str] = ()) -> None:
    """An OutsideWorldWarning for each sentence of `outside`."""
    for message in outside(model, images, texts):
        warnings.warn(message, OutsideWorldWarning, stacklevel=3)
