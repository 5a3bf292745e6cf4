"""Linear probes on a dataset's image features, and their rows as directions in a file: EPFL's emotions (IV-D).

Above other_models.py, which makes a classifier of a probe. Features and directions are kept as safetensors: a pickle,
which the report's code used for batches of features, can run code when it is opened, and is refused.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from torch import Tensor

from clip_explain.datasets.record import Dataset, Record
from clip_explain.errors import ModelError, TensorError, TextError, WeightsError, nearest
from clip_explain.model import Clip, preprocess
from clip_explain.other_models import fitted_probe
from clip_explain.query import directions, image_features, unit
from clip_explain.storage import write

STRENGTHS = tuple(float(10**power) for power in range(-2, 6))  # scikit-learn's C: one over the penalty
AT_ONCE = 32  # images encoded together


@dataclass(frozen=True, eq=False)
class Features:
    """Unit image features of a dataset's records, in their order, and the records' labels."""

    values: Float[np.ndarray, "images embedding"]
    labels: Int[np.ndarray, " images"]

    def __getitem__(self, part: slice) -> "Features":
        return Features(self.values[part], self.labels[part])


# -- the probe


def emotion_probe(model: Clip, features: Features, classes: Sequence[str], seed: int = 0) -> tuple[Clip, float]:
    """The linear model of EPFL IV-D, from CLIP's space to the emotions, as a classifier; and its strength.

    Multinomial logistic regression on unit features, the strength by `best_strength`. `classes` name the labels; one
    without an image has no row. The rows of its `head`, at unit length, are the emotions' directions.
    """
    strength = best_strength(features.values, features.labels, seed)
    labels = [f"{label:06d}" for label in features.labels]  # in the order of the numbers
    found = fitted_probe(model, features.values, labels, "unit", C=strength)
    assert found.head is not None
    named = tuple(classes[int(label)] for label in found.head.classes)
    return replace(found, head=replace(found.head, classes=named)), strength


def best_strength(
    features: Float[np.ndarray, "images embedding"], labels: Int[np.ndarray, " images"], seed: int = 0, folds: int = 5
) -> float:
    """The one of STRENGTHS with the least log loss on the folds left out, by logistic regression.

    By the log loss and not the accuracy, so that the probabilities are calibrated too. There are no more folds than
    images of the rarest class; TensorError where that is one.
    """
    rarest = int(np.unique(labels, return_counts=True)[1].min(initial=len(labels)))
    if rarest < 2 or len(features) != len(labels):
        raise TensorError(
            f"got {len(features)} features and {len(labels)} labels, {rarest} of the rarest class: expected a label "
            "for each, and two images of each class at least"
        )
    split = StratifiedKFold(min(folds, rarest), shuffle=True, random_state=seed)
    search = GridSearchCV(LogisticRegression(max_iter=5000), {"C": STRENGTHS}, scoring="neg_log_loss", cv=split)
    precise = features.astype(np.float64)
    search.fit(precise - precise.mean(axis=0), labels)  # the intercept takes the mean up: the solver is quicker
    return search.best_params_["C"]


def probabilities(probe: Clip, features: Features) -> Float[np.ndarray, "images classes"]:
    """A probe's probability of each of its classes: the softmax of its logits. ModelError if there is no head."""
    if probe.head is None:
        raise ModelError(f"{probe.name} is no classifier: it has no class logits")
    weight, bias = probe.head.weight.cpu().double(), probe.head.bias.cpu().double()
    return (torch.from_numpy(features.values).double() @ weight.T + bias).softmax(dim=-1).numpy()


# -- a dataset's features, kept


def dataset_features(
    models: Sequence[Clip],
    dataset: Dataset,
    settings: Mapping[str, Any],
    cache: str | Path | None = None,
    fit: str = "crop",
) -> list[Features]:
    """Features of every record by each model, in one pass over the dataset.

    With a folder as `cache` they are kept there, one complete file for each model, and read again. A file's name is the
    checksum of all that they depend on: the weights' sha256 and number format, `fit`, the dataset's name, length and
    `settings` (its seed and options), and the first record's pixels, which change with whatever draws or crops them.
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
    """What `save_features` wrote. WeightsError for any other file: a pickle is said to be one, and never opened."""
    parts, _ = _read(path, ("features", "labels"))
    return Features(parts["features"].float().numpy(), parts["labels"].long().numpy())


def _encode(models: Sequence[Clip], dataset: Dataset, fit: str) -> list[Features]:
    labels, parts = [], [[] for _ in models]
    for start in range(0, len(dataset) if models else 0, AT_ONCE):
        records = [dataset[i] for i in range(start, min(start + AT_ONCE, len(dataset)))]
        labels += [record.label for record in records]
        for model, part in zip(models, parts, strict=True):
            pixels = preprocess(model, [record.image for record in records], fit)
            part.append(unit(image_features(model, pixels)).float().cpu().numpy())
    return [Features(np.concatenate(part), np.array(labels)) for part in parts]


def _place(
    cache: Path, model: Clip, dataset: Dataset, settings: Mapping[str, Any], first: Record, fit: str
) -> Path | None:
    """Where a model's features are kept; nowhere for a model without a checksum, which nothing tells from others."""
    if not model.sha256:
        return None
    key = {"weights": model.sha256, "dtype": str(model.dtype), "fit": fit, "dataset": dataset.name}
    key |= {"count": len(dataset), "settings": dict(settings)}
    pixels = preprocess(model, first.image, fit).float().cpu().numpy()
    told = json.dumps(key, sort_keys=True).encode() + pixels.tobytes()
    return cache / f"features-{dataset.name}-{hashlib.sha256(told).hexdigest()[:24]}.safetensors"


# -- directions, kept


def save_directions(path: str | Path, model: Clip, vectors: Tensor, labels: Sequence[str]) -> None:
    """Directions at unit length with their labels, the model's name and its weights' sha256, as safetensors.

    TensorError for vectors that are none of the model's, or labels not one a vector and all different; ModelError for a
    model without a checksum. A probe's directions are its `head.weight`.
    """
    if not model.sha256:
        raise ModelError(f"{model.name} has no checksum of its weights: its directions could not be told from others'")
    vectors = unit(directions(replace(model, head=None), vectors)).float().cpu()
    if len(labels) != len(vectors) or len(set(labels)) != len(labels):
        raise TensorError(f"got {len(vectors)} directions and the labels {list(labels)}, expected one each, and no two")
    facts = {"labels": json.dumps(list(labels)), "model": model.name, "weights_sha256": model.sha256}
    _save(path, {"directions": vectors}, facts)


def read_directions(path: str | Path, model: Clip) -> tuple[list[str], Float[Tensor, "targets embedding"]]:
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


def read_direction(spec: str, model: Clip) -> tuple[list[str], Float[Tensor, "targets embedding"]]:
    """The direction "FILE:LABEL", or all of "FILE", with their labels. Errors as in `read_directions`; TextError for an
    unknown label."""
    path, _, label = (spec, "", "") if Path(spec).is_file() else spec.rpartition(":")
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
    if not path.is_file():
        raise WeightsError(f"no file of {' and '.join(names)} at {path}")
    with path.open("rb") as file:
        start = file.read(6)
    if start.startswith((b"\x80", b"PK\x03\x04", b"\x93NUMPY")) or path.suffix in (".pkl", ".pickle"):
        raise WeightsError(
            f"{path} is a pickle, or may hold one, and opening it could run code: it is not loaded. Expected a "
            f"safetensors file of {' and '.join(names)}, as clip_explain.probe writes"
        )
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is no safetensors file of {' and '.join(names)}: {error}") from error
