"""Rows of emotion probes, worked by hand on two images and two emotions."""

import numpy as np
import pytest
import torch
from PIL import Image

import small_clip
from clip_explain import papers
from clip_explain.datasets import Record
from clip_explain.models.probe import Features, best_strength

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


def test_what_one_more_draw_of_directions_would_seldom_exceed():
    """Two draws of two directions: mean spread plus t, with one degree of freedom, times 1.5 ** 0.5 deviations."""
    first, second = torch.tensor([[0.0, 2.0], [1.0, 5.0]]), torch.tensor([[1.0, 1.0], [0.0, 6.0]])
    numbers = {"variance": torch.stack([first, second], dim=1)}
    rows = papers.spread_of_draws(IMAGES, "shuffled labels", numbers, "ViT", level=0.75)

    def bound(of_first, of_second):
        spreads = [np.std(of_first), np.std(of_second)]
        return np.mean(spreads) + 1.0 * 1.5**0.5 * np.std(spreads, ddof=1)  # t of one degree is 1 at 75 %

    both = bound([0.5, 3.5], [0.5, 3.5])
    without_first, without_second = bound([1.0, 5.0], [0.0, 6.0]), bound([0.0, 2.0], [1.0, 1.0])
    assert [row["value"] for row in rows] == pytest.approx([2 * both - without_first, 2 * both - without_second])
    assert {(row["metric"], row["method"]) for row in rows} == {("spread of variance", "shuffled labels")}


def test_one_more_draw_exceeds_the_bound_as_often_as_it_says():
    """Of many sets of ten draws without meaning, one in ten has its last above the bound of the others at 90 %."""
    noise, above = torch.Generator().manual_seed(0), []
    for _ in range(400):
        means = torch.randn(1, 10, 8, generator=noise).expand(2, 10, 8)
        bound = papers.spread_of_draws(IMAGES, "others", {"x": means[:, :9]}, "ViT", level=0.9)
        own = papers.spread(IMAGES, "last", {"x": means[:, 9]}, "ViT")
        above.append(own[0]["value"] > bound[0]["value"])
    assert 0.06 < np.mean(above) < 0.14


def test_probes_of_shuffled_labels_are_of_one_strength(monkeypatch):
    model, seen = small_clip.wrap(small_clip.build()), []
    values = np.random.default_rng(0).normal(size=(40, 64)).astype(np.float32)
    features = Features(values, np.arange(40) % 2)
    fit = papers.probes.emotion_probe
    monkeypatch.setattr(papers.probes, "emotion_probe", lambda *given: seen.append(given) or fit(*given))
    found = papers.shuffled_probes(model, features, ["awe", "fear"], 3, np.random.default_rng(1))
    source = np.random.default_rng(1)
    for (_, dealt, *_rest), probe in zip(seen, found, strict=True):
        assert (dealt.labels == source.permutation(features.labels)).all()
        assert probe.head.classes == ("awe", "fear")
    strengths = [given[-1] for given in seen]
    assert strengths[0] is None and strengths[1] == strengths[2] == best_strength(values, seen[0][1].labels)


def test_mean_maps_that_are_equal_and_opposite():
    """One direction's maps are equal in both models, the other's are turned over: correlations of 1 and -1, mean 0."""
    heat = torch.tensor([[0.0, 1.0], [0.25, 0.5]]).expand(2, 1, 2, 2)
    other = torch.cat([heat, 1 - heat], dim=1)
    rows = papers.likeness_of_mean_maps(IMAGES, "pair", [torch.cat([heat, heat], dim=1), other], "both models")
    assert [row["value"] for row in rows] == pytest.approx([0, 0], abs=1e-6)
    rows = papers.likeness_of_mean_maps(IMAGES, "pair", [heat, heat], "both models")
    assert [row["value"] for row in rows] == pytest.approx([1, 1])
