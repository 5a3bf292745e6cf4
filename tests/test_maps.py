"""Resizing and scaling of maps, by hand-worked cases."""

import pytest
import torch

from clip_explain.errors import MethodError, TensorError
from clip_explain.maps import centred, degenerate, has_sign, middle_square, normalize, on_source, resize


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
    with pytest.raises(TensorError, match="from 1 to"):
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


def test_a_map_of_the_crop_covers_the_middle_square_alone():
    """5 x 9 pixels: the square is the columns 2 to 7; one value for each of its pixels."""
    assert middle_square((5, 9)) == (0, 2, 5) and middle_square((9, 5)) == (2, 0, 5)
    square = torch.arange(25.0).reshape(5, 5)
    placed = on_source(square, (5, 9), "crop")
    assert torch.equal(placed[:, 2:7], square) and placed[:, :2].isnan().all() and placed[:, 7:].isnan().all()
    assert torch.equal(on_source(square.T[None], (9, 5), "crop")[0, 2:7], square.T)


@pytest.mark.parametrize("fit", ["full", "squash", None])
def test_other_maps_cover_the_whole_image(fit):
    assert torch.equal(on_source(torch.tensor([[0.0, 4.0]]), (1, 4), fit), torch.tensor([[0.0, 1.0, 3.0, 4.0]]))


def test_an_unknown_fit_is_refused():
    with pytest.raises(MethodError, match="did you mean 'crop'"):
        on_source(torch.zeros(2, 2), (4, 4), "corp")


def test_a_sign_is_a_value_below_zero_beyond_rounding():
    assert has_sign(torch.tensor([[-0.1, 1.0]])) and has_sign(torch.tensor([[-1.0, -2.0]]))
    assert not has_sign(torch.tensor([[-1e-8, 1.0]])) and not has_sign(torch.zeros(2, 2))


def test_centred_by_hand():
    maps = torch.tensor([[[0.0, 4.0]], [[1.0, 1.0]]])
    torch.testing.assert_close(centred(maps), torch.tensor([[[-2.0, 2.0]], [[0.0, 0.0]]]))
