"""Resizing and scaling of maps, by hand-worked cases."""

import pytest
import torch

from clip_explain.errors import MethodError, TensorError
from clip_explain.maps import degenerate, normalize, resize


def test_resize_bilinear_by_hand():
    row = torch.tensor([[0.0, 4.0]])
    torch.testing.assert_close(resize(row, (1, 4)), torch.tensor([[0.0, 1.0, 3.0, 4.0]]))


def test_resize_nearest_by_hand():
    torch.testing.assert_close(
        resize(torch.tensor([[0.0, 4.0]]), (1, 4), "nearest"), torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    )


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("axes", [(), (3,), (2, 3)])
def test_resize_is_the_same_for_any_leading_axes(mode, axes):
    maps = torch.rand(*axes, 4, 5, generator=torch.Generator().manual_seed(0))
    got = resize(maps, (9, 7), mode)
    assert got.shape == (*axes, 9, 7)
    flat = torch.stack([resize(each, (9, 7), mode) for each in maps.reshape(-1, 4, 5)])
    torch.testing.assert_close(got.reshape(-1, 9, 7), flat)


def test_resize_refuses_an_unknown_mode_and_an_empty_size():
    with pytest.raises(MethodError, match="'bilinear', 'bicubic', 'nearest'"):
        resize(torch.zeros(2, 2), (4, 4), "linear")
    with pytest.raises(TensorError, match="at least 1"):
        resize(torch.zeros(2, 2), (0, 4))


def test_normalize_by_hand_each_map_on_its_own():
    maps = torch.tensor([[[2.0, 4.0, 3.0]], [[-1.0, 0.0, 3.0]]])
    torch.testing.assert_close(normalize(maps), torch.tensor([[[0.0, 1.0, 0.5]], [[0.0, 0.25, 1.0]]]))


@pytest.mark.parametrize("value", [0.0, 0.7, -3.0, 1e30, 1e-30])
def test_a_constant_map_is_degenerate_and_becomes_zeros(value):
    maps = torch.stack([torch.full((3, 4), value), torch.arange(12.0).reshape(3, 4)])
    assert degenerate(maps).tolist() == [True, False]
    assert torch.equal(normalize(maps)[0], torch.zeros(3, 4))
    assert normalize(maps)[1].max() == 1


def test_rounding_noise_on_a_constant_is_not_blown_up():
    noisy = torch.full((2, 2), 0.3)
    noisy[0, 0] = torch.nextafter(noisy[0, 0], torch.tensor(1.0))
    assert degenerate(noisy) and not normalize(noisy).any()


def test_a_small_map_keeps_its_full_range():
    torch.testing.assert_close(normalize(torch.tensor([[0.0, 1e-30]])), torch.tensor([[0.0, 1.0]]))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused_and_not_hidden(value):
    with pytest.raises(TensorError, match="finite"):
        normalize(torch.tensor([[0.0, value]]))
