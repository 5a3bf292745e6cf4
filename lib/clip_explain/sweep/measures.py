"""The methods and metrics of a sweep, and the `Session` that a process keeps from image to image.

Below plan.py. A method is an explainer or one of two baselines; a metric takes a `Case` and gives one number a target.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
import torchvision.transforms.functional as TF
from jaxtyping import Bool, Float
from torch import Tensor

from clip_explain import explainers
from clip_explain.datasets import Dataset, Record
from clip_explain.directions import targets
from clip_explain.errors import DatasetError
from clip_explain.explainers.interactions import pair_maps
from clip_explain.explainers.registry import find_pair_method, names_of_pairs
from clip_explain.metrics import registry
from clip_explain.metrics.faithfulness import auc, confidence, perturbed_embeddings
from clip_explain.metrics.readouts import classification, cosines
from clip_explain.metrics.registry import Area, Confidence, Metric
from clip_explain.models.model import Model
from clip_explain.request import Request, WordRequest
from clip_explain.texts import BARE, Templates

TEXTS_KEPT = 20_000  # the most text features that a process keeps


@dataclass(frozen=True)
class Session:
    """The state that a process keeps from image to image: the model, the dataset, and features of texts.

    Texts and classes are put into `templates`, as `explain` does it.
    """

    model: Model
    dataset: Dataset
    templates: Templates = BARE
    texts: dict[str, Tensor] = field(default_factory=dict)

    def features(self, texts: tuple[str, ...]) -> Float[Tensor, "texts embedding"]:
        """Unit features of texts. Each is computed once and alone, since in a batch rounding depends on the others."""
        for text in texts:
            if text not in self.texts:
                if len(self.texts) >= TEXTS_KEPT:
                    self.texts.clear()
                self.texts[text] = targets(self.model, text, self.templates)[0]
        return torch.stack([self.texts[text] for text in texts])

    @cached_property
    def classes(self) -> Float[Tensor, "classes embedding"]:
        """Unit features of the dataset's classes. DatasetError if it has none."""
        if not self.dataset.classes:
            raise DatasetError(f"{self.dataset.name} has no classes, so there is no accuracy")
        return targets(self.model, list(self.dataset.classes), self.templates)


@dataclass(frozen=True)
class Case:
    """One method's maps of one image, and what a metric may compare them with.

    `masks`, and `ignore` (pixels that annotators left undecided), cover the same part of the image as the maps. `seed`
    belongs to the image and is the same for all methods. `kept` holds results that several metrics share.
    """

    session: Session
    request: Request
    record: Record
    masks: Bool[np.ndarray, "targets height width"] | None
    ignore: Bool[np.ndarray, "height width"] | None
    seed: int
    maps: Float[Tensor, "targets grid_h grid_w"]
    kept: dict = field(default_factory=dict)


# -- methods and metrics


def random_maps(
    request: Request, *, generator: torch.Generator | int = 0
) -> Float[Tensor, "images targets grid_h grid_w"]:
    """Uniform noise for every image and target, a baseline that a method must beat."""
    source = torch.Generator().manual_seed(generator) if isinstance(generator, int) else generator
    return torch.rand(_map_shape(request), generator=source, dtype=torch.float32).to(request.pixels.device)


def constant_maps(request: Request) -> Float[Tensor, "images targets grid_h grid_w"]:
    """Maps of a constant value, which carry no information."""
    return torch.ones(_map_shape(request), device=request.pixels.device, dtype=torch.float32)


def _map_shape(request: Request) -> tuple[int, int, int, int]:
    cell = request.model.patch_size
    height, width = request.pixels.shape[-2:]
    return len(request.pixels), len(request.targets), height // cell, width // cell


def maps_of(
    request: Request, method: str, options: Mapping[str, Any] | None = None, seed: int = 0
) -> Float[Tensor, "images targets grid_h grid_w"]:
    """The raw maps of one of METHODS with its own options; a method that draws at random uses the seed."""
    explainer = METHODS[method]
    drawn = {"generator": seed} if "generator" in explainers.options_of(explainer) else {}
    return explainer(request, **{**drawn, **(options or {})})


def weights_of(
    request: WordRequest, method: str, options: Mapping[str, Any] | None = None, seed: int = 0
) -> Float[Tensor, "texts images tokens"]:
    """The raw weights of words by an explainer with its own options; if it draws anything, it draws from the seed."""
    explainer = explainers.METHODS[method].words
    drawn = {"generator": seed} if "generator" in explainers.options_of(explainer) else {}
    return explainer(request, **{**drawn, **(options or {})})


def maps_for_texts(
    request: Request, texts: Sequence[str], method: str, options: Mapping[str, Any] | None = None, seed: int = 0
) -> Float[Tensor, "images targets grid_h grid_w"]:
    """`maps_of`, also of a method that explains pairs of a patch and a word, such as "fixlip": it reads the `texts`.

    The request's targets must be those of the texts. See `explainers.interactions.pair_maps`.
    """
    if method not in names_of_pairs():
        return maps_of(request, method, options, seed)
    drawn = {"generator": seed} if "generator" in explainers.options_of(find_pair_method(method).pairs) else {}
    return pair_maps(request.model, request.pixels, texts, method, **{**drawn, **(options or {})})


def _measure(name: str, metric: Metric) -> Callable[..., Tensor]:
    """How a sweep computes a metric of the registry: (case, own options) -> one number a target."""
    match metric.score:
        case Area(protocol, mode, readout):
            return _area(protocol, mode, readout)
        case Confidence(change):
            return _confidence(change)
    return partial(_localize, name, metric)


def _localize(name: str, metric: Metric, case: Case) -> Tensor:
    """A metric of maps against masks; pixels that annotators left undecided are not counted."""
    if case.masks is None:
        raise DatasetError(f"{case.record.id} has no masks, which {name} needs")
    return metric(case.maps, case.masks, case.ignore)


def _area(protocol: str, mode: str, readout: str) -> Callable[..., Tensor]:
    """The area under a perturbation curve; the readouts of one protocol and mode share its forwards."""

    def score(
        case: Case, *, every: int = 1, ties: str = "random", filled: str | None = None, batch_size: int = 64
    ) -> Tensor:
        key = (protocol, mode, every, ties, filled, batch_size)
        if key not in case.kept:
            request = case.request
            options = dict(every=every, ties=ties, filled=filled, batch_size=batch_size, seed=case.seed)
            case.kept[key] = perturbed_embeddings(
                request.model, request.pixels, case.maps[None], protocol, mode, **options
            )
        curve = _readout(case, readout)(case.kept[key])
        return auc(curve, protocol)[0]

    return score


def _readout(case: Case, name: str) -> Callable[[Tensor], Tensor]:
    if name == "score":
        return partial(cosines, directions=case.request.targets[None])
    labels = torch.tensor([_class_of(case, text) for text in case.record.texts], device=case.request.targets.device)
    model = case.request.model
    bias = float(model.logit_bias) if model.probability == "sigmoid" else None
    return classification(case.session.classes, labels[None], float(model.logit_scale), bias=bias)[name]


def _class_of(case: Case, text: str) -> int:
    """The class that a text names: the class of this name, or the label of an image with one text and one label."""
    if text in case.session.dataset.classes:
        return case.session.dataset.classes.index(text)
    if len(case.record.texts) != 1:
        raise DatasetError(f"{case.record.id}: {text!r} is not a class of {case.session.dataset.name}; use a ..._score")
    return case.record.label


def _confidence(name: str) -> Callable[..., Tensor]:
    """M2IB's drop or increase of the cosine."""

    def score(case: Case, *, batch_size: int = 64) -> Tensor:
        request = case.request
        return confidence(request.model, request.pixels, case.maps[None], request.targets[None], batch_size)[name][0]

    return score


BASELINES: dict[str, Callable[..., Tensor]] = {"random": random_maps, "constant": constant_maps}

METHODS: dict[str, Callable[..., Tensor]] = {
    name: explainers.METHODS[name].image for name in explainers.names_of()
} | BASELINES

# Each: (case, own options) -> one number a target.
METRICS: dict[str, Callable[..., Tensor]] = {name: _measure(name, metric) for name, metric in registry.METRICS.items()}


# -- seeds and masks


def image_seed(seed: int, image: str, purpose: str) -> int:
    """A seed that depends only on these three values, so that neither shards nor their order change the draws."""
    return int.from_bytes(hashlib.sha256(f"{seed}\n{image}\n{purpose}".encode()).digest()[:8]) >> 1


def visible_masks(record: Record, fit: str) -> Bool[np.ndarray, "targets height width"]:
    """The part of a record's masks that maps under `fit` cover."""
    return visible(record.masks, record, fit)


def visible(pixels: Bool[np.ndarray, "*axes height width"], record: Record, fit: str) -> np.ndarray:
    """The part of a mask, or of several, of a record's image that maps under `fit` cover."""
    if fit != "crop":
        return pixels
    return TF.center_crop(torch.as_tensor(pixels), [min(record.image.size)] * 2).numpy()
