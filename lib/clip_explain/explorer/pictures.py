"""The explorer's pictures: a state's maps over its image, and each text's card, as HTML.

Below app.py and widgets.py; above view.py, which computes. Nothing here uses widgets.
"""

import base64
import html
import io
import textwrap
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.colors import to_hex
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from clip_explain.explorer.view import Found, Panel, State
from clip_explain.images import shrunk
from clip_explain.maps import degenerate, has_sign
from clip_explain.plots.overlay import NOTHING, blend
from clip_explain.plots.words import shades

LEGEND = {
    "for": "bright: speaks for the text",
    "against": "bright: speaks against the text",
    "both": "orange: for the text; purple: against it",
}
SIDE = 336  # px, of a picture's longer side
QUALITY = 88  # of its JPEG
LETTERS = 12  # px, of what is written below a saved picture


def picture(image: Image.Image, map: Tensor, sign: str, fit: str) -> Image.Image:
    """A map over its image by the rule of `blend`; evidence of both signs always in the colours of a sign."""
    mixed = blend(image, map, fit, signed=True if sign == "both" else None)
    return Image.fromarray((255 * mixed).round().astype(np.uint8))


def data_uri(image: Image.Image) -> str:
    written = io.BytesIO()
    image.save(written, "jpeg", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode()


def described(panel: Panel, text: str, word: str, sign: str, map: Tensor, pairs: Panel | None = None) -> str:
    """The picture in words: what it shows, and where the map is strongest."""
    if word and pairs is not None:
        return f"{pairs.method}: which patches go with the word {word!r} in {text!r}. Strongest {strongest(map)}."
    of = f"the word {word!r} in {text!r}" if word else f"{text!r}"
    what = {"for": "speaks for", "against": "speaks against", "both": "speaks for and against"}[sign]
    if float(map.max()) <= 0:
        return f"{panel.method}: what {what} {of}. There is {NOTHING}."
    if bool(degenerate(map)):
        return f"{panel.method}: what {what} {of}. The map is the same everywhere."
    return f"{panel.method}: what {what} {of}. Strongest {strongest(map.abs() if sign == 'both' else map)}."


def strongest(map: Float[Tensor, "grid_h grid_w"]) -> str:
    """Where a map's maximum lies, in words, by thirds of the image."""
    row, column = divmod(int(map.argmax()), map.shape[1])
    third = (3 * row // map.shape[0], 3 * column // map.shape[1])
    if third == (1, 1):
        return "in the middle"
    return f"at the {('top', '', 'bottom')[third[0]]} {('left', '', 'right')[third[1]]}".replace("  ", " ").strip()


def card(state: State, found: Found, index: int, hover: list[list[Tensor]] | None = None) -> str:
    """One text as HTML: its score, and for each panel its picture, behind it those of its words."""
    text, score = state.texts[index], score_of(state, found, index)
    words = found.words[index][0] if found.words else []
    figures = []
    for number in range(len(state.panels)):
        rows = [(state.word(index), found.maps[number][index])]
        if hover:
            rows += zip(("", *words), hover[number], strict=False)
        figures.append(figure(state, number, text, rows, score))
    head = f'<div class="cx-head"><strong>{html.escape(text)}</strong><span>{score}</span></div>'
    return f'{head}<div class="cx-pair">{"".join(figures)}</div>'


def score_of(state: State, found: Found, index: int) -> str:
    """A text's score, and its probability, in words."""
    score = f"{found.kind} {found.scores[index]:.3f}"
    if found.probability == "sigmoid":
        return f"{score} · probability {found.shares[index]:.1%}"
    return f"{score} · {found.shares[index]:.0%} among these texts" if len(state.texts) > 1 else score


def figure(state: State, number: int, text: str, rows: Sequence[tuple[str, Tensor]], score: str) -> str:
    """A panel's pictures of a text as HTML: the one that is shown, then those for the pointer; the image behind all."""
    panel, pairs, shown = state.panels[number], state.pairs_of(number), shrunk(state.source.image, SIDE)
    pictures = [picture(shown, map, state.evidence, state.fit) for _, map in rows]
    images = ""
    for (word, map), each in zip(rows, pictures, strict=True):
        says = described(panel, text, word, state.evidence, map, pairs)
        images += f'<img src="{data_uri(each)}" alt="{html.escape(says)}">'
    word, map = rows[0]
    method = pairs.method if word and pairs else panel.method
    caption = f"{html.escape(method)}{remark(map, state.evidence)}"
    named = f"{method}, {word} in {text}" if word else f"{method}, {text}"
    ground = f'<div class="cx-map" style="background-image: url({data_uri(shown)})">{images}</div>'
    link = saved(pictures[0], named, score)
    return f"<figure>{ground}<figcaption>{caption} {link}</figcaption></figure>"


def saved(image: Image.Image, named: str, score: str) -> str:
    """A link that saves a picture with what it shows and the score written below it."""
    name = "".join(letter if letter.isalnum() else "_" for letter in named)[:80]
    return f'<a download="{name}.jpg" href="{data_uri(labelled(image, [named, score]))}">save</a>'


def labelled(image: Image.Image, lines: Sequence[str]) -> Image.Image:
    """An image with lines of text on white below it, each no wider than the image."""
    font = ImageFont.truetype(findfont("DejaVu Sans"), LETTERS)
    broken = [part for line in lines for part in textwrap.wrap(line, max(8, int(image.width / (0.62 * LETTERS))))]
    step = round(1.4 * LETTERS)
    page = Image.new("RGB", (image.width, image.height + step * len(broken) + step // 2), "white")
    page.paste(image, (0, 0))
    for number, line in enumerate(broken):
        ImageDraw.Draw(page).text((4, image.height + step // 4 + number * step), line, "black", font)
    return page


def colour_strip(sign: str) -> Image.Image:
    """The colours of a map over white, from its least to its largest value: those of `blend`."""
    values = torch.linspace(-1.0 if sign == "both" else 0.0, 1.0, 120).repeat(2, 1)
    return picture(Image.new("RGB", (120, 12), "white"), values, sign, "full")


def remark(map: Tensor, sign: str) -> str:
    """The remark below a map's picture, if one is needed."""
    if float(map.max()) <= 0:
        return f": {NOTHING}"
    if bool(degenerate(map)):
        return ": the same everywhere"
    return f": {LEGEND['both']}" if sign != "both" and has_sign(map) else ""


def source_card(state: State) -> str:
    """The bare image, as the first card."""
    shown = shrunk(state.source.image, SIDE)
    name = html.escape(state.source.name)
    image = f'<img src="{data_uri(shown)}" alt="{name}, as it is">'
    head = f'<div class="cx-head"><strong>the image</strong><span>{name}</span></div>'
    return f'{head}<div class="cx-pair"><figure>{image}</figure></div>'


def word_colours(scope: str, words: Sequence[str], values: Tensor, unknown: Sequence[str]) -> str:
    """CSS that colours the buttons of a text's words by their weights, and underlines those the model never learned.

    The first button is the whole text.
    """
    found = ""
    for place, (word, colour) in enumerate(zip(words, shades(values), strict=True), 2):
        line = "; text-decoration: underline wavy #D55E00" if word in unknown else ""
        look = f"background: {to_hex(colour)} !important; color: black !important{line}"
        found += f"{scope} button:nth-of-type({place}) {{{look}}}\n"
    return found


def unlike(words: Sequence[str]) -> list[str]:
    """Distinct labels for words: a repeated word gets characters of zero width, since widgets need distinct labels."""
    return [word + "\u200b" * list(words[:i]).count(word) for i, word in enumerate(words)]
