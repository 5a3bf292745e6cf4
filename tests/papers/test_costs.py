"""What calls cost, from seconds worked by hand."""

import pandas as pd
import pytest
import torch

import small_clip
from clip_explain import papers
from clip_explain.explainers import METHODS
from clip_explain.papers import costs, timing

SECONDS = pd.DataFrame(
    {
        **{"encode_image": [1.0, 2.0], "encode_text, words": [1.0, 1.0], "masked images": [8.0, 8.0]},
        **{"m2ib": [3.0, 4.0], "m2ib, words": [2.0, 2.0], "rise": [16.0, 8.0], "shapley": [8.0, 8.0]},
        **{"game": [2.0, 4.0], "self_attention": [1.0, 2.0], "text": [1.0, 1.0], "prompts": [0.1, 0.1]},
        **{"self_attention, as released": [3.0, 3.0], "game, as released": [1.0, 1.0], "sixty texts": [1.0, 1.0]},
    },
    index=pd.Index([0, 1], name="round"),
)
DEFAULTS = {name: METHODS[name].options_for() for name in ("m2ib", "rise")}


def test_a_part_becomes_the_whole():
    """One step of M2IB took 2 s beyond a forward of 1 s, so ten take 20; eight masks took 16 s, so 2000 take 4000."""
    found = costs.whole(SECONDS, steps=1, masks=8)
    assert DEFAULTS["m2ib"]["steps"].default == 10 and DEFAULTS["rise"]["masks"].default == 2000
    assert found["m2ib"].tolist() == [21, 22] and found["m2ib, words"].tolist() == [11, 11]
    assert found["rise"].tolist() == [4000, 2000] and found["rise, of bare forwards"].tolist() == [16, 8]
    assert found["game"].tolist() == [2, 4] and SECONDS["rise"].tolist() == [16, 8]


def test_each_cost_in_its_own_unit():
    rows = costs.cost_rows(costs.whole(SECONDS, steps=1, masks=8))
    values = papers.long_table(rows).pivot(index="image", columns="method", values="value")
    assert values["game"].tolist() == [2, 2] and values["encode_image"].tolist() == [1, 1]
    assert values["m2ib, words"].tolist() == [11, 11] and values["rise, of bare forwards"].tolist() == [2, 1]
    assert not set(costs.PARTS) & set(values.columns)


def test_the_texts_are_added():
    """As released CLIP Surgery embeds 60 x 85 texts: here one was timed, in a tenth of a second."""
    rows = costs.with_texts(costs.whole(SECONDS, 1, 8), ["self_attention", "game"], prompts=1)
    table = papers.long_table(rows).set_index(["setting", "metric", "method", "image"])["value"]
    assert table["equal footing", "seconds", "game", "round 1"] == 5
    assert table["equal footing", "times raw attention", "game", "round 1"] == pytest.approx(5 / 3)
    assert table["as released", "times raw attention", "game", "round 0"] == pytest.approx(2 / 4)
    assert table["as released", "seconds", "clip_surgery", "round 0"] == pytest.approx(1 + 0.1 * 60 * 85)


def test_growth_has_every_size():
    model = small_clip.wrap(small_clip.build(**small_clip.SMALL))
    pixels, targets = small_clip.marked(small_clip.pixels(0, 64, 64)), torch.rand(16, 64)
    table = papers.long_table(costs.growth(model, pixels, targets, ["maskclip"], rounds=1))
    assert (table["value"] > 0).all() and set(table["method"]) == {"forward", "maskclip"}
    sizes = {axis: sorted(set(part["target"])) for axis, part in table.groupby("metric")}
    assert sizes == {"patches a side": [7, 14, 21, 28], "texts": [1, 4, 16], "images at once": [1, 4, 8]}


def test_the_protocol_by_hand():
    """Each method costs one forward, a curve's point as well: 2 maps and 2 x 2 x 101 points an image."""
    methods = set(papers.printed("grad_eclip", "table1")["method"]) | set(
        papers.printed("grad_eclip", "table4")["method"]
    )
    cost = {name.split()[0]: 1.0 for name in methods}
    cost |= {f"{name}, of bare forwards": 1.0 for name in ("rise", "deletion", "insertion")}
    plan = costs.protocol_plan(cost, forward_seconds=3600, images=10)
    assert set(plan.index) == methods | {"random", "constant"}
    assert plan.loc["game"].tolist() == [2, 404, 4060]
    assert plan.loc["rise"].tolist() == [2000, 404, 24040] and plan.loc["random"].tolist() == [0, 404, 4040]


def test_limits_are_in_the_unit_that_was_measured():
    found = {claim.statement.split(":")[0]: claim for claim in costs.within_limits({"rise, of bare forwards", "game"})}
    assert set(found) == set(timing.LIMITS)
    assert found["rise"].methods == ("rise, of bare forwards",) and found["game"].methods == ("game",)
    assert found["game"].threshold == timing.LIMITS["game"] and found["game"].relation == "less than"


def test_the_clock_of_a_device():
    assert costs.clock_of("cpu") == "cpu_seconds" and costs.clock_of("cuda:0") == "seconds"


def test_released_and_text_calls_run():
    model = small_clip.wrap(small_clip.build(**small_clip.SMALL))
    pixels, targets = small_clip.marked(small_clip.pixels(0, 64, 64)), torch.rand(60, 64)
    calls = timing.released_calls(model, pixels, targets) | timing.text_calls(model, "a red cone", 2)
    assert {"game, as released", "grad_eclip spatial=cosine, as released", "sixty texts"} <= set(calls)
    shapes = {name: tuple(call().shape) for name, call in calls.items()}
    assert shapes["game, as released"] == (1, 1, 4, 4) and shapes["sixty texts"] == (1, 60, 4, 4)
    assert shapes["text"] == shapes["prompts"] == (1, 64)
