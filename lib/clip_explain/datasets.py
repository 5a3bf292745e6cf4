"""Images with texts and, where there is ground truth, masks of what each text names: one record type for all.

Above scenes/ and model.py. Here are the embedded scenes and a user's own photos.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count as count_up
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from PIL import Image

from clip_explain.errors import DatasetError, TextError, nearest
from clip_explain.model import read_image
from clip_explain.scenes.captions import Caption, phrase, say
from clip_explain.scenes.pool import RECIPES, draw
from clip_explain.scenes.raycast import render
from clip_explain.scenes.world import Thing

DATASETS = ("scenes",)
HELD_OUT = 2_000_000  # seeds from here on: no training draws its scenes, nor does a card
FEWEST_PIXELS = 50  # a thing of which less is in sight is not asked for
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")


@dataclass(frozen=True)
class Record:
    """An image, the texts that are asked of it, and for each text the exact mask of what it names, if known."""

    id: str
    image: Image.Image
    texts: tuple[str, ...]
    masks: Bool[np.ndarray, "texts height width"] | None = None


def read(name: str, count: int, seed: int = 0) -> Iterator[Record]:
    """The first `count` records of a dataset, drawn by `seed`. DatasetError for an unknown name or a count below 1."""
    if name not in DATASETS:
        raise DatasetError(f"unknown dataset {name!r}: {nearest(name, DATASETS)}")
    if count < 1:
        raise DatasetError(f"got {count} images to read, expected at least 1")
    return scenes(count, seed)


def scenes(count: int, seed: int = 0, size: int = 224) -> Iterator[Record]:
    """Rendered scenes of 3 to 5 things, none of them ever trained on, with phrases "a COLOUR SHAPE".

    Asked is every thing that is the only one of its colour and shape and has 50 pixels in sight; a scene with fewer
    than two such things is passed over.
    """
    pictures = (_scene(seed, index, size) for index in count_up())
    return islice((record for record in pictures if len(record.texts) >= 2), count)


def photos(images: str | Path | Sequence[str | Path], texts: str | Sequence[str]) -> list[Record]:
    """One record for each image (a path, a folder, or a list of paths), all with the same texts and without masks.

    Raises DatasetError (no such folder, no image in it), TextError (no texts) or ImageError.
    """
    texts = (texts,) if isinstance(texts, str) else tuple(texts)
    if not texts:
        raise TextError("no texts: images of your own need at least one text to be explained for")
    paths = [Path(images)] if isinstance(images, str | Path) else [Path(path) for path in images]
    if len(paths) == 1 and paths[0].is_dir():
        paths = sorted(path for path in paths[0].iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise DatasetError(f"no images in {images!r}: expected a path, a list of paths, or a folder with images")
    return [Record(path.name, read_image(path), texts) for path in paths]


def _scene(seed: int, index: int, size: int) -> Record:
    picture = render(draw(RECIPES["several"], np.random.default_rng([HELD_OUT + seed, index])), size, size)
    things, masks = picture.scene.things, picture.masks
    asked = [i for i in _alone(things) if masks[i].sum() >= FEWEST_PIXELS * (size / 224) ** 2]
    texts = tuple(_name(things[i]) for i in asked)
    return Record(f"scene {seed}-{index}", Image.fromarray(picture.image), texts, masks[asked])


def _alone(things: Sequence[Thing]) -> list[int]:
    """Which things share colour and shape with no other."""
    names = [_name(thing) for thing in things]
    return [i for i, name in enumerate(names) if names.count(name) == 1]


def _name(thing: Thing) -> str:
    return say(Caption((phrase(color=thing.color, shape=thing.shape),)))
