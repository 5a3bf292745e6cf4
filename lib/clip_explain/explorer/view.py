"""What the explorer shows, as plain functions from its state to maps, pictures, HTML and lines of Python.

Below app.py, which holds the widgets; above the explainers and plots. Nothing here uses widgets.
"""

import base64
import html
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.colors import to_hex
from PIL import Image
from torch import Tensor

from clip_explain.directions import targets, without_word
from clip_explain.errors import TextError
from clip_explain.explainers import METHODS, explain_words
from clip_explain.images import preprocess, shrunk
from clip_explain.maps import degenerate, has_sign
from clip_explain.models.model import Model
from clip_explain.models.outside import outside
from clip_explain.plots.overlay import NOTHING, blend
from clip_explain.plots.words import shades
from clip_explain.request import Request

EVIDENCE = {"for the text": "for", "against it": "against", "both": "both"}
LEGEND = {
    "for": "bright: speaks for the text",
    "against": "bright: speaks against the text",
    "both": "orange: for the text; purple: against it",
}
WAYS = {"what it adds to the text": "added", "itself, alone": "alone"}
MOST_TEXTS = 6
SIDE = 336  # px, of a picture's longer side
QUALITY = 88  # of its JPEG
KEPT = 300  # maps that are kept
Asked = tuple[tuple[str, str], ...]  # texts, each with the word whose map is wanted, or ""
Words = list[tuple[list[str], Tensor]]  # of each text


@dataclass(frozen=True, eq=False)
class Source:
    """An image to explain: its name, its pixels, the Python that gets it, and texts to begin with."""

    name: str
    image: Image.Image
    python: str
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Panel:
    """A method and those of its options that differ from its own defaults."""

    method: str
    options: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class State:
    """The user's choices, which determine everything that the explorer shows.

    `panels`: one method, or two side by side. `words`: the method of the words' weights; None for a model whose words
    cannot be explained. `picked`: for each text the word whose map is shown, "" for the whole text. `evidence` and
    `way` are values of EVIDENCE and WAYS.
    """

    source: Source
    texts: tuple[str, ...]
    panels: tuple[Panel, ...]
    words: Panel | None = None
    fit: str = "full"
    evidence: str = "for"
    way: str = "added"
    picked: tuple[str, ...] = ()

    def word(self, index: int) -> str:
        return self.picked[index] if index < len(self.picked) else ""

    @property
    def asked(self) -> Asked:
        return tuple((text, self.word(i)) for i, text in enumerate(self.texts))


@dataclass(frozen=True)
class Found:
    """What was computed for a state: scores and shares by text, maps by panel and text, each text's words.

    `probability` says what a share is: a text's "softmax" among all, or its own "sigmoid". `warnings`: what lies
    outside the world that an embedded model was trained on.
    """

    kind: str  # "cosine", or "logit" of a classifier
    scores: list[float]
    shares: list[float]
    maps: list[list[Tensor]]
    words: Words
    warnings: tuple[str, ...] = ()
    probability: str = "softmax"


# -- computing


def texts_of(typed: str) -> tuple[str, ...]:
    """The texts, one on each line; empty lines are ignored. TextError for none or too many."""
    texts = tuple(line.strip() for line in typed.splitlines() if line.strip())
    if not texts:
        raise TextError("there is no text: type at least one, one a line")
    if len(texts) > MOST_TEXTS:
        raise TextError(f"got {len(texts)} texts, at most {MOST_TEXTS} are shown at once: take some away")
    return texts


def compute(model: Model, state: State, memory: dict, stale: Callable[[], bool] = lambda: False) -> Found | None:
    """The maps, scores and words of a state; None once `stale` reports that a newer state is wanted.

    `memory` keeps maps under what they depend on, so that returning to a state is free. Raises the library's errors.
    """
    pixels = preprocess(model, state.source.image, state.fit)
    towards = targets(model, list(state.texts))
    scores = model.score(model.embed_images(pixels), towards)[0].float()
    shares = model.probabilities(scores)
    maps = []
    for panel in state.panels:
        if stale():
            return None
        maps.append(remembered_maps(model, pixels, state, panel, state.asked, memory))
    if stale():
        return None
    said = tuple(outside(model, [state.source.image], state.texts))
    words = weights(model, pixels, state)
    return Found(model.score_name, scores.tolist(), shares.tolist(), maps, words, said, model.probability)


def weights(model: Model, pixels: Tensor, state: State) -> Words:
    """Each text's words and their weights for the image, or against it; none where words cannot be explained."""
    if state.words is None:
        return []
    image = model.embed_images(pixels)
    method, options = state.words.method, dict(state.words.options)
    found = [explain_words(model, sign * image, list(state.texts), method, per="word", **options) for sign in (1, -1)]
    mixed = {"for": (1, 0), "against": (0, 1), "both": (1, -1)}[state.evidence]
    return [
        (words, (mixed[0] * plus[0] + mixed[1] * minus[0]).cpu())
        for (words, plus), (_, minus) in zip(*found, strict=True)
    ]


def remembered_maps(
    model: Model, pixels: Tensor, state: State, panel: Panel, asked: Asked, memory: dict
) -> list[Tensor]:
    """A panel's map for each text asked for, or for a word of it."""
    key = (model.name, model.sha256, state.source, state.fit, panel, state.evidence, state.way, asked)
    if key not in memory:
        while len(memory) >= KEPT:
            memory.pop(next(iter(memory)))
        request = Request(model, pixels, directions(model, asked, state.way))
        memory[key] = list(evidence(request, panel, state.evidence).cpu())
    return memory[key]


def directions(model: Model, asked: Asked, way: str) -> Float[Tensor, "asked embedding"]:
    """The explained directions: of texts, or of words, as their contribution to the text or as separate texts."""
    found = {}
    for text, group in groupby(asked, key=lambda pair: pair[0]):
        words = list(dict.fromkeys(word for _, word in group if word))
        found[text, ""] = targets(model, text)
        if words:
            rows = without_word(model, text, words) if way == "added" else targets(model, words)
            found |= {(text, word): row[None] for word, row in zip(words, rows, strict=True)}
    return torch.cat([found[pair] for pair in asked])


def evidence(request: Request, panel: Panel, sign: str) -> Float[Tensor, "targets grid_h grid_w"]:
    """A panel's maps of the evidence for the targets, against them, or of the difference of the two."""
    explainer, options = METHODS[panel.method].image, dict(panel.options)
    if sign == "for":
        return explainer(request, **options)[0]
    against = explainer(replace(request, targets=-request.targets), **options)[0]
    return against if sign == "against" else explainer(request, **options)[0] - against


def word_maps(
    model: Model, state: State, index: int, words: Sequence[str], memory: dict, stale: Callable[[], bool]
) -> list[list[Tensor]] | None:
    """For each panel the maps of one whole text and of its words; empty for a slow method; None if stale."""
    pixels, text, found = preprocess(model, state.source.image, state.fit), state.texts[index], []
    asked = tuple((text, word) for word in ("", *words))
    for panel in state.panels:
        rows = []
        if METHODS[panel.method].by_set:
            for pair in asked:
                if stale():
                    return None
                among = tuple(pair if i == index else other for i, other in enumerate(state.asked))
                rows.append(remembered_maps(model, pixels, state, panel, among, memory)[index])
        elif not METHODS[panel.method].slow:  # a slow method's map of a word is computed when the word is clicked
            if stale():
                return None
            rows = remembered_maps(model, pixels, state, panel, asked, memory)
        found.append(rows)
    return found


# -- pictures


def picture(image: Image.Image, map: Tensor, sign: str, fit: str) -> Image.Image:
    """A map over its image by the rule of `blend`; evidence of both signs always in the colours of a sign."""
    mixed = blend(image, map, fit, signed=True if sign == "both" else None)
    return Image.fromarray((255 * mixed).round().astype(np.uint8))


def data_uri(image: Image.Image) -> str:
    written = io.BytesIO()
    image.save(written, "jpeg", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode()


def described(panel: Panel, text: str, word: str, sign: str, map: Tensor) -> str:
    """The picture in words: what it shows, and where the map is strongest."""
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
    text, shown = state.texts[index], shrunk(state.source.image, SIDE)
    words = found.words[index][0] if found.words else []
    score = f"{found.kind} {found.scores[index]:.3f}"
    if found.probability == "sigmoid":
        score += f" &middot; probability {found.shares[index]:.1%}"
    elif len(state.texts) > 1:
        score += f" &middot; {found.shares[index]:.0%} among these texts"
    figures = []
    for number, panel in enumerate(state.panels):
        rows = [(state.word(index), found.maps[number][index])]
        if hover:
            rows += zip(("", *words), hover[number], strict=False)
        images = "".join(
            f'<img src="{data_uri(picture(shown, map, state.evidence, state.fit))}" '
            f'alt="{html.escape(described(panel, text, word, state.evidence, map))}">'
            for word, map in rows
        )
        caption = f"{html.escape(panel.method)}{remark(rows[0][1], state.evidence)} {saved(shown, rows[0][1], state)}"
        figures.append(f"<figure>{images}<figcaption>{caption}</figcaption></figure>")
    head = f'<div class="cx-head"><strong>{html.escape(text)}</strong><span>{score}</span></div>'
    return f'{head}<div class="cx-pair">{"".join(figures)}</div>'


def saved(image: Image.Image, map: Tensor, state: State) -> str:
    """A link that saves the picture of a map."""
    return f'<a download="map.jpg" href="{data_uri(picture(image, map, state.evidence, state.fit))}">save</a>'


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


def word_colours(scope: str, values: Tensor) -> str:
    """CSS that colours the buttons of a text's words by their weights; the first button is the whole text."""
    return "".join(
        f"{scope} button:nth-of-type({place}) {{background: {to_hex(colour)} !important; color: black !important}}\n"
        for place, colour in enumerate(shades(values), 2)
    )


def unlike(words: Sequence[str]) -> list[str]:
    """Distinct labels for words: a repeated word gets characters of zero width, since widgets need distinct labels."""
    return [word + "\u200b" * list(words[:i]).count(word) for i, word in enumerate(words)]
