"""docs/embedded.md says of the embedded models what their cards say."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "docs"))

import cards  # noqa: E402


def test_the_table_is_that_of_the_cards():
    page = cards.PAGE.read_text()
    assert cards.written(page) == page, "run `python docs/cards.py`"


def test_a_figure_is_shown_with_its_interval_and_a_missing_one_as_nothing():
    found = {"figures": {"a": 0.5, "b": 0.25}, "intervals": {"a": [0.4, 0.6, 10]}}
    assert [cards.cell(found, name) for name in "abc"] == ["50.0 % [40.0, 60.0]", "25.0 %", ""]


@pytest.mark.parametrize("figure", ["pointing game", "pointing game, legrad", "pointing game, within 8 pixels"])
def test_what_the_text_says_of_the_curriculum_is_in_the_cards(figure):
    page = " ".join(cards.PAGE.read_text().split())
    told = re.search(
        r"in (\d+) % with the curriculum and in (\d+) % without it, LeGrad's in (\d+) % and in (\d+) %; "
        r"on it or within eight pixels, Grad-ECLIP's in (\d+) % and in (\d+) %",
        page,
    )
    said = told.groups()
    numbers = {
        "pointing game": said[:2],
        "pointing game, legrad": said[2:4],
        "pointing game, within 8 pixels": said[4:],
    }
    measured = [cards.card(name)["figures"][figure] for name in ("tiny-vit", "tiny-vit-plain")]
    assert [f"{100 * each:.0f}" for each in measured] == list(numbers[figure])
