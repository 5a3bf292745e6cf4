"""Linear probes: a classifier on image features, its strength chosen by cross-validation."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from torch import Tensor

from clip_explain.errors import ModelError, TensorError
from clip_explain.models.head import Head
from clip_explain.models.model import Model


def probe(
    model: Model, weight: Tensor | np.ndarray, bias: Tensor | np.ndarray, classes: Sequence[str], features: str = "raw"
) -> Model:
    """A linear classifier on a CLIP's image features, to be explained by class: the logit is weight[c] . x + bias[c].

    `weight` (classes, embedding) and `bias` (classes) may be scikit-learn's `coef_` and `intercept_`; of two classes,
    the one row there is the second class's logit, and its negative the first's. `features`: what it was trained on,
    "raw" features as the network's own `encode_image` gives them (CLIP's linear probes), or "unit", as
    `clip_explain.encode_image` does. Raises TensorError or MethodError.
    """
    weight, bias = torch.as_tensor(weight).detach(), torch.as_tensor(bias).detach()
    if len(classes) == 2 and len(weight) == 1:
        weight, bias = torch.cat([-weight, weight]), torch.cat([-bias, bias])
    if weight.ndim != 2 or weight.shape[1] != model.embedding_size:
        raise TensorError(f"got weights of {tuple(weight.shape)}, expected (classes, {model.embedding_size})")
    precise = torch.float64 if model.dtype == torch.float64 else torch.float32
    weight, bias = (part.to(model.device, precise) for part in (weight, bias))
    head = Head(weight, bias, tuple(map(str, classes)), features)
    return replace(model, name=f"{model.name} probe", head=head, tokenizer=None, text_encoder=None)


def fitted_probe(
    model: Model, x: Float[np.ndarray, "images embedding"], labels: Sequence[Any], features: str = "raw", **options
) -> Model:
    """`linear_probe` where the images' features `x` are at hand, "raw" or "unit" as `features` says."""
    if len(x) != len(labels) or len(set(labels)) < 2:
        raise TensorError(
            f"got {len(x)} images and {len(labels)} labels of {len(set(labels))} classes, expected a label "
            "for each image and two classes or more"
        )
    precise, middle = x.astype(np.float64), x.mean(axis=0, dtype=np.float64)
    # About their mean and in float64 the solver ends where the optimum is, else at a place that the last digits decide.
    fitted = LogisticRegression(**{"max_iter": 5000, "tol": 1e-8, **options}).fit(precise - middle, np.asarray(labels))
    return probe(model, fitted.coef_, fitted.intercept_ - fitted.coef_ @ middle, fitted.classes_.tolist(), features)


def _check_classes(classes: Sequence[str] | None, count: int) -> None:
    if classes is not None and len(classes) != count:
        raise ModelError(f"got {len(classes)} names of classes, expected {count}")


STRENGTHS = tuple(float(10**power) for power in range(-2, 6))  # scikit-learn's C: one over the penalty


@dataclass(frozen=True, eq=False)
class Features:
    """Unit image features of a dataset's records, in their order, and the records' labels."""

    values: Float[np.ndarray, "images embedding"]
    labels: Int[np.ndarray, " images"]

    def __getitem__(self, part: slice) -> "Features":
        return Features(self.values[part], self.labels[part])


# -- the probe


def emotion_probe(
    model: Model, features: Features, classes: Sequence[str], seed: int = 0, strength: float | None = None
) -> tuple[Model, float]:
    """The linear model of EPFL IV-D, from CLIP's space to the emotions, as a classifier; and its strength.

    Multinomial logistic regression on unit features, the strength by `best_strength` where none is given. `classes`
    name the labels; one without an image has no row. The rows of its `head`, at unit length, are the emotions'
    directions.
    """
    if strength is None:
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


def probabilities(probe: Model, features: Features) -> Float[np.ndarray, "images classes"]:
    """A probe's probability of each of its classes: the softmax of its logits. ModelError if there is no head."""
    if probe.head is None:
        raise ModelError(f"{probe.name} is not a classifier: it has no class logits")
    weight, bias = probe.head.weight.cpu().double(), probe.head.bias.cpu().double()
    return (torch.from_numpy(features.values).double() @ weight.T + bias).softmax(dim=-1).numpy()


def guessed(probe: Model, features: Features) -> np.ndarray:
    """The name of the class that a probe holds for the likeliest, for each image. ModelError if there is no head."""
    likeliest = probabilities(probe, features).argmax(axis=1)
    return np.array(probe.head.classes)[likeliest]
