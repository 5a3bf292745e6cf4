"""How alike variants of a method are, by hand."""

import pytest
import torch

from clip_explain import papers

RAMP = torch.tensor([[0.0, 1.0], [2.0, 3.0]])


def test_maps_of_the_first_text_count():
    maps = {"one": torch.stack([RAMP, RAMP]), "other": torch.stack([-RAMP, RAMP]), "even": torch.ones(2, 2, 2)}
    assert papers.likeness_of_maps(maps, "one", "other") == pytest.approx(-1)
    assert papers.likeness_of_maps(maps, "one", "even") == 0


def test_start_and_end_token_do_not_count():
    """The words in between are turned round; a text of equal weights is like none."""
    weights = {"one": torch.tensor([[[9.0, 1, 2, 3, 9]]]), "other": torch.tensor([[[9.0, 3, 2, 1, 9]]])}
    weights["even"] = torch.ones(1, 1, 5)
    assert papers.likeness_of_words(weights, "one", "other") == pytest.approx(-1)
    assert papers.likeness_of_words(weights, "one", "even") == 0
    rows = papers.words_like("x", weights, ["one", "other"], "one")
    assert [row["method"] for row in rows] == ["one", "other"]
    assert [row["value"] for row in rows] == [pytest.approx(1), pytest.approx(-1)]
    assert papers.words_like("x", weights, ["one"], "not measured") == []


def test_the_least_alike_come_first():
    assert papers.least_alike([0.5, -0.1, 0.9, -0.1], 3) == [1, 3, 0]
    assert papers.least_alike([0.5], 3) == [0]


def test_heads_by_hand():
    """Of three heads one pair is alike, and two are opposite: a mean of -1/3."""
    maps = {"a": RAMP[None], "b": RAMP[None], "c": -RAMP[None], "all": RAMP[None], "one": -RAMP[None]}
    rows = papers.heads_like("x", maps, ["a", "b", "c"], ("all", "one"))
    assert {row["method"]: row["value"] for row in rows} == {
        "two heads": pytest.approx(-1 / 3),
        "all and one": pytest.approx(-1),
    }
    assert [row["method"] for row in papers.heads_like("x", maps, ["a"], ("all", "one"))] == ["all and one"]
