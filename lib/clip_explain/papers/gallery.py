"""The images and captions that retrieval seeks among, embedded, and which caption is whose.

Above the models and datasets/; metrics/word_faithfulness.py asks what is found.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from clip_explain.datasets import Record
from clip_explain.directions import targets
from clip_explain.errors import TextError, nearest
from clip_explain.images import pixels
from clip_explain.models.model import Model


@dataclass(frozen=True, eq=False)
class Gallery:
    """Images and all of their captions at unit length, the captions as said, and the number of each one's image."""

    images: Float[Tensor, "images embedding"]
    texts: Float[Tensor, "captions embedding"]
    image_of: Int[Tensor, " captions"]
    said: tuple[str, ...]


def embed_records(model: Model, records: Sequence[Record], fit: str = "full") -> Float[Tensor, "images embedding"]:
    """The records' images at unit length, one after another, so that they may differ in size."""
    found = []
    for record in tqdm(records, desc="images embedded"):
        found.append(model.embed_images(pixels(model, record.image, fit)))
    return torch.cat(found)


def gallery_of(model: Model, records: Sequence[Record], fit: str = "full") -> Gallery:
    """The gallery of the records' images and of all of their texts."""
    said, image_of = [], []
    for number, record in enumerate(records):
        said += record.texts
        image_of += [number] * len(record.texts)
    images = embed_records(model, records, fit)
    return Gallery(images, targets(model, said), torch.tensor(image_of, device=images.device), tuple(said))


def place_in(gallery: Gallery, image: int, text: str) -> int:
    """The number of an image's caption among all. TextError if that image has no such caption."""
    for number in (gallery.image_of == image).nonzero()[:, 0].tolist():
        if gallery.said[number] == text:
            return number
    own = [said for said, of in zip(gallery.said, gallery.image_of.tolist(), strict=True) if of == image]
    raise TextError(f"image {image} has no caption {text!r}: {nearest(text, own)}")


def one_text_each(records: Sequence[Record]) -> list[str]:
    """A text of each record, the first of the first, the second of the second and so on: all wordings take part."""
    return [record.texts[number % len(record.texts)] for number, record in enumerate(records)]
