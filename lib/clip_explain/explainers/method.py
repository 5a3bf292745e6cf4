"""The records `Method` and `Option`: all that is known about a method. The methods' own records are in registry.py.

Nothing here imports torch, so that the list of methods is printed quickly. A method's functions are imported when they
are first used.
"""

import functools
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from numbers import Integral, Real
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, get_args

from clip_explain.errors import MethodError, brief, nearest

if TYPE_CHECKING:
    from torch import Tensor

    from clip_explain.explainers.interactions import Interactions

MOST = 10**9  # the largest count that is accepted

# What an image encoder is (`Model.encoder`) -> in words.
TOWERS = {
    "class": "a vision transformer",
    "attention": "a vision transformer pooled by attention",
    "mean": "a vision transformer pooled by the mean",
    "resnet": "a ResNet",
    "convolutional": "a convolutional network",
    "other": "a model of which only the forward is known",
}
VITS = ("class", "attention", "mean")
Kind = Literal["switch", "choice", "count", "number", "layers", "layer", "head", "text", "tensor", "seed"]


@dataclass(frozen=True)
class Option:
    """One option of a method: its default, what it does, and what it may be.

    `kind`: "switch" (True or False); "choice" (one of `choices`); "count" (a whole number) and "number" (any), from
    `least`, or `above`, to `most`; "layers" (how many of the last layers), "layer" (the number of one, from `least`;
    not the last where `before_last`) and "head", whose largest value depends on the model; "text"; "tensor"; "seed" (a
    whole number or a torch.Generator). `none` says what None means, where it is allowed; `or_tensor` allows a tensor,
    too. `quick` is a value with which a slow method can be tried quickly.
    """

    name: str
    kind: Kind
    default: Any
    says: str
    choices: tuple[str, ...] = ()
    least: int | float | None = None
    above: int | float | None = None
    most: int | float | None = None
    none: str = ""
    or_tensor: bool = False
    before_last: bool = False
    quick: Any = None

    @property
    def allowed(self) -> str:
        """The allowed values, in words."""
        words = {
            "switch": "True or False",
            "choice": "one of " + ", ".join(map(repr, self.choices)),
            "layers": "1 to the number of layers",
            "layer": f"{self.least} to the last layer" + (" but one" if self.before_last else ""),
            "head": "0 to the last head",
            "text": "a text, or several",
            "tensor": "a tensor",
            "seed": "a whole number or a torch.Generator",
            "count": "a whole number" + self._range(),
            "number": "a number" + self._range(),
        }[self.kind]
        tensor = ", or a tensor" if self.or_tensor else ""
        return words + tensor + (f", or None ({self.none})" if self.none else "")

    def bounds(self, depth: int) -> tuple[int, int]:
        """The least and the largest value of "layers" or "layer" in a tower of so many layers."""
        return (1, depth) if self.kind == "layers" else (int(self.least or 0), depth - 1 - self.before_last)

    def check(self, value: Any) -> None:
        """MethodError for a value of another type, or outside the range that every model has in common."""
        if not self._takes(value):
            raise MethodError(f"got {self.name}={brief(value)}, expected {self.allowed}")

    def read(self, text: str) -> Any:
        """The value of a text from a command line. MethodError for a text that is not an allowed value."""
        word = text.strip().lower()
        value: Any = text
        if word == "none" and self.none:
            value = None
        elif self.kind == "switch":
            value = {"true": True, "yes": True, "false": False, "no": False}.get(word, text)
        elif self.kind not in ("choice", "text"):
            with suppress(ValueError):
                value = float(text) if self.kind == "number" else int(text)
        self.check(value)
        return value

    def _range(self) -> str:
        parts = [f" of at least {self.least}"] if self.least is not None else []
        parts += [f" above {self.above}"] if self.above is not None else []
        parts += [f" of at most {self.most}"] if self.most is not None else []
        return " and".join(parts)

    def _takes(self, value: Any) -> bool:
        if value is None:
            return bool(self.none)
        if self.kind == "switch":
            return isinstance(value, bool)
        if self.kind == "choice":
            return isinstance(value, str) and value in self.choices
        if isinstance(value, bool | str):
            return isinstance(value, str) and self.kind == "text"
        if not isinstance(value, Real):  # a tensor, a generator, several texts: the method looks at these
            return self.or_tensor or self.kind in ("text", "tensor", "seed")
        if self.kind in ("text", "tensor"):
            return False
        return (self.kind == "number" or isinstance(value, Integral)) and self._holds(value)

    def _holds(self, value: int | float) -> bool:
        if self.kind in ("layers", "layer", "head"):  # the range is the model's, and the method names it
            return True
        if self.kind == "count" and value > MOST:
            return False
        if not -math.inf < value < math.inf or (self.least is not None and value < self.least):
            return False
        return (self.above is None or value > self.above) and (self.most is None or value <= self.most)


# The type of a parameter -> the kind of the option.
KINDS: dict[Any, Kind] = {bool: "switch", int: "count", float: "number", str: "text"}


def option_of(name: str, annotation: Any) -> Option:
    """The option for a parameter of a metric or a dataset's reader, from its annotation; "text" for other types."""
    types = get_args(annotation) or (annotation,)
    kind = next((KINDS[each] for each in types if each in KINDS), "text")
    return Option(name, kind, None, "", none="the default" if NoneType in types else "")


@dataclass(frozen=True)
class Method:
    """All that is known of a method; `METHODS` in registry.py has one record for each.

    `title` is its name in the papers, `paper` and `year` are its source (None: the report has no date), and `says`
    describes its map in one sentence. `options` are those of its function for images, `word_options` those for words
    and `pair_options` those for pairs of patches and words; each is None if the method has no such function. `towers`
    are the image encoders that it supports, a subset of TOWERS. `classifiers`: it also explains a classifier's logit;
    the other methods compare patches with a direction by the cosine. `signed`: 0 is neutral, and values below 0 count
    against the target. `slow`: it runs many forwards. `by_set`: its map depends on the other targets. `spoken`:
    it also explains the words of a model that embeds texts by a tower which we cannot read.
    """

    name: str
    title: str
    paper: str
    year: int | None
    says: str
    options: tuple[Option, ...] | None = ()
    word_options: tuple[Option, ...] | None = None
    pair_options: tuple[Option, ...] | None = None
    towers: tuple[str, ...] = ("class",)
    classifiers: bool = False
    signed: bool = False
    slow: bool = False
    by_set: bool = False
    spoken: bool = False

    @property
    def image(self) -> Callable[..., "Tensor"]:
        """Its function for images: (Request, options) -> raw maps. MethodError if it has none.

        Where the tower has fewer layers than a default asks for, all of them are taken; an option that is given is not
        changed.
        """
        from clip_explain.checks import guarded
        from clip_explain.explainers.functions import IMAGE_FUNCTIONS

        if self.options is None:
            raise MethodError(f"{self.name} explains words, not images")
        return guarded(self._in_depth(IMAGE_FUNCTIONS[self.name]))

    @property
    def words(self) -> Callable[..., "Tensor"]:
        """Its function for words: (WordRequest, options) -> raw weights. MethodError if it has none. As in `image`,
        a default takes no more layers than there are."""
        from clip_explain.checks import guarded
        from clip_explain.explainers.functions import WORD_FUNCTIONS

        if self.word_options is None:
            raise MethodError(f"{self.name} explains images, not words")
        return guarded(self._in_depth(WORD_FUNCTIONS[self.name], words=True))

    @property
    def spoken_words(self) -> "Callable[..., list[tuple[list[str], Tensor]]]":
        """Its function for texts as they are written. MethodError if it has none."""
        from clip_explain.explainers.functions import SPOKEN_FUNCTIONS

        if not self.spoken:
            raise MethodError(f"{self.name} reads the layers of a text tower")
        return SPOKEN_FUNCTIONS[self.name]

    @property
    def pairs(self) -> "Callable[..., Interactions]":
        """Its function for one image and one text: (Pair, options) -> Interactions. MethodError if it has none."""
        from clip_explain.explainers.functions import PAIR_FUNCTIONS

        if self.pair_options is None:
            raise MethodError(f"{self.name} explains no pairs of patches and words")
        return PAIR_FUNCTIONS[self.name]

    @property
    def needs(self) -> str:
        """Which models it takes, in words."""
        if self.options is None:
            return self.word_needs if self.pair_options is None else "a ViT and a text tower"
        return f"{self.encoders}, a classifier too" if self.classifiers else self.encoders

    @property
    def word_needs(self) -> str:
        """Which text encoders it takes, in words."""
        return "any text encoder" if self.spoken else "a text tower"

    @property
    def encoders(self) -> str:
        """Which image encoders it takes, in words."""
        if len(self.towers) == len(TOWERS):
            return "any image encoder"
        named = [TOWERS[name] for name in self.towers]
        if set(VITS) <= set(self.towers):
            named = ["a vision transformer of any pooling", *(TOWERS[name] for name in self.towers if name not in VITS)]
        return " or ".join(named)

    @property
    def resnets(self) -> bool:
        """Whether it takes a ResNet as well as a ViT."""
        return "resnet" in self.towers

    def options_for(self, words: bool = False) -> dict[str, Option]:
        """The options of its function for images, or for words, by name."""
        options = self.word_options if words else self.options
        return {option.name: option for option in options or ()}

    def defaults_in(self, depth: int, words: bool = False) -> dict[str, int]:
        """The defaults that are too large for a tower of so many layers, each as the largest value that it takes.

        The papers' towers have twelve layers: 8 of them are all 4 of a tower of four.
        """
        counted = [each for each in self.options_for(words).values() if each.kind in ("layers", "layer")]
        largest = {each.name: each.bounds(depth)[1] for each in counted if each.default is not None}
        return {name: most for name, most in largest.items() if self.options_for(words)[name].default > most}

    def check_options(self, options: dict[str, Any], words: bool = False) -> None:
        """MethodError for an option that the method does not have or a value that it cannot take."""
        self._check(options, self.options_for(words))

    def check_pair_options(self, options: dict[str, Any]) -> None:
        """As `check_options`, of its function for pairs of patches and words."""
        self._check(options, {option.name: option for option in self.pair_options or ()})

    def _in_depth(self, function: Callable[..., "Tensor"], words: bool = False) -> Callable[..., "Tensor"]:
        """The function with defaults that the request's tower has the layers for."""

        @functools.wraps(function)
        def call(request, **options) -> "Tensor":
            fewer = self.defaults_in(request.depth, words) if request.depth else {}
            return function(request, **{**fewer, **options})

        return call

    def _check(self, options: dict[str, Any], known: dict[str, Option]) -> None:
        for name, value in options.items():
            if name not in known:
                raise MethodError(f"{self.name} has no option {name!r}: {nearest(name, known)}")
            known[name].check(value)
