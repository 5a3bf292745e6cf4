"""The figures of a card: on a small network of random weights, and on maps and words made by hand."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import distance_transform_edt

import small_clip
from clip_explain.embedded.cards import figures
from clip_explain.embedded.cards.clip import noted, samples_after
from clip_explain.embedded.cards.curve import read_losses, save_curve
from clip_explain.embedded.scenes.pool import make_pool
from clip_explain.explainers import METHODS
from clip_explain.metrics.intervals import Interval
from clip_explain.plots.charts import training

SCENE = np.array([[0, 1, 0, 0], [1, 1, 1, 0], [0, 2, 0, 1], [-1, -1, -1, -1]])  # two red cubes, one blue sphere


@pytest.fixture(scope="module")
def model():
    return small_clip.wrap(small_clip.build(vlayers=2, tlayers=8))


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return make_pool(tmp_path_factory.mktemp("pool"), 3, 7, "three", workers=1)


def test_unique_objects_and_their_names():
    assert figures.unique_objects(SCENE[None]) == [[(2, 2 * 5 + 1)]]
    assert figures.list_objects(SCENE) == "a red cube, a red cube and a blue sphere"


def test_every_figure_has_an_interval_around_its_mean(model, tmp_path):
    found = figures.measure_clip(model, tmp_path, scenes=4, values=1)
    assert {"content words first, grad_eclip", "heaviest word of content, leave_one_out"} <= set(found)
    assert {"pointing game, within 8 pixels", "pointing game, one dominant object, within 8 pixels"} <= set(found)
    for name, one in found.items():
        assert 0 <= one.low <= one.mean <= one.high <= 1 and one.count >= 1, name


def test_pointing_game_of_a_map_that_knows_is_one_and_of_its_opposite_is_zero(model, pool, monkeypatch):
    asked = {scene: masks for scene, _, masks in figures.askable(pool)}

    def truth(request, sign=1):
        scene = next(i for i in asked if torch.equal(figures.pixels_of(pool, slice(i, i + 1)), request.pixels))
        return sign * torch.from_numpy(asked[scene]).float()[None]

    monkeypatch.setitem(METHODS, "truth", SimpleNamespace(image=truth))
    assert [one.mean for one in figures.pointing(model, pool, "truth")] == [1, 1]
    assert figures.pointing(model, pool, "truth", sign=-1)[0].mean == 0
    covered = np.mean([mask.mean() for masks in asked.values() for mask in masks])
    assert figures.chance(pool)[0].mean == pytest.approx(covered)


def test_a_maximum_within_eight_pixels_counts_as_near(model, pool, monkeypatch):
    """The maximum lies some pixels below the object: near if eight, not if nine; never on it."""

    def below(request, pixels):
        scene, masks = next(
            (i, masks)
            for i, _, masks in figures.askable(pool, dominant=True)
            if torch.equal(figures.pixels_of(pool, slice(i, i + 1)), request.pixels)
        )
        away = distance_transform_edt(~masks[0])
        return torch.from_numpy((away == pixels).astype(np.float32))[None, None]

    monkeypatch.setitem(METHODS, "below", SimpleNamespace(image=below))
    assert [one.mean for one in figures.pointing(model, pool, "below", dominant=True, pixels=8)] == [0, 1]
    assert [one.mean for one in figures.pointing(model, pool, "below", dominant=True, pixels=9)] == [0, 0]


def test_chance_near_an_object_by_hand(pool, monkeypatch):
    """One object of one pixel in a corner: of 20 x 20 pixels, 58 lie within 8 of it."""
    mask = np.zeros((20, 20), dtype=bool)
    mask[0, 0] = True
    monkeypatch.setattr(figures, "askable", lambda pool: [(0, [0], mask[None])])
    on, near = figures.chance(pool)
    assert on.mean == 1 / 400 and near.mean == pytest.approx(58 / 400)


def test_dominant_object_alone_is_asked_for(pool):
    for scene, pairs, masks in figures.askable(pool, dominant=True):
        assert pairs == figures.pair_of(pool.attributes[scene, :1]).tolist()
        assert (masks[0] == (pool.ids[scene] == 0)).all()


def test_removals_leave_the_object_or_the_share_asked_for(pool):
    ids = pool.ids[0]
    gone = {name: draw(ids, np.random.default_rng(0)) for name, (draw, _) in figures.REMOVALS.items()}
    alone = gone["the object alone on black"]
    assert not alone[ids == 0].any()
    away = np.linalg.norm(np.argwhere(alone)[:, None] - np.argwhere(ids == 0)[None, ::20], axis=-1)
    assert away.min() > 12 and 0 < alone.mean() < 1
    assert gone["20 % of single pixels black"].mean() == pytest.approx(0.2, abs=0.01)
    patches = gone["50 % of patches black"].reshape(14, 16, 14, 16).mean((1, 3))
    assert set(np.unique(patches)) == {0, 1} and patches.mean() == pytest.approx(0.5, abs=0.12)


def test_words_of_content_and_others_by_hand():
    words = ["a", "red", "cube", ",", "the", "blue", "ball", "and"]
    content, little = figures.content_and_little(words, [0.1, 0.5, 0.4, 0.3, 0.2, 0.6, 0.7, 0.0])
    assert content == [0.5, 0.4, 0.6, 0.7] and little == [0.1, 0.2, 0.0]


def test_card_holds_means_and_bounds():
    found = noted({"a": Interval(0.51234, 0.4, 0.6, 100), "b": 3.5})
    assert found == {"figures": {"a": 0.5123, "b": 3.5}, "intervals": {"a": [0.4, 0.6, 100]}}


def test_samples_after_some_steps():
    plan = {"stages": [{"steps": 3, "batch": 4}, {"steps": 2, "batch": 10}]}
    assert [samples_after(plan, steps) for steps in (0, 3, 4, 9)] == [0, 12, 22, 32]


def test_losses_of_steps_taken_again_are_the_later_ones(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text("".join(f'{{"step": {step}, "loss": {loss}}}\n' for step, loss in ((0, 3.0), (1, 2.0), (1, 1.5))))
    assert read_losses(log) == {0: 3.0, 1: 1.5}


def test_curve_is_drawn_with_its_stages(tmp_path):
    rows = [f'{{"step": {step}, "loss": {3 / (1 + step)}}}' for step in range(60)]
    (tmp_path / "log.jsonl").write_text("\n".join(rows))
    plan = {"stages": [{"name": "close views", "steps": 40}, {"name": "whole pictures", "steps": 40}]}
    save_curve(tmp_path, plan, tmp_path / "curve.png")
    assert Image.open(tmp_path / "curve.png").size[0] > 1000
    ax = training({0: 3.0, 10: 2.0, 20: 1.0, 30: 0.0}, {"one": 15, "two": 25}, plt.figure().add_subplot(), span=2)
    assert ax.lines[1].get_ydata().tolist() == [2.5, 1.5, 0.5] and ax.lines[1].get_xdata().tolist() == [5, 15, 25]
    assert [text.get_text() for text in ax.texts] == ["one", "two"]
    plt.close("all")
