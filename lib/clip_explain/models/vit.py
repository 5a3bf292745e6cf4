"""CLIP's image and text transformers written out, keeping the tensors that explainers read.

The blocks of a CLIP call attention with `need_weights=False`, so hooks never see it; here the projections are taken
from the weights instead. The network is only read: never patched, switched or left changed.

A `Trace` holds the last `layers` blocks, in order of the forward. `queries` is `tokens` in every block, except that
the last block is computed for the pooled token alone (`queries` = 1) unless `tokens="all"` is asked for.

| of a `Block` | shape | what it is |
|---|---|---|
| `input`     | images tokens channels       | tokens entering the block |
| `q`         | images heads queries width   | queries, after their projection and bias |
| `k`, `v`    | images heads tokens width    | keys and values, the same |
| `attention` | images heads queries tokens  | softmax(q k^T / sqrt(width)) |
| `attended`  | images queries channels      | attention times v, heads joined, before the output projection (GE's o) |
| `output`    | images queries channels      | tokens leaving the block |

| of a `Trace` | shape | what it is |
|---|---|---|
| `embedding` | images embedding             | what `encode_image` or `encode_text` returns, not normalised |
| `pooled`    | images                       | index of the token that becomes the embedding: 0, or the text's end |
| `grid`      | grid_h, grid_w               | patches in height and width; (0, 0) for a text |

`channels` = heads x width. For a text, read "texts" for "images"; tokens stop at the end of the longest text.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from clip_explain.errors import MethodError, ModelError, TensorError

HEADS = ("native", "single")
STARTS = (None, "input", "attention", "attended")
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
    output: Float[Tensor, "images queries channels"]
    module: nn.Module


@dataclass(frozen=True)
class Tower:
    """The weights of one transformer: its blocks, the last layer norm and the projection to the embedding.

    `score` says how an embedding is compared with a target: by the "cosine", or by the "dot" product (class logits).
    """

    blocks: tuple[nn.Module, ...]
    norm: nn.Module
    projection: Float[Tensor, "channels embedding"]
    causal: bool
    bias: Float[Tensor, " embedding"] | None = None
    score: str = "cosine"


@dataclass(frozen=True)
class Trace:
    """One forward of a tower; see the table above."""

    embedding: Float[Tensor, "images embedding"]
    blocks: tuple[Block, ...]
    pooled: Int[Tensor, " images"]
    grid: tuple[int, int]
    tower: Tower


def image_tower(network: nn.Module) -> Tower:
    """The vision transformer of `network`; ModelError for a ResNet."""
    visual = network.visual
    if not hasattr(visual, "transformer"):
        raise ModelError(f"the image encoder is a {type(visual).__name__}; a trace needs a vision transformer (ViT)")
    bias = getattr(visual, "proj_bias", None)  # BLIP's projection has one, CLIP's has not
    return Tower(tuple(visual.transformer.resblocks), visual.ln_post, visual.proj.detach(), causal=False, bias=bias)


def text_tower(network: nn.Module) -> Tower:
    """The text transformer of `network`."""
    blocks = tuple(network.transformer.resblocks)
    return Tower(blocks, network.ln_final, network.text_projection.detach(), causal=True)


def trace_image(
    network: nn.Module,
    pixels: Tensor,
    *,
    heads: str = "native",
    layers: int = 1,
    single: int | None = None,
    start: str | None = None,
    tokens: str = "class",
    score: str = "cosine",
) -> Trace:
    """Forward of preprocessed images (images, 3, height, width) of any size that the patch divides.

    `layers`: how many of the last blocks are kept. `heads="single"`: the last `single` blocks (by default all that are
    kept) attend with one head over all channels, as GE eq. 5 does; "native" is the model as it was trained.
    `start`: the tensor of the first kept block ("input", "attention" or "attended") from which gradients can be taken;
    everything before it, and everything when None, carries no graph. `tokens="all"` computes the last block for every
    token. The positional embedding is resized (bicubic) for other sizes than the model's own, for this call only.
    `score` is handed on to `gradients`, see `Tower`. Differs from the model in nothing: with native heads, `embedding`
    is `encode_image` up to rounding.
    """
    tower = replace(image_tower(network), score=score)
    with torch.inference_mode(False), torch.set_grad_enabled(start is not None):
        embedded, grid = embed_pixels(network.visual, pixels.detach())
        pooled = torch.zeros(len(embedded), dtype=torch.long, device=embedded.device)
        return _run(tower, embedded, pooled, grid, heads, layers, single, start, tokens)


def trace_text(
    network: nn.Module,
    texts: Tensor,
    *,
    heads: str = "native",
    layers: int = 1,
    single: int | None = None,
    start: str | None = None,
    tokens: str = "class",
    padding: bool = False,
) -> Trace:
    """Forward of tokenized texts (texts, context); options as in `trace_image`.

    The pooled token is each text's end token, the largest number in it. Attention is causal, so the padding after the
    longest text's end does not change the embedding and is computed only if asked for (`padding`).
    """
    if texts.ndim != 2 or texts.is_floating_point() or not texts.numel():
        raise TensorError(f"got texts of {tuple(texts.shape)}, {texts.dtype}, expected integers (texts, context)")
    tower = text_tower(network)
    with torch.inference_mode(False), torch.set_grad_enabled(start is not None):
        texts = texts.to(tower.projection.device)
        pooled = texts.argmax(dim=-1)
        embedded = embed_texts(network, texts if padding else texts[:, : int(pooled.max()) + 1])
        return _run(tower, embedded, pooled, (0, 0), heads, layers, single, start, tokens)


def embed_pixels(visual: nn.Module, pixels: Tensor) -> tuple[Float[Tensor, "images tokens channels"], tuple[int, int]]:
    """Tokens entering the first vision block (class token first) and the patch grid (height, width)."""
    kernel = visual.conv1.weight.detach()
    _check_pixels(pixels, kernel.shape[-2:])
    bias = visual.conv1.bias  # CLIP's has none, other vision transformers have one
    patches = F.conv2d(pixels.to(kernel), kernel, None if bias is None else bias.detach(), stride=kernel.shape[-2:])
    grid = (patches.shape[-2], patches.shape[-1])
    patches = patches.flatten(2).transpose(1, 2)
    class_token = visual.class_embedding.detach().to(patches.dtype).expand(len(patches), 1, -1)
    position = resize_positions(visual.positional_embedding.detach(), grid).to(patches.dtype)
    x = torch.cat([class_token, patches], dim=1) + position
    return (x if isinstance(visual.ln_pre, nn.Identity) else layer_norm(x, visual.ln_pre)), grid


def embed_texts(network: nn.Module, texts: Int[Tensor, "texts tokens"]) -> Float[Tensor, "texts tokens channels"]:
    """Tokens entering the first text block."""
    dtype = network.text_projection.dtype
    position = network.positional_embedding.detach()[: texts.shape[1]]
    return F.embedding(texts, network.token_embedding.weight.detach()).to(dtype) + position.to(dtype)


def resize_positions(position: Float[Tensor, "tokens channels"], grid: tuple[int, int]) -> Tensor:
    """The positional embedding (class token, then a square grid), its grid part resized bicubically to `grid`."""
    side = round((len(position) - 1) ** 0.5)
    if grid == (side, side):
        return position
    square = position[1:].T.reshape(1, -1, side, side)
    square = square.to(torch.promote_types(square.dtype, torch.float32))
    resized = F.interpolate(square, size=grid, mode="bicubic", align_corners=False)
    return torch.cat([position[:1], resized.flatten(2)[0].T.to(position)])


def _run(tower, x, pooled, grid, heads, layers, single, start, tokens) -> Trace:
    """The blocks one after another: the early ones fast and forgotten, the last `layers` in full."""
    depth = len(tower.blocks)
    single = _check_options(depth, heads, layers, single, start, tokens)
    kept = []
    # Sums between blocks stay in float32 in half precision, too: maps in which terms cancel need it.
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    for index, module in enumerate(tower.blocks):
        head_count = 1 if index >= depth - single else module.attn.num_heads
        if index < depth - layers:
            x = forward_block(module, x, head_count, tower.causal)
            continue
        rows = pooled if index == depth - 1 and tokens == "class" else None
        block = trace_block(module, x, head_count, tower.causal, rows, start if index == depth - layers else None)
        kept.append(block)
        x = block.output
    embedding = project(tower, pooled_row(x, pooled))
    return Trace(embedding, tuple(kept), pooled, grid, tower)


def forward_block(module: nn.Module, x: Tensor, heads: int, causal: bool) -> Float[Tensor, "images tokens channels"]:
    """One block without keeping anything: attention by torch's fused kernel."""
    attn = module.attn
    qkv = linear(layer_norm(x, module.ln_1), attn.in_proj_weight, attn.in_proj_bias)
    q, k, v = (split_heads(part, heads) for part in qkv.chunk(3, dim=-1))
    attended = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    return finish_block(module, x, join_heads(attended))


def trace_block(
    module: nn.Module, x: Tensor, heads: int, causal: bool, rows: Tensor | None = None, start: str | None = None
) -> Block:
    """One block in full; for the token `rows` of each image alone where given. `start` becomes a leaf of the graph."""
    x = _leaf(x, start == "input")
    normed = layer_norm(x, module.ln_1)
    own_x, own_normed = (x, normed) if rows is None else (_take(x, rows), _take(normed, rows))
    q, k, v = project_qkv(module.attn, own_normed, normed, heads)
    logits = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    if causal:
        logits = logits.masked_fill(_future(x.shape[1], rows, x.device), float("-inf"))
    attention = _leaf(logits.softmax(dim=-1), start == "attention")
    attended = _leaf(join_heads(attention @ v), start == "attended")
    return Block(x, q, k, v, attention, attended, finish_block(module, own_x, attended), module)


def finish_block(module: nn.Module, x: Tensor, attended: Tensor) -> Float[Tensor, "images queries channels"]:
    """From the attention's output before its projection to the block's output; x are the same tokens entering it."""
    x = x + linear(attended, module.attn.out_proj.weight, module.attn.out_proj.bias)
    hidden = linear(layer_norm(x, module.ln_2), module.mlp.c_fc.weight, module.mlp.c_fc.bias)
    return x + linear(module.mlp.gelu(hidden), module.mlp.c_proj.weight, module.mlp.c_proj.bias)


def project(tower: Tower, x: Float[Tensor, "*rows channels"]) -> Float[Tensor, "*rows embedding"]:
    """Tokens leaving the last block to the embedding space: last layer norm, then the projection. Not normalised."""
    embedding = layer_norm(x, tower.norm) @ tower.projection.to(x.dtype)
    embedding = embedding if tower.bias is None else embedding + tower.bias.detach().to(x.dtype)
    return embedding.to(tower.projection.dtype)


def project_qkv(attn: nn.Module, queries_of: Tensor, x: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """q of some normed tokens, k and v of all of them; (images, heads, tokens, width) each."""
    weight, bias, channels = attn.in_proj_weight, attn.in_proj_bias, x.shape[-1]
    q = linear(queries_of, weight[:channels], bias[:channels])
    k, v = linear(x, weight[channels:], bias[channels:]).chunk(2, dim=-1)
    return split_heads(q, heads), split_heads(k, heads), split_heads(v, heads)


def pooled_row(x: Float[Tensor, "images *rest queries last"], pooled: Int[Tensor, " images"]) -> Tensor:
    """The pooled token's row, (images, *rest, last), of a tensor over queries: all of them or that row alone."""
    if x.shape[-2] == 1:
        return x[..., 0, :]
    return x[torch.arange(len(x), device=x.device), ..., pooled, :]


def gradients(
    embedding: Float[Tensor, "images embedding"],
    tensors: list[Tensor],
    directions: Float[Tensor, "targets embedding"],
    score: str = "cosine",
) -> list[Float[Tensor, "images targets ..."]]:
    """d cos(embedding_i, direction_t) / d tensor for every image i, target t and tensor, all targets in one backward.

    `directions` have unit length. With `score="dot"` it is the gradient of the dot product, towards directions of any
    length. The first axis of each tensor is `images`, and no image may depend on another. The graph is kept, so a
    cached trace can be read again. In float32 at least, whatever the model's dtype.
    """
    precise = torch.promote_types(embedding.dtype, torch.float32)
    with torch.inference_mode(False), torch.enable_grad():
        unit = F.normalize(embedding.to(precise), dim=-1) if score == "cosine" else embedding.to(precise)
    rows = max(tensor[:, ..., 0].numel() for tensor in tensors)
    found = []
    for some in (directions.to(unit) * GRADIENT_SCALE).split(max(1, ROWS_AT_ONCE // rows)):
        cotangents = some[:, None].expand(-1, len(unit), -1)
        grads = torch.autograd.grad(unit, tensors, cotangents, retain_graph=True, is_grads_batched=True)
        found.append([grad.transpose(0, 1).to(precise) / GRADIENT_SCALE for grad in grads])
    return [torch.cat(parts, dim=1) for parts in zip(*found, strict=True)]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Linear map in the weights' dtype, by detached weights, so that no gradient is ever kept for them."""
    return F.linear(x.to(weight.dtype), weight.detach(), None if bias is None else bias.detach())


def layer_norm(x: Tensor, norm: nn.Module) -> Tensor:
    """Layer norm in float32 at least, as OpenAI's does, and back to the dtype of x."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    weight, bias = norm.weight.detach().to(dtype), norm.bias.detach().to(dtype)
    return F.layer_norm(x.to(dtype), norm.normalized_shape, weight, bias, norm.eps).to(x.dtype)


def split_heads(x: Float[Tensor, "*images tokens channels"], heads: int) -> Float[Tensor, "*images heads tokens width"]:
    """Channels cut into heads."""
    return x.unflatten(-1, (heads, -1)).transpose(-3, -2)


def join_heads(x: Float[Tensor, "*images heads tokens width"]) -> Float[Tensor, "*images tokens channels"]:
    """Heads side by side again: the inverse of `split_heads`."""
    return x.transpose(-3, -2).flatten(-2)


def _take(x: Tensor, rows: Tensor) -> Tensor:
    """Row `rows[i]` of image i, the axis kept: (images, 1, channels)."""
    return x[torch.arange(len(x), device=x.device), rows][:, None]


def _leaf(x: Tensor, starts: bool) -> Tensor:
    return x.detach().requires_grad_() if starts else x


def _future(tokens: int, rows: Tensor | None, device: torch.device) -> Tensor:
    """True where a request may not look: (queries, tokens), or (images, 1, 1, tokens) for one row of each image."""
    position = torch.arange(tokens, device=device)
    return position > (position[:, None] if rows is None else rows[:, None, None, None])


def _check_pixels(pixels: Tensor, patch: tuple[int, int]) -> None:
    fits = pixels.ndim == 4 and pixels.shape[1] == 3 and pixels.is_floating_point() and len(pixels) > 0
    sized = fits and all(side >= step and side % step == 0 for side, step in zip(pixels.shape[-2:], patch, strict=True))
    if not sized:
        raise TensorError(
            f"got images of shape {tuple(pixels.shape)} and {pixels.dtype}, expected floats (images, 3, height, width)"
            f" with height and width multiples of the patch, {patch[0]} x {patch[1]}"
        )


def _check_options(depth: int, heads: str, layers: int, single: int | None, start: str | None, tokens: str) -> int:
    """How many of the last blocks have a single head; MethodError for an option out of range."""
    for name, value, options in (("heads", heads, HEADS), ("start", start, STARTS), ("tokens", tokens, TOKENS)):
        if value not in options:
            raise MethodError(f"got {name}={value!r}, expected one of {', '.join(map(repr, options))}")
    single = layers if single is None else single
    for name, value, least in (("layers", layers, 1), ("single", single, 0)):
        if not least <= value <= depth:
            raise MethodError(f"got {name}={value}, expected {least} to {depth}: the model has {depth} layers")
    return single if heads == "single" else 0
