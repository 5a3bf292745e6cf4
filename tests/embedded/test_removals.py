"""Removals: how much is taken away, what is still seen after it, and what it is filled with."""

import numpy as np
import pytest
import torch

from clip_explain.embedded.training.removals import (
    FILLS,
    PARTS,
    SIDES,
    Removal,
    all_but,
    blobs,
    draw_removal,
    fill_in,
    patches,
    pixels,
    still_seen,
    surroundings,
)
from clip_explain.models.model import MEAN


@pytest.mark.parametrize("take", [patches, blobs, pixels])
def test_about_the_share_asked_for_is_taken(take):
    gone = [take(160, 0.4, np.random.default_rng(i)).mean() for i in range(40)]
    assert np.mean(gone) == pytest.approx(0.4, abs=0.03)


def test_patches_are_squares_of_one_grid():
    for seed in range(8):
        gone = patches(96, 0.5, np.random.default_rng(seed))
        edges = np.flatnonzero((gone[:, 1:] != gone[:, :-1]).any(0))
        assert any(len(set(edges % square)) == 1 for square in SIDES) and 0 < gone.mean() < 1


def test_box_around_a_mask_stays():
    mask = np.zeros((20, 20), bool)
    mask[5:8, 0:4] = True
    kept = ~all_but(mask, 2)
    assert kept[3:10, 0:6].all() and kept.sum() == 7 * 6


def test_surroundings_leave_one_object_or_nothing():
    ids = np.full((20, 20), -1)
    ids[2:4, 2:4], ids[15:18, 15:18] = 0, 1
    kept = {tuple(np.unique(ids[~surroundings(ids, 1, np.random.default_rng(i))])) for i in range(20)}
    assert kept == {(-1, 0), (-1, 1)}
    assert surroundings(np.full((4, 4), -1), 1, np.random.default_rng(0)).all()


def test_what_is_still_seen():
    ids = np.full((40, 40), -1)
    ids[:20, :20], ids[20:, 20:], ids[:20, 20:], ids[20:, :20] = 0, 1, 2, 3  # 400 pixels each
    gone = np.zeros((40, 40), bool)
    gone[:20, :9], gone[20:, 20:], gone[:16, 20:] = True, True, True  # 45 %, all and 80 % of three of them
    seen = np.array([1, 1, 1, 1, 0])
    assert still_seen(seen, ids, Removal(gone, "patches", "black")).tolist() == [1, 0, -1, 1, 0]
    assert still_seen(seen, ids, Removal(gone, "patches", "blur")).tolist() == [1, -1, -1, 1, 0]
    assert still_seen(-seen, ids, Removal(gone, "patches", "black")).tolist() == [-1, 0, -1, -1, 0]


def test_single_pixels_leave_an_object_in_sight_until_four_fifths_are_gone():
    ids = np.zeros((40, 40), int)
    for share, expected in ((0.7, 1), (0.9, -1)):
        gone = pixels(40, share, np.random.default_rng(0))
        assert still_seen(np.array([1]), ids, Removal(gone, "pixels", "black")).tolist() == [expected]


@pytest.mark.parametrize("fill", FILLS)
def test_only_what_is_gone_changes(fill):
    image = torch.randint(0, 256, (3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    gone = np.zeros((48, 48), bool)
    gone[10:30, 10:30] = True
    filled = fill_in(image, gone, fill, np.random.default_rng(0))
    inside = torch.from_numpy(gone)
    assert torch.equal(filled[:, ~inside], image[:, ~inside])
    assert (filled != image)[:, inside].any(0).float().mean() > 0.9
    levels = {"black": (0.0,) * 3, "white": (1.0,) * 3, "mean": MEAN}
    if fill in levels:
        expected = (torch.tensor(levels[fill]) * 255).round()[:, None].expand(3, 400)
        assert torch.equal(filled[:, inside].float(), expected)


def test_every_part_and_fill_is_drawn_and_a_seed_decides():
    ids = np.zeros((32, 32), int)
    drawn = [draw_removal(ids, np.random.default_rng(i)) for i in range(120)]
    assert {one.part for one in drawn} == set(PARTS) and {one.fill for one in drawn} == set(FILLS)
    again = draw_removal(ids, np.random.default_rng(7))
    assert (again.gone == drawn[7].gone).all() and again.fill == drawn[7].fill
