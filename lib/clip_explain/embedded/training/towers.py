"""OpenAI's networks built and run for training: on windows, batch first, with gradients for the weights.

Apart from models/vit.py, which keeps its parts for explainers and whose weights take no gradient. Here they do, patches
can be left out or isolated, and nothing waits for a GPU, so that a step can be recorded as a CUDA graph. On whole
pictures both give the same embeddings, which a test holds to 1e-5.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from clip_explain.embedded.training.plans import Plan
from clip_explain.models import load
from clip_explain.models.resnet import trained_stage
from clip_explain.models.weights import clip

RESNET_CELL = 32  # pixels of a side of a cell of a ModifiedResNet's last grid
LENGTHS = 3  # a batch's texts run in so many parts of about equal length, so that little padding is computed


def build(plan: Plan, seed: int) -> nn.Module:
    """OpenAI's CLIP at 224 pixels with random weights from the seed.

    Or, for a plan with a `start`, that model, all of its weights to be trained.
    """
    if plan.start:
        return load(plan.start, "cpu", "fp32").network.train().requires_grad_(True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vision = (224, plan.vision_layers, plan.vision_width, plan.patch)
        text = (77, 49408, plan.text_width, plan.text_width // 64, plan.text_layers)
        network = clip.model.CLIP(plan.embed, *vision, *text)
    for tower, heads in ((network.visual, plan.vision_heads), (network, plan.text_heads)):
        for block in tower.transformer.resblocks if heads else ():
            block.attn.num_heads, block.attn.head_dim = heads, block.attn.embed_dim // heads
    return network.requires_grad_(True)


def embed_images(visual: nn.Module, pixels: Tensor, corner: tuple[int, int], **reading) -> Tensor:
    """Image embeddings of windows; `reading` are the options of `embed_windows`, for a transformer only."""
    if hasattr(visual, "attnpool"):
        return embed_resnet_windows(visual, pixels, corner)
    return embed_windows(visual, pixels, corner, **reading)


def embed_resnet_windows(
    visual: nn.Module, pixels: Float[Tensor, "images 3 height width"], corner: tuple[int, int]
) -> Float[Tensor, "images embedding"]:
    """Image embeddings of windows by a ModifiedResNet; `corner` is in cells of its last grid."""
    places = places_in_grid(len(positions_of(visual)), corner, grid_of(visual, pixels.shape[2:])).to(pixels.device)
    return embed_cells(visual, pixels, places)


def embed_cells(
    visual: nn.Module, pixels: Float[Tensor, "images 3 height width"], places: Int[Tensor, " grid"]
) -> Float[Tensor, "images embedding"]:
    """As `embed_resnet_windows`, of the last grid's cells at `places`."""
    features, pool = trained_stage(visual, pixels.to(memory_format=torch.channels_last)), visual.attnpool
    cells = features.flatten(2).transpose(1, 2)
    x = torch.cat([cells.mean(1, keepdim=True), cells], 1)
    own, grid = pool.positional_embedding[:1], pool.positional_embedding.index_select(0, places)
    x = x + torch.cat([own, grid])
    parts = (pool.q_proj(x[:, :1]), pool.k_proj(x), pool.v_proj(x))
    q, k, v = (part.unflatten(-1, (pool.num_heads, -1)).transpose(1, 2) for part in parts)
    return pool.c_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(1))


def positions_of(visual: nn.Module) -> Float[Tensor, "positions channels"]:
    """A tower's positional embeddings: those of its own token first, then those of its grid."""
    tower: Any = visual.attnpool if hasattr(visual, "attnpool") else visual
    return tower.positional_embedding


def grid_of(visual: nn.Module, sides: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of the patches, or of a ModifiedResNet's last cells, that cover (height, width) pixels."""
    patches: Any = visual.conv1
    size = RESNET_CELL if hasattr(visual, "attnpool") else patches.kernel_size[0]
    height, width = sides
    return height // size, width // size


def places_in_grid(positions: int, corner: tuple[int, int], shape: Sequence[int]) -> Int[Tensor, " patches"]:
    """Which of a tower's positions, the class token's first and then a square grid's, a window's patches take."""
    side = math.isqrt(positions - 1)
    rows, columns = (torch.arange(start, start + count) for start, count in zip(corner, shape, strict=True))
    return (1 + rows[:, None] * side + columns).flatten()


def first_to_read(reads_from: float, blocks: nn.Module) -> int:
    """The number of the first block after the share `reads_from` of all, or of the last block."""
    return min(int(reads_from * len(blocks)), len(blocks) - 1)


def run_blocks(
    blocks: nn.Module,
    x: Float[Tensor, "images tokens channels"],
    causal: bool,
    reader: Int[Tensor, " images"] | None = None,
    first: int | Int[Tensor, ""] = 0,
    may: Tensor | None = None,
) -> Float[Tensor, "images tokens channels"]:
    """OpenAI's residual blocks, batch first, for any number of tokens; models/vit.py has the one that keeps its parts.

    In blocks before the number `first`, each row's token `reader` (the first, when None) attends to itself alone; `may`
    says which token may attend to which.
    """
    place = torch.zeros(len(x), dtype=torch.long, device=x.device) if reader is None else reader
    reads = (torch.arange(x.shape[1], device=x.device) == place[:, None])[:, None, :, None]
    for index, block in enumerate(blocks):
        qkv = F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias)
        q, k, v = qkv.view(*x.shape[:2], 3, block.attn.num_heads, -1).permute(2, 0, 3, 1, 4)
        attended = attend(q, k, v, may, causal)
        if isinstance(first, Tensor) or index < first:
            attended = torch.where(reads & (first > index), v, attended)
        x = x + block.attn.out_proj(attended.transpose(1, 2).reshape(x.shape))
        x = x + mlp(block.mlp, block.ln_2(x))
    return x


def attend(
    q: Float[Tensor, "images heads tokens channels"],
    k: Float[Tensor, "images heads tokens channels"],
    v: Float[Tensor, "images heads tokens channels"],
    may: Tensor | None,
    causal: bool,
) -> Float[Tensor, "images heads tokens channels"]:
    """Attention; on a CPU by its formula, since PyTorch's own is several times slower there in bfloat16."""
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, may, is_causal=causal)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if causal:
        may = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    if may is not None:
        scores = scores.masked_fill(~may, -1e4)
    return scores.softmax(-1).to(v.dtype) @ v


def mlp(block: nn.Module, x: Float[Tensor, "images tokens channels"]) -> Float[Tensor, "images tokens channels"]:
    """A block's MLP with QuickGELU, x sigmoid(1.702 x) = silu(1.702 x) / 1.702, its factors moved into the weights.

    The same numbers with half the passes over the activations. Another activation runs as it is.
    """
    inner, outer = block.c_fc, block.c_proj
    if not isinstance(block.gelu, clip.model.QuickGELU):
        return block(x)
    hidden = F.silu(F.linear(x, inner.weight * 1.702, inner.bias * 1.702))
    return F.linear(hidden, outer.weight / 1.702, outer.bias)


def embed_windows(
    visual: nn.Module,
    pixels: Float[Tensor, "images 3 height width"],
    corner: tuple[int, int],
    reads_from: float = 0.0,
    kept: Tensor | None = None,
    cells: Tensor | None = None,
) -> Float[Tensor, "images embedding"]:
    """Image embeddings of windows whose top left patch is `corner` (row, column) of the model's own grid.

    `kept` (images, patches): which of the window's patches are looked at; all when None. `cells` (patches,): patches
    attend only to those of the same number; when None to all, and to the class token.
    """
    places = places_in_grid(len(positions_of(visual)), corner, grid_of(visual, pixels.shape[2:])).to(pixels.device)
    first = first_to_read(reads_from, visual.transformer.resblocks)
    return embed_patches(visual, pixels, places, first, kept, cells)


def embed_patches(
    visual: nn.Module,
    pixels: Float[Tensor, "images 3 height width"],
    places: Int[Tensor, " grid"],
    first: int | Int[Tensor, ""],
    kept: Int[Tensor, "images patches"] | None,
    cells: Int[Tensor, " grid"] | None,
) -> Float[Tensor, "images embedding"]:
    """As `embed_windows`, of patches at `places`; the class token reads them from the block `first` on."""
    tokens = visual.conv1(pixels).flatten(2).transpose(1, 2) + visual.positional_embedding.index_select(0, places)
    if kept is not None:
        tokens = tokens.gather(1, kept[..., None].expand(-1, -1, tokens.shape[-1]))
    own = (visual.class_embedding + visual.positional_embedding[0]).expand(len(pixels), 1, -1)
    x = visual.ln_pre(torch.cat([own, tokens], 1))
    may = None if cells is None else within_cells(cells, kept)
    x = run_blocks(visual.transformer.resblocks, x, False, None, first, may)
    return visual.ln_post(x[:, 0]) @ visual.proj


def within_cells(cells: Int[Tensor, " patches"], kept: Tensor | None) -> Bool[Tensor, "images 1 tokens tokens"]:
    """A mask of attention between tokens: the class token sees all, a patch only those of its own cell."""
    own = cells[None] if kept is None else cells[kept]
    may = F.pad(own[:, :, None] == own[:, None, :], (1, 0, 1, 0), value=False)
    may[:, 0] = True
    return may[:, None]


def embed_texts(
    network: nn.Module, tokens: Int[Tensor, "texts context"], reads_from: float = 0.0
) -> Float[Tensor, "texts embedding"]:
    """Text embeddings; trailing padding is cut off, which changes nothing under a causal mask.

    `reads_from`: the end token reads the others only in the last blocks, as the class token does.
    """
    last, first = tokens.argmax(1), first_to_read(reads_from, network.transformer.resblocks)
    order = last.argsort()
    parts = []
    for some in order.chunk(LENGTHS):
        shortest = tokens[some, : int(last[some].max()) + 1]
        parts.append(embed_ends(network, shortest, last[some], first))
    return torch.cat(parts)[order.argsort()]


def embed_ends(
    network: nn.Module, tokens: Int[Tensor, "texts length"], last: Int[Tensor, " texts"], first: int | Int[Tensor, ""]
) -> Float[Tensor, "texts embedding"]:
    """Embeddings of texts whose end tokens are at `last`; these read the others from the block `first` on."""
    embedded = network.token_embedding.weight.index_select(0, tokens.flatten()).view(*tokens.shape, -1)
    x = embedded + network.positional_embedding[: tokens.shape[1]]
    x = network.ln_final(run_blocks(network.transformer.resblocks, x, True, last, first))
    return x.gather(1, last[:, None, None].expand(-1, 1, x.shape[-1]))[:, 0] @ network.text_projection
