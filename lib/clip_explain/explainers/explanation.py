"""What `explain` and `explain_words` return: the maps or the words' weights, with all that is needed to read them.

Above the plots, which draw it; the explainers themselves return plain tensors.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.utils._pytree import tree_map

from clip_explain import files
from clip_explain.directions import Targets
from clip_explain.errors import ModelError, OutputError
from clip_explain.images import colours, listed, shrunk
from clip_explain.maps import has_sign
from clip_explain.models.model import Model
from clip_explain.models.outside import is_foreign
from clip_explain.request import Request, SpokenRequest, WordRequest, scores

FOREIGN = "no picture of the world it learned from"
FORMATS = (".png", ".pdf", ".svg")


def _operator(function: Callable, swapped: bool = False) -> Callable:
    """A method that applies an operator of torch to the maps and another value."""

    def apply(self, *other):
        return function(*other, self.maps) if swapped else function(self.maps, *other)

    return apply


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """Raw maps of every image for every target, and what they explain.

    It works as the tensor `maps` wherever one is expected: indexing, arithmetic, torch's functions and methods
    (`shape`, `cpu()`), and `numpy.asarray`.

    `request` holds the model, its pixels and the explained directions. `targets` are names for figures. `fit` says
    which part of each image the maps cover (see `preprocess`). `fit` and `images` are None if preprocessed pixels were
    given. `unknown` are words of the targets that an embedded model has never learned.
    """

    maps: Float[Tensor, "images targets grid_h grid_w"]
    request: Request
    targets: tuple[str, ...]
    method: str
    fit: str | None = None
    images: tuple[Image.Image, ...] | None = None
    unknown: tuple[str, ...] = ()

    @property
    def score(self) -> str:
        """The name of the score that is explained: "cosine", or "logit" of a classifier."""
        return self.request.model.score_name

    @cached_property
    def scores(self) -> Float[Tensor, "images targets"]:
        """The score of every image and target, computed by one forward when first asked for.

        ModelError if the model's weights have been changed since the maps were made.
        """
        return _scores(self.request, self._weights)

    @cached_property
    def pictures(self) -> tuple[Image.Image, ...]:
        """The images that were given, or preprocessed pixels turned back into images."""
        return _pictures(self.request) if self.images is None else self.images

    def show(self, image: int | None = None) -> np.ndarray:
        """Draw each image and its maps side by side, with method, fit and scores; returns the figure's axes.

        `image` selects a single image by its index. Each map is drawn on its part of the image (see `maps.on_source`).
        """
        from clip_explain import plots  # not before: it brings matplotlib along

        chosen = range(len(self.maps)) if image is None else [range(len(self.maps))[image]]
        rows = [self._panels(index) for index in chosen]
        columns = 1 + len(self.targets) if len(rows) > 1 else min(4, 1 + len(self.targets))
        panels = [panel for row in rows for panel in row]
        pictures, maps, titles = zip(*panels, strict=True)
        look = {"fit": self.fit, "signed": has_sign(self.maps), "bar": True}
        return plots.grid([shrunk(each) for each in pictures], maps, titles, columns, **look)

    def save(self, path: str | Path, image: int | None = None) -> Path:
        """Write the figure of `show` to a .png, .pdf or .svg, complete or not there. OutputError if that fails."""
        return save_axes(self.show, path, image)

    def _panels(self, index: int) -> list[tuple[Image.Image, Tensor | None, str]]:
        picture = self.pictures[index]
        fitted = "" if self.fit is None else f", fit {self.fit}"
        foreign = f"\n{FOREIGN}" if is_foreign(self.request.model, picture) and self.images is not None else ""
        found: list[tuple[Image.Image, Tensor | None, str]] = []
        found.append((picture, None, f"{self.request.model.name}, {self.method}{fitted}{foreign}"))
        for name, map, value in zip(self.targets, self.maps[index], self.scores[index].tolist(), strict=True):
            found.append((picture, map, f"{name}\n{self.score} {value:.3f}{_never_learned(name, self.unknown)}"))
        return found

    def __post_init__(self):
        object.__setattr__(self, "_weights", _versions(self.request.model))

    def __repr__(self) -> str:
        shape, model = tuple(self.maps.shape), self.request.model.name
        return f"Explanation({self.method} of {model}, maps {shape}, targets {self.targets}, fit {self.fit})"

    # -- as a tensor

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.maps.detach().cpu().numpy(), dtype)

    def __dlpack__(self, **options: Any) -> Any:  # what torch.as_tensor asks for
        return self.maps.detach().__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.maps.__dlpack_device__()

    @classmethod
    def __torch_function__(cls, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        def as_tensor(value: Any) -> Any:
            return value.maps if isinstance(value, cls) else value

        return function(*tree_map(as_tensor, args), **tree_map(as_tensor, kwargs or {}))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"an Explanation has no {name!r}")
        return getattr(self.maps, name)

    def __getitem__(self, index: Any) -> Tensor:
        return self.maps[index]

    def __len__(self) -> int:
        return len(self.maps)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.maps)

    __hash__ = object.__hash__
    __add__, __radd__ = _operator(torch.add), _operator(torch.add, swapped=True)
    __sub__, __rsub__ = _operator(torch.sub), _operator(torch.sub, swapped=True)
    __mul__, __rmul__ = _operator(torch.mul), _operator(torch.mul, swapped=True)
    __truediv__, __rtruediv__ = _operator(torch.div), _operator(torch.div, swapped=True)
    __pow__, __neg__, __abs__ = _operator(torch.pow), _operator(torch.neg), _operator(torch.abs)
    __eq__, __ne__ = _operator(torch.eq), _operator(torch.ne)
    __lt__, __le__ = _operator(torch.lt), _operator(torch.le)
    __gt__, __ge__ = _operator(torch.gt), _operator(torch.ge)


@dataclass(frozen=True, eq=False, repr=False)
class WordExplanation:
    """For each text its tokens or words, and their raw weights for every image; it works as a list of these pairs.

    Its `request` has the model, the texts' tokens and the images' directions. `images` is None where the images' own
    embeddings or preprocessed pixels were given; `fit` as in `Explanation`.
    """

    words: tuple[tuple[list[str], Tensor], ...]  # each weight (images, tokens)
    request: WordRequest | SpokenRequest
    texts: tuple[str, ...]
    method: str
    fit: str | None = None
    images: tuple[Image.Image, ...] | None = None
    unknown: tuple[str, ...] = ()

    @property
    def score(self) -> str:
        """The name of the score that is explained: "cosine"."""
        return self.request.model.score_name

    @cached_property
    def scores(self) -> Float[Tensor, "texts images"]:
        """The score of every text and image, computed when first asked for; ModelError as for an `Explanation`."""
        return _scores(self.request, self._weights)

    def show(self, image: int | None = None) -> np.ndarray:
        """Draw every text below each image, its words coloured by their weights; returns the figure's axes."""
        from clip_explain import plots  # not before: it brings matplotlib along

        count = self.scores.shape[1]
        chosen = range(count) if image is None else [range(count)[image]]
        panels = [(index, number) for index in chosen for number in range(len(self.texts))]
        titles = [
            f"{self.method}, {self.score} {self.scores[number, index]:.3f}"
            + _never_learned(self.texts[number], self.unknown)
            for index, number in panels
        ]
        pictures = [None if self.images is None else shrunk(self.images[index]) for index, _ in panels]
        said = [(self.words[number][0], self.words[number][1][index].cpu()) for index, number in panels]
        return plots.word_panels(pictures, said, titles)

    def save(self, path: str | Path, image: int | None = None) -> Path:
        """Write the figure of `show` to a .png, .pdf or .svg, complete or not there. OutputError if that fails."""
        return save_axes(self.show, path, image)

    def __post_init__(self):
        object.__setattr__(self, "_weights", _versions(self.request.model))

    def __repr__(self) -> str:
        return f"WordExplanation({self.method} of {self.request.model.name}, {list(self.words)!r})"

    def __getitem__(self, index: Any) -> Any:
        return self.words[index]

    def __len__(self) -> int:
        return len(self.words)

    def __iter__(self) -> Iterator[tuple[list[str], Tensor]]:
        return iter(self.words)


def _never_learned(text: str, unknown: Sequence[str]) -> str:
    """A line of a title that names the words of a text that the model does not know."""
    words = [word for word in unknown if word in text.lower()]
    return f"\nnever learned: {', '.join(words)}" if words else ""


def target_names(spec: Targets) -> tuple[str, ...]:
    """Names of targets for figures: texts and classes themselves, images by file name, directions by number."""
    if isinstance(spec, Tensor):
        return tuple(f"target {index}" for index in range(1, 1 + len(spec)))
    if isinstance(spec, int):
        return (_target_name(spec, 1),)
    each = spec if isinstance(spec, list | tuple) else listed(spec)
    return tuple(_target_name(target, index) for index, target in enumerate(each, 1))


def _target_name(target: Any, index: int) -> str:
    if isinstance(target, str | int):
        return str(target)
    name = target if isinstance(target, os.PathLike) else getattr(target, "filename", "") or getattr(target, "name", "")
    return Path(name).name if name else f"image {index}"


def save_axes(draw: Callable[[int | None], np.ndarray], path: str | Path, image: int | None = None) -> Path:
    """Draw a figure, write it to `path` by its suffix, and close it."""
    import matplotlib.pyplot as plt  # not before: a sweep does without

    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise OutputError(f"cannot write {path}: its name must end in one of {', '.join(FORMATS)}")
    figure = draw(image).flat[0].figure
    try:
        files.write(path, lambda place: figure.savefig(place, format=path.suffix[1:].lower()))
    finally:
        plt.close(figure)
    return path


def _versions(model: Model) -> tuple[int, ...]:
    """The number of changes in place of each parameter, as torch counts them."""
    return tuple(parameter._version for parameter in model.network.parameters() if not parameter.is_inference())


def _scores(request: Request | WordRequest | SpokenRequest, weights: Sequence[int]) -> Tensor:
    if _versions(request.model) != weights:
        raise ModelError(f"the weights of {request.model.name} have changed since it was explained: explain it again")
    return scores(request)


def _pictures(request: Request) -> tuple[Image.Image, ...]:
    """Preprocessed pixels turned back into images; squashed images get their original aspect ratio back."""
    shown = colours(request.model, request.pixels).mul(255).round().byte()
    found = tuple(Image.fromarray(each.cpu().numpy()) for each in shown)
    if getattr(request.pixels, "fit", None) != "squash":
        return found
    sizes = zip(found, request.pixels.sizes, strict=True)
    return tuple(shrunk(image.resize((width, height))) for image, (height, width) in sizes)
