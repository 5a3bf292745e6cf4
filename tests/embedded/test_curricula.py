"""The comparison of curricula in small: equal time by hand, hidden patches, and one way from start to table."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import curricula
from clip_explain.embedded.training.plans import lengthened
from clip_explain.embedded.training.towers import build
from curricula import WAYS, Guesser, Way

SMALL = replace(
    lengthened(curricula.SHORT, 1e-4),
    vision_width=64,
    vision_layers=2,
    vision_heads=2,
    text_width=64,
    text_layers=1,
    text_heads=2,
    embed=32,
    stages=tuple(
        replace(stage, batch=4, pool=("training", 1, 4), window=96, steps=2, patch_isolation=0.0)
        for stage in curricula.SHORT.stages
    ),
)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(curricula, "SHORT", SMALL)
    return SMALL


def test_steps_fill_the_time_by_hand():
    plan, guesses = curricula.timed(curricula.SHORT, Way(), [0.5, 2.0], 100)
    assert [stage.steps for stage in plan.stages] == [120, 20] and guesses == 0  # 60 s of 0.5, 40 s of 2
    plan, guesses = curricula.timed(curricula.SHORT, Way(guessing=0.25), [0.5, 2.0, 0.1], 100)
    assert [stage.steps for stage in plan.stages] == [90, 15] and guesses == 250  # 45 s, 30 s, and 25 s of 0.1


@pytest.mark.parametrize(
    "name, changed",
    [
        ("as it is", set()),
        ("as it is, another seed", {"seed"}),
        ("six captions a picture", {"stages"}),
        ("patches apart from the first stage on", {"stages"}),
        ("hidden patches guessed first", set()),
        ("towers 96 wide", {"vision_width", "text_width", "vision_heads", "text_heads"}),
        ("towers 192 wide", {"vision_width", "text_width", "vision_heads", "text_heads"}),
    ],
)
def test_a_way_changes_what_it_says_alone(name, changed):
    plan, base = curricula.plan_of(WAYS[name]), curricula.SHORT
    assert {key for key in vars(base) if getattr(plan, key) != getattr(base, key)} == changed
    assert plan.vision_width // plan.vision_heads == plan.text_width // plan.text_heads == 32


def test_every_way_is_told_apart():
    assert len({str(curricula.plan_of(way)) + str(way.guessing) for way in WAYS.values()}) == len(WAYS)


def test_patches_are_normalized_in_the_grids_order():
    pixels = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    found = curricula.patches_of(pixels, 16)
    second_row = pixels[1, :, 16:, 16:32].flatten()
    expected = (second_row - second_row.mean()) / second_row.std()
    torch.testing.assert_close(found[1, 4], expected, rtol=1e-3, atol=1e-4)
    assert found.shape == (2, 6, 768)


def test_what_is_hidden_is_not_seen(small):
    guesser = Guesser(build(small, 1).visual, small.patch)
    pixels = torch.randn(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    other, hidden = pixels.clone(), torch.arange(9)[None] == 4
    other[..., 16:32, 16:32] = 0
    nothing = torch.zeros(1, 9, dtype=torch.bool)
    torch.testing.assert_close(guesser(pixels, (0, 0), hidden), guesser(other, (0, 0), hidden))
    assert not torch.allclose(guesser(pixels, (0, 0), nothing), guesser(other, (0, 0), nothing))


def test_guessing_learns_and_changes_the_image_tower_alone(small, tmp_path):
    network, untouched = build(small, 1), build(small, 1)
    plan = replace(small, warmup=1)
    losses = curricula.guess(network, plan, tmp_path, 40)
    assert np.mean(losses[-5:]) < 0.95 * np.mean(losses[:5])
    assert not torch.equal(network.visual.conv1.weight, untouched.visual.conv1.weight)
    for ours, theirs in zip(network.transformer.parameters(), untouched.transformer.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_one_way_from_start_to_table(small, tmp_path, monkeypatch):
    monkeypatch.setattr(curricula, "SHOWN", {"zero-shot color x shape": "colour and shape"})  # four pictures are few
    name = "hidden patches guessed first"
    seconds = curricula.measured_seconds({name: WAYS[name]}, tmp_path, 1)
    assert len(seconds[name]) == 3 and min(seconds[name]) > 0
    row = curricula.run(name, [1.0, 1.0, 1.0], 8 / 60, tmp_path, 4)
    assert row["steps"] == {"guessing": 2, "close views": 4, "whole pictures": 2}
    assert curricula.run(name, [1.0, 1.0, 1.0], 8 / 60, tmp_path, 4) == json.loads(json.dumps(row))
    line = curricula.markdown({name: row}).splitlines()[-1]
    assert line.startswith(f"| {name} | 2 + 4 + 2 | {100 * row['figures']['zero-shot color x shape']:.1f} ± ")
