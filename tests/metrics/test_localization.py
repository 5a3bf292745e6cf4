"""Localization metrics worked by hand on maps of four pixels, by a slow oracle, and against torchmetrics."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_average_precision, binary_jaccard_index

from clip_explain.errors import MethodError, TensorError
from clip_explain.maps import normalize, resize
from clip_explain.metrics import localization as loc
from clip_explain.metrics.masks import on_masks
from clip_explain.metrics.registry import METRICS, current_name
from clip_explain.metrics.segmentation import levels_on

SCORES = loc.LOCALIZATION.items()
RAMP = torch.tensor([[0.0, 0.25], [0.5, 1.0]])
LOWER = torch.tensor([[False, False], [True, True]])
RIGHT = torch.tensor([[False, True], [False, True]])
LAST = torch.tensor([[False, False], [False, True]])


def random_pairs(seed, *axes, grid=(5, 7), size=(20, 28)):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(*axes, *grid, generator=random), torch.rand(*axes, *size, generator=random) < 0.3


# -- by hand


def test_pointing_game_by_hand():
    maps = torch.stack([RAMP, RAMP, -RAMP])
    assert loc.pointing_game(maps, torch.stack([LOWER, ~LOWER, ~LOWER])).tolist() == [1, 0, 1]
    tied = torch.tensor([[0.0, 1.0], [1.0, 0.0]])  # the first maximum by rows is at the upper right
    assert loc.pointing_game(tied, RIGHT).tolist() == 1 and loc.pointing_game(tied, LOWER).tolist() == 0


def test_pointing_game_allows_so_many_pixels():
    row = torch.tensor([[0.0, 0.0, 0.0, 1.0]])
    mask = torch.tensor([[True, False, False, False]])  # 3 pixels from the maximum
    assert [loc.pointing_game(row, mask, tolerance).item() for tolerance in (0, 2, 3, 15)] == [0, 0, 1, 1]
    corner = torch.tensor([[1.0, 0.0], [0.0, 0.0]])  # sqrt(2) = 1.41 from the lower right
    assert [loc.pointing_game(corner, LAST, tolerance).item() for tolerance in (1, 1.4, 1.5)] == [0, 0, 1]


def test_energy_pointing_game_by_hand():
    signed = torch.tensor([[-1.0, 1.0], [0.0, 1.0]])
    upper_right = torch.tensor([[False, True], [False, False]])
    assert loc.energy_pointing_game(signed, upper_right).item() == 1 / 2
    assert loc.energy_pointing_game(signed, upper_right, energy="minmax").item() == pytest.approx(1 / (0 + 1 + 0.5 + 1))
    assert loc.energy_pointing_game(RAMP, LAST).item() == pytest.approx(1 / 1.75)
    assert loc.energy_pointing_game(RAMP - 5, LAST).item() == 0  # no positive value
    assert loc.energy_pointing_game(RAMP - 5, LAST, energy="minmax").item() == pytest.approx(1 / 1.75)


def test_pixel_accuracy_by_hand():
    """The mean, 1.75 / 4 = 0.4375, marks the lower row: of the right column it has one pixel, and errs on two."""
    assert loc.pixel_accuracy(RAMP, RIGHT).item() == 2 / 4
    assert loc.pixel_accuracy(RAMP, RIGHT, over="mask").item() == 1 / 2
    assert loc.pixel_accuracy(RAMP, RIGHT, threshold="fixed", at=0.1).item() == 3 / 4  # marks all but the first
    assert loc.pixel_accuracy(RAMP, RIGHT, threshold="fixed", at=0.1, over="mask").item() == 2 / 2
    assert loc.pixel_accuracy(10 * RAMP - 3, RIGHT).item() == 2 / 4  # whatever the scale


def test_average_precision_by_hand():
    """Falling: hit, miss, hit: precision 1/1 and 2/3 at the hits. Rising, for the background: the same."""
    heat = torch.tensor([[0.1, 0.4], [0.35, 0.8]])
    assert loc.average_precision(heat, LOWER).item() == pytest.approx((1 + 2 / 3) / 2)
    assert loc.average_precision(heat, LOWER, classes="both").item() == pytest.approx((1 + 2 / 3) / 2)
    assert loc.average_precision(RAMP, RIGHT).item() == pytest.approx((1 + 2 / 3) / 2)
    assert loc.average_precision(RAMP, LAST, classes="both").item() == 1
    assert loc.average_precision(RAMP, ~LAST, classes="both").item() == pytest.approx(
        ((1 / 2 + 2 / 3 + 3 / 4) / 3 + 1 / 4) / 2
    )


def test_mask_iou_by_hand():
    assert loc.mask_iou(RAMP, RIGHT, "mean").item() == pytest.approx(1 / 3)
    assert loc.mask_iou(RAMP, RIGHT).item() == pytest.approx(1 / 2)  # above 0.5, not at it: the last pixel
    assert loc.mask_iou(RAMP, RIGHT, at=0.2).item() == pytest.approx(2 / 3)


CLASSES = ["a", "a", "b"]
OF_CLASSES = torch.stack([LOWER, LAST, torch.tensor([[False, True], [True, True]])])


def test_searched_iou_and_mmiou_by_hand():
    """Three maps RAMP; IoU for t in [0, 0.25), [0.25, 0.5), [0.5, 1):

    a: 2/3, 1, 1/2 and 1/3, 1/2, 1: means 1/2, 3/4, 3/4, of which the lowest is 0.25. b: 1, 2/3, 1/3, so 0.
    """
    curves = loc.iou_curves(RAMP.expand(3, 2, 2), OF_CLASSES)
    assert curves.shape == (3, 100)
    assert curves[0, [0, 24, 25, 49, 50, 99]].tolist() == pytest.approx([2 / 3, 2 / 3, 1, 1, 1 / 2, 1 / 2])
    values, thresholds = loc.searched_iou(curves, CLASSES)
    assert values.tolist() == pytest.approx([1, 1 / 2, 1]) and thresholds == {"a": 0.25, "b": 0.0}
    assert loc.mmiou(curves, CLASSES) == pytest.approx((3 / 4 + 1) / 2)  # over classes, not over maps
    iou = loc.mask_iou(RAMP.expand(1, 3, 2, 2), OF_CLASSES[None], threshold="searched", classes=CLASSES)
    assert iou.tolist() == [pytest.approx([1, 1 / 2, 1])]
    assert loc.iou_curves(RAMP, LOWER, step=0.25).tolist() == pytest.approx([2 / 3, 1, 1 / 2, 1 / 2])


def test_foreground_minus_background_and_mfmb_by_hand():
    found = loc.foreground_minus_background(RAMP.expand(3, 2, 2), OF_CLASSES)
    expected = [(0.5 + 1) / 2 - 0.25 / 2, 1 - 0.75 / 3, 1.75 / 3 - 0]
    assert found.tolist() == pytest.approx(expected)
    assert loc.foreground_minus_background(7 - 4 * RAMP, LOWER).item() == pytest.approx(-expected[0])
    assert loc.mfmb(found, CLASSES) == pytest.approx(((expected[0] + expected[1]) / 2 + expected[2]) / 2)


def test_items_and_classes_without_an_answer_are_left_out():
    masks = torch.stack([LOWER, torch.zeros_like(LOWER), torch.zeros_like(LOWER)])
    curves = loc.iou_curves(RAMP.expand(3, 2, 2), masks)
    values, thresholds = loc.searched_iou(curves, CLASSES)
    assert values[0] == 1 and values[1:].isnan().all() and thresholds["a"] == 0.25 and np.isnan(thresholds["b"])
    assert loc.mmiou(curves, CLASSES) == 1
    with pytest.raises(TensorError, match="nothing|anything to find"):
        loc.mmiou(curves[1:], CLASSES[1:])


# -- the rule for degenerate input


@pytest.mark.parametrize("constant", [0.0, 5.0, -1.0])
def test_a_constant_map_finds_nothing(constant):
    found = {name: metric(torch.full((3, 4), constant), LAST.repeat(2, 2)).item() for name, metric in SCORES}
    level = {"pixel_accuracy": 0.75, "average_precision": 0.25}  # the background's and the mask's share of the pixels
    assert found == {name: level.get(name, 0) for name in loc.LOCALIZATION}


@pytest.mark.parametrize(("name", "metric"), SCORES)
def test_an_empty_mask_has_no_answer(name, metric):
    found = metric(RAMP.expand(2, 2, 2), torch.stack([torch.zeros_like(LOWER), LOWER]))
    assert found.isnan().tolist() == [True, False]


def test_a_mask_of_everything():
    """The mean marks 2 of the 4 pixels, 0.5 one."""
    found = {name: metric(RAMP, torch.ones_like(LOWER)).item() for name, metric in SCORES}
    assert np.isnan(found.pop("foreground_minus_background"))
    parts = {"pixel_accuracy": 2 / 4, "pixel_accuracy_mask": 2 / 4, "iou_mean": 2 / 4, "iou_fixed": 1 / 4}
    assert found == {name: parts.get(name, 1) for name in found}
    assert loc.average_precision(RAMP, torch.ones_like(LOWER), classes="both").isnan()


# -- pixels left undecided

WIDE = torch.tensor([[0.0, 0.25, 0.5, 1.0]])
FIRST_AND_THIRD = torch.tensor([[True, False, True, False]])
UNDECIDED = torch.tensor([[False, False, False, True]])
MEAN_RULES = ("pixel_accuracy", "pixel_accuracy_mask", "iou_mean")


def test_ignored_pixels_are_not_counted_by_hand():
    """Of four pixels the last, the map's maximum, is left undecided; the mean, 0.4375, and the scale are of all four.

    Marked is then the third, above the mean and not above one half. AP: hit, miss, hit, as falls the map.
    """
    found = {name: metric(WIDE, FIRST_AND_THIRD, UNDECIDED).item() for name, metric in SCORES}
    expected = {
        "pointing_game": 1,
        "energy_pointing_game": 0.5 / 0.75,
        "pixel_accuracy": 2 / 3,
        "pixel_accuracy_mask": 1 / 2,
    }
    expected |= {"average_precision": (1 + 2 / 3) / 2, "iou_fixed": 0, "iou_mean": 1 / 2}
    assert found == pytest.approx(expected | {"foreground_minus_background": (0 + 0.5) / 2 - 0.25})
    assert loc.pointing_game(WIDE, FIRST_AND_THIRD).item() == 0
    assert loc.iou_curves(
        WIDE, FIRST_AND_THIRD, step=0.25, mode="bilinear", ignore=UNDECIDED
    ).tolist() == pytest.approx([1 / 3, 1 / 2, 0, 0])


@pytest.mark.parametrize(("name", "metric"), SCORES)
def test_ignored_pixels_are_as_if_the_image_were_without_them(name, metric):
    """The last column, without the extremes, of maps as fine as their masks: the same as a picture cut there."""
    maps, masks = random_pairs(3, 2, 3, grid=(20, 28))
    maps[..., -1], maps[..., 0, 0] = 0, -9
    ignore = torch.zeros(20, 28, dtype=torch.bool)
    ignore[:, -1] = True
    cut = maps[..., :-1] - maps[..., :-1].mean(dim=(-2, -1), keepdim=True) * (name in MEAN_RULES)
    full = torch.cat([cut, torch.zeros_like(maps[..., -1:])], dim=-1)  # whose mean is then that of the cut one
    found = metric(full, masks, ignore.numpy())
    torch.testing.assert_close(found, metric(cut, masks[..., :-1]))


def test_a_mask_of_undecided_pixels_alone_has_no_answer_and_their_size_is_checked():
    for metric in loc.LOCALIZATION.values():
        assert metric(WIDE, UNDECIDED, UNDECIDED).isnan()
    with pytest.raises(TensorError, match="masks of 1 x 3 pixels for an image of 1 x 4"):
        on_masks(WIDE, UNDECIDED, UNDECIDED[:, 1:])


# -- against others


def test_against_torchmetrics():
    maps, masks = random_pairs(0, 2, 3)
    heat = normalize(resize(maps, (20, 28))).flatten(0, 1)
    for found, marked in ((loc.mask_iou(maps, masks), heat > 0.5), (loc.mask_iou(maps, masks, at=0.3), heat > 0.3)):
        pairs = zip(marked.int(), masks.flatten(0, 1).int(), strict=True)
        expected = [binary_jaccard_index(a, b).item() for a, b in pairs]
        assert found.flatten().tolist() == pytest.approx(expected, abs=1e-6)
    maps = maps.sigmoid()  # torchmetrics would squash other values itself, and rounding then unties equal ones
    pairs = zip(resize(maps, (20, 28)).flatten(0, 1), masks.flatten(0, 1).int(), strict=True)
    expected = [binary_average_precision(a, b).item() for a, b in pairs]
    assert loc.average_precision(maps, masks).flatten().tolist() == pytest.approx(expected, abs=1e-5)


def test_iou_curves_against_a_loop():
    maps, masks = random_pairs(1, 2)
    curves = loc.iou_curves(maps, masks)
    for heat, mask, curve in zip(normalize(resize(maps, (20, 28), "bicubic")), masks, curves, strict=True):
        for step, value in enumerate(curve.tolist()):
            found = heat > torch.tensor(step / 100)
            assert value == pytest.approx(((found & mask).sum() / (found | mask).sum()).item(), abs=1e-6)


def test_all_pairs_agree_with_each_own():
    maps, masks = random_pairs(2, 4)
    maps[1] = 3.0
    torch.testing.assert_close(loc.points_at(maps, masks).diagonal().float(), loc.pointing_game(maps, masks))
    torch.testing.assert_close(loc.energy_in(maps, masks).diagonal(), loc.energy_pointing_game(maps, masks))


# -- what holds for every metric


@pytest.mark.parametrize(("name", "metric"), SCORES)
def test_batches_kinds_and_scale(name, metric):
    maps, masks = random_pairs(3, 2, 3)
    found = metric(maps, masks)
    assert found.shape == (2, 3) and found.dtype == torch.float32
    one_by_one = [[metric(maps[i, j], masks[i, j]).item() for j in range(3)] for i in range(2)]
    assert found.tolist() == [pytest.approx(row, abs=1e-6) for row in one_by_one]
    torch.testing.assert_close(metric(maps * 4, masks.numpy()), found)
    assert metric(maps.half(), masks).dtype == torch.float32


@pytest.mark.parametrize(("name", "metric"), SCORES)
def test_the_better_map_scores_better(name, metric):
    """The mask itself, the mask under noise, noise alone, the mask's opposite: in this order, in the mean of 40."""
    random = torch.Generator().manual_seed(4)
    masks = torch.zeros(40, 16, 16, dtype=torch.bool)
    for mask, (top, left) in zip(masks, torch.randint(0, 10, (40, 2), generator=random).tolist(), strict=True):
        mask[top : top + 6, left : left + 6] = True
    noise = torch.randn(40, 16, 16, generator=random)
    maps = [masks.float(), masks + 0.5 * noise, noise, 1 - masks.float()]
    means = [metric(each, masks).mean().item() for each in maps]
    assert metric.higher_is_better and means[0] == pytest.approx(1)
    assert means[0] >= means[1] > means[2] > means[3]


@pytest.mark.parametrize(("name", "metric"), SCORES)
def test_metrics_refuse(name, metric):
    maps, masks = random_pairs(5, 2, 3)
    with pytest.raises(TensorError, match="5 x 7 cells, finer than their masks of 4 x 28"):
        metric(maps, masks[..., :4, :])
    maps[0, 0, 0, 0] = torch.nan
    with pytest.raises(TensorError, match="NaN"):
        metric(maps, masks)


def test_masks_of_another_number_or_size_are_refused():
    """Of `on_masks` itself: in tests jaxtyping refuses unequal axes before a metric does."""
    maps, masks = random_pairs(6, 2, 3)
    with pytest.raises(TensorError, match=r"maps \(2, 3, 5, 7\) and masks \(2, 2, 20, 28\)"):
        on_masks(maps, masks[:, :2])
    with pytest.raises(TensorError, match=r"maps \(0, 3, 5, 7\)"):
        on_masks(maps[:0], masks[:0])
    loc.check_masks(masks, (20, 28))
    with pytest.raises(TensorError, match="20 x 28 pixels for an image of 28 x 20"):
        loc.check_masks(masks, (28, 20))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: loc.mask_iou(RAMP, LOWER, "otsu"), "'otsu', expected one of 'fixed', 'mean', 'searched'"),
        (lambda: loc.mask_iou(RAMP, LOWER, "searched"), "needs classes"),
        (lambda: loc.energy_pointing_game(RAMP, LOWER, energy="all"), "'positive' or 'minmax'"),
        (lambda: loc.pixel_accuracy(RAMP, LOWER, over="box"), "'image' or 'mask'"),
        (lambda: loc.average_precision(RAMP, LOWER, classes="all"), "'foreground' or 'both'"),
        (lambda: loc.iou_curves(RAMP, LOWER, step=0.0), "step=0"),
    ],
)
def test_unknown_options_are_refused(call, message):
    with pytest.raises(MethodError, match=message):
        call()


def test_classes_must_be_one_a_map():
    with pytest.raises(TensorError, match="2 classes for 3 maps"):
        loc.searched_iou(loc.iou_curves(RAMP.expand(3, 2, 2), OF_CLASSES), ["a", "b"])


# -- grid pointing


def test_image_grid_by_hand():
    images = torch.arange(1.0, 7.0).reshape(6, 1, 1, 1)
    assert loc.image_grid(images, columns=3).tolist() == [[[1, 2, 3], [4, 5, 6]]]
    wide = loc.image_grid(torch.arange(4.0).reshape(2, 1, 1, 2), columns=1)
    assert wide.tolist() == [[[0, 1], [2, 3]]]
    resized = loc.image_grid(images[:4].expand(4, 3, 5, 9), columns=2, size=(6, 4))
    assert resized.shape == (3, 6, 4)
    torch.testing.assert_close(resized[0, :, 0], torch.tensor([1.0, 1, 1, 3, 3, 3]))
    for refused in (dict(columns=4), dict(columns=0), dict(columns=2, size=(6, 5))):
        with pytest.raises(TensorError):
            loc.image_grid(images, **refused)


def test_energy_in_cells_by_hand():
    """Of 3 x 3 in 2 x 2 the middle is divided into quarters and an edge into halves."""
    middle, edge = torch.zeros(2, 3, 3)
    middle[1, 1], edge[0, 1] = 8, 2
    assert loc.energy_in_cells(torch.stack([middle, edge, torch.eye(3) - 1])).tolist() == [
        [0.25] * 4,
        [0.5, 0.5, 0, 0],
        [0] * 4,
    ]
    assert loc.energy_in_cells(torch.tensor([[3.0, 1.0], [0.0, -9.0]])).tolist() == [0.75, 0.25, 0, 0]
    assert loc.energy_in_cells(torch.full((2, 2), 3.0)).tolist() == [0] * 4  # degenerate
    assert loc.energy_in_cells(torch.tensor([[0.0, 2.0, 2.0]]), rows=1, columns=2).tolist() == [0.25, 0.75]


def test_energy_in_cells_is_that_of_finer_pixels():
    maps = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(7))
    fine = maps.relu().repeat_interleave(6, -2).repeat_interleave(6, -1)
    masks = torch.zeros(6, 30, 42, dtype=torch.bool)
    for cell in range(6):
        masks[cell, cell // 3 * 15 : cell // 3 * 15 + 15, cell % 3 * 14 : cell % 3 * 14 + 14] = True
    torch.testing.assert_close(loc.energy_in_cells(maps, 2, 3), loc.energy_in(fine, masks))


def test_grid_pointing_by_hand():
    maps = torch.tensor([[3.0, 1.0], [0.0, -9.0]]).expand(1, 3, 2, 2)
    assert loc.grid_pointing(maps, torch.tensor([[0, 1, 3]])).tolist() == [[0.75, 0.25, 0]]
    with pytest.raises(TensorError, match="expected 0 to 3"):
        loc.grid_pointing(maps, torch.tensor([[0, 1, 4]]))


# -- the registry


def test_what_the_registry_says_of_masks_is_true_of_numbers():
    """Ranges hold on random pairs, and where chance has a number random maps come to it, in the mean of 400."""
    random = torch.Generator().manual_seed(8)
    maps = torch.rand(400, 8, 8, generator=random)
    masks = torch.zeros(400, 8, 8, dtype=torch.bool)
    masks[:, 2:5, 1:5] = True
    levels = {"": None, "0": 0.0, "the share of the image that the object covers": 12 / 64}
    for name, metric in SCORES:
        found, level = metric(maps, masks), levels[metric.chance]
        assert metric.range[0] <= found.min() and found.max() <= metric.range[1], name
        assert level is None or abs(found.mean().item() - level) < 0.06, name
        assert metric.says and metric.better == "higher"


def test_a_metric_that_needs_a_model_says_so():
    with pytest.raises(MethodError, match="needs a model, not masks"):
        METRICS["deletion"](RAMP, LOWER)
    assert METRICS["deletion"].better == "lower" and not METRICS["deletion"].of_masks


def test_old_names_warn_and_work():
    with pytest.warns(DeprecationWarning, match="point_game is now called pointing_game"):
        assert loc.point_game is loc.pointing_game
    with pytest.warns(DeprecationWarning, match="energy_pointing_game"):
        assert current_name("energy_point_game") == "energy_pointing_game"
    assert current_name("iou_mean") == "iou_mean"
    with pytest.raises(AttributeError, match="no attribute 'pointgame'"):
        _ = loc.pointgame


def test_levels_of_maps_on_masks_by_hand():
    """Two maps of one image on its three masks, the last of them empty; each map is scaled to [0, 1] first."""
    masks = torch.stack([LOWER, LAST, torch.zeros(2, 2, dtype=torch.bool)])
    found = levels_on(torch.stack([RAMP, 4 * RAMP - 8]), masks)
    torch.testing.assert_close(found[:, :2], torch.tensor([[0.75, 1.0], [0.75, 1.0]]))
    assert found[:, 2].isnan().all()
