"""A convolutional image encoder as a row of stages: what stands before them, and what makes an embedding of the last.

Below resnet.py and the towers of open_clip, which describe their networks so; Grad-CAM reads the output of a stage.
"""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class Stages:
    """Pixels go through `stem`, then each of `stages`, whose outputs are feature maps, and `head` embeds the last."""

    stem: Callable[[Tensor], Tensor]
    stages: tuple[nn.Module, ...]
    head: Callable[[Tensor], Tensor]


def stage_output(
    parts: Stages, pixels: Float[Tensor, "images 3 height width"], count: int
) -> Float[Tensor, "images channels grid_h grid_w"]:
    """What leaves the first `count` stages, in the mode that the network is in."""
    return through(parts.stages[:count], parts.stem(pixels))


def stage_embedding(
    parts: Stages, features: Float[Tensor, "images channels grid_h grid_w"], count: int
) -> Float[Tensor, "images embedding"]:
    """From the output of the first `count` stages to the embedding, not normalised."""
    return parts.head(through(parts.stages[count:], features))


def through(stages: tuple[nn.Module, ...], x: Tensor) -> Tensor:
    for stage in stages:
        x = stage(x)
    return x
