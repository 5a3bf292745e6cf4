"""Words shaded by their weights, as a picture and as HTML."""

import html
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb

from clip_explain.plots.fonts import drawable, families
from clip_explain.plots.style import SIGNED, WORD_LINE, Array, text_width

WORDS = 0.65  # the opacity of the colour behind the word with the largest weight; black letters stay legible on it


def shaded(
    words: Sequence[str], weights: Array, ax: Axes | None = None, inches: float | None = None, size: float | None = None
) -> Axes:
    """A text below an axes, each word on a ground coloured by `shades`, broken into lines no longer than `inches`.

    `inches` defaults to the axes' width; `size` is the font's. The figure needs room below the axes.
    """
    ax = plt.gca() if ax is None else ax
    size = plt.rcParams["font.size"] - 2 if size is None else size
    inches = ax.get_position().width * ax.figure.get_figwidth() if inches is None else inches
    space, colours, place = text_width("i", size), shades(weights), 0
    for number, line in enumerate(_word_lines(words, inches, size)):
        x = 0.0
        for word in line:
            ground = {"facecolor": colours[place], "edgecolor": "none", "pad": 0.12 * size}
            at = (x + 0.5, -(number + 0.15) * WORD_LINE * size)
            mark = ax.annotate(
                drawable(word), (0, 0), at, xycoords="axes fraction", textcoords="offset points", fontsize=size
            )
            mark.set(va="top", bbox=ground, parse_math=False, family=families())
            x, place = x + text_width(word, size) + space, place + 1
    return ax


def shades(weights: Array) -> Float[np.ndarray, "words 3"]:
    """Colours behind words: white at 0, orange above and purple below, the strongest at the largest magnitude."""
    values = np.asarray(weights, dtype=float)
    strength = WORDS * values[:, None] / max(np.abs(values).max(initial=0.0), np.finfo(np.float32).tiny)
    below, above = to_rgb(SIGNED[0]), to_rgb(SIGNED[1])
    return 1 - np.abs(strength) * (1 - np.where(strength > 0, above, below))


def shaded_html(words: Sequence[str], weights: Array) -> str:
    """The same as HTML, for a notebook."""
    spans = [
        f'<span style="background: {to_hex(colour)}; color: black; padding: 2px">{html.escape(word)}</span>'
        for word, colour in zip(words, shades(weights), strict=True)
    ]
    return " ".join(spans)


def shaded_table(
    texts: Sequence[str], words: Sequence[Sequence[tuple[Sequence[str], Array]]], columns: Sequence[str]
) -> str:
    """An HTML table for a notebook: each row a text, and its words shaded by the weights of each of the `columns`.

    `words` has for each row and column the words and their weights, as `pairs` draws them.
    """
    rows = ["".join(f"<th>{html.escape(title)}</th>" for title in ("text", *columns))]
    for text, row in zip(texts, words, strict=True):
        cells = [html.escape(text), *(shaded_html(*each) for each in row)]
        rows.append("".join(f"<td>{cell}</td>" for cell in cells))
    return "<table>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"


def words_height(words: Sequence[str], inches: float, size: float) -> float:
    """The room in inches that `shaded` takes below an axes."""
    return len(_word_lines(words, inches, size)) * WORD_LINE * size / 72


def _word_lines(words: Sequence[str], inches: float, size: float) -> list[list[str]]:
    """Words in lines that fit, with at least one word in each."""
    lines, room = [[]], 72 * inches
    for word in words:
        line = [*lines[-1], word]
        if lines[-1] and sum(text_width(each, size) + text_width("i", size) for each in line) > room:
            lines.append([word])
        else:
            lines[-1] = line
    return lines
