"""Phrases, their parts, and what maps of mixed texts go by, by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from clip_explain import papers
from clip_explain.datasets import Record, read
from clip_explain.errors import DatasetError
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


def scene(kinds=("size", "color", "color"), texts=("a small thing", "a red thing", "a blue thing")):
    """Three texts, each true of one column of three; the first map is above 0 in its own column alone, as the second.

    The third map has half of its energy in the second column.
    """
    masks = np.zeros((3, 3, 3), dtype=bool)
    masks[range(3), :, range(3)] = True
    record = Record("x", Image.new("RGB", (3, 3)), texts, masks, facts={"kinds": kinds})
    heat = torch.from_numpy(masks).float()
    heat[2, :, 1] = 1
    return record, heat


def test_texts_of_one_attribute_in_reading_order():
    assert papers.by_attribute(["position", "size and shape", "color", "shape", "color"]) == [3, 2, 4, 0]


def test_rows_by_value_by_hand():
    record, maps = scene()
    table = papers.long_table(papers.rows_by_value(record, maps)).set_index(["method", "metric"])["value"]
    assert {*table.index.get_level_values("method")} == {"size: small", "color: red", "color: blue"}
    assert table["color: red", "pointing_game"] == 1 and table["color: blue", "energy_pointing_game"] == 0.5
    assert table["color: red", "chance"] == pytest.approx(1 / 3)
    assert table["color: red", "told apart"] == 1 and np.isnan(table["size: small", "told apart"])


def test_rows_by_value_leave_phrases_out():
    record, maps = scene(("size and shape", "color", "color"))
    assert {row["method"] for row in papers.rows_by_value(record, maps)} == {"color: red", "color: blue"}


def test_next_scene_by_hand():
    """Two maps against the first column's mask: neither has energy there; a scene without the attribute has no rows."""
    record, maps = scene()
    other, _ = scene(("color", "size", "size"))
    found = {row["metric"]: row["value"] for row in papers.on_next_scene(record, other, maps, "color")}
    assert found == {"pointing_game": 0, "energy_pointing_game": 0}
    assert papers.on_next_scene(record, other, maps, "shape") == []


def test_a_record_without_masks_is_refused():
    record, maps = scene()
    with pytest.raises(DatasetError, match="x has no masks"):
        papers.rows_by_value(replace(record, masks=None), maps)


def test_attributes_are_means_of_their_values():
    rows = []
    for attribute in papers.ATTRIBUTES:
        rows += papers.measured("x", f"{attribute}: b", {"chance": 0.5})
        rows += papers.measured("x", f"{attribute}: a", {"chance": 0.25})
    table, order = papers.with_attributes(papers.long_table(rows + papers.measured("x", "color, next scene", {"y": 1})))
    assert order[:4] == ["shape", "shape: a", "shape: b", "material"] and len(order) == 15
    assert table.set_index("method").loc["color", "value"] == 0.375


def test_color_over_shape():
    """Between -1 and 1 where two objects share neither; None where each other object shares the color or the shape."""
    model, record = load("tiny-vit"), next(iter(read("scenes", 1, 0)))
    found = papers.color_over_shape(model, record)
    assert found is not None and -1 <= found <= 1
    same = Record("x", record.image, ("a red cone", "a red cube"), np.ones((2, *record.masks.shape[1:]), dtype=bool))
    assert papers.color_over_shape(model, same) is None


def test_the_part_of_the_words_that_is_the_colors(monkeypatch):
    """The colour has three times the shape's weight; without any weight there is no part, without facts no question."""
    weights = {"a": 0.5, "red": 0.3, "cube": 0.1}

    def explained(model, image, text, fit, per):
        return [(list(weights), torch.tensor([list(weights.values())]))]

    monkeypatch.setattr("clip_explain.papers.attributes.explain_words", explained)
    model, picture = load("tiny-vit"), Image.new("RGB", (2, 2))
    record = Record("x", picture, ("a red cube",), facts={"color": "red", "shape": "cube"})
    assert papers.color_part_of_words(model, record, "a red cube") == pytest.approx(0.75)
    weights |= {"red": 0.0, "cube": 0.0}
    assert np.isnan(papers.color_part_of_words(model, record, "a red cube"))
    assert papers.color_part_of_words(model, Record("y", picture, ("a face",)), "a face") is None
