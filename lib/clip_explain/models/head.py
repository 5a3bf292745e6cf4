"""A linear classifier on top of image features, and its classes as targets of an explanation.

At the bottom, beside model.py, whose `Model` may carry a `Head`: then its score is a class's logit and no cosine.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from clip_explain.checks import one_of
from clip_explain.errors import TensorError, TextError, nearest

FEATURES = ("raw", "unit")


@dataclass(frozen=True)
class Head:
    """The logit of class c is weight[c] . x + bias[c]; x are the image's features as the tower gives them.

    `features="unit"`: x is scaled to length 1 first, as `encode_image` does. The bias enters no map.
    """

    weight: Float[Tensor, "classes embedding"]
    bias: Float[Tensor, " classes"]
    classes: tuple[str, ...]
    features: str = "raw"

    def __post_init__(self):
        one_of("features", self.features, FEATURES)
        count = len(self.classes)
        if self.weight.ndim != 2 or len(self.weight) != count or self.bias.shape != (count,):
            raise TensorError(
                f"got weights of {tuple(self.weight.shape)} and biases of {tuple(self.bias.shape)} for {count} classes,"
                " expected (classes, embedding) and (classes)"
            )
        if not (self.weight.isfinite().all() and self.bias.isfinite().all()):
            raise TensorError("got weights or biases with NaN or infinite values, expected finite ones")


def class_rows(head: Head, spec: str | int | Sequence[str | int]) -> Float[Tensor, "targets embedding"]:
    """The weights of classes given by name or index: d logit / d features. TextError for an unknown one."""
    wanted = [spec] if isinstance(spec, str | int) else list(spec)
    if not wanted:
        raise TextError("got no classes, expected at least one, by name or index")
    return head.weight[[class_index(head, each) for each in wanted]]


def class_index(head: Head, wanted: str | int) -> int:
    """The index of a class; a name is found as it is spelled, then whatever its case."""
    count = len(head.classes)
    if isinstance(wanted, int):
        if not 0 <= wanted < count:
            raise TextError(f"got class {wanted}, expected 0 to {count - 1}")
        return wanted
    if not isinstance(wanted, str):
        raise TextError(f"got a class as {type(wanted).__name__}, expected its name or index")
    for spelled in (str, str.lower):
        found = [index for index, name in enumerate(head.classes) if spelled(name) == spelled(wanted)]
        if len(found) > 1:
            raise TextError(
                f"{len(found)} classes are called {wanted!r}: give the index, {' or '.join(map(str, found))}"
            )
        if found:
            return found[0]
    close = nearest(wanted, head.classes)
    raise TextError(
        f"there is no class {wanted!r} among {count}: {close if len(close) < 400 else close[:400] + ' ...'}"
    )


def class_bias(head: Head, directions: Float[Tensor, "targets embedding"]) -> Float[Tensor, " targets"]:
    """The bias of each direction: a class's own, its negative for a negated class, and 0 for any other direction."""
    weight, biases = head.weight.to(directions), head.bias.to(directions)
    return torch.stack([_bias_of(direction, weight, biases) for direction in directions])


def _bias_of(direction: Tensor, weight: Tensor, biases: Tensor) -> Tensor:
    for sign in (1, -1):
        same = (sign * direction == weight).all(dim=-1).nonzero()
        if len(same):
            return sign * biases[same[0, 0]]
    return biases.new_zeros(())
