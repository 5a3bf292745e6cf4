"""Grounds for scenes: plain, tiled, striped, blotched, or strewn with pebbles, in muted colours.

A ground gives the reflectance of each of its points; `raycast` asks for it.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

PATTERNS = ("plain", "tiles", "stripes", "blotches", "pebbles")
TINT = 0.2  # how far a muted colour's channels lie from its grey, at most


@dataclass(frozen=True)
class Ground:
    """One of `PATTERNS` in some `colors` (linear reflectance), `scale` world units wide; `seed` decides the rest."""

    pattern: str
    colors: tuple[tuple[float, float, float], ...]
    scale: float
    seed: int

    @property
    def mean(self) -> np.ndarray:
        """The mean colour (3,), which metal reflects."""
        return np.mean(self.colors, 0).astype(np.float32)


def sample_ground(rng: np.random.Generator) -> Ground:
    """A random ground: two in five are plain, the others patterned."""
    pattern = str(rng.choice(PATTERNS, p=(0.4, 0.15, 0.15, 0.15, 0.15)))
    level = np.exp(rng.uniform(np.log(0.12), np.log(0.6)))
    levels = np.clip(level * np.exp(rng.uniform(-0.7, 0.7, 5)), 0.06, 0.75)
    tints = 1 + TINT * rng.uniform(-1, 1, (5, 3))
    colors = levels[:, None] * tints
    count = {"plain": 1, "pebbles": 5}.get(pattern, 2)
    return Ground(pattern, tuple(map(tuple, colors[:count])), float(rng.uniform(0.25, 0.9)), int(rng.integers(2**31)))


def reflectance(
    ground: Ground, x: Float[np.ndarray, "rows columns"], y: Float[np.ndarray, "rows columns"]
) -> Float[np.ndarray, "3 rows columns"]:
    """Linear reflectance of points of the ground, in world units."""
    which = PARTS[ground.pattern](x, y, ground)
    colors = np.array(ground.colors, np.float32).T
    if which.dtype.kind == "f":  # a share between two colours
        return colors[:, :1, None] * (1 - which) + colors[:, 1:2, None] * which
    return colors[:, which]


def _plain(x: np.ndarray, y: np.ndarray, ground: Ground) -> np.ndarray:
    return np.zeros(x.shape, int)


def _tiles(x: np.ndarray, y: np.ndarray, ground: Ground) -> np.ndarray:
    return (np.floor(x / ground.scale) + np.floor(y / ground.scale)).astype(int) % 2


def _stripes(x: np.ndarray, y: np.ndarray, ground: Ground) -> np.ndarray:
    angle = np.random.default_rng(ground.seed).uniform(0, np.pi)
    return np.floor((x * np.cos(angle) + y * np.sin(angle)) / ground.scale).astype(int) % 2


def _blotches(x: np.ndarray, y: np.ndarray, ground: Ground) -> np.ndarray:
    """A share from 0 to 1: the sum of six waves in random directions."""
    rng = np.random.default_rng(ground.seed)
    total = np.zeros_like(x)
    for angle, phase, length in zip(*rng.uniform(0, 2 * np.pi, (2, 6)), rng.uniform(1, 4, 6), strict=True):
        total += np.sin((x * np.cos(angle) + y * np.sin(angle)) * (3 / length / ground.scale) + phase).astype(x.dtype)
    return (0.5 + 0.5 * np.tanh(total)).astype(np.float32)


def _pebbles(x: np.ndarray, y: np.ndarray, ground: Ground) -> np.ndarray:
    """One disc in each cell of a square grid, of random place, radius and colour."""
    rng = np.random.default_rng(ground.seed)
    middle = rng.uniform(0.3, 0.7, (2, 32, 32)).astype(np.float32)
    radius = rng.uniform(0.05, 0.3, (32, 32)).astype(np.float32)
    color = rng.integers(1, len(ground.colors), (32, 32))
    column, row = np.floor(x / ground.scale).astype(int), np.floor(y / ground.scale).astype(int)
    across, down = x / ground.scale - column, y / ground.scale - row
    at = (column % 32, row % 32)
    inside = (across - middle[0][at]) ** 2 + (down - middle[1][at]) ** 2 < radius[at] ** 2
    return np.where(inside, color[at], 0)


PARTS = {"plain": _plain, "tiles": _tiles, "stripes": _stripes, "blotches": _blotches, "pebbles": _pebbles}
