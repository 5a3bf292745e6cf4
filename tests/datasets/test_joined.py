"""Two names joined into a text: which words are asked, and what they name."""

import numpy as np
import pytest
from PIL import Image

from clip_explain import datasets
from clip_explain.datasets import Record
from clip_explain.errors import DatasetError

IMAGE = Image.new("RGB", (3, 1))
MASKS = np.eye(3, dtype=bool)[:, None]  # one pixel each


def record(*texts: str, **facts) -> Record:
    return Record("r", IMAGE, texts, MASKS[: len(texts)], facts=facts)


def test_a_word_names_all_that_it_is_true_of():
    """The first two names share "a" and "red", so the first is joined with the third; "cone" is true of two objects."""
    found = datasets.joined(record("a red cone", "a red ring", "a blue cone"))
    assert found.text == "a red ring and a blue cone" and found.words == ("red", "ring", "blue", "cone")
    assert found.nouns == (False, True, False, True)
    assert found.named[:, 0].tolist() == [
        [True, True, False],  # red
        [False, True, False],  # ring
        [False, False, True],  # blue
        [True, False, True],  # cone
    ]
    assert found.other[:, 0].tolist() == [MASKS[2, 0].tolist()] * 2 + [MASKS[1, 0].tolist()] * 2


def test_words_of_objects_without_a_mask_are_not_asked():
    objects = [{"color": "red", "shape": "ring"}, {"color": "blue", "shape": "cone"}, {"color": "red", "shape": "cube"}]
    found = datasets.joined(record("a red ring", "a blue cone", objects=objects))
    assert found.words == ("ring", "blue", "cone")
    all_hidden = [*objects, {"color": "blue", "shape": "ring"}, {"color": "green", "shape": "cone"}]
    assert datasets.joined(record("a red ring", "a blue cone", objects=all_hidden)) is None


def test_records_without_two_objects_to_tell_apart():
    assert datasets.joined(record("a red ring")) is None
    assert datasets.joined(record("a red cone", "a red ring")) is None
    with pytest.raises(DatasetError, match="r has no masks"):
        datasets.joined(Record("r", IMAGE, ("a red ring",)))


def test_texts_that_name_a_part_of_a_whole():
    """All that is red is a cube, and one cube is not red; what is blue is no part of the cubes."""
    cubes, red, blue = MASKS[:2].any(0), MASKS[0], MASKS[1:].any(0)
    texts, kinds = ("a cube", "a red thing", "a blue thing"), ("shape", "color", "color")
    scene = Record("r", IMAGE, texts, np.stack([cubes, red, blue]), facts={"kinds": kinds})
    ((named, whole, part),) = datasets.named_parts(scene)
    assert named == ["a cube", "a red cube", "a red thing"]
    assert (whole == cubes).all() and (part == red).all()
    all_red = Record("r", IMAGE, texts[:2], np.stack([red, red]), facts={"kinds": kinds[:2]})
    assert datasets.named_parts(all_red) == []
