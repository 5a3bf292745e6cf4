"""Rows of EPFL's emotion probes: how often they are right, what chance and an ideal reader are, how emotions differ."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from clip_explain.datasets import Record
from clip_explain.maps import normalize
from clip_explain.metrics.concentration import map_correlation
from clip_explain.metrics.intervals import jackknife
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


def likeness_of_mean_maps(
    images: Sequence[str], group: str, maps: Sequence[Float[Tensor, "images directions grid_h grid_w"]], setting: str
) -> Rows:
    """Rows of "likeness of mean maps": how alike two models' mean maps are, over the cells, as a mean over directions.

    Each map is first scaled to [0, 1]. The rows are jackknife values, as of `spread`.
    """
    both = torch.stack([normalize(some) for some in maps], dim=1).double()  # images, models, directions, cells
    values = jackknife(both, lambda means: map_correlation(*torch.tensor(means).unbind(1)).mean(dim=1).numpy())
    return measured_each(images, group, {"likeness of mean maps": values}, setting)
