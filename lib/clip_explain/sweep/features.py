"""Linear probes on a dataset's image features, and their rows as directions in a file: EPFL's emotions (IV-D).

Above models/probe.py, which makes a classifier of a probe. Features and directions are kept as safetensors: a pickle,
which the report's code used for batches of features, can run code when it is opened, and is refused.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from clip_explain.datasets.record import Dataset, Record
from clip_explain.directions import directions
from clip_explain.errors import ModelError, TensorError, TextError, WeightsError, nearest
from clip_explain.images import Images, pixel_batches, preprocess
from clip_explain.models.model import Model, image_features, unit
from clip_explain.models.probe import Features, fitted_probe
from clip_explain.sweep.store import write

AT_ONCE = 32  # images in a batch


# -- a dataset's features, cached


def dataset_features(
    models: Sequence[Model],
    dataset: Dataset,
    settings: Mapping[str, Any],
    cache: str | Path | None = None,
    fit: str = "crop",
) -> list[Features]:
    """Features of every record by each model, in one pass over the dataset.

    If `cache` is a folder, the features are kept there, one complete file for each model, and read again. A file's name
    is the checksum of everything that the features depend on: the weights' sha256 and number format, `fit`, the
    dataset's name, length and `settings` (its seed and options), and the first record's pixels.
    """
    first = dataset[0]
    places = [None if cache is None else _place(Path(cache), model, dataset, settings, first, fit) for model in models]
    kept = [None if path is None or not path.is_file() else read_features(path) for path in places]
    fresh = iter(_encode([model for model, have in zip(models, kept, strict=True) if have is None], dataset, fit))
    found = [next(fresh) if have is None else have for have in kept]
    for path, have, features in zip(places, kept, found, strict=True):
        if path is not None and have is None:
            save_features(path, features)
    return found


def save_features(path: str | Path, features: Features) -> None:
    """Features as a safetensors file of `features` and `labels`; complete or not there."""
    parts = {"features": torch.from_numpy(features.values), "labels": torch.from_numpy(features.labels)}
    _save(path, parts, {})


def read_features(path: str | Path) -> Features:
    """The features that `save_features` wrote. WeightsError for any other file; a pickle is never opened."""
    parts, _ = _read(path, ("features", "labels"))
    return Features(parts["features"].float().numpy(), parts["labels"].long().numpy())


def _encode(models: Sequence[Model], dataset: Dataset, fit: str) -> list[Features]:
    labels, parts = [], [[] for _ in models]
    for start in range(0, len(dataset) if models else 0, AT_ONCE):
        records = [dataset[i] for i in range(start, min(start + AT_ONCE, len(dataset)))]
        labels += [record.label for record in records]
        for model, part in zip(models, parts, strict=True):
            pixels = preprocess(model, [record.image for record in records], fit)
            part.append(unit(image_features(model, pixels)).float().cpu().numpy())
    return [Features(np.concatenate(part), np.array(labels)) for part in parts]


def _place(
    cache: Path, model: Model, dataset: Dataset, settings: Mapping[str, Any], first: Record, fit: str
) -> Path | None:
    """The file for a model's features; None for a model without a checksum, since it could not be identified."""
    if not model.sha256:
        return None
    key = {"weights": model.sha256, "dtype": str(model.dtype), "fit": fit, "dataset": dataset.name}
    key |= {"count": len(dataset), "settings": dict(settings)}
    pixels = preprocess(model, first.image, fit).float().cpu().numpy()
    told = json.dumps(key, sort_keys=True).encode() + pixels.tobytes()
    return cache / f"features-{dataset.name}-{hashlib.sha256(told).hexdigest()[:24]}.safetensors"


# -- directions in a file


def save_directions(path: str | Path, model: Model, vectors: Tensor, labels: Sequence[str]) -> None:
    """Directions at unit length with their labels, the model's name and its weights' sha256, as safetensors.

    TensorError for vectors of another length than the model's embedding, or labels that are not distinct and one for
    each vector; ModelError for a model without a checksum. A probe's directions are its `head.weight`.
    """
    if not model.sha256:
        raise ModelError(f"{model.name} has no checksum of its weights: its directions could not be told from others'")
    vectors = unit(directions(replace(model, head=None), vectors)).float().cpu()
    if len(labels) != len(vectors) or len(set(labels)) != len(labels):
        raise TensorError(f"got {len(vectors)} directions and the labels {list(labels)}, expected one each, and no two")
    facts = {"labels": json.dumps(list(labels)), "model": model.name, "weights_sha256": model.sha256}
    _save(path, {"directions": vectors}, facts)


def read_directions(path: str | Path, model: Model) -> tuple[list[str], Float[Tensor, "targets embedding"]]:
    """Labels and unit directions from a file of `save_directions`, to be explained as targets.

    WeightsError for any other file, a pickle among them; ModelError if they were made with another model's weights.
    """
    parts, facts = _read(path, ("directions",))
    if lacking := {"labels", "model", "weights_sha256"} - set(facts):
        raise WeightsError(f"{path} holds no directions: it does not say its {', '.join(sorted(lacking))}")
    if facts["weights_sha256"] != model.sha256:
        raise ModelError(
            f"the directions in {path} are {facts['model']}'s, weights {facts['weights_sha256'][:12]}; this is "
            f"{model.name}, weights {model.sha256[:12] or 'unknown'}, where they would mean nothing: fit them anew"
        )
    return json.loads(facts["labels"]), directions(model, parts["directions"])


def read_direction(spec: str, model: Model) -> tuple[list[str], Float[Tensor, "targets embedding"]]:
    """The direction "FILE:LABEL", or all of "FILE", with their labels. Errors as in `read_directions`; TextError for an
    unknown label."""
    path, _, label = (spec, "", "") if os.path.isfile(spec) else spec.rpartition(":")
    labels, vectors = read_directions(path or spec, model)
    if not label or not path:
        return labels, vectors
    if label not in labels:
        raise TextError(f"there is no direction {label!r} in {path}: {nearest(label, labels)}")
    return [label], vectors[labels.index(label)][None]


def _save(path: str | Path, tensors: dict[str, Tensor], facts: dict[str, str]) -> None:
    path, tensors = Path(path), {name: tensor.contiguous() for name, tensor in tensors.items()}
    write(str(path.parent), path.name, lambda place: safetensors.torch.save_file(tensors, place, metadata=facts))


def _read(path: str | Path, names: Sequence[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    path = Path(path)
    if not os.path.isfile(path):
        raise WeightsError(f"no file of {' and '.join(names)} at {path}")
    with path.open("rb") as file:
        start = file.read(6)
    if start.startswith((b"\x80", b"PK\x03\x04", b"\x93NUMPY")) or path.suffix in (".pkl", ".pickle"):
        raise WeightsError(
            f"{path} is a pickle, or may hold one, and opening it could run code: it is not loaded. Expected a "
            f"safetensors file of {' and '.join(names)}, as clip_explain.sweep.features writes"
        )
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a safetensors file of {' and '.join(names)}: {error}") from error


def linear_probe(
    model: Model, images: Images, labels: Sequence[Any], features: str = "raw", batch_size: int = 64, **options
) -> Model:
    """`probe` trained by scikit-learn's LogisticRegression, whose `options` may be given, on images and their labels.

    Unless they are given, `tol` is 1e-8 and `max_iter` 5000, so that the fit ends at its optimum. Class i is the
    i-th of the sorted labels. Raises TensorError where images and labels differ in number, or all labels are the same.
    """
    x = torch.cat([image_features(model, pixels) for pixels in pixel_batches(model, images, batch_size)])
    x = (unit(x) if features == "unit" else x).float().cpu().numpy()
    return fitted_probe(model, x, labels, features, **options)
