"""The pieces of a transformer's layer as plain functions: linear maps, norms, heads.

Weights are read and detached, so that no gradient is ever kept for them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Affine(NamedTuple):
    """A linear map whose weights belong to no `nn.Linear` of their own."""

    weight: Float[Tensor, "outputs inputs"]
    bias: Float[Tensor, " outputs"] | None = None


Linear = Affine | nn.Module


@contextmanager
def evaluated(network: nn.Module) -> Iterator[None]:
    """The network in evaluation mode inside the `with` block: no dropout, and batch norms with fixed statistics."""
    training = [module for module in network.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def linear(x: Tensor, part: Linear) -> Tensor:
    """A linear map in its weights' dtype, by detached weights, so that no gradient is ever kept for them.

    A part of another type, such as LoRA's wrapper of a linear layer, is called itself.
    """
    if not isinstance(part, Affine) and type(part).forward is not nn.Linear.forward:
        with evaluated(part):
            return part(x.to(part.weight.dtype))
    bias = None if part.bias is None else constant(part.bias)
    return F.linear(x.to(part.weight.dtype), constant(part.weight), bias)


def constant(weight: Tensor) -> Tensor:
    """A weight for which no gradient is kept. A weight made in inference mode is copied, since no graph can hold it."""
    return weight.clone() if weight.is_inference() else weight.detach()


def scaled(x: Tensor, scale: Tensor | None) -> Tensor:
    """`x` times the layer scale, if the layer has one."""
    return x if scale is None else x * constant(scale).to(x.dtype)


def layer_norm(x: Tensor, norm: nn.Module | None) -> Tensor:
    """Layer norm in float32 at least, as OpenAI's does, and back to the dtype of x; x itself where there is none."""
    if norm is None:
        return x
    dtype = torch.promote_types(x.dtype, torch.float32)
    weight, bias = constant(norm.weight).to(dtype), constant(norm.bias).to(dtype)
    return F.layer_norm(x.to(dtype), norm.normalized_shape, weight, bias, norm.eps).to(x.dtype)


def rotated(
    x: Float[Tensor, "images heads queries width"], table: Float[Tensor, "two tokens width"] | None
) -> Float[Tensor, "images heads queries width"]:
    """Queries or keys turned by rotary positions (Su et al. 2021): each pair of channels (2i, 2i + 1) by an angle.

    `table` holds the angles' sine and cosine for every token and channel; x itself where there is none. A single query
    is the first token's.
    """
    if table is None:
        return x
    sine, cosine = table[:, : x.shape[-2]].to(x)
    turned = torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)
    return x * cosine + turned * sine


def split_heads(x: Float[Tensor, "*images tokens channels"], heads: int) -> Float[Tensor, "*images heads tokens width"]:
    """Channels cut into heads."""
    return x.unflatten(-1, (heads, -1)).transpose(-3, -2)


def join_heads(x: Float[Tensor, "*images heads tokens width"]) -> Float[Tensor, "*images tokens channels"]:
    """Heads side by side again: the inverse of `split_heads`."""
    return x.transpose(-3, -2).flatten(-2)
