"""Texts that join the names of two objects of an image, and the objects that each word names."""

from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from jaxtyping import Bool

from clip_explain.checks import checked
from clip_explain.datasets.record import Record
from clip_explain.errors import DatasetError


@dataclass(frozen=True, eq=False)
class Joined:
    """A text as "a blue cone and a red ring", and its words that tell the two objects apart.

    `named` has for each word all objects of the image that it is true of, `other` the object of the text that it is not
    about. `nouns` says which words are the last of their name.
    """

    record: Record
    text: str
    words: tuple[str, ...]
    nouns: tuple[bool, ...]
    named: Bool[np.ndarray, "words height width"]
    other: Bool[np.ndarray, "words height width"]


@checked(DatasetError)
def joined(record: Record) -> Joined | None:
    """The first two objects of an image whose names share at most one word, joined by "and"; None if there are none.

    Asked is each word that stands in only one of the two names, unless it is also true of an object of the image
    (`facts["objects"]`) that has no mask. DatasetError for a record without masks.
    """
    if record.masks is None:
        raise DatasetError(f"{record.id} has no masks, so nothing says what its words name")
    names = [text.split() for text in record.texts]
    for first, second in combinations(range(len(names)), 2):
        if len(set(names[first]) & set(names[second])) < 2:
            text = f"{record.texts[first]} and {record.texts[second]}"
            return _asked(record, text, names, [(first, second), (second, first)])
    return None


@checked(DatasetError)
def named_parts(record: Record) -> list[tuple[list[str], np.ndarray, np.ndarray]]:
    """Texts that name a whole, a part of it in the whole, and the part alone; and the masks of the whole and the part.

    Of a record of the dataset "attributes", asked for shapes and colours: ["a cube", "a red cube", "a red thing"] where
    all that is red is a cube, and some cubes are not red. DatasetError for a record without masks.
    """
    kinds, masks, found = record.facts["kinds"], record.masks, []
    if masks is None:
        raise DatasetError(f"{record.id} has no masks")
    for shape, color in product(range(len(kinds)), repeat=2):
        if (kinds[shape], kinds[color]) == ("shape", "color"):
            whole, part = masks[shape], masks[color]
            both = f"a {record.texts[color].split()[1]} {record.texts[shape].split()[-1]}"
            if not (part & ~whole).any() and (whole & ~part).any():
                found.append(([record.texts[shape], both, record.texts[color]], whole, part))
    return found


def _asked(record: Record, text: str, names: list[list[str]], pairs: list[tuple[int, int]]) -> Joined | None:
    """The words of either name, with what they name."""
    assert record.masks is not None
    words, nouns, named, others = [], [], [], []
    for own, other in pairs:
        for word in names[own]:
            if word not in names[other] and _all_masked(record, word, names):
                words.append(word)
                nouns.append(word == names[own][-1])
                named.append(record.masks[[word in name for name in names]].any(axis=0))
                others.append(record.masks[other])
    if not words:
        return None
    return Joined(record, text, tuple(words), tuple(nouns), np.stack(named), np.stack(others))


def _all_masked(record: Record, word: str, names: list[list[str]]) -> bool:
    """Whether a word is true only of objects with masks; True if the record does not list its objects."""
    objects = record.facts.get("objects", ())
    return not objects or sum(word in name for name in names) == sum(word in obj.values() for obj in objects)
