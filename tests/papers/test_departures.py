"""Scores before and after a change, by hand."""

import pytest
import torch

from clip_explain import papers


def test_departure_by_hand():
    """The order turned around: the correlation is -1, another candidate is first, and that one is right."""
    rows = papers.departure("x", "m", torch.tensor([1.0, 2.0, 3.0]), torch.tensor([3.0, 2.0, 1.0]), [0, 1], "image")
    values = {row["metric"]: row["value"] for row in rows}
    assert values == {"correlation with the own score": pytest.approx(-1), "same first": 0, "right first": 1}
    assert {(row["image"], row["method"], row["setting"]) for row in rows} == {("x", "m", "image")}


def test_a_constant_score_has_no_correlation():
    rows = papers.departure("x", "m", torch.tensor([1.0, 2.0]), torch.tensor([1.0, 1.0]), [1])
    assert [row["value"] for row in rows] == [0, 0, 0]
