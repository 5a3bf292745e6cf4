"""One shard of a sweep: some images of a dataset, all methods and metrics on each, one Parquet file.

Above the explainers, the metrics and datasets.py; sweep.py cuts the shards and runs them here, in processes or on Dask
workers. A shard depends on its plan alone, so it may be made anywhere, in any order, and more than once.
"""

import hashlib
import json
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torchvision.transforms.functional as TF
from jaxtyping import Bool, Float
from pyarrow import parquet
from torch import Tensor

from clip_explain import datasets
from clip_explain.datasets import Dataset, Record
from clip_explain.directions import targets
from clip_explain.errors import DatasetError, ImageError, ModelError, TensorError, TextError, WeightsError
from clip_explain.explainers import EXPLAINERS, options_of
from clip_explain.images import preprocess
from clip_explain.metrics import registry
from clip_explain.metrics.faithfulness import auc, confidence, perturbed_embeddings
from clip_explain.metrics.readouts import classification, cosines
from clip_explain.metrics.registry import Area, Confidence, Metric
from clip_explain.models import load
from clip_explain.models.model import Model
from clip_explain.request import Request
from clip_explain.sweep import store as storage
from clip_explain.texts import BARE, Templates

FOLDER = "shards"
TEXTS_KEPT = 20_000  # text features that a process keeps at most
# What no number of a sweep depends on; all other modules count as formulas.
NO_FORMULAS = ("plots", "explorer", "cli", "papers", "embedded/training", "embedded/cards")
# What is wrong with one image alone; all else ends the sweep.
OF_ONE_IMAGE = (ImageError, TextError, TensorError, DatasetError)

SCHEMA = pa.schema(
    [
        ("index", pa.int64()),
        ("image", pa.string()),
        ("target", pa.int32()),
        ("text", pa.string()),
        ("method", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("error", pa.string()),  # set in the one row of an image that could not be used, and nowhere else
    ]
)


@dataclass(frozen=True)
class Plan:
    """All that decides a sweep's numbers, and where they go. `methods` and `metrics` hold the options of each.

    `reader` holds those of the dataset's reader; `templates` a set's name, or templates.
    """

    model: str
    sha256: str
    device: str
    dtype: str
    dataset: str
    reader: dict[str, Any]
    images: int
    seed: int
    fit: str
    templates: str | list[str]
    methods: dict[str, dict]
    metrics: dict[str, dict]
    shard_size: int
    out: str
    versions: dict[str, str]

    def records(self) -> Dataset:
        """The dataset, as it lies on this machine."""
        return datasets.load(self.dataset, self.images, self.seed, **self.reader)

    @property
    def starts(self) -> range:
        """The first image of each shard."""
        return range(0, self.images, self.shard_size)

    def size(self, start: int) -> int:
        """How many images the shard that begins there has."""
        return min(self.shard_size, self.images - start)

    def shard(self, start: int) -> str:
        """The file name of a shard: its first image, and the one after its last."""
        return f"{start:07d}-{start + self.size(start):07d}.parquet"


@dataclass(frozen=True)
class Session:
    """What a process keeps from image to image: the model, the dataset, and the features of the texts met so far.

    Texts and classes are put into `templates`, as `explain` does it.
    """

    model: Model
    dataset: Dataset
    templates: Templates = BARE
    texts: dict[str, Tensor] = field(default_factory=dict)

    def features(self, texts: tuple[str, ...]) -> Float[Tensor, "texts embedding"]:
        """Unit features, each text's computed once, and by itself: in a batch they would depend on its neighbours."""
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
    """One method's maps of one image, and what a metric may hold them against.

    `masks`, and `ignore` (pixels that annotators left undecided), cover what the maps cover. `seed` belongs to the
    image and is the same for all methods. `kept`: what several metrics share.
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
    """Uniform noise for every image and target: what a method must beat."""
    source = torch.Generator().manual_seed(generator) if isinstance(generator, int) else generator
    return torch.rand(_map_shape(request), generator=source).to(request.pixels.device)


def constant_maps(request: Request) -> Float[Tensor, "images targets grid_h grid_w"]:
    """The same value everywhere: what says nothing."""
    return torch.ones(_map_shape(request), device=request.pixels.device)


def _map_shape(request: Request) -> tuple[int, int, int, int]:
    cell = request.model.patch_size
    height, width = request.pixels.shape[-2:]
    return len(request.pixels), len(request.targets), height // cell, width // cell


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

    def score(case: Case, *, every: int = 1, batch_size: int = 64) -> Tensor:
        key = (protocol, mode, every, batch_size)
        if key not in case.kept:
            request, options = case.request, dict(every=every, batch_size=batch_size, seed=case.seed)
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
    scale = float(case.request.model.logit_scale)
    return classification(case.session.classes, labels[None], scale)[name]


def _class_of(case: Case, text: str) -> int:
    """The class that a text asks for: the one of this name, or the label of an image with one text and one label."""
    if text in case.session.dataset.classes:
        return case.session.dataset.classes.index(text)
    if len(case.record.texts) != 1:
        raise DatasetError(f"{case.record.id}: {text!r} is no class of {case.session.dataset.name}; use a ..._score")
    return case.record.label


def _confidence(name: str) -> Callable[..., Tensor]:
    """M2IB's drop or increase of the cosine."""

    def score(case: Case, *, batch_size: int = 64) -> Tensor:
        request = case.request
        return confidence(request.model, request.pixels, case.maps[None], request.targets[None], batch_size)[name][0]

    return score


BASELINES: dict[str, Callable[..., Tensor]] = {"random": random_maps, "constant": constant_maps}

METHODS: dict[str, Callable[..., Tensor]] = EXPLAINERS | BASELINES

# Each: (case, own options) -> one number a target.
METRICS: dict[str, Callable[..., Tensor]] = {name: _measure(name, metric) for name, metric in registry.METRICS.items()}


# -- a shard


def run_shard(plan: Plan, start: int, session: Session | None = None, tick: Callable[[], object] = lambda: None) -> int:
    """Make the shard that begins with image `start`, unless it is there, and return how many images it has.

    `tick` is called after each image. What is wrong with one image becomes a row with its error. Raises OutputError,
    MethodError, and, naming this machine, ModelError or WeightsError if it lacks the model or has another.
    """
    name = f"{FOLDER}/{plan.shard(start)}"
    if not storage.exists(plan.out, name):
        session = session or _session(json.dumps(vars(plan)))
        rows = []
        for index in range(start, start + plan.size(start)):
            rows += _rows(plan, session, index)
            tick()
        arrays = [pa.array(column, kind.type) for column, kind in zip(zip(*rows, strict=True), SCHEMA, strict=True)]
        table = pa.table(arrays, SCHEMA)
        storage.write(plan.out, name, lambda path: parquet.write_table(table, path))
    return plan.size(start)


def _rows(plan: Plan, session: Session, index: int) -> list[tuple]:
    """The rows of one image, or one with its error."""
    name = None
    try:
        record = session.dataset[index]
        name = record.id
        return [(index, name, *row, None) for row in measure(plan, session, record)]
    except OF_ONE_IMAGE as error:
        return [(index, name, None, None, None, None, None, f"{type(error).__name__}: {error}")]


def measure(plan: Plan, session: Session, record: Record) -> list[tuple]:
    """(target, text, method, metric, value) of one image; all methods read one request, so they share its forward."""
    pixels = preprocess(session.model, record.image, plan.fit)
    masks = None if record.masks is None else visible_masks(record, plan.fit)
    ignore = None if record.ignore is None else visible(record.ignore, record, plan.fit)
    if not record.texts:
        raise TextError(f"{record.id} has no texts to be explained")
    request = Request(session.model, pixels, session.features(record.texts))
    seed = image_seed(plan.seed, record.id, "metrics")
    rows = []
    for method, options in plan.methods.items():
        maps = _explain(plan, request, record.id, method, options)
        case = Case(session, request, record, masks, ignore, seed, maps)
        for metric, choices in plan.metrics.items():
            values = METRICS[metric](case, **choices).tolist()
            pairs = enumerate(zip(record.texts, values, strict=True))
            rows += [(target, text, method, metric, value) for target, (text, value) in pairs]
    return rows


def _explain(
    plan: Plan, request: Request, image: str, method: str, options: dict
) -> Float[Tensor, "targets grid_h grid_w"]:
    explainer = METHODS[method]
    if "generator" in options_of(explainer):
        options = {"generator": image_seed(plan.seed, image, method), **options}
    return explainer(request, **options)[0]


def image_seed(seed: int, image: str, purpose: str) -> int:
    """A seed that depends on these three alone, so that neither shards nor order change what is drawn."""
    return int.from_bytes(hashlib.sha256(f"{seed}\n{image}\n{purpose}".encode()).digest()[:8]) >> 1


def visible_masks(record: Record, fit: str) -> Bool[np.ndarray, "targets height width"]:
    """The part of a record's masks that maps under `fit` cover."""
    return visible(record.masks, record, fit)


def visible(pixels: Bool[np.ndarray, "*axes height width"], record: Record, fit: str) -> np.ndarray:
    """The part of a mask, or of several, of a record's image that maps under `fit` cover."""
    if fit != "crop":
        return pixels
    return TF.center_crop(torch.as_tensor(pixels), [min(record.image.size)] * 2).numpy()


# -- what a process needs


@lru_cache(maxsize=1)
def _session(plan: str) -> Session:
    """What a worker needs for a plan, given as json: the very model that the sweep is about, by the same formulas."""
    wanted, here = Plan(**json.loads(plan)), f"the worker on {platform.node()}"
    if wanted.versions != library_versions():
        raise ModelError(f"{here} has other versions, {library_versions()}, than the sweep, {wanted.versions}")
    try:
        clip = load(wanted.model, wanted.device, wanted.dtype)
    except (ModelError, WeightsError) as error:
        raise type(error)(f"{here} cannot load the model: {error}") from error
    if clip.sha256 != wanted.sha256:
        raise WeightsError(f"{here} has another {wanted.model}: sha256 {clip.sha256}, the sweep's is {wanted.sha256}")
    return Session(clip, wanted.records(), wanted.templates)


@lru_cache
def library_versions() -> dict[str, str]:
    """What changes numbers beside the settings: a checksum of the library's own formulas, and torch's version."""
    here, checksum = Path(__file__).parents[1], hashlib.sha256()
    for file in sorted(here.rglob("*.py")):
        if not any(file.is_relative_to(here / name) for name in NO_FORMULAS):
            checksum.update(file.read_bytes())
    return {"formulas": checksum.hexdigest()[:16], "torch": torch.__version__}
