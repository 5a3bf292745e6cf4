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
