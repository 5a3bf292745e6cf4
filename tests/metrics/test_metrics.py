"""Point game, energy and concentration worked by hand; the bootstrap against theory."""

import numpy as np
import pytest
import torch

from clip_explain.errors import TensorError
from clip_explain.metrics.concentration import cells_for, entropy, map_correlation, mass_curve
from clip_explain.metrics.intervals import bootstrap
from clip_explain.metrics.localization import energy_in, own_and_others, points_at

MAPS = torch.tensor([[[0.0, 3.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 2.0]], [[0.0, 0.0], [0.0, 0.0]]])
MASKS = np.array([[[False, True], [False, False]], [[False, False], [True, True]], [[True, True], [True, True]]])


def test_points_at_by_hand():
    expected = [[True, False, True], [False, True, True], [False, False, False]]  # the last map is degenerate
    assert points_at(MAPS, MASKS).tolist() == expected


def test_energy_in_by_hand():
    assert energy_in(MAPS, MASKS).tolist() == [[0.75, 0.25, 1.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
    assert energy_in(torch.tensor([[[-5.0, 1.0], [1.0, 0.0]]]), MASKS[:1]).tolist() == [[0.5]]  # of positive mass


def test_maps_are_resized_to_the_masks():
    """A 2 x 2 map over 4 x 8 pixels, not square; its lower right cell lies over the mask."""
    mask = np.zeros((1, 4, 8), dtype=bool)
    mask[0, 2:, 4:] = True
    maps = torch.tensor([[[0.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 0.0]]])
    assert points_at(maps, mask)[:, 0].tolist() == [True, False]
    energy = energy_in(maps, mask)[:, 0]
    assert energy[0] > 0.5 > energy[1] > 0


def test_own_and_others():
    assert own_and_others(torch.tensor([[0.5, 0.1], [0.3, 0.7]])) == pytest.approx((0.6, 0.2))
    assert own_and_others(torch.tensor([[True, True], [False, False]])) == (0.5, 0.5)
    assert own_and_others(torch.tensor([[0.5]])) == (0.5, 0.0)


def test_no_masks_are_refused():
    with pytest.raises(TensorError, match="3 maps and 0 masks"):
        points_at(MAPS, MASKS[:0])


def test_concentration_by_hand():
    maps = torch.tensor([[[4.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]], [[6.0, 1.0], [3.0, 0.0]], [[0.0] * 2] * 2])
    torch.testing.assert_close(mass_curve(maps)[2], torch.tensor([0.6, 0.9, 1.0, 1.0]))
    assert cells_for(maps, 0.9).tolist() == [0.25, 1.0, 0.5, 1.0]
    assert cells_for(maps[1], 0.75) == 0.75
    even = entropy(maps)
    assert even[[0, 1, 3]].tolist() == pytest.approx([0.0, 1.0, 1.0])
    shares = np.array([0.6, 0.1, 0.3])
    assert even[2].item() == pytest.approx(-(shares * np.log(shares)).sum() / np.log(4))
    assert entropy(torch.ones(3, 1, 1)).tolist() == [1, 1, 1]


def test_map_correlation_is_numpys():
    maps, others = np.random.default_rng(0).normal(size=(2, 5, 3, 4)).astype("float32")
    expected = [np.corrcoef(one.ravel(), other.ravel())[0, 1] for one, other in zip(maps, others, strict=True)]
    found = map_correlation(torch.from_numpy(maps), torch.from_numpy(others))
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    assert map_correlation(MAPS[:1], 2 - 3 * MAPS[:1]).tolist() == pytest.approx([-1.0])
    assert map_correlation(MAPS, torch.full_like(MAPS, 0.1)).tolist() == [0.0, 0.0, 0.0]


def test_bootstrap_is_near_the_normal_interval():
    values = np.random.default_rng(1).normal(3, 2, 400)
    found = bootstrap(values, seed=0)
    half = 1.96 * values.std() / 20
    assert found.mean == pytest.approx(values.mean()) and found.count == 400
    assert found.low == pytest.approx(values.mean() - half, abs=0.05)
    assert found.high == pytest.approx(values.mean() + half, abs=0.05)
    assert bootstrap(values, seed=0) == found != bootstrap(values, seed=1)
    assert bootstrap(values, seed=0, level=0.5).high < found.high


def test_bootstrap_of_equal_values_and_of_one():
    assert str(bootstrap([0.25] * 5, seed=0)) == "0.250 [0.250, 0.250]"
    assert bootstrap([2.0], seed=0).high == 2.0


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [[1.0], [2.0]]])
def test_bootstrap_refuses(values):
    with pytest.raises(TensorError, match="one an image"):
        bootstrap(values, seed=0)
