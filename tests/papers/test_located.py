"""Rows of maps against masks, by hand."""

import numpy as np
import pytest
import torch
from PIL import Image

from clip_explain import papers
from clip_explain.datasets import Record

MASKS = np.zeros((2, 4, 4), dtype=bool)
MASKS[0, :2], MASKS[1, 3] = True, True
RECORD = Record("x", Image.new("RGB", (4, 4)), ("a cone", "a ring"), MASKS)


def test_maps_against_the_records_masks():
    """The first text's map lies on its object alone, the second's on that of the first."""
    right, wrong = torch.zeros(4, 4), torch.zeros(4, 4)
    right[0, 0], wrong[0, 0] = 1, 1
    table = papers.long_table(papers.located(RECORD, {"a": torch.stack([right, wrong])}, "s"))
    assert set(table["metric"]) == set(papers.POINTING) and set(table["setting"]) == {"s"}
    values = table.pivot(index="metric", columns="target", values="value")
    assert values.loc["pointing_game"].tolist() == values.loc["energy_pointing_game"].tolist() == [1, 0]
    one = papers.located(RECORD, {"a": torch.stack([right, wrong])}, metrics=["iou_mean"])
    assert [row["value"] for row in one] == pytest.approx([1 / 8, 0])


def test_chance_is_the_objects_share():
    rows = papers.chance(RECORD, metrics=["pointing_game", "average_precision"])
    assert [row["value"] for row in rows] == [0.5, 0.25] * 2 and {row["method"] for row in rows} == {"chance"}


def test_maps_that_name_a_part():
    """A map on the whole lies on its part by half; a map of the part alone by all of it."""
    whole, part = np.zeros((2, 2), dtype=bool), np.zeros((2, 2), dtype=bool)
    whole[0], part[0, 0] = True, True
    maps = torch.tensor([[[1.0, 1], [0, 0]], [[0, 0], [0, 1]], [[1, 0], [0, 0]]])
    methods = ["whole named", "both named", "part named"]
    rows = papers.on_part(RECORD, maps, methods, part, whole, "s", target=7)
    found = [(row["metric"], row["method"], row["value"]) for row in rows]
    shares = [("energy_pointing_game", method, share) for method, share in zip(methods, [0.5, 0, 1], strict=True)]
    gaps = [("foreground_minus_background", method, 1) for method in ("whole named", "part named")]
    assert found == shares + gaps
    assert {(row["image"], row["setting"], row["target"]) for row in rows} == {("x", "s", 7)}
    without = papers.on_part(RECORD, maps, methods, part)
    assert {row["metric"] for row in without} == {"energy_pointing_game"}


def test_levels_on_objects_that_are_alike():
    """The map of "a red cube" is 1 on the red ring, 0.5 on the cube and 0 on the blue cone."""
    masks = np.eye(4, dtype=bool)[:3].reshape(3, 2, 2)
    record = Record("x", Image.new("RGB", (2, 2)), ("a red cube", "a red ring", "a blue cone"), masks)
    heat = torch.tensor([[0.5, 1], [0, 0]])
    rows = papers.levels_by_likeness(record, heat.expand(3, 2, 2), "s")
    found = {(row["target"], row["method"]): row["value"] for row in rows}
    assert [found[0, kind] for kind in papers.LIKENESS] == [0.5, 1, 0]
    assert [found[1, kind] for kind in papers.LIKENESS] == [1, 0.5, 0]
    assert found[2, "the object named"] == 0 and found[2, "other objects"] == 0.75
    assert np.isnan(found[2, "objects like it"])
