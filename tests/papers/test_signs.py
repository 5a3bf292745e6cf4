"""Positive and negative saliency as rows, by hand on an image of four pixels and two objects."""

import numpy as np
import pytest
import torch
from PIL import Image

from clip_explain import papers
from clip_explain.datasets import Record
from clip_explain.explainers import explain
from small_clip import build, wrap

MASKS = np.eye(4, dtype=bool)[:2].reshape(2, 2, 2)
WHOLE = Record("x", Image.new("RGB", (2, 2)), ("a cube", "a ring"), MASKS)
CUBE, RING = torch.tensor([[1.0, 0], [0, 0]]), torch.tensor([[0.0, 1], [0, 0]])
GROUND = torch.tensor([[0.0, 0], [1, 1]])


def by_row(rows):
    return {(row["setting"], row["method"], row["metric"], row["target"]): row["value"] for row in rows}


def test_maps_of_both_signs():
    """The cube's maps lie on the cube, the ring, the ground; the ring's on the ring, half on either, on the cube."""
    maps = torch.stack([CUBE, RING]), torch.stack([RING, (CUBE + RING) / 2]), torch.stack([GROUND, CUBE])
    found = by_row(papers.both_signs(WHOLE, WHOLE, maps, "ViT", "texts"))
    for sign, own, others in (
        ("target", [1, 1], [0, 0]),
        ("negated target", [0, 0.5], [1, 0.5]),
        ("random direction", [0, 0], [0, 1]),
        ("chance", [0.25, 0.25], [0.25, 0.25]),
    ):
        assert [found["ViT, texts", sign, "energy_pointing_game", i] for i in (0, 1)] == own
        assert [found["ViT, texts", sign, "energy_on_others", i] for i in (0, 1)] == others
    assert [found["ViT, texts", "negated target", "coverage", i] for i in (0, 1)] == [0, 1]
    assert [found["texts", "vit", "coverage", i] for i in (0, 1)] == [1, 1]
    assert [found["texts", "vit", "coverage_of_rest", i] for i in (0, 1)] == pytest.approx([1 / 3, 1 / 3])
    shared = [found["ViT, texts", "target and negated target", "overlap, ViT", i] for i in (0, 1)]
    assert shared == [0, 0.5]
    assert [found["ViT, texts", "two targets", "overlap, ViT", i] for i in (0, 1)] == [0, 0]


def test_an_image_of_one_text_has_no_overlaps():
    one = WHOLE.about(["a cube"])
    rows = papers.both_signs(one, WHOLE, (CUBE[None], RING[None], GROUND[None]), "ViT", "texts")
    found = by_row(rows)
    assert found["ViT, texts", "negated target", "energy_on_others", 0] == 1  # on the ring, which is not asked for
    assert not any(metric == "overlap, ViT" for _, _, metric, _ in found)


@pytest.fixture(scope="module")
def two():
    """A small CLIP, two images of two texts each, and a direction for each text."""
    model = wrap(build())
    noise = torch.Generator().manual_seed(0)
    masks = np.kron(MASKS, np.ones((32, 32), bool))
    shown = [torch.rand(64, 64, 3, generator=noise).mul(255).byte().numpy() for _ in range(2)]
    records = [Record(str(i), Image.fromarray(image), WHOLE.texts, masks) for i, image in enumerate(shown)]
    return model, records, {text: torch.randn(64, generator=noise) for text in WHOLE.texts}


def test_maps_of_both_signs_are_those_of_each_direction(two):
    model, records, directions = two
    found = papers.maps_of_both_signs(model, "grad_eclip", records, directions)
    assert list(found) == ["+", "-"]
    for sign, factor in (("+", 1), ("-", -1)):
        target = factor * torch.stack([directions[text] for text in WHOLE.texts])
        expected = explain(model, records[1].image, target, "grad_eclip", fit="full").maps[0]
        torch.testing.assert_close(found[sign][1], expected)
    assert not torch.allclose(found["+"][0], found["-"][0])


def test_rows_of_both_signs_are_those_of_each_record(two):
    model, records, directions = two
    asked = [records[0], records[1].about(["a ring"])]
    source = torch.Generator().manual_seed(3)
    rows = papers.rows_of_both_signs(model, "grad_eclip", asked, records, directions, ("ViT", "texts"), source)
    target = torch.stack([directions[text] for text in WHOLE.texts])
    nothing = torch.randn(2, 64, generator=torch.Generator().manual_seed(3))
    maps = [
        explain(model, records[0].image, each, "grad_eclip", fit="full").maps[0] for each in (target, -target, nothing)
    ]
    expected = papers.both_signs(records[0], records[0], tuple(maps), "ViT", "texts")
    assert by_row(rows[: len(expected)]) == pytest.approx(by_row(expected), abs=1e-5)
    later = by_row(rows[len(expected) :])
    assert later["ViT, texts", "chance", "energy_on_others", 0] == 0.25  # the cube, which the image shows besides
