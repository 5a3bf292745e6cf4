"""The rows of the shared table: which methods they are, their costs by hand, and the colours of their families."""

import matplotlib
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from clip_explain import papers
from clip_explain.explainers import METHODS
from clip_explain.papers.contenders import COLOURS
from clip_explain.sweep.measures import BASELINES

matplotlib.use("agg")


def test_every_row_is_a_method_with_options_that_it_knows():
    found = papers.contenders(masked=10, steps=3)
    assert len(found) > 20 and {each.family for each in found.values()} == {
        *("first order", "interaction", "perturbation", "floor"),
    }
    for name, each in found.items():
        if each.family == "floor":
            assert name in BASELINES
            continue
        method = METHODS[each.method]
        known = {option.name for option in (method.pair_options if method.options is None else method.options)}
        assert set(each.options) <= known
    assert found["fixlip"].options["images"] == found["rise"].options["masks"] == 10
    assert found["shapley"].options["samples"] == 8  # and the two ends


def test_which_methods_are_left_out():
    rows = {each.method for each in papers.contenders(8, 2).values()}
    left_out = {"leave_one_out", "iclip", "all_gradients", "attention_grad_cam", "itsm"}
    assert set(METHODS) - rows == left_out
    assert all(name in " ".join(str(papers.contenders.__doc__).split()) for name in left_out - {"iclip"})


MEANS = pd.DataFrame(
    [("game", "pointing_game", 0.5), ("fixlip", "pointing_game", 0.25), ("exact mask", "pointing_game", 1.0)],
    columns=["method", "metric", "mean"],
).assign(low=0.2, high=1.0, images=3)


def test_cost_is_in_units_of_a_forward():
    rows = []
    for image, seconds in {"x": (2.0, 3.0), "y": (1.0, 1.0), "z": (4.0, 2.0)}.items():
        rows += papers.measured(image, "encode_image", {"seconds": seconds[0]})
        rows += papers.measured(image, "game", {"seconds": 2 * seconds[1]})
    order, found = ["fixlip", "game", "exact mask"], papers.contenders(8, 2)
    wide = papers.shared_table(MEANS, papers.long_table(rows), found, order, ["pointing_game"])
    assert list(wide.index) == order and list(wide.columns) == ["pointing_game", "cost", "family"]
    assert list(wide["cost"]) == ["-", "2.0", "-"]  # medians of 2 and of 4 seconds
    assert list(wide["family"]) == ["interaction", "first order", "ceiling"]
    assert wide.loc["game", "pointing_game"].startswith("0.500")


@pytest.mark.parametrize("order", [["game", "fixlip", "exact mask"], ["fixlip", "exact mask", "game"]])
def test_names_have_the_colours_of_their_families(order):
    axes = papers.draw_families(MEANS, {"pointing_game": "PG"}, papers.contenders(8, 2), order)
    colours = {label.get_text(): label.get_color() for label in axes[0, 0].get_yticklabels()}
    assert list(colours) == [papers.title_of(name) for name in order]
    assert [colours[papers.title_of(name)] for name in ("game", "fixlip", "exact mask")] == [
        *("black", COLOURS["interaction"], COLOURS["ceiling"]),
    ]
    plt.close("all")
