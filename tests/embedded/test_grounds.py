"""Grounds: patterns by hand, and what a scene on one looks like."""

from dataclasses import replace

import numpy as np
import pytest

from clip_explain.embedded.scenes.grounds import PATTERNS, Ground, reflectance, sample_ground
from clip_explain.embedded.scenes.pool import RECIPES, draw, set_off
from clip_explain.embedded.scenes.raycast import GROUND, render
from clip_explain.embedded.scenes.world import sample_scene

TWO = ((0.1, 0.2, 0.3), (0.5, 0.4, 0.3))


def grid(*values):
    return np.meshgrid(np.array(values, np.float32), np.array(values, np.float32))


def test_tiles_alternate_in_both_directions():
    found = reflectance(Ground("tiles", TWO, 1.0, 0), *grid(0.5, 1.5, 2.5))
    np.testing.assert_allclose(found[0], [[0.1, 0.5, 0.1], [0.5, 0.1, 0.5], [0.1, 0.5, 0.1]])
    assert found[:, 0, 0].tolist() == pytest.approx(TWO[0])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_reflectance_lies_between_the_grounds_colors(pattern):
    colors = TWO if pattern in ("tiles", "stripes", "blotches") else (*TWO, (0.2, 0.2, 0.2))
    found = reflectance(Ground(pattern, colors, 0.5, 3), *grid(*np.linspace(-3, 3, 40)))
    low, high = np.min(colors, 0)[:, None, None], np.max(colors, 0)[:, None, None]
    assert found.shape == (3, 40, 40) and (found >= low - 1e-6).all() and (found <= high + 1e-6).all()
    assert (np.ptp(found[0]) > 0.05) == (pattern != "plain")


def test_all_patterns_are_drawn_in_muted_colors():
    drawn = [sample_ground(np.random.default_rng(i)) for i in range(200)]
    assert {ground.pattern for ground in drawn} == set(PATTERNS)
    colors = np.concatenate([ground.colors for ground in drawn])
    assert (colors.max(1) <= 1.6 * colors.min(1)).all() and (colors > 0).all() and (colors < 1).all()


def test_plain_ground_of_the_usual_grey_changes_nothing():
    scene = sample_scene(np.random.default_rng(0), 3)
    grey = Ground("plain", ((GROUND,) * 3,), 1.0, 0)
    one, other = (render(each, 48, 48) for each in (scene, replace(scene, ground=grey)))
    assert np.abs(one.image.astype(int) - other.image).max() <= 1 and (one.ids == other.ids).all()


def test_weaker_lamps_make_a_darker_picture_with_the_same_masks():
    scene = sample_scene(np.random.default_rng(0), 3)
    bright, dark = render(scene, 48, 48), render(replace(scene, strengths=(0.5, 0.5, 0.5)), 48, 48)
    assert dark.image.mean() < 0.9 * bright.image.mean() and (dark.ids == bright.ids).all()


def test_share_of_scenes_set_off():
    scene = sample_scene(np.random.default_rng(0), 1)
    assert set_off(scene, 0.0, np.random.default_rng(0)) is scene
    drawn = [set_off(scene, 0.5, np.random.default_rng(i)).ground is not None for i in range(200)]
    assert 0.4 < np.mean(drawn) < 0.6


def test_dominant_object_covers_5_to_40_percent():
    covered = []
    for i in range(12):
        scene = draw(RECIPES["dominant"], np.random.default_rng([5, i]))
        assert scene.objects[0].size == "large" and all(other.size == "small" for other in scene.objects[1:])
        covered.append((render(scene, 56, 56, samples=1).ids == 0).mean())
    assert min(covered) > 0.05 and max(covered) < 0.4
