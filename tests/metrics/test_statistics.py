"""Means, entropies and tests worked by hand, and against scipy."""

import itertools

import numpy as np
import pytest
import scipy.stats
import torch

from clip_explain.errors import MethodError, TensorError
from clip_explain.maps import normalize, resize
from clip_explain.metrics import intervals as statistics
from clip_explain.metrics.concentration import (
    corner_bias,
    entropy,
    mean_map,
    middle_and_rest,
    of_pixels,
    value_entropy,
    variance,
)
from clip_explain.metrics.intervals import (
    Interval,
    bootstrap,
    class_means_by_image,
    correlation,
    correlation_by_image,
    jackknife,
    paired_test,
    resampled_means,
    sign_flip_test_of_any,
    sign_flip_tests,
    spanned,
)
from clip_explain.metrics.localization import mean_over_classes

# -- intervals


def test_bootstrap_against_scipy():
    values = np.random.default_rng(0).exponential(2, 200)
    found = bootstrap(values, seed=0, level=0.9)
    scipys = scipy.stats.bootstrap((values,), np.mean, confidence_level=0.9, method="percentile", rng=1)
    assert found.low == pytest.approx(scipys.confidence_interval.low, abs=0.05)  # an interval of about 0.46
    assert found.high == pytest.approx(scipys.confidence_interval.high, abs=0.05)


def test_bootstrap_by_clusters():
    """Every value four times says no more than once, if each image's four are a cluster."""
    values = np.random.default_rng(1).normal(size=30)
    once, four = bootstrap(values, seed=0), bootstrap(values.repeat(4), 0, clusters=np.arange(30).repeat(4))
    assert (four.mean, four.low, four.high) == pytest.approx((once.mean, once.low, once.high)) and four.count == 30
    assert bootstrap(values, 0, clusters=torch.arange(30)) == once
    naive = bootstrap(values.repeat(4), seed=0)
    assert naive.high - naive.low < 0.6 * (four.high - four.low)  # in theory half


def test_clusters_of_unequal_size_keep_every_values_weight():
    """Clusters a (1, 3) and b (5): resamples aa, ab or ba, bb have means 2, 3 and 5."""
    found = bootstrap([1.0, 3.0, 5.0], seed=0, level=0.98, clusters=["a", "a", "b"])
    assert (found.mean, found.low, found.high, found.count) == (3, 2, 5, 2)


def test_parts_of_the_draws_do_not_change_the_result(monkeypatch):
    values = np.random.default_rng(2).normal(size=20)
    whole = bootstrap(values, seed=0), paired_test(values, 0 * values, seed=0, resamples=500)
    monkeypatch.setattr(statistics, "DRAWS_AT_ONCE", 130)  # of 20 numbers each
    assert whole == (bootstrap(values, seed=0), paired_test(values, 0 * values, seed=0, resamples=500))


def test_class_means_by_image_by_hand():
    """Class a: 0 (x), 1 (y), each 1/2 from their mean 1/2, times sqrt(2 / 1), over 2; class b: 0.2 alone (x).

    The mean over classes is 0.35, from which b's lies at -0.15. Two images, two classes: times 2 / 2.
    """
    found = class_means_by_image([0.0, 1, 0.2, np.nan], ["a", "a", "b", "c"], ["x", "y", "x", "y"])
    x, y = -(2**0.5) / 4 - 0.15, 2**0.5 / 4
    assert found == pytest.approx([0.35 + (x - y) / 2, 0.35 + (y - x) / 2])
    with pytest.raises(TensorError, match="at least one finite number"):
        class_means_by_image([np.nan], ["a"], ["x"])


def test_class_means_by_image_have_the_mean_and_the_spread_of_the_mean_over_classes():
    """Against drawing images anew and taking the mean over classes each time; their standard deviations agree to 10 %.

    200 images of 1 to 4 maps, 5 classes of unequal frequency and mean; 2000 draws know a deviation to 2 %.
    """
    random = np.random.default_rng(7)
    images = np.repeat(np.arange(200), random.integers(1, 5, 200))
    classes = random.choice(5, len(images), p=[0.4, 0.3, 0.15, 0.1, 0.05])
    values = classes / 5 + random.normal(0, 0.3, 200)[images] + random.normal(0, 0.2, len(images))
    found = class_means_by_image(values, classes, images)
    assert found.mean() == pytest.approx(mean_over_classes(torch.from_numpy(values), classes.tolist()))
    rows, drawn = [np.flatnonzero(images == i) for i in range(200)], []
    for _ in range(2000):
        again = np.concatenate([rows[i] for i in random.integers(200, size=200)])
        sums = np.bincount(classes[again], values[again], 5) / np.bincount(classes[again], minlength=5)
        drawn.append(np.nanmean(sums))
    assert found.std() / np.sqrt(200) == pytest.approx(np.std(drawn), rel=0.1)


def test_class_means_by_image_of_few_images_are_not_too_sure():
    """15 images of 3 maps, 30 classes, so most have one or two maps: against the true deviation, over 200 draws."""
    random, errors, means = np.random.default_rng(8), [], []
    for _ in range(200):
        classes = random.integers(30, size=45)
        values = 0.3 * np.sin(classes) + random.normal(0, 0.2, 45)
        found = class_means_by_image(values, classes, np.arange(45) // 3)
        errors.append(found.std() / np.sqrt(15))
        means.append(found.mean())
    assert 0.9 < np.mean(errors) / np.std(means) < 1.5


# -- two methods


def test_paired_test_by_hand():
    """Differences 1 and 3 sum to 4; signs give 4, 2, -2, -4, of which two are as large."""
    found = paired_test([2.0, 5.0], [1.0, 2.0], seed=0)
    assert (found.difference, found.p, found.count, found.exact) == (2, 2 / 4, 2, True)
    assert paired_test([1.0] * 4, [0.0] * 4, seed=0).p == 2 / 16
    assert paired_test([1.0, 1.0, 2.0], [0.0] * 3, seed=0, clusters=["a", "a", "b"]).p == 2 / 4
    assert paired_test([0.1, 0.2, 0.3], [0.1, 0.2, 0.3], seed=0).p == 1
    assert paired_test([0.1, 0.2, -0.3], [0.0] * 3, seed=0).p == 1  # the sum is 0 but for rounding


def test_paired_test_against_scipy():
    random = np.random.default_rng(3)
    for count in (8, 40):
        ours, theirs = random.normal(0.3, 1, count), random.normal(size=count)
        scipys = scipy.stats.permutation_test(
            (ours, theirs), lambda a, b: np.mean(a - b), permutation_type="samples", n_resamples=5000, rng=0
        )
        found = paired_test(ours, theirs, seed=0)
        assert found.exact == (count == 8) and found.difference == pytest.approx(scipys.statistic)
        assert found.p == pytest.approx(scipys.pvalue, abs=1e-9 if found.exact else 0.02)


def test_drawn_signs_are_near_all_signs_and_never_give_zero():
    random = np.random.default_rng(4)
    ours = random.normal(0.5, 1, 10)
    exact = paired_test(ours, 0 * ours, seed=0, resamples=1024)
    drawn = paired_test(ours, 0 * ours, seed=0, resamples=1023)
    assert exact.exact and not drawn.exact and drawn.p == pytest.approx(exact.p, abs=0.05)
    assert paired_test(np.ones(100), np.zeros(100), seed=0, resamples=99).p == 1 / 100


def test_paired_test_errs_as_often_as_it_says():
    """Under no difference p <= 0.1 in about a tenth of the cases: 400 of them, three standard errors."""
    random = np.random.default_rng(5)
    p = [paired_test(random.normal(size=9), random.normal(size=9), seed=0).p for _ in range(400)]
    assert abs(np.mean(np.array(p) <= 0.1) - 0.1) < 3 * np.sqrt(0.1 * 0.9 / 400)


def test_one_sided_tests_by_hand_and_against_scipy():
    """1, 2, 4 flipped give -7, -5, ..., 7: one of eight is as large, all are as small. Of zeros all are both."""
    values = np.array([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [4.0, 0.0, -4.0]])
    above, below = sign_flip_tests(values, seed=0)
    assert above == pytest.approx([1 / 8, 1, 1], abs=0.02) and below == pytest.approx([1, 1, 1 / 8], abs=0.02)
    differences = np.random.default_rng(6).normal(0.2, 1, (40, 3))
    above, below = sign_flip_tests(differences, seed=0)
    scipys = scipy.stats.permutation_test(
        (differences, 0 * differences),
        lambda a, b, axis: (a - b).mean(axis=axis),
        permutation_type="samples",
        alternative="greater",
        rng=1,
        axis=0,
    )
    assert above == pytest.approx(scipys.pvalue, abs=0.02) and above + below == pytest.approx(np.ones(3), abs=0.01)
    assert sign_flip_tests(np.ones((100, 1)), seed=0, resamples=99)[0] == [1 / 100]


def test_any_column_above_0_by_every_flip():
    """Against all 2^9 ways to flip the images' signs, in float64: the share whose largest z is as large."""
    values = np.random.default_rng(7).normal(0.3, 1, (9, 3)) * [1, 10, 100]
    z = values.sum(axis=0) / np.sqrt((values**2).sum(axis=0))
    hits = []
    for signs in itertools.product([-1, 1], repeat=9):
        flipped = (np.array(signs)[:, None] * values).sum(axis=0) / np.sqrt((values**2).sum(axis=0))
        hits.append(flipped.max() >= z.max() - 1e-9)
    assert sign_flip_test_of_any(values, seed=0) == pytest.approx(np.mean(hits), abs=0.01)


def test_any_column_costs_nothing_where_columns_are_one():
    """Three equal columns are one; three independent ones cost about three times as much; of zeros p is 1."""
    column = np.random.default_rng(8).normal(0.5, 1, (30, 1))
    alone = sign_flip_test_of_any(column, seed=0)
    assert alone == pytest.approx(sign_flip_tests(column, seed=0)[0][0], abs=1e-9)
    assert sign_flip_test_of_any(np.repeat(column, 3, axis=1), seed=0) == pytest.approx(alone, abs=1e-9)
    noise = np.random.default_rng(9).normal(-0.5, 1, (30, 2))
    assert alone < sign_flip_test_of_any(np.hstack([column, noise]), seed=0) <= 3.5 * alone
    assert sign_flip_test_of_any(np.zeros((12, 2)), seed=0) == 1.0


def test_the_interval_of_one_image_has_no_width():
    assert bootstrap([0.5], seed=0) == Interval(0.5, 0.5, 0.5, 1)
    assert bootstrap([0.5, 1.0], seed=0, clusters=["a", "a"]) == Interval(0.75, 0.75, 0.75, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paired_test([1.0], [1.0, 2.0], seed=0), "expected pairs"),
        (lambda: paired_test([], [], seed=0), "at least one finite"),
        (lambda: paired_test([float("nan")], [1.0], seed=0), "at least one finite"),
        (lambda: bootstrap([1.0, 2.0], seed=0, clusters=["a"]), "1 clusters for 2 values"),
        (lambda: mean_map(torch.ones(0, 2, 2)), "at least one to average"),
        (lambda: variance(torch.full((2, 2), float("nan"))), "NaN"),
    ],
)
def test_bad_values_are_refused(call, message):
    with pytest.raises(TensorError, match=message):
        call()


# -- maps


def test_mean_map_by_hand():
    """Scaled to 0, 1/2, 1/2, 1 and to zeros (degenerate)."""
    maps = torch.tensor([[[0.0, 2.0], [2.0, 4.0]], [[7.0, 7.0], [7.0, 7.0]]])
    assert mean_map(maps).tolist() == [[0, 0.25], [0.25, 0.5]]
    assert mean_map(maps[:, None]).shape == (1, 2, 2) and mean_map(maps, size=(6, 8)).shape == (6, 8)


def test_variance_by_hand():
    maps = torch.tensor([[[0.0, 1.0], [1.0, 0.0]], [[-2.0, -2.0], [-2.0, 6.0]], [[3.0, 3.0], [3.0, 3.0]]])
    assert variance(maps).tolist() == [0.25, (3 * 0.25**2 + 0.75**2) / 4, 0]


def test_resampled_means_give_the_bootstraps_interval():
    values = np.random.default_rng(3).exponential(2, (200, 2))
    means = resampled_means(values, seed=0)
    assert means.shape == (2000, 2)
    found, expected = spanned(values[:, 1].mean(), means[:, 1], 200), bootstrap(values[:, 1], seed=1)
    assert (found.mean, found.count) == (expected.mean, 200)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.04)  # of a width of 0.5


def test_jackknife_of_a_mean_is_the_values_themselves():
    values = np.random.default_rng(4).normal(size=(5, 2))
    np.testing.assert_allclose(jackknife(values, lambda means: means[:, 1]), values[:, 1])
    with pytest.raises(TensorError, match="got 1 image"):
        jackknife(values[:1], lambda means: means[:, 1])


def test_jackknife_gives_a_spread_and_its_interval():
    """Three conditions with means 0, 1 and 2, whose spread is the root of 2/3; the interval is the bootstrap's."""
    values = np.random.default_rng(5).normal(size=(400, 3)) + [0, 1, 2]
    each = jackknife(values, lambda means: means.std(axis=1))
    found = bootstrap(each, seed=0)
    again = resampled_means(values, seed=1).std(axis=1)
    expected = spanned(values.mean(axis=0).std(), again, 400)
    assert found.mean == pytest.approx((2 / 3) ** 0.5, abs=0.06) and found.mean == pytest.approx(
        expected.mean, abs=2e-3
    )
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.01)  # of a width of 0.13


def test_jackknife_takes_the_bias_of_noise_off():
    """Conditions that do not differ: the spread of their means is that of noise, which is above 0."""
    random, plain, found = np.random.default_rng(6), [], []
    for _ in range(200):
        values = random.normal(size=(20, 2))
        square = values.mean(axis=0).var()
        plain.append(square)
        found.append(jackknife(values, lambda means: means.var(axis=1)).mean())
    assert np.mean(plain) == pytest.approx(1 / 40, abs=0.006) and abs(np.mean(found)) < 0.006


def test_value_entropy_by_hand():
    """Values 1, 1, 2, 3 have shares 1/2, 1/4, 1/4; in two bins there are two of each."""
    maps = torch.tensor([[[1.0, 1.0], [2.0, 3.0]], [[5.0, 5.0], [5.0, 5.0]], [[1.0, 2.0], [3.0, 4.0]]])
    assert value_entropy(maps).tolist() == [1.5, 0, 2]
    assert value_entropy(maps, bins=2).tolist() == [1, 0, 1]
    assert value_entropy(maps[:, None, None]).shape == (3, 1, 1)
    assert value_entropy(maps.half()).tolist() == [1.5, 0, 2]
    with pytest.raises(MethodError, match="bins=0"):
        value_entropy(maps, bins=0)


def test_value_entropy_against_scipy():
    maps = torch.randn(2, 9, 11, generator=torch.Generator().manual_seed(6))
    scaled = normalize(maps)
    expected = [scipy.stats.entropy(np.histogram(row, bins=8, range=(0, 1))[0], base=2) for row in scaled.numpy()]
    assert value_entropy(maps, bins=8).tolist() == pytest.approx(expected)


def test_value_entropy_of_resized_maps_and_the_reports():
    """7 x 7 cells at 224 x 224: 192 x 192 pixels differ; 16 each at the edges, 256 each at the corners, are the same.

    So any map without ties has 14.47 bits in float32. In half precision it comes near the report's 10.7 to 11.1 (EPFL
    Tab. IV), and one with many zeros in float32 between its 5.8 and 13.5 (Tab. III); its variances are 0.023 to 0.041.
    """
    random = torch.Generator().manual_seed(7)
    even = normalize(resize(torch.rand(10, 7, 7, generator=random), (224, 224)))
    shares = np.repeat([1, 16, 256], [192 * 192, 4 * 192, 4]) / 224**2
    assert value_entropy(even).mean().item() == pytest.approx(scipy.stats.entropy(shares, base=2), abs=0.02)
    assert value_entropy(even.half()).float().mean().item() == pytest.approx(10.9, abs=0.5)
    sparse = normalize(resize((torch.randn(10, 7, 7, generator=random) - 0.5).relu(), (224, 224)))
    assert 5.8 < value_entropy(sparse).mean() < 13.5 and 0.02 < variance(sparse).mean() < 0.045


def test_the_two_entropies_read_an_even_map_the_other_way():
    even, one = torch.ones(4, 4), torch.zeros(4, 4)
    one[1, 2] = 1
    assert (entropy(even), value_entropy(even)) == (1, 0)
    assert entropy(one) == 0 < value_entropy(one)


def test_units_of_entropy():
    map = torch.tensor([[3.0, 1.0], [0.0, 0.0]])
    expected = scipy.stats.entropy([0.75, 0.25])
    found = {unit: entropy(map, unit).item() for unit in ("nats", "bits", "share")}
    assert found == pytest.approx({"nats": expected, "bits": expected / np.log(2), "share": expected / np.log(4)})
    assert entropy(torch.ones(1, 1), "bits").item() == 0
    with pytest.raises(MethodError, match="'share', 'bits' or 'nats'"):
        entropy(map, "dits")


def test_corner_bias_by_hand():
    corners, middle = torch.zeros(2, 3, 3)
    for row, column in itertools.product((0, 2), (0, 2)):
        corners[row, column] = 1
    middle[1, 1] = 1
    maps = torch.stack([corners, middle, torch.ones(3, 3), torch.zeros(3, 3), corners + 1, -corners])
    assert corner_bias(maps).tolist() == pytest.approx([1 / (4 / 9), 0, 1, 1, 2 / (13 / 9), 1])


def test_a_corner_is_the_same_part_of_any_grid():
    coarse = torch.rand(7, 7, generator=torch.Generator().manual_seed(7))
    fine = coarse.repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert corner_bias(fine).item() == pytest.approx(corner_bias(coarse).item())
    assert corner_bias(torch.tensor([[2.0, 0.0, 0.0, 2.0]])).item() == pytest.approx(2.0)  # sides of one cell
    with pytest.raises(MethodError, match="part=0.6"):
        corner_bias(coarse, part=0.6)


@pytest.mark.parametrize("ranks", [False, True])
def test_a_correlation_as_numbers_of_images(ranks):
    """Their mean is the correlation, and the bootstrap's interval of it that of the pairs drawn anew."""
    x, noise = np.random.default_rng(7).normal(size=(2, 400))
    y = np.exp(0.5 * x + 0.5 * noise)
    expected, found = correlation(x, y, seed=0, ranks=ranks), bootstrap(correlation_by_image(x, y, ranks), seed=0)
    assert found.mean == pytest.approx(expected.mean, abs=0.01) and found.count == 400
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.025)


def test_a_correlation_by_hand_and_of_constants():
    np.testing.assert_allclose(correlation_by_image([1, 2, 3, 4], [2, 4, 6, 8]), 1.0)
    x, y = np.array([1.0, 2, 4, 3]), np.array([1.0, 4, 3, 2])  # ranks are the numbers themselves
    without = [np.corrcoef(np.delete(x, i), np.delete(y, i))[0, 1] for i in range(4)]
    for found in (correlation_by_image(x, y), correlation_by_image(x**3, y**2, ranks=True)):
        np.testing.assert_allclose(found, 4 * 0.4 - 3 * np.array(without))
    assert correlation_by_image([1, 1, 1], [2, 4, 6]).tolist() == [0, 0, 0]
    with pytest.raises(TensorError, match="expected at least two finite pairs"):
        correlation_by_image([1.0], [2.0])


def test_numbers_of_a_map_as_pixels():
    """Those of the map scaled, resized and scaled again; the same for any number of images."""
    maps = torch.rand(18, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    found = of_pixels(maps, half=False, size=(12, 12))
    pixels = normalize(resize(normalize(maps), (12, 12)))
    torch.testing.assert_close(found["variance"], variance(pixels))
    torch.testing.assert_close(found["entropy"], value_entropy(pixels))
    halved = of_pixels(maps, half=True, size=(12, 12))["entropy"]
    torch.testing.assert_close(halved, value_entropy(pixels.half()).float())


def test_the_middle_of_a_map_and_the_rest():
    """Of 7 x 7 cells the middle is 3 x 3."""
    maps = torch.zeros(1, 7, 7)
    maps[0, 2:5, 2:5] = 2.0
    maps[0, 0, 0] = 4.0
    middle, rest = middle_and_rest(maps)
    assert middle.tolist() == [2.0] and rest.tolist() == pytest.approx([4.0 / 40])
