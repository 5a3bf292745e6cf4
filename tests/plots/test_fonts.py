"""Texts of any script in figures: drawn, or replaced visibly; never a broken file."""

import warnings
from xml.dom import minidom

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt

from clip_explain import plots
from clip_explain.plots import fonts

matplotlib.use("agg")
GREY = np.full((8, 12, 3), 128, dtype=np.uint8)


@pytest.fixture(autouse=True)
def no_figures_left():
    yield
    plt.close("all")


def test_what_no_font_has_is_a_box_and_controls_fall_away(monkeypatch):
    monkeypatch.setattr(fonts, "_further", lambda: ())
    assert plots.drawable("a caf\u00e9: \u03b1") == "a caf\u00e9: \u03b1"  # matplotlib's own font has them
    assert plots.drawable("\u732b cat \u72ac") == f"{plots.BOX} cat {plots.BOX}"
    assert plots.drawable("a\x00b\x1b[0m\u200d\ufffe\ud800\tc\nd") == f"ab[0m{plots.BOX} c\nd"


def test_a_font_of_the_system_that_has_a_script_is_used(monkeypatch):
    """STIXGeneral comes with matplotlib and has characters that DejaVu Sans lacks."""
    monkeypatch.setattr(fonts, "_further", lambda: ())
    letter = next(
        chr(code)
        for code in fonts._known(("STIXGeneral",)) - fonts._known(("DejaVu Sans",))
        if chr(code).isprintable() and code < 0xD800
    )
    assert plots.drawable(letter) in (plots.BOX, "")
    monkeypatch.setattr(fonts, "_further", lambda: ("STIXGeneral",))
    assert plots.drawable(letter) == letter and plots.families()[-1] == "STIXGeneral"
    plots.grid([GREY], [None], [letter])[0, 0].figure.canvas.draw()


@pytest.mark.parametrize("kind", ["svg", "pdf", "png"])
def test_no_text_breaks_a_figure(tmp_path, kind):
    text = "\u732b \u72ac \U0001f600 a\x00\x08\x1bb & <c> $d \ud800 \ufffe"
    axes = plots.grid([GREY] * 2, [None, np.eye(3)], [text] * 2, row_titles=[text])
    plots.shaded(text.split(), np.arange(len(text.split())), axes[0, 0])
    plots.comparison([GREY], [text], [[np.eye(3)]], [text])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of a glyph that it lacks
        for number in plt.get_fignums():
            plt.figure(number).savefig(tmp_path / f"{number}.{kind}")
    if kind == "svg":
        for path in tmp_path.iterdir():
            minidom.parse(str(path))
