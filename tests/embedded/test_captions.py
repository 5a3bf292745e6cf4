"""The caption grammar, and its three-valued truth on scenes worked out by hand."""

import numpy as np
import pytest

from clip_explain.embedded.scenes.captions import (
    RELATIONS,
    Caption,
    Facts,
    all_pairs,
    draw_caption,
    draw_confusion,
    draw_swap,
    phrase,
    say,
    say_freely,
    truth,
)
from clip_explain.embedded.scenes.world import ATTRIBUTES

RED_CUBE, BLUE_BALL, RED_CONE = (
    [0, 1, 0, 0],  # large red rubber cube
    [1, 2, 1, 1],  # small blue metal sphere
    [1, 1, 0, 3],  # small red rubber cone
)


def facts(objects, *, seen=None, color=True, size=True, along=None, across=None):
    """One picture of up to three objects; absent ones are -1."""
    pad = 3 - len(objects)
    return Facts(
        attributes=np.array([objects + [[-1] * 4] * pad], np.int8),
        seen=np.array([list(seen or [1] * len(objects)) + [0] * pad], np.int8),
        along=np.array([list(along or [[0.0, 0.0]] * len(objects)) + [[0.0, 0.0]] * pad], np.float32),
        across=np.array([list(across or [0.5] * len(objects)) + [0.5] * pad]),
        color=np.array([color]),
        size=np.array([size]),
    )


def judge(claim, known):
    return int(truth([claim], known)[0, 0])


def test_plain_wording():
    assert say(Caption((phrase(color="red", shape="cube"),))) == "a red cube"
    assert say(Caption((phrase(size="large", material="metal"),))) == "a large metal thing"
    pair = (phrase(color="red", shape="cube"), phrase(shape="sphere"))
    assert say(Caption(pair)) == "a red cube and a sphere"
    assert say(Caption(pair, relation="left of")) == "a red cube left of a sphere"
    assert say(Caption(pair[:1], place="on the left")) == "a red cube on the left"
    assert say(Caption((*pair, phrase(shape="cone")))) == "a red cube, a sphere and a cone"


def test_synonyms_are_drawn_and_repeatable():
    claim = Caption((phrase(size="large", material="metal", shape="sphere"),))
    heard = {say(claim, np.random.default_rng(i)) for i in range(200)}
    assert any("ball" in s for s in heard) and any("shiny" in s for s in heard) and any("big" in s for s in heard)
    assert say(claim, np.random.default_rng(3)) == say(claim, np.random.default_rng(3))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"color": "red", "shape": "cube"}, 1),
        ({"color": "blue", "shape": "cube"}, 0),  # both words are true of the picture, but not of one object
        ({"size": "small"}, 1),
        ({"material": "metal", "color": "red"}, 0),
        ({"shape": "ring"}, 0),
    ],
)
def test_attributes_must_meet_in_one_object(said, expected):
    assert judge(Caption((phrase(**said),)), facts([RED_CUBE, BLUE_BALL])) == expected


def test_two_phrases_need_two_objects():
    twice = Caption((phrase(color="red"), phrase(color="red")))
    assert judge(twice, facts([RED_CUBE, BLUE_BALL])) == 0
    assert judge(twice, facts([RED_CUBE, RED_CONE])) == 1
    three = Caption((phrase(color="red"), phrase(color="red"), phrase(shape="sphere")))
    assert judge(three, facts([RED_CUBE, RED_CONE, BLUE_BALL])) == 1
    assert judge(three, facts([RED_CUBE, RED_CONE])) == 0


def test_relations_follow_the_camera():
    known = facts([RED_CUBE, BLUE_BALL], along=[[-1.0, 2.0], [1.0, 0.0]])  # the cube: left, and farther away
    pair = (phrase(shape="cube"), phrase(shape="sphere"))
    assert [judge(Caption(pair, relation=r), known) for r in RELATIONS] == [1, 0, 0, 1]


def test_places_leave_the_middle_open():
    claim = Caption((phrase(shape="cube"),), place="on the left")
    assert [judge(claim, facts([RED_CUBE], across=[x])) for x in (0.2, 0.5, 0.8)] == [1, -1, 0]


def test_what_cannot_be_told_is_left_open():
    claim = Caption((phrase(color="red", shape="cube"),))
    assert judge(claim, facts([RED_CUBE], color=False)) == -1
    assert judge(Caption((phrase(color="red", shape="ring"),)), facts([RED_CUBE], color=False)) == 0
    assert judge(Caption((phrase(size="large"),)), facts([RED_CUBE], size=False)) == -1
    assert judge(claim, facts([RED_CUBE], seen=[-1])) == -1
    assert judge(claim, facts([RED_CUBE], seen=[0])) == 0


@pytest.mark.parametrize("kind", ["single", "double", "full", "place", "pair", "relation", "triple"])
def test_drawn_captions_are_true_and_name_only_what_shows(kind):
    rng = np.random.default_rng(0)
    for color in (True, False):
        known = facts(
            [RED_CUBE, BLUE_BALL, RED_CONE], color=color, along=[[-1, 2], [1, 0], [0, 1]], across=[0.1, 0.9, 0.5]
        )
        for _ in range(40):
            claim = draw_caption(known, 0, {kind: 1.0}, rng)
            assert judge(claim, known) == 1
            assert color or not any(name in say(claim) for name in ATTRIBUTES["color"])


def test_nothing_seen_nothing_said():
    assert draw_caption(facts([RED_CUBE], seen=[0]), 0, {"single": 1.0}, np.random.default_rng(0)) is None


def test_swaps_mix_up_two_objects():
    rng = np.random.default_rng(0)
    known = facts([RED_CUBE, BLUE_BALL])
    heard = {say(draw_swap(known, 0, rng)) for _ in range(20)}
    assert heard == {"a red sphere", "a blue cube"}
    assert judge(draw_swap(known, 0, rng), known) == 0
    assert draw_swap(facts([RED_CUBE, RED_CONE]), 0, rng) is None  # the same colour: nothing to mix up
    assert draw_swap(facts([RED_CUBE, BLUE_BALL], color=False), 0, rng) is None


def test_confusions_take_a_cube_for_a_cylinder():
    rng = np.random.default_rng(0)
    known = facts([RED_CUBE])
    heard = {say(draw_confusion(known, 0, rng)) for _ in range(60)}
    assert heard == {"a red cylinder", "a rubber cylinder", "a large cylinder"}
    assert all(judge(draw_confusion(known, 0, rng), known) == 0 for _ in range(10))
    assert draw_confusion(facts([RED_CUBE], seen=[0]), 0, rng) is None
    grey = {say(draw_confusion(facts([RED_CUBE], color=False, size=False), 0, rng)) for _ in range(30)}
    assert grey == {"a cylinder", "a rubber cylinder"}


def test_all_pairs_are_sixty_and_each_is_true_of_its_object():
    claims = all_pairs()
    told = truth(claims, facts([RED_CUBE]))[0]
    assert len(claims) == len({say(claim) for claim in claims}) == 60
    assert [say(claim) for claim, true in zip(claims, told, strict=True) if true] == [
        "a red cube",
        "a large cube",
        "a rubber cube",
    ]


def test_free_wording_leaves_out_articles_and_keeps_every_word_of_content():
    claim = Caption((phrase(color="red", shape="cone"), phrase(color="blue", shape="ring")))
    heard = [say_freely(claim, np.random.default_rng(i)).replace("donut", "ring") for i in range(300)]
    words = [set(said.replace(",", " ").replace(":", " ").split()) for said in heard]
    assert all({"red", "cone", "blue", "ring"} <= said for said in words)
    without = np.mean([not said & {"a", "the", "one", "this", "some", "an"} for said in words])
    assert 0.1 < without < 0.5
    assert any("cone that is red" in said for said in heard) and any("red cone blue ring" in said for said in heard)


def test_free_wording_of_a_single_claim_may_be_a_single_word():
    heard = {say_freely(Caption((phrase(color="red"),)), np.random.default_rng(i)) for i in range(200)}
    assert "red" in heard and "a red thing" in heard
    assert say_freely(Caption((phrase(color="red"),)), np.random.default_rng(3)) in heard
