"""Semantic shift as rows, by hand on an image of four patches and four channels."""

import numpy as np
import pytest
import torch
from PIL import Image

from clip_explain import papers, plots
from clip_explain.datasets import Record
from clip_explain.metrics.channel_shift import Channels

PLACES = torch.tensor([0, 1, 2, 3])


def channels(*inside: bool) -> Channels:
    return Channels(torch.arange(4.0), PLACES, torch.tensor(inside))


BEFORE = channels(True, False, False, False)
AFTER = channels(False, True, True, False)  # one leaves the foreground, two move to it, one stays outside


@pytest.mark.parametrize(
    ("share", "metric"),
    [
        (0.1, "channels, share to 0.25"),
        (0.25, "channels, share to 0.25"),
        (0.5, "channels, share 0.25 to 0.75"),
        (0.9, "channels, share above 0.75"),
    ],
)
def test_moves_by_the_size_of_the_foreground(share, metric):
    rows = papers.channel_moves("x", "whole", share, BEFORE, AFTER, "max to average")
    found = {(row["metric"], row["method"]): row["value"] for row in rows}
    moved = {"B2F": 0.5, "F2B": 0.25, "B2B/F2F": 0.25}
    assert found == {(each, move): value for each in (metric, "channels") for move, value in moved.items()}
    assert {row["target"] for row in rows} == {"whole"} and metric in papers.SIZES


def test_a_view_cut_close_counts_for_its_size_alone():
    rows = papers.channel_moves("x", "cut close", 0.5, BEFORE, AFTER, "max to average")
    assert {row["metric"] for row in rows} == {"channels, share 0.25 to 0.75"}


def test_null_channels_say_nothing_of_the_tokens_or_of_the_mask():
    """Under a mask that lets one patch through, noise comes from that patch; under the shuffled mask from any."""
    tokens, mask = torch.rand(1, 5, 64) + 1, torch.tensor([[1.0, 0, 0, 0]])
    front = torch.tensor([True, False, False, False])
    places, lot = set(), torch.Generator().manual_seed(0)
    for _ in range(20):
        found = papers.null_channels({"features": tokens}, mask, front, lot)
        assert set(found) == {("features", "shuffled mask"), ("features", "Gaussian tokens")}
        high = found["features", "Gaussian tokens"]
        assert (high.places[high.values > 0] == 0).all() and high.inside[high.values > 0].all()
        places |= set(found["features", "shuffled mask"].places.tolist())
    assert places == {0, 1, 2, 3}


def test_points_of_moved_channels_have_the_colour_of_their_way():
    *kept, (places, values, colours) = papers.points_of_channels({"max": BEFORE, "average": AFTER})
    assert len(kept) == 2 and kept[0][0] is BEFORE.places
    assert places.tolist() == [0, 1, 2] and values.tolist() == [0, 1, 2]
    assert colours.tolist() == [plots.LINES[1], plots.LINES[0], plots.LINES[0]]


def test_gaps_are_means_over_texts_and_lack_images_without_one():
    masks = np.eye(4, dtype=bool)[:2].reshape(2, 2, 2)
    picture = Image.new("RGB", (2, 2))
    seen = Record("x", picture, ("a cube", "a ring"), masks)
    covered = Record("y", picture, ("a cube",), np.ones((1, 2, 2), dtype=bool))
    on_first = torch.tensor([[1.0, 0], [0, 0]])
    gaps = papers.foreground_gaps([seen, covered], [on_first.expand(2, 2, 2), on_first[None]])
    assert gaps.to_dict() == {"x": pytest.approx((1 - 1 / 3) / 2)}
