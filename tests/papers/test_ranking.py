"""Ranks of methods: worked by hand, and how their intervals behave."""

import numpy as np
import pandas as pd
import pytest

from clip_explain import papers
from clip_explain.errors import TensorError


def table(values: dict[str, dict[str, list[float]]]) -> pd.DataFrame:
    """The long table of numbers by metric and method, one an image."""
    rows = []
    for metric, methods in values.items():
        for method, numbers in methods.items():
            for image, value in enumerate(numbers):
                rows += papers.measured(str(image), method, {metric: value})
    return papers.long_table(rows)


def test_places_by_hand():
    hits = {"a": [1.0, 1.0], "b": [0.0, 0.0], "c": [1.0, 1.0]}
    area = {"a": [0.3, 0.3], "b": [0.1, 0.1], "c": [0.2, 0.2]}
    found = papers.ranks(table({"hits": hits, "area": area}), {"hits": "higher", "area": "lower"}, ["a", "b", "c"])
    means = found.pivot(index="method", columns="metric", values="mean")
    assert means["hits"].tolist() == [1.5, 3.0, 1.5]  # equal ones share their places
    assert means["area"].tolist() == [3.0, 1.0, 2.0]
    assert means[papers.OVERALL].tolist() == [2.25, 2.0, 1.75]
    assert (found["low"] == found["mean"]).all() and (found["high"] == found["mean"]).all()  # all images are alike
    assert set(found["images"]) == {2}


def test_an_interval_holds_the_places_that_the_images_allow():
    noise = np.random.default_rng(0).normal(size=(2, 30))
    values = {"best": 9 + noise[0], "worst": -9 + noise[1], "x": noise[0], "y": noise[1]}
    found = papers.ranks(table({"m": values}), {"m": "higher"}, list(values)).set_index(["metric", "method"])
    assert tuple(found.loc[("m", "best"), ["low", "high"]]) == (1, 1)
    assert tuple(found.loc[("m", "worst"), ["low", "high"]]) == (4, 4)
    assert tuple(found.loc[("m", "x"), ["low", "high"]]) == (2, 3)


def test_metrics_of_the_same_images_are_drawn_together():
    values = np.random.default_rng(1).normal(size=(2, 20))
    same = {"a": values[0].tolist(), "b": values[1].tolist()}
    turned = {name: [-x for x in numbers] for name, numbers in same.items()}
    found = papers.ranks(table({"m": same, "n": turned}), {"m": "higher", "n": "higher"}, ["a", "b"])
    overall = found[found["metric"] == papers.OVERALL]
    assert overall[["mean", "low", "high"]].to_numpy().tolist() == [[1.5, 1.5, 1.5]] * 2  # they undo each other


def test_another_direction_is_refused():
    with pytest.raises(TensorError, match="m: got 'up'"):
        papers.ranks(table({"m": {"a": [1.0], "b": [0.0]}}), {"m": "up"}, ["a", "b"])


def test_places_of_printed_numbers():
    printed = papers.printed("iclip", "table5", {"iou": "mMIoU (%)", "gap": "mFMB"})
    found = papers.ranks_of_means(printed, {"iou": "higher", "gap": "lower"}, ["game", "iclip", "reversed_itsm"])
    assert found[["metric", "mean"]].to_numpy().tolist() == [
        *(["iou", 3.0], ["iou", 1.0], ["iou", 2.0]),
        *(["gap", 1.0], ["gap", 3.0], ["gap", 2.0]),
    ]
    assert set(found["images"]) == {0}
    with pytest.raises(TensorError, match="expected one of rise"):
        papers.ranks_of_means(printed, {"iou": "higher"}, ["rise"])
