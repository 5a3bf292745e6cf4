"""Weights of a sentence's words, by hand."""

import pytest
import torch

from clip_explain.errors import TextError
from clip_explain.metrics.sentences import sides_agree, words_above

WORDS = ["a", "red", "cube", "and", "a", "blue", "cube"]
WEIGHTS = torch.tensor([0.1, 0.9, 0.3, 0.5, 0.0, 0.3, 0.2])


def test_how_often_some_words_outweigh_others():
    """Named: 0.9, 0.3, 0.3, 0.2; filler: 0.1, 0.5, 0.0; so 12 pairs, of which 0.5 wins three."""
    assert words_above(WORDS, WEIGHTS, {"red", "cube", "blue"}, {"a", "and"}) == pytest.approx(9 / 12)
    assert words_above(WORDS, WEIGHTS, {"red"}, {"blue"}) == 1
    assert words_above(WORDS, torch.ones(7), {"red"}, {"blue"}) == 0.5
    with pytest.raises(TextError, match="has no word of"):
        words_above(WORDS, WEIGHTS, {"red"}, {"green"})


def test_map_and_words_agree_on_an_object():
    """Words of the red cube weigh 1.4, of the blue one 0.8: the map agrees where it is stronger on the red one."""
    red, blue = {"red", "cube"}, {"blue", "cube"}
    found = [
        sides_agree(WORDS, WEIGHTS, red, blue, torch.tensor(pair)) for pair in ([2.0, 1.0], [1.0, 2.0], [1.0, 1.0])
    ]
    assert found == [1, 0, 0.5]
    assert sides_agree(WORDS, WEIGHTS, blue, red, torch.tensor([2.0, 1.0])) == 0
