"""Costs of explainers: what is timed is called, ratios are formed within a round, and memory is seen."""

import sys
import time

import pytest
import torch

import small_clip
from clip_explain.errors import MethodError
from clip_explain.explainers import names_of
from clip_explain.models.embed import tokenize
from clip_explain.papers.timing import LIMITS, faithfulness_calls, image_calls, peak_memory, ratios, timed, word_calls


def test_every_call_is_made_once_a_round_in_turn_after_a_first_time():
    order = []
    table = ratios({name: lambda name=name: order.append(name) for name in "ab"}, rounds=3)
    assert order == ["a", "b"] * 4
    assert list(table.index) == ["a", "b"] and list(table.columns) == ["seconds", "ratio", "low", "high", "cpu_ratio"]
    assert (table.loc["a", ["ratio", "low", "high"]] == 1).all()


def test_ratios_by_hand(monkeypatch):
    """The clock moves 1, 2 and 4 s in a call of `unit`, and twice, three and five times as much in one of `other`."""
    now, unit, factor = [0.0], iter([0, 1, 2, 4]), iter([0, 2, 3, 5])
    last = [0.0]

    def pass_unit():
        last[0] = next(unit)
        now[0] += last[0]

    def pass_other():
        now[0] += last[0] * next(factor)

    for clock in ("perf_counter", "process_time"):
        monkeypatch.setattr(time, clock, lambda: now[0])
    table = ratios({"unit": pass_unit, "other": pass_other}, rounds=3)
    assert table.seconds.tolist() == [2, 6]  # medians of 1, 2, 4 and of 2, 6, 20
    assert table.loc["other", ["ratio", "low", "high", "cpu_ratio"]].tolist() == [3, 2.5, 4, 3]


def test_no_rounds_are_refused():
    with pytest.raises(MethodError, match="rounds=0, expected at least 1"):
        ratios({"a": lambda: None}, rounds=0)


def test_rounds_may_differ_and_the_first_is_made_once_before():
    order = []
    rounds = [{name: lambda name=name, i=i: order.append((name, i)) for name in "ab"} for i in range(2)]
    table = timed(rounds)
    assert order == [("a", 0), ("b", 0), ("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert table["round"].tolist() == [0, 0, 1, 1] and table["method"].tolist() == ["a", "b"] * 2
    assert (table[["seconds", "cpu_seconds"]] >= 0).all(axis=None)
    with pytest.raises(MethodError, match="no round"):
        timed([])


def test_faithfulness_calls_embed_as_many_images_as_their_unit():
    model = small_clip.wrap(small_clip.build(vlayers=2, tlayers=2))
    pixels, maps = small_clip.pixels(0, 224, 224), torch.rand(1, 1, 7, 7)
    calls = faithfulness_calls(model, pixels, maps, steps=5, batch_size=4, classes=10)
    assert list(calls) == ["encode_image, batched", "deletion", "insertion"]
    assert [len(batch) for batch in calls["encode_image, batched"]()] == [4, 2]
    assert {points.shape for points in calls["deletion"]().values()} == {(1, 1, 6)}


def test_limits_are_of_methods_and_modes():
    assert {name.split(",")[0] for name in LIMITS} <= {*names_of(), "deletion", "insertion"}


def test_calls_of_methods_are_explanations():
    model = small_clip.wrap(small_clip.build(vlayers=2, tlayers=2))
    pixels, targets = small_clip.pixels(0, 64, 96), torch.eye(64)[:2]
    calls = image_calls(model, small_clip.pixels(0, 224, 224), targets, ["itsm", "rise"], {"rise": dict(masks=2)})
    assert list(calls) == ["encode_image", "itsm", "rise"]
    assert calls["encode_image"]().shape == (1, 64)
    assert calls["itsm"]().shape == (1, 2, 7, 7) and calls["rise"]().shape == (1, 2, 224, 224)
    assert not torch.equal(calls["itsm"](), image_calls(model, pixels, targets, ["itsm"])["itsm"]())
    texts = ["a dog", "two cats"]
    calls = word_calls(model, tokenize(model, texts), texts, targets, ["rollout"])
    assert calls["encode_text"]().shape == (2, 64)
    assert [weights.shape for _, weights in calls["rollout"]()] == [(2, 2), (2, 2)]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_sees_what_a_call_takes_and_gives_back():
    def take():
        bytes(bytearray(300 * 2**20))  # two copies at once, gone when it returns

    take()
    assert 550 < peak_memory(take) < 700
