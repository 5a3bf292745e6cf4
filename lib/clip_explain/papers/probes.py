"""Rows of EPFL's emotion probes: how often they are right, what chance and an ideal reader are, how emotions differ."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.stats import t as student
from torch import Tensor

from clip_explain.datasets import Record
from clip_explain.maps import normalize
from clip_explain.metrics.concentration import map_correlation
from clip_explain.metrics.intervals import jackknife
from clip_explain.models.model import Model
from clip_explain.models.probe import Features, emotion_probe
from clip_explain.papers.tables import measured, measured_each

METRIC = "accuracy of the probe"

Rows = list[dict[str, Any]]


def probe_accuracy(
    images: Sequence[str],
    records: Sequence[Record],
    truth: Sequence[str],
    guesses: Mapping[tuple[str, str], Sequence[str]],
    chance: float,
) -> Rows:
    """Rows of METRIC on records that no probe has seen, named `images`, whose emotions are `truth`.

    `guesses` has what each probe says, by (model, kind of probe): setting and method of a row. Beside them are `chance`
    for each model, and the "ideal reader", who names the likeliest emotion of records that know how they were drawn.
    """
    rows = []
    for (model, kind), found in guesses.items():
        right = [guess == emotion for guess, emotion in zip(found, truth, strict=True)]
        rows += measured_each(images, kind, {METRIC: right}, model)
    for model in dict.fromkeys(model for model, _ in guesses):
        rows += measured_each(images, "chance", {METRIC: [chance] * len(images)}, model)
    for image, record, emotion in zip(images, records, truth, strict=True):
        likely = record.facts.get("posterior")
        if likely:
            best = max(likely, key=likely.get)
            rows += measured(image, "ideal reader", {METRIC: best == emotion}, "any model")
    return rows


def shuffled_probes(
    model: Model, features: Features, classes: Sequence[str], count: int, source: np.random.Generator, seed: int = 0
) -> list[Model]:
    """Emotion probes fitted on shuffled labels, all of the strength that suits the first."""
    found, strength = [], None
    for _ in range(count):
        dealt = replace(features, labels=source.permutation(features.labels))
        probe, strength = emotion_probe(model, dealt, classes, seed, strength)
        found.append(probe)
    return found


def chance_of_guessing(truth: Sequence[str], fitted_on: Sequence[str], classes: Sequence[str]) -> float:
    """The accuracy of guessing without looking: a class at random, or always the most frequent one of the fit."""
    most_frequent = pd.Series(list(fitted_on)).mode()[0]
    return max(1 / len(classes), float((np.asarray(truth) == most_frequent).mean()))


def spread(
    images: Sequence[str], group: str, numbers: Mapping[str, Float[Tensor, "images directions"]], setting: str
) -> Rows:
    """Rows of "spread of METRIC": the standard deviation over directions of their means over images.

    A spread cannot be formed for one image, so the rows are its jackknife values, one an image.
    """
    rows = []
    for metric, each in numbers.items():
        values = jackknife(each.double().numpy(), lambda means: means.std(axis=1))
        rows += measured_each(images, group, {f"spread of {metric}": values}, setting)
    return rows


def spread_of_draws(
    images: Sequence[str],
    group: str,
    numbers: Mapping[str, Float[Tensor, "images draws directions"]],
    setting: str,
    level: float = 0.99,
) -> Rows:
    """Rows of "spread of METRIC" that one more draw of directions would exceed with the probability 1 - `level`.

    Each draw has a spread, as in `spread`; the bound is that of Student's t for one more of them: their mean plus t
    times their standard deviation times the root of 1 + 1 / draws. The rows are jackknife values over images.
    """
    rows = []
    for metric, each in numbers.items():
        draws = each.shape[1]
        wide = float(student.ppf(level, draws - 1)) * (1 + 1 / draws) ** 0.5

        def bound(means: np.ndarray, wide: float = wide) -> np.ndarray:
            spreads = means.std(axis=2)
            return spreads.mean(axis=1) + wide * spreads.std(axis=1, ddof=1)

        values = jackknife(each.double().numpy(), bound)
        rows += measured_each(images, group, {f"spread of {metric}": values}, setting)
    return rows


def likeness_of_mean_maps(
    images: Sequence[str], group: str, maps: Sequence[Float[Tensor, "images directions grid_h grid_w"]], setting: str
) -> Rows:
    """Rows of "likeness of mean maps": how alike two models' mean maps are, over the cells, as a mean over directions.

    Each map is first scaled to [0, 1]. The rows are jackknife values, as of `spread`.
    """
    both = torch.stack([normalize(some) for some in maps], dim=1).double()  # images, models, directions, cells
    values = jackknife(both, lambda means: map_correlation(*torch.tensor(means).unbind(1)).mean(dim=1).numpy())
    return measured_each(images, group, {"likeness of mean maps": values}, setting)
