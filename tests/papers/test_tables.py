"""The long table: what it takes, what it refuses, and its means worked by hand."""

import numpy as np
import pandas as pd
import pytest
import torch

from clip_explain import papers
from clip_explain.errors import MethodError, TensorError
from clip_explain.metrics.intervals import bootstrap

NAN = float("nan")


def rows(*values: tuple, columns=("image", "target", "setting", "method", "metric", "value")) -> pd.DataFrame:
    return pd.DataFrame(list(values), columns=list(columns))


TWO_IMAGES = rows(
    ("x", 0, "", "a", "m", 1.0),
    ("x", 1, "", "a", "m", 3.0),
    ("y", 0, "", "a", "m", 6.0),
    ("x", 0, "", "b", "m", 0.0),
    ("x", 1, "", "b", "m", NAN),
    ("y", 0, "", "b", "m", 4.0),
)


def test_what_is_measured_becomes_rows():
    found = papers.measured("x", "game", {"m": torch.tensor([1.0, NAN]), "n": 2}, setting="s")
    table = papers.long_table(found)
    expected = rows(("x", 0, "s", "game", "m", 1.0), ("x", 1, "s", "game", "m", NAN), ("x", 0, "s", "game", "n", 2.0))
    pd.testing.assert_frame_equal(table, expected)
    named = papers.measured("x", "game", {"m": [1, 2]}, targets=["a cube", "a ring"])
    assert [row["target"] for row in named] == ["a cube", "a ring"]
    with pytest.raises(TensorError, match="m: got 2 values for 1 targets"):
        papers.measured("x", "game", {"m": [1, 2]}, targets=["a cube"])


def test_numbers_of_many_images_become_rows():
    rows = papers.measured_each(["x", "y"], "a", {"m": np.array([1.0, 2.0]), "n": [True, False]}, "fair")
    assert [(row["image"], row["metric"], row["value"], row["setting"]) for row in rows] == [
        ("x", "m", 1.0, "fair"),
        ("y", "m", 2.0, "fair"),
        ("x", "n", 1.0, "fair"),
        ("y", "n", 0.0, "fair"),
    ]
    with pytest.raises(TensorError, match="m: got 1 values for 2 images"):
        papers.measured_each(["x", "y"], "a", {"m": [1.0]})


def test_a_sweeps_table_is_taken_as_it_is():
    sweep = TWO_IMAGES.drop(columns="setting").assign(text="a cube", error=None, index=range(6))
    pd.testing.assert_frame_equal(papers.long_table(sweep), TWO_IMAGES)
    assert papers.long_table(sweep.drop(columns="target").iloc[[0, 2]])["target"].tolist() == [0, 0]


def test_levels_of_images_taken_off():
    table = rows(*[(image, 0, "", name, "m", value) for image, name, value in [("x", "a", 1.0), ("x", "b", 3.0)]])
    table = pd.concat([table, table.assign(image="y", value=[11.0, 13.0])])
    found = papers.within_images(table)
    assert found["value"].tolist() == [6.0, 8.0, 6.0, 8.0]  # the level of all is 7, a lies 1 below it and b above
    with pytest.raises(TensorError, match="m: some images have fewer rows"):
        papers.within_images(table.iloc[1:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop(columns=["metric", "value"]), "lacks metric, value; it has image, target"),
        (lambda table: table.iloc[:0], "got 0 rows"),
        (lambda table: table.assign(value="1"), "expected numbers"),
        (lambda table: table.assign(value=[np.inf] + [0.0] * 5), "1 values are infinite"),
        (lambda table: table.assign(method=[None] + ["a"] * 5), "1 rows have no method"),
        (lambda table: pd.concat([table, table.iloc[[1]]]), "1 rows have the keys of another.*'target': 1"),
    ],
)
def test_a_table_that_is_refused(change, message):
    with pytest.raises(TensorError, match=message):
        papers.long_table(change(TWO_IMAGES))


def test_means_by_hand():
    """a: ((1 + 3) / 2 + 6) / 2 = 4 of images x and y; b: (0 + 4) / 2 = 2, its NaN left out."""
    found = papers.summarize(TWO_IMAGES)
    assert found.columns.tolist() == ["setting", "method", "metric", "mean", "low", "high", "images"]
    assert found[["method", "mean", "images"]].to_numpy().tolist() == [["a", 4.0, 2], ["b", 2.0, 2]]
    interval = bootstrap([2.0, 6.0], seed=5)
    assert papers.summarize(TWO_IMAGES, seed=5).loc[0, ["low", "high"]].tolist() == [interval.low, interval.high]


def test_means_by_other_columns():
    table = pd.concat([TWO_IMAGES, TWO_IMAGES.assign(metric="n", value=7.0)])
    by_target = papers.summarize(table, by=["metric", "target", "method"])
    assert by_target.query("metric == 'm' and target == 1")["method"].tolist() == ["a"]  # b's has no answer
    assert papers.summarize(table[table["metric"] == "m"], by=["setting"])["mean"].tolist() == [(4 / 3 + 5) / 2]
    with pytest.raises(TensorError, match="would average 2 metrics"):
        papers.summarize(table, by=["method"])


def test_methods_that_a_setting_lacks_are_taken_from_another():
    fair, released = TWO_IMAGES.assign(setting="fair"), TWO_IMAGES[:3].assign(setting="released", value=9.0)
    table = papers.completed(pd.concat([fair, released]), "released", "fair")
    found = table[table["setting"] == "released"].set_index("method")["value"]
    assert found["a"].tolist() == [9, 9, 9] and found["b"].tolist()[::2] == [0, 4] and len(table) == 12
    with pytest.raises(TensorError, match="no rows of setting 'realeased': did you mean 'released'"):
        papers.completed(table, "realeased", "fair")
    both = pd.concat([fair, released, released.assign(setting="again")])
    one_by_one = papers.completed(papers.completed(both, "released", "fair"), "again", "fair")
    pd.testing.assert_frame_equal(papers.completed(both, ["released", "again"], "fair"), one_by_one)


def test_several_methods_averaged_are_one_more():
    table = papers.averaged(TWO_IMAGES, ["a", "b"], "both")
    wide = table[table["metric"] == "m"].pivot(index=["image", "target"], columns="method", values="value")
    known = wide.dropna()
    np.testing.assert_allclose(known["both"], (known["a"] + known["b"]) / 2)
    assert len(known) and set(table["method"]) == {"a", "b", "both"}
    assert papers.long_table(table).columns.tolist() == table.columns.tolist()
    with pytest.raises(MethodError, match="'c' has no rows: Available: a, b"):
        papers.averaged(TWO_IMAGES, ["a", "c"], "both")


def test_the_cases_in_which_two_methods_differ_most():
    """Of image x the second target, of y the only one; z's has no answer."""
    rows = papers.measured("x", "a", {"m": [0.0, 1.0]}) + papers.measured("x", "b", {"m": [0.1, 0.2]})
    rows += papers.measured("y", "a", {"m": [0.0]}) + papers.measured("y", "b", {"m": [0.9]})
    rows += papers.measured("z", "a", {"m": [0.0]}) + papers.measured("z", "b", {"m": [np.nan]})
    table = papers.long_table(rows)
    assert papers.furthest_apart(table, "m", ("a", "b"), 5) == [("y", 0), ("x", 1)]
    assert papers.furthest_apart(table, "m", ("b", "a"), 1) == [("y", 0)]
    with pytest.raises(MethodError, match="'c' has no numbers of m"):
        papers.furthest_apart(table, "m", ("a", "c"), 1)


def test_images_by_methods():
    """Where b has no answer, a's is left out too: x of a is 1."""
    wide = papers.by_method(TWO_IMAGES, "m", ["b", "a"])
    assert wide.columns.tolist() == ["b", "a"] and wide.to_numpy().tolist() == [[0, 1], [4, 6]]
    with pytest.raises(MethodError, match="'c' has no numbers of m: Available: a, b"):
        papers.by_method(TWO_IMAGES, "m", ["a", "c"])
    with pytest.raises(TensorError, match="no numbers of 'n'"):
        papers.by_method(TWO_IMAGES, "n", ["a"])
    with pytest.raises(TensorError, match="1 images or targets lack a row"):
        papers.by_method(TWO_IMAGES[:-1], "m", ["a", "b"])


def test_rows_of_classes_have_the_mean_over_classes_as_their_mean():
    images, classes = ["x", "x", "y"], ["cube", "ring", "ring"]
    found = papers.measured_by_class(images, classes, "game", {"m": torch.tensor([1.0, 0.0, 0.5])}, "s")
    assert [(row["image"], row["setting"], row["metric"]) for row in found] == [("x", "s", "m"), ("y", "s", "m")]
    assert np.mean([row["value"] for row in found]) == pytest.approx((1.0 + 0.25) / 2)  # of cubes 1, of rings 1/4
    with pytest.raises(TensorError, match="m: got 2 values for 3 images, 3 classes"):
        papers.measured_by_class(images, classes, "game", {"m": [1.0, 0.0]})


def test_a_method_under_its_other_names():
    found = papers.also_called(TWO_IMAGES, {"a": ["c", "d"]})
    assert found["method"].value_counts().to_dict() == {"a": 3, "b": 3, "c": 3, "d": 3}
    assert found[found["method"] == "d"]["value"].tolist() == [1.0, 3.0, 6.0]
    with pytest.raises(MethodError, match="'e' has no rows"):
        papers.also_called(TWO_IMAGES, {"e": ["c"]})


def test_methods_by_the_titles_of_their_papers():
    named = TWO_IMAGES.assign(method=["game", "grad_eclip heads=native", "exact mask"] * 2)
    assert papers.titled(named)["method"].tolist()[:3] == ["GAME", "Grad-ECLIP, own heads", "exact mask"]
    assert papers.title_of("grad_eclip spatial=none") == "Grad-ECLIP w/o w_i"
    assert papers.title_of("grad_eclip heads=native layers=3") == "Grad-ECLIP, own heads layers=3"
    assert papers.title_of("game, words") == "GAME, words"


def test_one_mean_of_a_summary():
    summary = papers.summarize(TWO_IMAGES)
    assert papers.mean_of(summary, "a", "m") == (2.0 + 6.0) / 2
    with pytest.raises(TensorError, match="0 rows are of 'c' and 'm'"):
        papers.mean_of(summary, "c", "m")
    with pytest.raises(TensorError, match="2 rows"):
        papers.mean_of(pd.concat([summary, summary]), "a", "m")


def test_endings_of_methods_become_settings():
    table = rows(("x", 0, "", "a", "m", 1.0), ("x", 0, "", "a untrained", "m", 2.0))
    found = papers.by_ending(table, " untrained", ("trained", "untrained"))
    assert found[["method", "setting"]].values.tolist() == [["a", "trained"], ["a", "untrained"]]
    assert list(table["method"]) == ["a", "a untrained"]


def test_what_was_not_asked_is_nan():
    table = papers.long_table(papers.measured("x", "a", {"m": [1, 3]}) + papers.measured("y", "b", {"m": 5}))
    found = papers.with_unasked(table).set_index(["image", "method"])["value"]
    assert found["x", "a"] == 2 and found["y", "b"] == 5 and len(found) == 4
    assert np.isnan(found["x", "b"]) and np.isnan(found["y", "a"])
