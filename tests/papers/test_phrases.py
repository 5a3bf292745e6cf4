"""Phrases of two attributes and their parts, by hand."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from clip_explain import papers
from clip_explain.datasets import Record, read
from clip_explain.models import load


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


def scene():
    """A phrase and its parts on two columns: the phrase's map is that of the deciding word."""
    masks = np.zeros((3, 2, 2), dtype=bool)
    masks[[0, 1], :, 0] = True
    masks[2, :, 1] = True
    kinds = ("size and shape", "shape", "size")
    texts = ("a small cube", "a cube", "a small thing")
    record = Record("x", Image.new("RGB", (2, 2)), texts, masks, facts={"kinds": kinds})
    return record, torch.from_numpy(masks).float()


def test_a_phrase_has_its_parts_maps_and_mask():
    record, maps = scene()
    (phrase,) = papers.phrases_in(record, maps)
    assert phrase.kind == "size and shape" and phrase.texts == record.texts and phrase.places == (2, 1)
    assert phrase.maps.equal(maps) and (phrase.mask == record.masks[0]).all()


def test_rows_of_a_phrase_by_hand():
    said = [(("a", "small", "cube"), torch.tensor([0.0, 1.0, 3.0]))]
    rows = papers.rows_of_phrase(papers.phrases_in(*scene())[0], said)
    found = {(row["method"], row["metric"]): row["value"] for row in rows}
    assert found["phrase", "energy_pointing_game"] == 1 and found["deciding word alone", "energy_pointing_game"] == 1
    assert found["deciding word", "shared energy"] == 1 and found["comparative", "shared energy"] == 0
    assert found["deciding word", "weight of the word"] == 3 and found["comparative", "weight of the word"] == 1
    assert {row["setting"] for row in rows} == {"size and shape"} and {row["target"] for row in rows} == {
        "a small cube"
    }


def test_words_of_a_phrase_are_those_of_its_three_texts():
    (phrase,) = papers.phrases_in(*scene())
    (said,) = papers.spoken(load("tiny-vit"), [phrase])
    assert [" ".join(words) for words, _ in said] == list(phrase.texts)
    assert all(len(words) == len(weights) for words, weights in said)


def test_two_phrases_of_each_kind_are_drawn():
    (phrase,) = papers.phrases_in(*scene())
    said = [(("a", "small", "cube"), torch.ones(3))] * 3
    axes = papers.draw_phrases([phrase] * 3, [said] * 3)
    assert axes.shape == (2, 4)
    plt.close("all")
