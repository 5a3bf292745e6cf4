"""Pages of maps and words: what stands where, nothing cut, and nothing over anything else."""

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt

from clip_explain import errors, plots

matplotlib.use("agg")
RANDOM = np.random.default_rng(0)
WIDE, TALL = np.full((8, 16, 3), 100, dtype=np.uint8), np.full((12, 8, 3), 200, dtype=np.uint8)
MAPS = [list(RANDOM.random((2, 3, 3))) for _ in range(2)]
LONG = "a photo of a small red metal cube that costs $5 or $6 behind a WIDE GREEN cylinder, left of a blue ring"
NAMES = ["attention_grad_cam", "rise"]


@pytest.fixture(autouse=True)
def no_figures_left():
    yield
    plt.close("all")


def boxes(figure):
    """Of all texts and images, after checking that none of them leaves the figure."""
    figure.canvas.draw()
    texts = [text for ax in figure.axes for text in ax.texts] + figure.texts
    found = [text.get_window_extent() for text in texts if text.get_text()]
    found += [ax.get_window_extent() for ax in figure.axes if ax.images]
    whole = figure.bbox.padded(1)
    assert all(whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1 for box in found)
    return found


def overlaps(found):
    return [(a, b) for i, a in enumerate(found) for b in found[:i] if a.padded(-1).overlaps(b.padded(-1))]


def test_comparison_has_images_in_rows_and_methods_in_columns():
    axes = plots.comparison([WIDE, TALL], [LONG, "a ring"], MAPS, NAMES)
    assert axes.shape == (2, 3) and axes[0, 0].figure.get_figwidth() == plots.WIDTH
    np.testing.assert_allclose(axes[1, 0].images[0].get_array(), TALL / 255)
    np.testing.assert_allclose(axes[0, 2].images[0].get_array(), plots.blend(WIDE, MAPS[0][1]))
    assert [" ".join(ax.texts[0].get_text().split()) for ax in axes[:, 0]] == [LONG, "a ring"]
    assert sorted(text.get_text() for text in axes[0, 0].figure.texts) == ["attention grad cam", "rise"]
    assert overlaps(boxes(axes[0, 0].figure)) == []


def test_a_symbol_keeps_its_underscore():
    axes = plots.comparison([WIDE], ["a cube"], [MAPS[0][:1]], ["Grad-ECLIP w/o w_i"])
    assert " ".join(text.get_text() for text in reversed(axes[0, 0].figure.texts)).endswith("w/o w_i")


def test_twelve_columns_fit_a_page():
    names = [*NAMES, "clip_surgery", "reversed_itsm", "grad_eclip softmax", "self_attention"] * 2
    axes = plots.comparison([WIDE], ["a cube"], [list(RANDOM.random((12, 3, 3)))], names)
    assert axes.shape == (1, 13) and overlaps(boxes(axes[0, 0].figure)) == []


def test_pairs_have_the_words_below():
    words = LONG.split()
    said = [[(words, RANDOM.random(len(words)))] * 2, [(["a", "$ring"], np.array([0.0, 2.0]))] * 2]
    axes = plots.pairs([TALL, WIDE], MAPS, said, NAMES)
    assert [text.get_text() for text in axes[0, 1].texts] == words
    assert [text.get_text() for text in axes[1, 0].texts] == ["a", "$ring"]
    grounds = [text.get_bbox_patch().get_facecolor()[:3] for text in axes[1, 2].texts]
    np.testing.assert_allclose(grounds, plots.shades(np.array([0.0, 2.0])))
    assert {text.get_bbox_patch().get_facecolor() for text in axes[0, 0].texts} == {(1, 1, 1, 1)}  # bare
    assert overlaps(boxes(axes[0, 0].figure)) == []


def test_gallery_in_reading_order():
    words = [LONG.split(), ["a", "ring"], ["a", "cube"]]
    said = [(each, np.arange(len(each))) for each in words]
    axes = plots.gallery([WIDE, TALL, WIDE], [*MAPS[0], MAPS[1][0]], said, columns=2)
    assert axes.shape == (2, 4) and [ax.axison for ax in axes[1]] == [True, True, False, False]
    np.testing.assert_allclose(axes[0, 2].images[0].get_array(), TALL / 255)
    np.testing.assert_allclose(axes[1, 1].images[0].get_array(), plots.blend(WIDE, MAPS[1][0]))
    assert [[text.get_text() for text in ax.texts] for ax in (axes[0, 0], axes[0, 2], axes[1, 0])] == words
    assert overlaps(boxes(axes[0, 0].figure)) == []


def test_word_rows_say_the_text_once_for_each_name():
    words, names = LONG.split(), ["N = 1", "N = 12"]
    said = [[(words, RANDOM.random(len(words)))] * 2, [(["a", "$ring"], np.array([0.0, 2.0]))] * 2]
    axes = plots.word_rows([TALL, WIDE], said, names)
    assert axes.shape == (2, 3) and axes[0, 0].figure.get_figwidth() == plots.WIDTH
    assert [[text.get_text() for text in ax.texts] for ax in axes[1, 1:]] == [["a", "$ring", name] for name in names]
    ground = axes[1, 2].texts[1].get_bbox_patch().get_facecolor()[:3]
    np.testing.assert_allclose(ground, plots.shades(np.array([0.0, 2.0]))[1])
    assert overlaps(boxes(axes[0, 0].figure)) == []


@pytest.mark.parametrize(
    "call",
    [
        lambda: plots.comparison([WIDE], ["a", "b"], MAPS[:1], NAMES),
        lambda: plots.comparison([WIDE], ["a"], MAPS[:1], NAMES[:1]),
        lambda: plots.comparison([], [], [], NAMES),
        lambda: plots.pairs([WIDE], MAPS[:1], [[(["a"], np.ones(1))]], NAMES),
        lambda: plots.gallery([WIDE], [], []),
        lambda: plots.gallery([], [], []),
    ],
)
def test_what_does_not_fit_together_is_refused(call):
    with pytest.raises(errors.TensorError, match="as many of each"):
        call()


def test_scattered_points_lie_in_their_patches():
    """Patches of 4 x 4 pixels, numbered by rows: 0 is the first, 7 the last of the wide image's 2 x 4."""
    places, none = np.array([0, 3, 7, 7]), np.zeros(0, dtype=int)
    axes = plots.scattered(
        [WIDE], [[(places, np.array([-1.0, 0, 0, 3]), "C0"), (none, none, "C1")]], ["max", "moved"], (2, 4)
    )
    points = axes[0, 0].collections[0]
    across, down = ((points.get_offsets() + 0.5) / 4).T  # a pixel's middle is a whole number
    assert np.floor(across).tolist() == [0, 3, 3, 3] and np.floor(down).tolist() == [0, 0, 1, 1]
    assert across[2] != across[3]  # told apart
    assert points.get_sizes().tolist() == [2, 5.5, 5.5, 16] and len(axes[0, 1].collections[0].get_offsets()) == 0
    np.testing.assert_allclose(axes[0, 1].images[0].get_array(), 0.5 + WIDE / 510)
    assert overlaps(boxes(axes[0, 0].figure)) == []
    with pytest.raises(errors.TensorError, match="one for each of 1 columns"):
        plots.scattered([WIDE], [[(places, places, "C0")] * 2], ["max"], (2, 4))
