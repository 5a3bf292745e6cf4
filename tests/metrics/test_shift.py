"""Semantic shift by hand, on two images of four patches and three channels."""

import numpy as np
import torch

from clip_explain.metrics.channel_shift import MOVES, channels_of, distinct, foreground_patches, moves, nearest_patches
from clip_explain.models.pooling import pool

# A grid of 2 x 2, three channels; the class token, first, is (5, 0.9, -2.2).
TOKENS = torch.tensor([[[5.0, 0.9, -2.2], [1, 0, -4], [4, 0, -2], [2, 7, -3], [1, 9, 1]]])


def test_nearest_patches_by_hand():
    patches, mask = TOKENS[:, 1:], torch.ones(1, 4)
    places = {how: nearest_patches(patches, pool(TOKENS, mask, how)).tolist() for how in ("max", "average")}
    assert places == {"max": [[1, 3, 3]], "average": [[2, 2, 1]]}  # maxima 4, 9, 1; means 2, 4, -2
    assert nearest_patches(patches, pool(TOKENS, mask, "attention")).tolist() == [[1, 0, 1]]


def test_of_equally_near_patches_the_first():
    tokens = torch.tensor([[[1.0], [3.0], [1.0]]])
    assert nearest_patches(tokens, torch.tensor([[2.0]])).tolist() == [[0]]
    assert nearest_patches(tokens, torch.tensor([[1.0]])).tolist() == [[0]]


def test_foreground_patches_by_hand():
    """Patches of 2 x 2 pixels: 4, 2 and 1 of them in the mask, and none."""
    mask = np.array([[1, 1, 1, 0], [1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]], dtype=bool)[None]
    assert foreground_patches(mask, (2, 2)).tolist() == [[True, True, False, False]]
    assert foreground_patches(torch.from_numpy(mask), (2, 2), share=0.25).tolist() == [[True, True, True, False]]


def test_foreground_patches_of_an_image_that_its_grid_does_not_divide():
    """5 pixels in 2 patches: the middle one is in both, as torch pools; each then has 3 of which 3 and 1 are inside."""
    mask = torch.tensor([[True, True, True, False, False]])[:, None]
    assert foreground_patches(mask, (1, 2)).tolist() == [[True, False]]


def test_moves_by_hand():
    before = torch.tensor([[False, False, True, True, True], [False] * 5])
    after = torch.tensor([[True, False, False, False, True], [False] * 5])
    found = {name: counts.tolist() for name, counts in moves(before, after).items()}
    assert found == {"B2F": [1, 0], "F2B": [2, 0], "B2B/F2F": [2, 5]} and tuple(found) == MOVES
    back = moves(after, before)
    assert back["B2F"].tolist() == [2, 0] and back["F2B"].tolist() == [1, 0]


def test_distinct_by_hand():
    assert distinct(torch.tensor([[3, 1, 3, 1], [0, 1, 2, 3], [7, 7, 7, 7]])).tolist() == [2, 4, 1]


def test_channels_of_an_image_by_hand():
    foreground = torch.tensor([False, True, False, True])
    largest = channels_of(TOKENS, torch.ones(1, 4), "max", foreground)
    assert (largest.values.tolist(), largest.places.tolist()) == ([4, 9, 1], [1, 3, 3])
    assert largest.inside.tolist() == [True, True, True]
    masked = channels_of(TOKENS, torch.tensor([[1.0, 0.0, 1.0, 0.5]]), "masked_max", foreground)
    assert (masked.values.tolist(), masked.places.tolist()) == ([2, 7, 0.5], [2, 2, 3])  # 4 and half of 9 are less
    assert masked.inside.tolist() == [False, False, True]
