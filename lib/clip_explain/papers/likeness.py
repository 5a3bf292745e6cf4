"""How alike the maps, or the words' weights, are that variants of a method give: numbers, and rows of the long table.

Above metrics/concentration.py; notebooks 11 and 12 ask it of layers and of heads.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clip_explain.metrics.concentration import map_correlation
from clip_explain.papers.tables import measured

Rows = list[dict[str, Any]]
Maps = Mapping[str, Float[Tensor, "texts grid_h grid_w"]]  # by method
Weights = Mapping[str, Float[Tensor, "1 1 tokens"]]  # of a text's tokens, by method


def likeness_of_maps(maps: Maps, one: str, other: str) -> float:
    """The correlation of two methods' maps of the first text, -1 to 1."""
    return float(map_correlation(maps[one][0], maps[other][0]))


def likeness_of_words(weights: Weights, one: str, other: str) -> float:
    """The correlation of two methods' weights of a text's tokens, without the start and the end token, -1 to 1.

    0 where one of the two is constant.
    """
    tokens = torch.cat([weights[one], weights[other]])[:, 0, 1:-1]
    return float(torch.corrcoef(tokens)[0, 1].nan_to_num())


def least_alike(likeness: Sequence[float], count: int) -> list[int]:
    """The numbers of the `count` lowest values, the lowest first, of equal ones the first."""
    return sorted(range(len(likeness)), key=likeness.__getitem__)[:count]


def words_like(image: str, weights: Weights, methods: Sequence[str], reference: str) -> Rows:
    """Rows of the "likeness of words" of each method with the `reference`; none if that was not asked."""
    rows = []
    for method in methods if reference in weights else ():
        rows += measured(image, method, {"likeness of words": likeness_of_words(weights, method, reference)})
    return rows


def heads_like(image: str, maps: Maps, heads: Sequence[str], together: tuple[str, str]) -> Rows:
    """Rows of the "likeness of maps": of "two heads", a mean over all pairs of `heads`, and of "all and one".

    The latter is that of the two methods named in `together`. A single head has no pair and no such row.
    """
    of_pairs = [map_correlation(maps[one], maps[other]).mean() for one, other in combinations(heads, 2)]
    rows = measured(image, "two heads", {"likeness of maps": torch.stack(of_pairs).mean()}) if of_pairs else []
    all_and_one = map_correlation(maps[together[0]], maps[together[1]]).mean()
    return rows + measured(image, "all and one", {"likeness of maps": all_and_one})
