"""Numbers of maps in themselves (how concentrated they are), and bootstrap intervals of means over images."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from clip_explain.errors import TensorError

RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A mean over `count` images and the bounds of its interval."""

    mean: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(values, seed: int, level: float = 0.95) -> Interval:
    """The mean of `values`, one number an image, and its percentile bootstrap interval (2000 resamples of the images).

    Several texts of one image are not independent: average them first. TensorError without values, or with NaN.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise TensorError(f"got values of shape {values.shape}, expected at least one finite number, one an image")
    picks = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(values[picks].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(low), float(high), len(values))


def mass_curve(maps: Float[Tensor, "*axes grid_h grid_w"]) -> Float[Tensor, "*axes cells"]:
    """Share of a map's mass in its 1, 2, ... heaviest cells, rising to 1. Maps are >= 0; one of zeros is even."""
    cells = maps.flatten(-2)
    empty = cells.sum(dim=-1, keepdim=True) <= 0
    cells = torch.where(empty, 1.0, cells).sort(dim=-1, descending=True).values.cumsum(dim=-1)
    return cells / cells[..., -1:]


def cells_for(maps: Float[Tensor, "*axes grid_h grid_w"], mass: float = 0.9) -> Float[Tensor, "*axes"]:
    """The smallest share of a map's cells, 0 to 1, that carries `mass` of it. Rules as in `mass_curve`."""
    curve = mass_curve(maps)
    return ((curve < mass - 1e-6).sum(dim=-1) + 1) / curve.shape[-1]


def entropy(maps: Float[Tensor, "*axes grid_h grid_w"]) -> Float[Tensor, "*axes"]:
    """Entropy of a map's mass over its cells, as a share of the most there can be: 0 all in one cell, 1 even.

    Maps are >= 0; one of zeros counts as even, and so does one of a single cell.
    """
    cells = maps.flatten(-2)
    empty = cells.sum(dim=-1, keepdim=True) <= 0
    cells = torch.where(empty, 1.0, cells)
    shares = cells / cells.sum(dim=-1, keepdim=True)
    if shares.shape[-1] == 1:
        return torch.ones_like(shares[..., 0])
    return -torch.special.xlogy(shares, shares).sum(dim=-1) / math.log(shares.shape[-1])
