"""What the explorer shows: the user's choices as one state, and the maps, scores and words that are computed of it.

Below pictures.py and code.py, which draw it; above the explainers. Nothing here uses widgets.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from clip_explain.directions import targets, without_word
from clip_explain.errors import TextError
from clip_explain.explainers import METHODS, explain_words
from clip_explain.explainers.interactions import Interactions, make_pair
from clip_explain.images import preprocess
from clip_explain.models.model import Model
from clip_explain.models.outside import outside, unknown_words
from clip_explain.request import Request

EVIDENCE = {"for the text": "for", "against it": "against", "both": "both"}
WAYS = {"what it adds to the text": "added", "the word alone": "alone"}
SAMPLED = {"rise": "masks", "shapley": "samples"}  # methods that are drawn first from few samples: the option
PARTS = (1 / 16, 1 / 4)  # of the samples, drawn before all of them
MOST_TEXTS = 6
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
    `way` are values of EVIDENCE and WAYS. `pairs`: a method for pairs of patches and words, by which the first method's
    pictures show a picked word's interaction with each patch; None: the word's map, by `way`.
    """

    source: Source
    texts: tuple[str, ...]
    panels: tuple[Panel, ...]
    words: Panel | None = None
    fit: str = "full"
    evidence: str = "for"
    way: str = "added"
    picked: tuple[str, ...] = ()
    pairs: Panel | None = None

    def pairs_of(self, panel: int) -> Panel | None:
        """The method for pairs by which a panel, from 0, shows a word."""
        return self.pairs if panel == 0 else None

    def word(self, index: int) -> str:
        return self.picked[index] if index < len(self.picked) else ""

    @property
    def asked(self) -> Asked:
        return tuple((text, self.word(i)) for i, text in enumerate(self.texts))


@dataclass(frozen=True)
class Found:
    """What was computed for a state: scores and shares by text, maps by panel and text, each text's words.

    `probability` says what a share is: a text's "softmax" among all, or its own "sigmoid". `warnings`: what lies
    outside the world that an embedded model was trained on. `unknown`: the words that it never learned.
    """

    kind: str  # "cosine", or "logit" of a classifier
    scores: list[float]
    shares: list[float]
    maps: list[list[Tensor]]
    words: Words
    warnings: tuple[str, ...] = ()
    probability: str = "softmax"
    unknown: tuple[str, ...] = ()


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
    for number in range(len(state.panels)):
        if stale():
            return None
        maps.append(asked_maps(model, pixels, state, number, memory))
    if stale():
        return None
    said = tuple(outside(model, [state.source.image], state.texts))
    words, unknown = weights(model, pixels, state), tuple(unknown_words(model, state.texts))
    return Found(model.score_name, scores.tolist(), shares.tolist(), maps, words, said, model.probability, unknown)


def waiting(state: State) -> str:
    """What the page says while it computes a state; it names the methods that take long."""
    clicked = state.pairs is not None and any(state.picked)
    asked = [*state.panels, state.pairs] if clicked else state.panels
    slow = dict.fromkeys(METHODS[panel.method].title for panel in asked if METHODS[panel.method].slow)
    return f"computing {' and '.join(slow)}, which takes some seconds" if slow else "computing"


def drafts(state: State) -> list[tuple[State, str]]:
    """States with fewer samples that are drawn before this one, and what is said of each; the last is this one.

    A sampling method's picture so appears soon and grows finer. Only the last state's picture is that of the code.
    """
    found = [_part(state, part) for part in PARTS if any(panel.method in SAMPLED for panel in state.panels)]
    return [*found, (state, "")]


def _part(state: State, part: float) -> tuple[State, str]:
    panels, said = [], []
    for panel in state.panels:
        name = SAMPLED.get(panel.method)
        if name is not None:
            options = dict(panel.options)
            samples = options.get(name, METHODS[panel.method].options_for()[name].default)
            options[name] = max(1, round(part * samples))
            said.append(f"{panel.method}: {options[name]} of {samples} {name}")
            panel = Panel(panel.method, tuple(options.items()))
        panels.append(panel)
    return replace(state, panels=tuple(panels)), ", ".join(said)


def asked_maps(model: Model, pixels: Tensor, state: State, number: int, memory: dict) -> list[Tensor]:
    """The map that a panel shows of each text: of the whole text, of its picked word, or of the word's interactions."""
    panel = state.panels[number]
    pairs = state.pairs_of(number)
    if pairs is None:
        return remembered_maps(model, pixels, state, panel, state.asked, memory)
    maps = list(remembered_maps(model, pixels, state, panel, tuple((text, "") for text in state.texts), memory))
    for index, (text, word) in enumerate(state.asked):
        if word:
            found = remembered_pairs(model, pixels, state, pairs, text, memory)
            maps[index] = word_pairs(found, word, state.evidence)
    return maps


def remembered_pairs(model: Model, pixels: Tensor, state: State, pairs: Panel, text: str, memory: dict) -> Interactions:
    """The interactions of a text's words with the patches, by a method for pairs."""
    key = pairs_key(model, state, text)
    if key not in memory:
        forget(memory)
        memory[key] = METHODS[pairs.method].pairs(make_pair(model, pixels, text), **dict(pairs.options))
    return memory[key]


def pairs_key(model: Model, state: State, text: str) -> tuple:
    """Under what a text's interactions are remembered."""
    return (model.name, model.sha256, state.source, state.fit, state.pairs, text)


def word_pairs(found: Interactions, word: str, sign: str) -> Float[Tensor, "grid_h grid_w"]:
    """A word's interaction with each patch, or its negative as evidence against the text."""
    map = found.pairs[found.names.index(word)].cpu()
    return -map if sign == "against" else map


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
        forget(memory)
        request = Request(model, pixels, directions(model, asked, state.way))
        memory[key] = list(evidence(request, panel, state.evidence).cpu())
    return memory[key]


def forget(memory: dict) -> None:
    """Make room for one more; the oldest go first."""
    while len(memory) >= KEPT:
        memory.pop(next(iter(memory)))


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
    """For each panel the maps of one whole text and of its words; empty for a slow method; None if stale.

    What a slow method, or one for pairs, says of a word is computed when the word is clicked.
    """
    pixels, text, found = preprocess(model, state.source.image, state.fit), state.texts[index], []
    asked = tuple((text, word) for word in ("", *words))
    for number, panel in enumerate(state.panels):
        rows = []
        if state.pairs_of(number) is not None:
            pairs = memory.get(pairs_key(model, state, text))
            if pairs is not None:
                whole = asked_maps(model, pixels, replace(state, picked=()), number, memory)[index]
                rows = [whole, *(word_pairs(pairs, word, state.evidence) for word in words)]
        elif METHODS[panel.method].by_set:
            for pair in asked:
                if stale():
                    return None
                among = tuple(pair if i == index else other for i, other in enumerate(state.asked))
                rows.append(remembered_maps(model, pixels, state, panel, among, memory)[index])
        elif not METHODS[panel.method].slow:
            if stale():
                return None
            rows = remembered_maps(model, pixels, state, panel, asked, memory)
        found.append(rows)
    return found
