"""Windows of a pool's pictures: where they lie, what they tell, and how their pixels are changed."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clip_explain.embedded.scenes.pool import make_pool
from clip_explain.embedded.training.windows import (
    Windows,
    cut,
    draw_windows,
    exposed,
    jitter,
    normalized,
    select,
    softened,
    window_facts,
    window_ids,
)
from clip_explain.models.model import MEAN, STD

NO = np.zeros(2, bool)


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return make_pool(tmp_path_factory.mktemp("pool"), 2, 5, "three", size=64, workers=1)


def whole(pool, flip=NO, grey=NO):
    zero, side = np.zeros(2, np.float32), float(pool.ids.shape[1])
    return Windows(pool.ids.shape[1], np.arange(2), zero, zero, np.full(2, side), flip, grey)


def test_whole_window_is_the_picture_and_flipped_its_mirror(pool):
    images = torch.from_numpy(np.array(pool.images)).permute(0, 3, 1, 2)
    assert torch.equal(cut(pool, whole(pool)), images)
    assert torch.equal(cut(pool, whole(pool, ~NO)), images.flip(-1))
    assert (window_ids(pool, whole(pool), 1) == pool.ids[1]).all()
    assert (window_ids(pool, whole(pool, ~NO), 1) == pool.ids[1][:, ::-1]).all()


def test_ids_follow_a_magnified_window(pool):
    windows = Windows(64, np.array([0]), np.array([16.0]), np.array([8.0]), np.array([32.0]), NO[:1], NO[:1])
    assert (window_ids(pool, windows, 0) == np.kron(pool.ids[0][8:40, 16:48], np.ones((2, 2), int))).all()


def test_facts_of_flipped_windows_are_mirrored(pool):
    plain, flipped = window_facts(pool, whole(pool)), window_facts(pool, whole(pool, ~NO))
    there = plain.attributes[..., 0] >= 0
    np.testing.assert_allclose(flipped.across[there], 1 - plain.across[there])
    np.testing.assert_allclose(flipped.along[..., 0], -plain.along[..., 0])
    assert (flipped.along[..., 1] == plain.along[..., 1]).all() and (flipped.seen == plain.seen).all()
    assert not window_facts(pool, whole(pool, grey=~NO)).color.any() and plain.color.all()


def test_windows_hold_the_middle_of_an_object(pool):
    windows = draw_windows(pool, np.array([0, 1] * 20), 24, (0.8, 1.2), 0.5, np.random.default_rng(0))
    for row, i in enumerate(windows.picked):
        x, y = pool.centers[i][:3].T
        across = (windows.left[row] <= x) & (x <= windows.left[row] + windows.span[row])
        assert (across & (windows.top[row] <= y) & (y <= windows.top[row] + windows.span[row])).any()
    assert windows.grey.any() and not windows.grey.all() and windows.flip.any()
    part = select(windows, slice(3, 5))
    assert part.side == 24 and (part.picked == windows.picked[3:5]).all() and (part.span == windows.span[3:5]).all()


def test_grey_pictures_have_no_color_and_others_keep_the_order_of_their_levels():
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    out = exposed(pixels, np.array([True, False]), np.random.default_rng(0)).int()
    assert (out[0, 0] == out[0, 1]).all() and (out[0, 0] == out[0, 2]).all() and not (out[1, 0] == out[1, 1]).all()
    rising = pixels[1, 0].flatten().argsort()
    assert (out[1, 0].flatten()[rising].diff() >= 0).all()


def test_soft_pictures_are_the_mean_of_neighbours():
    image = torch.rand(3, 9, 7, generator=torch.Generator().manual_seed(0))
    mean = F.avg_pool2d(image, 3, 1, 1, count_include_pad=False)
    for amount in (-0.5, 0.3, 1.0):
        torch.testing.assert_close(softened(image, amount), image.lerp(mean, amount))
    assert torch.equal(softened(image, 0.0), image)


def test_pixels_stay_near_what_they_were_and_a_seed_decides():
    pixels = torch.full((40, 3, 16, 16), 128, dtype=torch.uint8)
    out, again = (jitter(pixels, np.zeros(40, bool), np.random.default_rng(4)) for _ in range(2))
    assert out.dtype == torch.uint8 and torch.equal(out, again) and (out > 50).all() and (out < 230).all()
    noisy = (out.flatten(2).float().std(-1) > 0).any(1).float().mean()
    assert 0.3 < noisy < 0.7


def test_normalized_pixels_are_those_of_clips_preprocessing():
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    raw = normalized(pixels) * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    torch.testing.assert_close(raw[0, :, 0, 0], torch.tensor([0.0, 0.2, 1.0]))
