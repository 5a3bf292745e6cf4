"""Phrases, their parts, and what maps of mixed texts go by, by hand."""

import numpy as np
import pytest
import torch
from PIL import Image

from clip_explain import papers
from clip_explain.datasets import Record, read
from clip_explain.models import load


def test_squares_stand_in_for_masks():
    record = Record("x", Image.new("RGB", (8, 6)), ("a cube",), facts={"points": [[(4.0, 3.0)]]})
    found = papers.with_squares(record, 1)
    assert found.masks.shape == (1, 6, 8) and found.masks[0, 3, 4] and 4 <= found.masks.sum() <= 9
    assert papers.with_squares(found, 3) is found


def test_told_apart_by_hand():
    """Both colors: the first object has more of its own map's energy, the second as much; the size has no rival."""
    energy = torch.tensor([[0.6, 0.5, 0.1], [0.2, 0.5, 0.1], [0.9, 0.9, 0.1]])
    found = papers.told_apart(energy, ["color", "color", "size"])
    assert found[:2].tolist() == [1.0, 0.5] and found[2].isnan()


@pytest.mark.parametrize(
    ("text", "parts", "words"),
    [
        ("a small cube", ("a cube", "a small thing"), ("cube", "small")),
        ("a red thing on the left", ("a red thing", "a thing on the left"), ("red", "left")),
    ],
)
def test_parts_of_phrases(text, parts, words):
    *found, places = papers.phrase_parts(text)
    assert tuple(found) == parts and tuple(text.split()[place] for place in places) == words


def test_parts_of_the_scenes_phrases_are_their_texts():
    for record in read("attributes", 12, 0):
        for kind, text in zip(record.facts["kinds"], record.texts, strict=True):
            if " and " in kind:
                assert set(papers.phrase_parts(text)[:2]) <= set(record.texts)


def test_color_over_shape():
    """Between -1 and 1 where two objects share neither; None where each other object shares the color or the shape."""
    model, record = load("tiny-vit"), next(iter(read("scenes", 1, 0)))
    found = papers.color_over_shape(model, record)
    assert found is not None and -1 <= found <= 1
    same = Record("x", record.image, ("a red cone", "a red cube"), np.ones((2, *record.masks.shape[1:]), dtype=bool))
    assert papers.color_over_shape(model, same) is None
