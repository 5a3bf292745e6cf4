"""The record of a forward, `Trace`: what it holds, what can be asked of it, and which earlier one serves.

Below vit.py and resnet.py, which make traces, and request.py, which keeps them; explainers read them.

A `Trace` holds the last `layers` blocks, in order of the forward. `queries` is `tokens` in every block, except that
the last block is computed for the pooled token alone (`queries` = 1) unless `tokens="all"` is asked for.

| of a `Block` | shape | what it is |
|---|---|---|
| `input`     | images tokens channels       | tokens entering the block |
| `q`         | images heads queries width   | queries, after their projection and bias |
| `k`, `v`    | images heads tokens width    | keys and values, the same |
| `attention` | images heads queries tokens  | softmax(q k^T / sqrt(width)) |
| `attended`  | images queries channels      | attention times v, heads joined, before the output projection (GE's o) |
| `output`    | images queries leaving       | tokens leaving the block; `leaving` = channels, or a ResNet's embedding |
| `mean`      | images leaving              | mean of `output` over the tokens; only with a graph and `tokens="all"` |

| of a `Trace` | shape | what it is |
|---|---|---|
| `embedding` | images embedding             | what `encode_image` or `encode_text` returns, not normalised |
| `pooled`    | images                       | index of the token that becomes the embedding: 0, or the text's end |
| `grid`      | grid_h, grid_w               | patches in height and width; (0, 0) for a text |
| `own`       | images tokens                | what is explained: patches, a text's own tokens without start and end |

`channels` = heads x width. For a text, read "texts" for "images"; tokens stop at the end of the longest text.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clip_explain.checks import one_of
from clip_explain.errors import MethodError
from clip_explain.models.towers import Layer, Tower

HEADS = ("native", "single")
STARTS = (None, "input", "attention", "attended")  # in the order of a layer's forward
TOKENS = ("class", "all")
# Gradients are carried times this power of two, so that they do not underflow in fp16; exact in the wider formats.
GRADIENT_SCALE = 1024.0
# At most so many token rows are carried backward at once: bounds the memory of many targets through deep blocks.
ROWS_AT_ONCE = 8192


@dataclass(frozen=True)
class Block:
    """One block of a trace; see the table above."""

    input: Float[Tensor, "images tokens channels"]
    q: Float[Tensor, "images heads queries width"]
    k: Float[Tensor, "images heads tokens width"]
    v: Float[Tensor, "images heads tokens width"]
    attention: Float[Tensor, "images heads queries tokens"]
    attended: Float[Tensor, "images queries channels"]
    output: Float[Tensor, "images queries leaving"]
    layer: Layer
    mean: Float[Tensor, "images leaving"] | None = None


@dataclass(frozen=True)
class Trace:
    """One forward of a tower; see the table above."""

    embedding: Float[Tensor, "images embedding"]
    blocks: tuple[Block, ...]
    pooled: Int[Tensor, " images"]
    grid: tuple[int, int]
    tower: Tower
    own: Bool[Tensor, "images tokens"]


@dataclass(frozen=True)
class TraceOptions:
    """What is asked of a trace, and the key under which it is kept.

    `layers`: how many of the last layers are kept. `heads="single"`: the last `single` layers (None: all that are
    kept) attend with one head over all channels, as GE eq. 5 does; "native" is the model as it was trained. `start`:
    the tensor of the first kept layer ("input", "attention" or "attended") from which gradients can be taken;
    everything before it, and everything when None, carries no graph. `tokens="all"` computes the last layer for every
    token, "class" for the pooled one alone. `padding`: a text's padding is computed, too.
    """

    heads: str = "native"
    layers: int = 1
    single: int | None = None
    start: str | None = None
    tokens: str = "class"
    padding: bool = False

    @property
    def single_layers(self) -> int:
        """How many of the last layers have one head."""
        if self.heads == "native":
            return 0
        return self.layers if self.single is None else self.single

    def check(self, depth: int) -> None:
        """MethodError for an option that a tower of so many layers does not take."""
        one_of("heads", self.heads, HEADS)
        one_of("start", self.start, STARTS)
        one_of("tokens", self.tokens, TOKENS)
        single = self.layers if self.single is None else self.single
        for name, value, least in (("layers", self.layers, 1), ("single", single, 0)):
            if not least <= value <= depth:
                raise MethodError(f"got {name}={value}, expected {least} to {depth}: the model has {depth} layers")

    def serves(self, asked: "TraceOptions") -> bool:
        """Whether a trace with these options contains what is asked for: its layers, tokens and gradients."""
        same = self.single_layers == asked.single_layers and self.padding == asked.padding
        if not same or self.layers < asked.layers or self.tokens not in (asked.tokens, "all"):
            return False
        if asked.start is None:
            return True
        if self.start is None:
            return False
        return self.layers > asked.layers or STARTS.index(self.start) <= STARTS.index(asked.start)

    def begins(self, asked: "TraceOptions") -> bool:
        """Whether a trace with these options contains the tokens that enter the first layer that is asked for."""
        native = self.single_layers == 0 and self.padding == asked.padding
        return native and self.layers >= max(asked.layers, asked.single_layers)


# -- what is read off a trace


def pooled_row(x: Float[Tensor, "images *rest queries last"], pooled: Int[Tensor, " images"]) -> Tensor:
    """The pooled token's row, (images, *rest, last), of a tensor over queries: all of them or that row alone."""
    if x.shape[-2] == 1:
        return x[..., 0, :]
    return x[torch.arange(len(x), device=x.device), ..., pooled, :]


def on_grid(row: Float[Tensor, "*axes tokens"], trace: Trace) -> Float[Tensor, "*axes grid_h grid_w"]:
    """The patches' part of a row over all tokens of an image, as maps in float32."""
    return row[..., trace.tower.prefix :].unflatten(-1, trace.grid).float()


def on_words(row: Float[Tensor, "texts images tokens"], trace: Trace) -> Float[Tensor, "texts images tokens"]:
    """A row over all tokens of a text, in float32, with zeros outside the words (start, end and padding)."""
    return torch.where(trace.own[:, None], row, 0.0).float()


def gradients(
    embedding: Float[Tensor, "images embedding"],
    tensors: list[Tensor],
    directions: Float[Tensor, "targets embedding"],
    similarity: str = "cosine",
) -> list[Float[Tensor, "images targets ..."]]:
    """d cos(embedding_i, direction_t) / d tensor for every image i, target t and tensor, all targets in one backward.

    `directions` have unit length. With `similarity="dot"` it is the gradient of the dot product, and directions may
    have any length. The first axis of each tensor is `images`, and no image may depend on another. The graph is kept,
    so a cached trace can be read again. In float32 at least, whatever the model's dtype.
    """
    precise = torch.promote_types(embedding.dtype, torch.float32)
    with torch.inference_mode(False), torch.enable_grad():
        unit = F.normalize(embedding.to(precise), dim=-1) if similarity == "cosine" else embedding.to(precise)
    rows = max(tensor[:, ..., 0].numel() for tensor in tensors)
    found = []
    for some in (directions.to(unit) * GRADIENT_SCALE).split(max(1, ROWS_AT_ONCE // rows)):
        cotangents = some[:, None].expand(-1, len(unit), -1)
        grads = torch.autograd.grad(unit, tensors, cotangents, retain_graph=True, is_grads_batched=True)
        found.append([grad.transpose(0, 1).to(precise) / GRADIENT_SCALE for grad in grads])
    return [torch.cat(parts, dim=1) for parts in zip(*found, strict=True)]


# -- one trace in place of another


def find_trace(
    kept: dict[TraceOptions, Trace], asked: TraceOptions, make: Callable[[TraceOptions, Trace | None], Trace]
) -> Trace:
    """The trace that is asked for: one of those `kept`, a part of one, or a new one, which is then kept.

    `make` computes a new trace; if it is given an earlier one, it continues from there. A part of a trace, and a trace
    that continues another, have the numbers of a separate trace up to rounding.
    """
    if asked not in kept:
        serving = next((options for options in kept if options.serves(asked)), None)
        if serving is not None:
            kept[asked] = part_of(kept[serving], asked)
        else:
            begun = next((kept[options] for options in kept if options.begins(asked)), None)
            kept[asked] = make(asked, begun)
    return kept[asked]


def part_of(trace: Trace, asked: TraceOptions) -> Trace:
    """The last layers of a trace: detached from its graph, and only the pooled token's row of the last layer.

    If gradients are asked for, the tensors are the trace's own; the last layer may then hold every token's row.
    """
    blocks = trace.blocks[-asked.layers :]
    if asked.start is not None:
        return replace(trace, blocks=blocks)
    blocks = tuple(detached(block) for block in blocks)
    if asked.tokens == "class":
        blocks = (*blocks[:-1], pooled_block(blocks[-1], trace))
    return replace(trace, blocks=blocks, embedding=trace.embedding.detach())


def detached(block: Block) -> Block:
    """A block whose tensors are detached from the graph."""
    names = ("input", "q", "k", "v", "attention", "attended", "output")
    return replace(block, mean=None, **{name: getattr(block, name).detach() for name in names})


def pooled_block(block: Block, trace: Trace) -> Block:
    """A block that holds only the pooled token's query."""
    names = ("q", "attention", "attended", "output")
    rows = {name: pooled_row(getattr(block, name), trace.pooled).unsqueeze(-2) for name in names}
    return replace(block, **rows)
