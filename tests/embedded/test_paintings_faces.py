"""Paintings and faces: chances worked out by hand, truth of captions against pixels, masks against the drawing."""

import re
from dataclasses import replace

import numpy as np
import pytest

from clip_explain.embedded.scenes import faces, paintings
from clip_explain.embedded.scenes.faces import draw_face, parts, sample_face
from clip_explain.embedded.scenes.paintings import (
    COLORS,
    EMOTIONS,
    STROKES,
    Painting,
    paint,
    posterior,
    sample_painting,
)
from clip_explain.errors import DatasetError


def rng(seed=0):
    return np.random.default_rng(seed)


def near(image, color):
    """Pixels closer to a colour than to any other."""
    palette = np.array(list(COLORS.values()), float)
    away = ((image[:, :, None].astype(float) - palette) ** 2).sum(-1)
    return away.argmin(-1) == list(COLORS).index(color)


# -- paintings


def test_the_eight_emotions_are_those_of_artemis():
    names = {"amusement", "awe", "contentment", "excitement", "anger", "disgust", "fear", "sadness"}
    assert set(EMOTIONS) == names == paintings.STROKE_WEIGHTS.keys()


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_chances_are_distributions_and_every_colour_can_occur(emotion):
    colors, strokes = paintings.chances(emotion)
    assert sum(colors.values()) == pytest.approx(1) and sum(strokes.values()) == pytest.approx(1)
    assert min(colors.values()) == pytest.approx(paintings.ANY / 12)
    assert set(colors) == set(COLORS) and set(strokes) == set(STROKES)


def test_chance_of_a_set_worked_out_by_hand():
    chances = {"a": 0.5, "b": 0.3, "c": 0.2}
    assert paintings._chance_of_set(("a", "b"), chances) == pytest.approx(0.5 * 0.3 / 0.5 + 0.3 * 0.5 / 0.7)
    assert paintings._chance_of_set(("a", "b", "c"), chances) == pytest.approx(1)


def test_a_painting_follows_its_seed_alone():
    first, again = sample_painting(rng(5)), sample_painting(rng(5))
    assert first == again and (paint(first, 64) == paint(again, 64)).all()
    assert (paint(replace(first, seed=first.seed + 1), 64) != paint(first, 64)).any()


def test_layers_differ_from_each_other_and_from_the_background():
    generator = rng(9)
    for _ in range(50):
        painting = sample_painting(generator, "fear")
        assert painting.emotion == "fear"
        assert len(painting.strokes) == paintings.LAYERS
        assert painting.background not in [color for color, _ in painting.layers]


def test_the_best_guess_is_right_about_nine_times_in_ten():
    generator, right = rng(1), 0
    for _ in range(600):
        painting = sample_painting(generator)
        chances = posterior(painting)
        assert sum(chances.values()) == pytest.approx(1)
        right += max(chances, key=chances.__getitem__) == painting.emotion
    assert 0.85 < right / 600 < 0.96


def test_captions_say_colours_and_strokes_and_never_the_emotion():
    known = {*COLORS, *" ".join(STROKES).split(), "a", "an", "painting", "of", "and", "on", "with", "background"}
    generator = rng(2)
    for _ in range(40):
        painting = sample_painting(generator)
        said = paintings.captions(painting)
        assert len(set(said)) == len(said)
        for text in said:
            words = set(re.findall(r"[a-z]+", text))
            assert words <= known
            assert words & COLORS.keys() <= set(painting.colors)
            assert {stroke for stroke in STROKES if stroke in text} <= set(painting.strokes)


def test_captions_of_a_painting_worked_out_by_hand():
    painting = Painting("anger", "orange", (("black", "blocks"), ("red", "jagged lines")), 1)
    said = paintings.captions(painting)
    assert "a painting of black blocks and red jagged lines" in said
    assert "a painting of red jagged lines on orange" in said
    assert "an orange, black and red painting" in said
    assert "a painting on an orange background" in said


@pytest.mark.parametrize("stroke", STROKES)
@pytest.mark.parametrize("color, background", [("red", "white"), ("blue", "yellow"), ("black", "green")])
def test_strokes_show_in_their_colour_and_leave_the_background_to_see(stroke, color, background):
    image = paint(Painting("awe", background, ((color, stroke),), 3), 96)
    assert image.shape == (96, 96, 3) and image.dtype == np.uint8
    assert 0.02 < near(image, color).mean() < 0.7
    assert near(image, background).mean() > 0.25


def test_every_layer_stays_visible_under_those_above():
    generator = rng(4)
    for _ in range(25):
        painting = sample_painting(generator)
        whole = paint(painting, 64).astype(int)
        for i in range(paintings.LAYERS):
            rest = painting.layers[:i] + ((painting.background, painting.layers[i][1]),) + painting.layers[i + 1 :]
            changed = np.abs(paint(replace(painting, layers=rest), 64) - whole).max(-1) > 30
            assert changed.mean() > 0.01


def test_a_painting_looks_alike_at_every_size():
    painting = sample_painting(rng(6))
    small, large = paint(painting, 64).astype(float), paint(painting, 128).astype(float)
    halved = large.reshape(64, 2, 64, 2, 3).mean((1, 3))
    assert np.corrcoef(small.ravel(), halved.ravel())[0, 1] > 0.9


def test_an_unknown_emotion_is_named_with_its_neighbours():
    with pytest.raises(DatasetError, match="'angr'.*'anger'"):
        sample_painting(rng(), "angr")


# -- faces


def test_a_face_follows_its_seed_alone():
    first, again = sample_face(rng(5)), sample_face(rng(5))
    assert first == again and (draw_face(first, 64) == draw_face(again, 64)).all()
    assert draw_face(first, 48).shape == (48, 48, 3) and draw_face(first, 48).dtype == np.uint8


@pytest.mark.parametrize("mood, upward", [("happy", True), ("sad", False)])
def test_the_corners_of_the_mouth_tell_the_mood(mood, upward):
    generator = rng(7)
    for _ in range(20):
        face = replace(sample_face(generator, mood), tilt=0.0)
        y, x = np.nonzero(parts(face, 160)["mouth"])
        middle, corners = abs(x - x.mean()) < 2, (x < x.min() + 3) | (x > x.max() - 3)
        assert (y[corners].mean() < y[middle].mean()) == upward
        assert (face.brows < 0.05) == upward


def test_masks_hold_what_changes_with_mouth_and_eyes_and_nothing_else():
    face = sample_face(rng(8), "sad")
    masks = parts(face, 96)
    assert masks["mouth"].sum() > 15 and masks["eyes"].sum() > 30
    assert not (masks["mouth"] & masks["eyes"]).any()
    other = replace(face, iris=(face.iris + 1) % 4)
    changed = (draw_face(other, 96).astype(int) - draw_face(face, 96)).any(-1)
    assert changed.sum() > 5 and masks["eyes"][changed].mean() > 0.95
    smiling = replace(face, curve=0.2)
    changed = np.abs(draw_face(smiling, 96).astype(int) - draw_face(face, 96)).max(-1) > 60
    either = masks["mouth"] | parts(smiling, 96)["mouth"]
    assert changed.sum() > 15 and either[changed].mean() > 0.9


def test_masks_lie_on_the_head_within_the_picture():
    generator = rng(3)
    for _ in range(30):
        face = sample_face(generator)
        for mask in parts(face, 64).values():
            assert mask.any()
            assert not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())
        eyes, mouth = (np.argwhere(parts(face, 64)[name]).mean(0) for name in ("eyes", "mouth"))
        assert mouth[0] > eyes[0] + 5


def test_a_tilt_turns_eyes_and_mouth_together():
    upright = replace(sample_face(rng(2)), tilt=0.0)
    line, turned = (
        np.subtract(*(np.argwhere(parts(face, 320)[name]).mean(0) for name in ("mouth", "eyes")))
        for face in (upright, replace(upright, tilt=0.25))
    )
    assert np.linalg.norm(line) == pytest.approx(np.linalg.norm(turned), rel=0.03)
    assert np.arctan2(*turned) - np.arctan2(*line) == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("mood", faces.MOODS)
def test_captions_say_the_mood_the_hair_and_the_background(mood):
    face = sample_face(rng(4), mood)
    said = faces.captions(face)
    other = "sad" if mood == "happy" else "happy"
    assert f"a {mood} face" in said and f"a {mood} face with {face.hair} hair" in said
    assert not any(other in text for text in said)
    image = draw_face(face, 64)
    assert np.abs(image[0, 0].astype(int) - faces.BACKGROUNDS[face.background]).max() <= 1


def test_only_mouth_and_brows_depend_on_the_mood():
    happy, sad = sample_face(rng(6), "happy"), sample_face(rng(6), "sad")
    assert (happy.skin, happy.hair, happy.style, happy.background) == (sad.skin, sad.hair, sad.style, sad.background)
    changed = np.abs(draw_face(replace(happy, curve=-0.15, gap=0.0), 64).astype(int) - draw_face(happy, 64)).any(-1)
    assert 0 < changed.mean() < 0.1


def test_an_unknown_mood_is_named_with_its_neighbours():
    with pytest.raises(DatasetError, match="'hapy'.*'happy'"):
        sample_face(rng(), "hapy")
