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
