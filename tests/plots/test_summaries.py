"""Charts and tables of summaries: what is drawn and written for which row."""

import matplotlib
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from clip_explain import plots
from clip_explain.errors import MethodError, TensorError

matplotlib.use("agg")
SUMMARY = pd.DataFrame(
    [
        ("fair", "b", "m", 0.5, 0.4, 0.6, 20),
        ("fair", "a", "m", 0.2, 0.1, 0.3, 20),
        ("released", "a", "m", 0.3, 0.2, 0.4, 20),
        ("GE's", "a", "m", 0.9, 0.9, 0.9, 0),
        ("fair", "a", "n", 7.0, 6.0, 8.0, 20),
    ],
    columns=["setting", "method", "metric", "mean", "low", "high", "images"],
)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def labels(ax) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def test_means_of_a_summary():
    ax = plots.means(SUMMARY[(SUMMARY["metric"] == "m") & (SUMMARY["setting"] == "fair")], plt.figure().gca(), chance=0)
    assert labels(ax) == ["b", "a"]
    assert [list(line.get_xdata()) for line in ax.lines[:4:2]] == [[0.4, 0.6], [0.1, 0.3]]
    with pytest.raises(TensorError, match="two rows of the summary are called 'a'"):
        plots.means(SUMMARY)
    with pytest.raises(TensorError, match="lacks method; it has setting"):
        plots.means(SUMMARY.drop(columns="method"))


def test_by_layer_of_a_summary_counts_from_0():
    part = SUMMARY[SUMMARY["method"] == "a"].iloc[:2]
    ax = plots.by_layer({"gradient": part}, plt.figure().gca())
    assert ax.lines[0].get_xdata().tolist() == [0, 1] and ax.lines[0].get_ydata().tolist() == [0.2, 0.3]


def test_series_of_a_summary():
    ax = plots.series(SUMMARY[SUMMARY["metric"] == "m"], plt.figure().gca())
    assert labels(ax) == ["b", "a"] and [line.get_label() for line in ax.lines] == ["fair", "released", "GE's"]
    assert [list(line.get_xdata()) for line in ax.lines] == [[0.5, 0.2], [0.3], [0.9]]


def test_panels_by_metric():
    axes = plots.panels(SUMMARY, {"n": "second", "m": "first"}, order=["a", "b"], chance={"m": 0.5})
    assert axes.shape == (1, 2) and [ax.get_title() for ax in axes.flat] == ["second", "first"]
    assert labels(axes[0, 0]) == ["a", "b"]
    assert [list(line.get_xdata()) for line in axes[0, 1].lines] == [[0.2, 0.5], [0.3], [0.9], [0.5, 0.5]]
    assert [text.get_text() for text in axes[0, 0].figure.legends[0].get_texts()] == ["fair", "released", "GE's"]
    alone = plots.panels(SUMMARY[SUMMARY["setting"] == "fair"], {"m": "first"}, columns=3)
    assert alone.shape == (1, 1) and not alone[0, 0].figure.legends


def test_lines_of_a_summary():
    """Two names in colours, the first black; a reference dotted; the others grey with one entry in the legend."""
    rows = [(name, x, 0.5 - x, 0.4 - x, 0.6 - x, 9) for name in "abcde" for x in (0.0, 0.1)]
    summary = pd.DataFrame(rows, columns=["method", "target", "mean", "low", "high", "images"])
    ax = plots.lines(summary, ["c", "a"], plt.figure().gca(), references=["e"])
    assert ax.get_legend_handles_labels()[1] == ["c", "a", "e", "others"]
    drawn = {line.get_label(): line for line in ax.lines}
    assert drawn["c"].get_color() == "#000000" and drawn["a"].get_color() == plots.LINES[0]
    assert [line.get_color() for line in ax.lines[3:]] == ["0.8", "0.8"] and drawn["e"].get_color() == "0.4"
    assert drawn["c"].get_ydata().tolist() == [0.5, 0.4] and len(ax.collections) == 2
    with pytest.raises(MethodError, match="no rows of 'f'"):
        plots.lines(summary, ["f"])


def test_trends_over_a_number():
    axes = plots.trends(SUMMARY, {"m": "first", "n": "second"}, {"b": 3, "a": 1}, "layers", columns=1)
    assert axes.shape == (2, 1) and [ax.get_title() for ax in axes.flat] == ["first", "second"]
    drawn = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes[0, 0].lines}
    assert drawn == {"fair": ([1, 3], [0.2, 0.5]), "released": ([1], [0.3]), "GE's": ([1], [0.9])}
    assert axes[0, 0].get_xticks().tolist() == [1, 3] and axes[1, 0].get_xlabel() == "layers"
    assert [text.get_text() for text in axes[0, 0].figure.legends[0].get_texts()] == ["fair", "released", "GE's"]


def test_a_table_of_texts():
    found = plots.table(SUMMARY, columns=["metric", "setting"], form=".1f")
    assert found.index.tolist() == ["b", "a"] and found["m", "GE's"].tolist() == ["-", "0.9"]
    assert found["m", "fair"].tolist() == ["0.5 [0.4, 0.6]", "0.2 [0.1, 0.3]"]
    fair = plots.table(SUMMARY[SUMMARY["setting"] == "fair"])
    assert fair.columns.tolist() == ["m", "n"] and fair.loc["b", "n"] == "-"
    with pytest.raises(TensorError, match="two rows of the summary belong to 'a', 'm'"):
        plots.table(SUMMARY)


def test_panels_of_lines():
    rows = [("a", metric, x, 0.5, 0.4, 0.6, 9) for metric in "mno" for x in (0.0, 0.1)]
    summary = pd.DataFrame(rows, columns=["method", "metric", "target", "mean", "low", "high", "images"])
    axes = plots.line_panels(
        summary, {"m": "first", "n": "second", "o": "third"}, ["a"], xlabel="share", ylabel="found"
    )
    assert axes.shape == (2, 2) and [ax.get_title() for ax in axes.flat] == ["first", "second", "third", ""]
    assert [ax.get_xlabel() for ax in axes.flat] == ["", "", "share", "share"]
    assert [ax.get_ylabel() for ax in axes.flat] == ["found", "", "found", ""]
    assert axes[0, 0].get_ylim() == (0, 1) and len(axes[1, 0].lines) == 1
    assert [text.get_text() for text in axes[0, 0].figure.legends[0].get_texts()] == ["a"]
