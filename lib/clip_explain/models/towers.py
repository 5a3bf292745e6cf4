"""A transformer in one description, whichever library built it: its weights, in the order of the forward.

Below vit.py, which runs a `Tower`, and adapted.py, which makes one of a network. It holds the network's own tensors.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from clip_explain.models.layers import Affine, Linear

ENCODERS = ("class", "attention", "mean", "resnet", "convolutional", "other")
VITS = ("class", "attention", "mean")  # those that a trace runs
RESNET_STRIDE = 32


class Sizes(NamedTuple):
    """Height and width of the images that a network was trained on, side of a grid cell, length of an embedding."""

    image: tuple[int, int]
    patch: int
    embedding: int


@dataclass(frozen=True)
class Layer:
    """One block: y = x + scale_1 * out(attention(norm_1(x))), then y + scale_2 * down(activation(up(norm_2(y)))).

    `qkv` is one packed map, or those of q, k and v. With a `gate` the MLP is down(activation(gate) * up) (SwiGLU).
    EVA02 has a norm before each of the last two maps, `norm_out` and `norm_down`, and turns queries and keys by
    `rotary` positions, sine and cosine. EVA02-E has norms behind attention and MLP instead, `after_1` and `after_2`,
    before what they add is scaled. ViTamin has a second norm before its MLP, `norm_up`.

    A head that pools tokens is a layer, too, the last: it has a `query` of its own, or no `residual` around its
    attention, and perhaps no MLP (`up` is None); it does not see the first `skipped` tokens. `module` is the network's
    own block, if there is one.
    """

    module: nn.Module | None
    heads: int
    norm_1: nn.Module | None
    qkv: tuple[Linear, ...]
    out: Linear
    norm_2: nn.Module | None = None
    up: Linear | None = None
    activation: Callable[[Tensor], Tensor] | None = None
    down: Linear | None = None
    gate: Linear | None = None
    scale_1: Float[Tensor, " channels"] | None = None
    scale_2: Float[Tensor, " channels"] | None = None
    norm_out: nn.Module | None = None
    norm_up: nn.Module | None = None
    norm_down: nn.Module | None = None
    after_1: nn.Module | None = None
    after_2: nn.Module | None = None
    rotary: Float[Tensor, "two tokens width"] | None = None
    query: Float[Tensor, "1 channels"] | None = None
    residual: bool = True
    skipped: int = 0


@dataclass(frozen=True)
class Patches:
    """From pixels to the tokens entering the first layer: `embed`, a class token or none, positions, a norm.

    `embed` makes a cell's channels of each patch of `patch` (height, width) pixels, and keeps no graph: one convolution
    (see `one_map`), or several, whose cells may see a little beyond their patch.
    `positions` has a row for the class token, if there is one, and then one for each cell of `grid` (height, width);
    for another grid they are resized bicubically, or with `antialias` bilinearly, as in Siglip2.
    """

    embed: Callable[[Tensor], Float[Tensor, "images channels grid_h grid_w"]]
    patch: tuple[int, int]
    class_token: Float[Tensor, " channels"] | None
    positions: Float[Tensor, "tokens channels"]
    grid: tuple[int, int]
    norm: nn.Module | None
    antialias: bool = False


def one_map(
    kernel: Float[Tensor, "channels colours patch_h patch_w"], bias: Float[Tensor, " channels"] | None
) -> Callable[[Tensor], Float[Tensor, "images channels grid_h grid_w"]]:
    """The `embed` that takes each patch through one linear map; CLIP's has no bias, other transformers' have one."""
    kernel, bias = kernel.detach(), None if bias is None else bias.detach()
    return lambda pixels: F.conv2d(pixels.to(kernel), kernel, bias, stride=kernel.shape[-2:])


@dataclass(frozen=True)
class Tokens:
    """From token numbers to the tokens entering the first layer, in number format `dtype`.

    `end` is the number of the end token; None where it is the largest of the vocabulary. `special`: the numbers that
    belong to no text, wherever they stand; if none are given, a text's own tokens lie between the start and end tokens.
    """

    embedding: Float[Tensor, "vocabulary channels"]
    positions: Float[Tensor, "context channels"]
    dtype: torch.dtype
    end: int | None = None
    special: tuple[int, ...] = ()


@dataclass(frozen=True)
class Tower:
    """One transformer: its stem, its layers, and how tokens become an embedding. A ResNet's pool has no stem.

    `pooling`: an image's "class" token, or the last layer is a head that pools, by "attention" or by the "mean" (see
    `mean_head`); a text's "end" token, or its "last" one. After it come `norm`, `projection` and `bias`, where the
    network has them. `rotary` gives the layers' rotary positions on a grid (height, width), where they have such.
    `similarity` says how an embedding is compared with a target: by the "cosine", or by the "dot" product (of a class).
    """

    stem: Patches | Tokens | None
    layers: tuple[Layer, ...]
    pooling: str
    norm: nn.Module | None
    projection: Float[Tensor, "channels embedding"] | None
    bias: Float[Tensor, " embedding"] | None = None
    causal: bool = False
    similarity: str = "cosine"
    rotary: Callable[[tuple[int, int]], Float[Tensor, "two tokens width"]] | None = None

    @property
    def dtype(self) -> torch.dtype:
        """The number format of embeddings."""
        output: Any = self.layers[-1].out
        return output.weight.dtype if self.projection is None else self.projection.dtype

    @property
    def prefix(self) -> int:
        """The number of tokens before the patches: 1 for a class token, else 0."""
        return 0 if isinstance(self.stem, Patches) and self.stem.class_token is None else 1


def layers_on(tower: Tower, grid: tuple[int, int]) -> tuple[Layer, ...]:
    """The layers of a tower for a grid, with that grid's rotary positions if the tower uses them."""
    if tower.rotary is None:
        return tower.layers
    table = tower.rotary(grid)
    return tuple(layer if layer.query is not None else replace(layer, rotary=table) for layer in tower.layers)


def mean_head(norm: nn.Module | None, like: Float[Tensor, "outputs channels"], skipped: int) -> Layer:
    """Pooling by the mean as a head that pools: attention of one head with equal weights, whose values are the tokens.

    Its query and keys are 0. `norm` is that of the tokens before they are averaged; the first `skipped` tokens are left
    out. Number format and width are those of a weight `like` it.
    """
    same = torch.eye(like.shape[1], dtype=like.dtype, device=like.device)
    parts = (Affine(torch.zeros_like(same)), Affine(torch.zeros_like(same)), Affine(same))
    query = torch.zeros_like(same[:1])
    return Layer(None, 1, norm, parts, Affine(same), query=query, residual=False, skipped=skipped)


def square(positions: int) -> tuple[int, int]:
    """The square grid with this number of positions, for networks that do not state the grid's shape."""
    side = round(positions**0.5)
    return side, side


def present(norm: nn.Module | None) -> nn.Module | None:
    """A norm, or None for an identity in its place."""
    return None if isinstance(norm, nn.Identity) else norm


def patches_of(visual: nn.Module) -> Patches:
    positions = visual.positional_embedding.detach()
    return Patches(
        embed=one_map(visual.conv1.weight, visual.conv1.bias),
        patch=tuple(visual.conv1.weight.shape[-2:]),
        class_token=visual.class_embedding.detach(),
        positions=positions,
        grid=tuple(getattr(visual, "grid_size", None) or square(len(positions) - 1)),
        norm=present(visual.ln_pre),
    )


def tower_layers(transformer: nn.Module) -> tuple[Layer, ...]:
    """The layers of a transformer of OpenAI's or open_clip's."""
    return tuple(_layer(block) for block in transformer.resblocks)


def _layer(block: nn.Module) -> Layer:
    attn, mlp = block.attn, block.mlp
    return Layer(
        module=getattr(block, "own", block),
        heads=attn.num_heads,
        norm_1=block.ln_1,
        qkv=(Affine(attn.in_proj_weight, attn.in_proj_bias),),
        out=attn.out_proj,
        norm_2=block.ln_2,
        up=mlp.c_fc,
        activation=mlp.gelu,
        down=mlp.c_proj,
        scale_1=_scale(block, "ls_1"),
        scale_2=_scale(block, "ls_2"),
    )


def _scale(block: nn.Module, name: str) -> Tensor | None:
    """open_clip's layer scale, where the block has one."""
    gamma = getattr(getattr(block, name, None), "gamma", None)
    return None if gamma is None else gamma.detach()
