"""Rows of emotion probes, worked by hand on two images and two emotions."""

import numpy as np
import pytest
import torch
from PIL import Image

from clip_explain import papers
from clip_explain.datasets import Record

PICTURE = Image.new("RGB", (2, 2))
IMAGES = ["image 0", "image 1"]


def values(rows):
    return {(row["image"], row["method"], row["setting"]): row["value"] for row in rows}


def test_accuracy_beside_chance_and_the_ideal_reader():
    """The probe is right once. The first painting's strokes speak for fear, the second has no rule to read."""
    records = [Record("a", PICTURE, (), facts={"posterior": {"awe": 0.4, "fear": 0.6}}), Record("b", PICTURE, ())]
    found = values(papers.probe_accuracy(IMAGES, records, ["awe", "fear"], {("ViT", "probe"): ["awe", "awe"]}, 0.5))
    assert found == {
        ("image 0", "probe", "ViT"): 1,
        ("image 1", "probe", "ViT"): 0,
        ("image 0", "chance", "ViT"): 0.5,
        ("image 1", "chance", "ViT"): 0.5,
        ("image 0", "ideal reader", "any model"): 0,
    }


def test_chance_is_the_better_of_a_random_guess_and_the_most_frequent_emotion():
    assert papers.chance_of_guessing(["awe", "fear"], ["awe", "awe", "fear"], ["awe", "fear", "sadness"]) == 0.5
    assert papers.chance_of_guessing(["fear", "fear"], ["awe", "awe", "fear"], ["awe", "fear", "sadness"]) == 1 / 3


def test_the_mean_of_a_spread_is_corrected_for_bias():
    """Two images, two directions: jackknife values are 2 s - s without the image."""
    numbers = torch.tensor([[0.0, 2.0], [1.0, 5.0]])
    rows = papers.spread(IMAGES, "emotions", {"variance": numbers}, "ViT")
    both, without_first, without_second = (np.std(means) for means in ([0.5, 3.5], [1.0, 5.0], [0.0, 2.0]))
    assert {row["metric"] for row in rows} == {"spread of variance"}
    assert [row["value"] for row in rows] == pytest.approx([2 * both - without_first, 2 * both - without_second])


def test_mean_maps_that_are_equal_and_opposite():
    """One direction's maps are equal in both models, the other's are turned over: correlations of 1 and -1, mean 0."""
    heat = torch.tensor([[0.0, 1.0], [0.25, 0.5]]).expand(2, 1, 2, 2)
    other = torch.cat([heat, 1 - heat], dim=1)
    rows = papers.likeness_of_mean_maps(IMAGES, "pair", [torch.cat([heat, heat], dim=1), other], "both models")
    assert [row["value"] for row in rows] == pytest.approx([0, 0], abs=1e-6)
    rows = papers.likeness_of_mean_maps(IMAGES, "pair", [heat, heat], "both models")
    assert [row["value"] for row in rows] == pytest.approx([1, 1])
