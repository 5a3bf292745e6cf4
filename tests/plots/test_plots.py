"""The overlay rules worked by hand, and figures whose titles are not cut."""

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb

from clip_explain import errors, plots
from clip_explain.metrics.intervals import Interval

matplotlib.use("agg")
GREY = np.full((8, 12, 3), 128, dtype=np.uint8)


@pytest.fixture(autouse=True)
def no_figures_left():
    yield
    plt.close("all")


def test_blend_by_hand():
    """A map that has its pixel per image pixel: 0, 1, 4 are mixed in by 0, a quarter and the whole of the strength."""
    image = np.full((1, 3, 3), 0.5)
    colours = plt.get_cmap(plots.COLOURS)([0.0, 0.25, 1.0])[:, :3]
    strength = plots.STRENGTH * np.array([[0.0], [0.25], [1.0]])
    expected = (1 - strength) * 0.5 + strength * colours
    np.testing.assert_allclose(plots.blend(image, np.array([[0.0, 1.0, 4.0]]))[0], expected, atol=1e-6)


def test_where_there_is_no_evidence_the_picture_is_the_image_itself():
    """Next to a strong patch no veil and no ring: the resized map has no value below 0."""
    image = np.random.default_rng(0).random((40, 40, 3))
    heat = np.zeros((5, 5))
    heat[1, 1] = 3.0
    found = plots.blend(image, heat)
    np.testing.assert_array_equal(found[24:], image[24:])
    assert not np.array_equal(found[8:16, 8:16], image[8:16, 8:16])
    np.testing.assert_array_equal(plots.blend(image, np.zeros((5, 5))), image)


def test_a_map_made_of_the_middle_square_lies_there():
    """An image of 8 x 16 pixels: its crop is the columns 4 to 12. The map's right half is the columns 8 to 12."""
    image, heat = np.full((8, 16, 3), 0.5), np.array([[0.0, 0.0, 1.0, 1.0]] * 4)
    found = plots.blend(image, heat, fit="crop")
    np.testing.assert_allclose(found[:, :4], plots.DIMMED * 0.5)
    np.testing.assert_allclose(found[:, 12:], plots.DIMMED * 0.5)
    np.testing.assert_array_equal(found[:, 4:7], 0.5)
    hottest = (1 - plots.STRENGTH) * 0.5 + plots.STRENGTH * np.array(plt.get_cmap(plots.COLOURS)(1.0)[:3])
    np.testing.assert_allclose(found[:, 10:12], np.broadcast_to(hottest, (8, 2, 3)))
    whole = plots.blend(image, heat, fit="full")
    np.testing.assert_array_equal(whole[:, :5], 0.5)  # the same map made of the whole image: its right half
    np.testing.assert_allclose(whole[:, 12:], np.broadcast_to(hottest, (8, 4, 3)))


@pytest.mark.parametrize("fit", ["crop", "full"])
def test_signed_maps_and_darkened_images_are_placed_alike(fit):
    image, heat = np.full((8, 16, 3), 0.5), np.array([[-1.0, -1.0, 1.0, 1.0]] * 4)
    signed, dark = plots.blend_signed(image, heat, fit), plots.darkened(image, heat, fit)
    column = 11 if fit == "crop" else 15
    above = 0.5 * (1 - plots.SIGNED_STRENGTH) + plots.SIGNED_STRENGTH * np.array(to_rgb(plots.SIGNED[1]))
    np.testing.assert_allclose(signed[0, column], above, atol=1e-6)
    np.testing.assert_allclose(dark[0, column], 0.5)
    np.testing.assert_allclose(dark[0, 5 if fit == "crop" else 0], 0.0)
    np.testing.assert_allclose(signed[0, 0], plots.DIMMED * 0.5 if fit == "crop" else signed[0, 1], atol=1e-6)


def test_darkened_leaves_some_light_and_is_bare_from_a_quantile_on():
    image, heat = np.ones((1, 5, 3)), np.array([[0.0, 1.0, 2.0, 3.0, 100.0]])
    light = plots.darkened(image, heat, darkest=0.2, bare=0.75)[0, :, 0]
    np.testing.assert_allclose(light, 0.2 + 0.8 * np.array([0, 1, 2, 3, 3]) / 3)
    assert plots.darkened(image, heat)[0, 3, 0] == pytest.approx(0.03)
    with pytest.raises(errors.TensorError, match="from 0 to 1"):
        plots.darkened(image, heat, bare=95)


def test_blend_is_blind_to_scale_and_kind_of_array():
    heat = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    expected = plots.blend(GREY, heat)
    assert expected.shape == GREY.shape and 0 <= expected.min() < expected.max() <= 1
    np.testing.assert_allclose(plots.blend(GREY / 255, (5 * heat).double().numpy()), expected, atol=1e-5)


def test_maps_below_zero_are_drawn_with_their_sign_unless_told_otherwise():
    signed, rounding = np.array([[-1.0, 0.0, 2.0]]), np.array([[-1e-8, 0.5, 1.0]])
    np.testing.assert_array_equal(plots.blend(GREY, signed), plots.blend_signed(GREY, signed))
    np.testing.assert_allclose(plots.blend(GREY, signed, signed=False), plots.blend(GREY, signed.clip(0)), atol=0.1)
    np.testing.assert_allclose(plots.blend(GREY, rounding), plots.blend(GREY, rounding.clip(0)), atol=1e-3)


@pytest.mark.parametrize(("map", "said"), [(np.zeros((2, 3)), True), (-np.ones((2, 3)), True), (np.eye(3), False)])
def test_a_panel_without_positive_evidence_says_so(map, said):
    axes = plots.grid([GREY], [map])
    assert [text.get_text().replace("\n", " ") for text in axes[0, 0].texts] == ([plots.NOTHING] if said else [])


def test_a_bar_says_what_the_colours_mean():
    axes = plots.grid([GREY, GREY], [None, np.eye(3)])
    for signed, labels in ((False, ["0", "most"]), (True, ["against", "0", "for"])):
        bar = plots.colour_bar(axes, signed=signed)
        assert [label.get_text() for label in bar.ax.get_yticklabels()] == labels
        colours = bar.cmap(np.linspace(0, 1, 256))[:, :3]
        np.testing.assert_allclose(colours[128 if signed else 0], 1.0, atol=0.01)


def test_the_colour_map_rises_in_lightness():
    red, green, blue = plt.get_cmap(plots.COLOURS)(np.linspace(0, 1, 64))[:, :3].T
    assert (np.diff(0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2) > 0).all()


def test_the_hottest_place_is_where_the_map_says():
    heat = np.zeros((4, 6))
    heat[3, 1] = 1
    light = plots.blend(np.zeros((64, 96, 3)), heat).sum(axis=2)
    row, column = np.unravel_index(light.argmax(), light.shape)
    assert (row // 16, column // 16) == (3, 1)


def test_overlay_draws_into_the_given_axes():
    _, (first, second) = plt.subplots(1, 2)
    assert plots.overlay(GREY, np.eye(3), first, "a $5 cube, $ more") is first
    assert len(first.images) == 1 and not second.images and first.get_title() == "a $5 cube, $ more"
    assert plots.show(GREY) is second  # the current axes


def test_grid_in_reading_order_with_whole_titles():
    long = "a photo of a small red metal cube behind a WIDE GREEN cylinder that costs $5 or $6\ncosine 0.123, 45%"
    axes = plots.grid([GREY] * 5, [None, *np.random.default_rng(0).random((4, 3, 3))], [long] * 5, 3, ["one", "two"])
    assert axes.shape == (2, 3) and not axes[1, 2].axison
    np.testing.assert_allclose(axes[0, 0].images[0].get_array(), GREY / 255)
    assert axes[1, 0].get_ylabel() == "two"
    figure = axes[0, 0].figure
    figure.canvas.draw()
    whole = figure.bbox
    boxes = [ax.title.get_window_extent() for ax in axes.flat[:5]]
    for box in boxes:
        assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1
    assert boxes[0].x1 < boxes[1].x0 and boxes[1].x1 < boxes[2].x0
    assert " ".join(axes[0, 0].get_title().split()) == " ".join(long.split())


def test_blend_signed_by_hand():
    """-1, 0, 2 on a coloured image: half purple, the bare grey, full orange."""
    image = np.tile([1.0, 0.5, 0.0], (1, 3, 1))
    grey = 0.299 + 0.587 * 0.5
    below, above = (np.array(to_rgb(colour)) for colour in plots.SIGNED)
    expected = [0.55 * grey + 0.45 * below, [grey] * 3, 0.1 * grey + 0.9 * above]
    np.testing.assert_allclose(plots.blend_signed(image, np.array([[-1.0, 0.0, 2.0]]))[0], expected, atol=1e-5)


def test_blend_signed_of_zeros_is_the_grey_image():
    np.testing.assert_allclose(plots.blend_signed(GREY, np.zeros((2, 3))), GREY / 255, atol=1e-6)


def test_outline_follows_the_mask():
    mask = np.zeros((8, 12), dtype=bool)
    mask[2:5, 3:9] = True
    ax = plots.outline(mask, plots.show(GREY))
    (path,) = ax.collections[-1].get_paths()
    np.testing.assert_allclose([*path.vertices.min(axis=0), *path.vertices.max(axis=0)], [2.5, 1.5, 8.5, 4.5])


def test_taken_apart_shows_every_part_and_cuts_nothing():
    random = np.random.default_rng(0)
    texts = ["a $5 cube", "a ring"]
    shared = {name: random.random((2, 3)) for name in ("one", "two", "three")}
    channels, before = random.normal(size=(2, 16)), random.normal(size=(2, 2, 3))
    axes = plots.taken_apart(GREY, texts, shared, channels, before, before / 2)
    assert axes.shape == (3, 4) and [ax.get_ylabel() for ax in axes[1:, 0]] == texts
    assert [ax.get_title() for ax in axes[0]] == ["image", "one", "two", "three"]
    np.testing.assert_allclose(axes[0, 0].images[0].get_array(), GREY / 255)
    for row, weights, map in zip(axes[1:], channels, before, strict=True):
        np.testing.assert_allclose([bar.get_height() for bar in row[0].patches], weights)
        np.testing.assert_allclose(row[2].images[0].get_array(), plots.blend_signed(GREY, map), atol=1e-6)
        np.testing.assert_allclose(row[3].images[0].get_array(), plots.blend(GREY, map.clip(0)), atol=1e-6)
    assert axes[1, 0].get_ylim() == axes[2, 0].get_ylim()
    figure = axes[0, 0].figure
    figure.canvas.draw()
    for box in [ax.get_tightbbox() for ax in axes.flat]:
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1


def test_shades_by_hand():
    """The largest magnitude has the full strength, in orange or purple; 0 is white; no scale matters."""
    below, above = (np.array(to_rgb(colour)) for colour in plots.SIGNED)
    full = plots.WORDS
    expected = [1 - full * (1 - below), [1, 1, 1], 1 - full / 2 * (1 - above)]
    np.testing.assert_allclose(plots.shades(np.array([-4.0, 0.0, 2.0])), expected)
    np.testing.assert_allclose(plots.shades(torch.tensor([-2.0, 0.0, 1.0])), expected)
    np.testing.assert_allclose(plots.shades(np.zeros(2)), np.ones((2, 3)))


def test_shaded_breaks_lines_at_words_and_keeps_them_within_the_width():
    ax = plots.show(GREY)
    words = ["a", "$5", "extraordinary", "cube", "<b>", "ring"] * 2
    plots.shaded(words, np.arange(12.0), ax, inches=1.0)
    assert [text.get_text() for text in ax.texts] == words
    heights = [text.get_position()[1] for text in ax.texts]
    assert heights == sorted(heights, reverse=True) and len(set(heights)) > 2 and max(heights) < 0
    figure = ax.figure
    figure.canvas.draw()
    places = [text.get_window_extent(figure.canvas.get_renderer()) for text in ax.texts]
    assert max(place.x1 for place in places) - places[0].x0 < 1.1 * figure.dpi


def test_shaded_table_has_a_row_a_text():
    words = (["a", "cube"], np.array([0.0, 1.0]))
    text = plots.shaded_table(["A <b> cube"], [[words, words]], ["one", "other"])
    assert text.count("<tr>") == 2 and text.count("<th>") == 3 and text.count("<td>") == 3 and text.count("<span") == 4
    assert "<td>A &lt;b&gt; cube</td>" in text and "<b>" not in text


def test_shaded_html_escapes_and_colours():
    text = plots.shaded_html(["<b>", "cube"], np.array([0.0, 1.0]))
    assert "&lt;b&gt;" in text and "<b>" not in text and text.count("<span") == 2 and "#ffffff" in text


def test_means_and_curves():
    _, (left, right) = plt.subplots(1, 2)
    plots.means({"a": Interval(0.5, 0.4, 0.7, 20), "b": Interval(0.2, 0.1, 0.3, 20)}, left, chance=0.05)
    assert [label.get_text() for label in left.get_yticklabels()] == ["a", "b"]
    assert [list(line.get_xdata()) for line in left.lines[:2]] == [[0.4, 0.7], [0.5]]
    assert {text.get_text() for text in left.texts} == {"0.50", "0.20", "chance"}
    counted = plots.means({"a": Interval(1234.5, 1000.0, 2000.0, 20)}, plt.figure().gca(), form=",.0f")
    assert [text.get_text() for text in counted.texts] == ["1,234"]
    many = plots.means({"a": Interval(0.5, 0.4, 0.7, 20)}, plt.figure().gca(), beside=True)
    assert many.texts[0].xy == (0.7, 0) and many.texts[0].get_ha() == "left"
    plots.curves({"c": [[0.2, 1.0], [0.6, 1.0]]}, right)
    np.testing.assert_allclose(right.lines[0].get_xydata(), [[0.5, 0.4], [1.0, 1.0]])


@pytest.mark.parametrize("shape", [(8, 12), (3, 8, 12), (8, 12, 4)])
def test_wrong_images_are_refused(shape):
    with pytest.raises(errors.TensorError, match="height, width, 3"):
        plots.blend(np.zeros(shape), np.eye(3))


@pytest.mark.parametrize("map", [np.zeros((1, 3, 3)), np.zeros((0, 3)), np.array([[0.0, np.nan]])])
def test_wrong_maps_are_refused(map):
    with pytest.raises(errors.TensorError):
        plots.blend(GREY, map)


def test_grid_wants_as_many_maps_as_images():
    with pytest.raises(errors.TensorError, match="2 images, 1 maps"):
        plots.grid([GREY, GREY], [None])


def test_heats_share_one_scale_and_fill_their_lines():
    maps = {name: np.full((2, 2), value) for name, value in zip("abc", (0.1, 0.5, 0.2), strict=True)}
    axes = plots.heats({"one": maps, "two": {"d": np.zeros((2, 2))}}, columns=2)
    assert axes.shape == (3, 2) and [ax.get_ylabel() for ax in axes[:, 0]] == ["one", "", "two"]
    assert {ax.images[0].get_clim() for ax in axes.flat if ax.images} == {(0.0, 0.5)}
    assert [ax.get_title() for ax in axes.flat] == ["a", "b", "c", "", "d", ""]


def test_heats_on_scales_of_their_own():
    maps = {"a": np.array([[0.1, 0.3]]), "b": np.array([[0.0, 0.5]])}
    axes = plots.heats({"one": maps}, columns=2, scale="own")
    assert [ax.images[0].get_clim() for ax in axes.flat] == [pytest.approx((0.1, 0.3)), pytest.approx((0.0, 0.5))]
    assert [ax.get_title() for ax in axes.flat] == ["a\n0.10 to 0.30", "b\n0.00 to 0.50"]
    with pytest.raises(errors.TensorError, match="scale='each'"):
        plots.heats({"one": maps}, scale="each")


def test_confusion_in_percent_of_rows():
    ax = plots.confusion([[3, 1], [0, 0]], ["a", "b"])
    assert [text.get_text() for text in ax.texts] == ["75", "25", "0", "0"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]


def test_each_row_is_outlined_by_its_own_mask():
    _, axes = plt.subplots(3, 2)
    left, right = np.eye(4, dtype=bool), np.ones((4, 4), dtype=bool)
    right[:, :2] = False
    plots.outline_rows(axes, [left, None])
    assert [len(ax.collections) for ax in axes.flat] == [2, 2, 0, 0, 0, 0]
    plots.outline_rows(axes.T, [None, right])
    assert [len(ax.collections) for ax in axes.flat] == [2, 4, 0, 2, 0, 2]
