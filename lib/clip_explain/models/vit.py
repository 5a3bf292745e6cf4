"""CLIP's image and text transformers written out, keeping the tensors that explainers read.

The blocks of a CLIP call attention with `need_weights=False`, so hooks never see it; here the projections are taken
from the weights instead. The network is only read: never patched, switched or left changed.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from clip.model import QuickGELU
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from clip_explain.errors import TensorError
from clip_explain.models.adapted import image_tower, text_tower
from clip_explain.models.layers import Affine, constant, join_heads, layer_norm, linear, rotated, scaled, split_heads
from clip_explain.models.towers import Layer, Patches, Tokens, Tower, layers_on, square
from clip_explain.models.trace import HEADS as HEADS  # the first edition's trace module had these names, too
from clip_explain.models.trace import Block, Trace, TraceOptions, pooled_row
from clip_explain.models.trace import gradients as gradients


def trace_image(
    network: nn.Module,
    pixels: Tensor,
    *,
    similarity: str = "cosine",
    begun: Trace | None = None,
    **options,
) -> Trace:
    """Forward of preprocessed images (images, 3, height, width) of any size that the patch divides.

    `options` are those of `TraceOptions`. The positional embedding is resized (bicubic) for other sizes than the
    model's own, for this call only. `similarity` is handed on to `gradients`, see `Tower`. `begun`: a trace of the same
    images with native heads, from which this one goes on, if it holds the tokens that enter the first layer asked for.
    Differs from the model in nothing: with native heads, `embedding` is `encode_image` up to rounding.
    """
    tower, asked = replace(image_tower(network), similarity=similarity), TraceOptions(**options)
    asked.check(len(tower.layers))
    if begun is not None:
        return _go_on(tower, begun, asked)
    with torch.inference_mode(False), torch.set_grad_enabled(asked.start is not None):
        embedded, grid = embed_pixels(tower.stem, pixels.detach())
        pooled = torch.zeros(len(embedded), dtype=torch.long, device=embedded.device)
        patches = torch.arange(embedded.shape[1], device=embedded.device) >= tower.prefix
        own = patches.expand(len(embedded), -1)
        return _run(tower, embedded, pooled, grid, own, asked)


def trace_text(
    network: nn.Module,
    texts: Tensor,
    *,
    begun: Trace | None = None,
    **options,
) -> Trace:
    """Forward of tokenized texts (texts, context); `options` and `begun` as in `trace_image`.

    The pooled token is each text's end token; under a causal mask the padding after the longest text's end does not
    change the embedding and is computed only if asked for (`padding`). Without a mask, as in SigLIP, the padding is
    part of the text.
    """
    if texts.ndim != 2 or texts.is_floating_point() or not texts.numel():
        raise TensorError(f"got texts of {tuple(texts.shape)}, {texts.dtype}, expected integers (texts, context)")
    tower, asked = text_tower(network), TraceOptions(**options)
    asked.check(len(tower.layers))
    if begun is not None:
        return _go_on(tower, begun, asked)
    with torch.inference_mode(False), torch.set_grad_enabled(asked.start is not None):
        texts = texts.to(tower.stem.embedding.device)
        pooled = pooled_tokens(tower, texts)
        seen = texts if asked.padding else texts[:, : seen_tokens(tower, texts)]
        own = own_tokens(tower, texts)[:, : seen.shape[1]]
        return _run(tower, embed_texts(tower.stem, seen), pooled, (0, 0), own, asked)


def embed_tokens(tower: Tower, tokens: Float[Tensor, "images tokens channels"]) -> Float[Tensor, "images embedding"]:
    """The embedding of tokens that enter the first layer, class token first, wherever in an image they come from."""
    pooled = torch.zeros(len(tokens), dtype=torch.long, device=tokens.device)
    return _run(tower, tokens, pooled, (0, 0), pooled[:, None].bool(), TraceOptions()).embedding


def _go_on(tower: Tower, begun: Trace, options: TraceOptions) -> Trace:
    """A trace that begins with the tokens entering a layer of an earlier one, of the same input and native heads."""
    first = len(tower.layers) - max(options.layers, options.single_layers)
    entering = begun.blocks[first - len(tower.layers)].input.detach()
    with torch.inference_mode(False), torch.set_grad_enabled(options.start is not None):
        return _run(tower, entering, begun.pooled, begun.grid, begun.own, options, first)


def _run(tower, x, pooled, grid, own, options: TraceOptions, first: int = 0) -> Trace:
    """The layers one after another from `first`: the early ones fast and forgotten, the last ones in full."""
    depth, kept = len(tower.layers), []
    # Sums between layers stay in float32 in half precision, too: maps in which terms cancel need it.
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    for index, layer in enumerate(layers_on(tower, grid)[first:], first):
        head_count = 1 if index >= depth - options.single_layers else layer.heads
        if index < depth - options.layers:
            x = forward_block(layer, x, head_count, tower.causal)
            continue
        rows = pooled if index == depth - 1 and options.tokens == "class" else None
        start = options.start if index == depth - options.layers else None
        block = trace_block(layer, x, head_count, tower.causal, rows, start, options.tokens == "all")
        kept.append(block)
        x = block.output
    embedding = project(tower, pooled_row(x, pooled))
    return Trace(embedding, tuple(kept), pooled, grid, tower, own)


def forward_block(layer: Layer, x: Tensor, heads: int, causal: bool) -> Float[Tensor, "images tokens channels"]:
    """One layer without keeping anything: attention by torch's fused kernel."""
    normed = layer_norm(x, layer.norm_1)
    q, k, v = project_qkv(layer, normed, normed, heads)
    attended = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    return finish_block(layer, x, join_heads(attended))


def trace_block(
    layer: Layer,
    x: Tensor,
    heads: int,
    causal: bool,
    rows: Tensor | None = None,
    start: str | None = None,
    with_mean: bool = False,
) -> Block:
    """One layer in full; for the token `rows` of each image alone where given. `start` becomes a leaf of the graph."""
    x = _leaf(x, start == "input")
    normed = layer_norm(x, layer.norm_1)
    own_x, own_normed = x, normed
    if rows is not None:
        own_x, own_normed = pooled_row(x, rows)[:, None], pooled_row(normed, rows)[:, None]
    if layer.query is not None:
        own_normed = layer.query.detach().to(x.dtype).expand(len(x), 1, -1)
    q, k, v = project_qkv(layer, own_normed, normed, heads)
    logits = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    if causal:
        logits = logits.masked_fill(_future(x.shape[1], rows, x.device), float("-inf"))
    if layer.skipped:
        logits = logits.masked_fill(torch.arange(x.shape[1], device=x.device) < layer.skipped, float("-inf"))
    attention = _leaf(logits.softmax(dim=-1), start == "attention")
    attended = _leaf(join_heads(attention @ v), start == "attended")
    middle = add_attention(layer, own_x, attended)
    output, mean = add_mlp(layer, middle, with_mean and torch.is_grad_enabled())
    return Block(x, q, k, v, attention, attended, output, layer, mean)


def finish_block(layer: Layer, x: Tensor, attended: Tensor) -> Float[Tensor, "images queries leaving"]:
    """From the attention's output before its projection to the layer's output; x are the same tokens entering it."""
    return add_mlp(layer, add_attention(layer, x, attended))[0]


def add_mlp(
    layer: Layer, x: Tensor, with_mean: bool = False
) -> tuple[Float[Tensor, "images queries leaving"], Float[Tensor, "images leaving"] | None]:
    """The tokens with the MLP's output added, and if wanted their mean.

    The mean is taken before the MLP's last map, which is linear unless a norm follows, so that a gradient passes that
    map once, not once for every token.
    """
    if layer.up is None:
        return x, x.mean(dim=1) if with_mean else None
    hidden = mlp_hidden(layer, layer_norm(x, layer.norm_2))
    output = x + scaled(layer_norm(linear(hidden, layer.down), layer.after_2), layer.scale_2)
    if not with_mean:
        return output, None
    if layer.after_2 is not None:
        return output, output.mean(dim=1)
    return output, x.mean(dim=1) + scaled(linear(hidden.mean(dim=1), layer.down), layer.scale_2)


def add_attention(layer: Layer, x: Tensor, attended: Tensor) -> Float[Tensor, "images queries leaving"]:
    """The tokens entering a layer with its attention's output, projected, added: what enters the MLP's norm."""
    added = scaled(project_attended(layer, attended), layer.scale_1)
    return x + added if layer.residual else added


def project_attended(layer: Layer, attended: Tensor) -> Float[Tensor, "images queries leaving"]:
    """What a layer's attention adds, without its scale: its joined heads through the projection and the norms."""
    return layer_norm(linear(layer_norm(attended, layer.norm_out), layer.out), layer.after_1)


def mlp_hidden(layer: Layer, normed: Tensor) -> Float[Tensor, "images queries hidden"]:
    """The hidden units of an MLP, gated or not, as they enter its last map."""
    normed = layer_norm(normed, layer.norm_up)
    hidden = linear(normed, layer.up)
    if layer.gate is None and type(layer.activation) is QuickGELU and not hidden.requires_grad:
        hidden = hidden.mul_((1.702 * hidden).sigmoid_())  # as the module does, in place
    elif layer.gate is None:
        hidden = layer.activation(hidden)
    else:
        hidden = layer.activation(linear(normed, layer.gate)) * hidden
    return layer_norm(hidden, layer.norm_down)


def project(tower: Tower, x: Float[Tensor, "*rows channels"]) -> Float[Tensor, "*rows embedding"]:
    """Tokens leaving the last layer to the embedding space: last norm, then the projection. Not normalised."""
    embedding = layer_norm(x, tower.norm)
    if tower.projection is not None:
        embedding = embedding @ constant(tower.projection).to(x.dtype)
    if tower.bias is not None:
        embedding = embedding + constant(tower.bias).to(x.dtype)
    return embedding.to(tower.dtype)


def project_qkv(layer: Layer, queries_of: Tensor, x: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """q of some normed tokens, k and v of all of them; (images, heads, tokens, width) each.

    Rotary positions turn them within the layer's own heads, whatever `heads` they are cut into.
    """
    if len(layer.qkv) == 3:
        parts = (linear(source, part) for source, part in zip((queries_of, x, x), layer.qkv, strict=True))
    elif queries_of is x:
        parts = linear(x, layer.qkv[0]).chunk(3, dim=-1)
    else:
        weight, bias = layer.qkv[0].weight, layer.qkv[0].bias
        cut = len(weight) // 3
        q = linear(queries_of, Affine(weight[:cut], None if bias is None else bias[:cut]))
        k, v = linear(x, Affine(weight[cut:], None if bias is None else bias[cut:])).chunk(2, dim=-1)
        parts = (q, k, v)
    if layer.rotary is not None:
        q, k, v = parts
        q, k = (join_heads(rotated(split_heads(part, layer.heads), layer.rotary)) for part in (q, k))
        parts = (q, k, v)
    q, k, v = (split_heads(part, heads) for part in parts)
    return q, k, v


def _leaf(x: Tensor, starts: bool) -> Tensor:
    return x.detach().requires_grad_() if starts else x


def _future(tokens: int, rows: Tensor | None, device: torch.device) -> Tensor:
    """True where a request may not look: (queries, tokens), or (images, 1, 1, tokens) for one row of each image."""
    position = torch.arange(tokens, device=device)
    return position > (position[:, None] if rows is None else rows[:, None, None, None])


# -- from pixels or token numbers to the tokens that enter the first layer


def embed_pixels(stem: Patches, pixels: Tensor) -> tuple[Float[Tensor, "images tokens channels"], tuple[int, int]]:
    """Tokens entering the first vision layer (class token first) and the patch grid (height, width)."""
    _check_pixels(pixels, stem.patch)
    patches = stem.embed(pixels)
    grid = (patches.shape[-2], patches.shape[-1])
    x = patches.flatten(2).transpose(1, 2)
    if stem.class_token is not None:
        x = torch.cat([stem.class_token.to(x.dtype).expand(len(x), 1, -1), x], dim=1)
    x = x + resize_positions(stem.positions, grid, stem.grid, stem.antialias).to(x.dtype)
    return layer_norm(x, stem.norm), grid


def embed_texts(stem: Tokens, texts: Int[Tensor, "texts tokens"]) -> Float[Tensor, "texts tokens channels"]:
    """Tokens entering the first text layer."""
    return F.embedding(texts, stem.embedding).to(stem.dtype) + stem.positions[: texts.shape[1]].to(stem.dtype)


def pooled_tokens(tower: Tower, texts: Int[Tensor, "texts context"]) -> Int[Tensor, " texts"]:
    """The place of each text's token that becomes its embedding: its end token, or the last of all."""
    if tower.pooling == "last":
        return torch.full_like(texts[:, 0], texts.shape[1] - 1, dtype=torch.long)
    end = tower.stem.end
    return (texts if end is None else (texts == end).int()).argmax(dim=-1)


def seen_tokens(tower: Tower, texts: Int[Tensor, "texts context"]) -> int:
    """How many tokens of some texts a tower must see: under a causal mask those up to the longest text's pooled one."""
    return int(pooled_tokens(tower, texts).max()) + 1 if tower.causal else texts.shape[1]


def own_tokens(tower: Tower, texts: Int[Tensor, "texts context"]) -> Bool[Tensor, "texts context"]:
    """True for a text's own tokens: all between its start and its end, and none of the padding."""
    if tower.stem.special:
        return ~torch.isin(texts, torch.tensor(tower.stem.special, device=texts.device))
    place = torch.arange(texts.shape[1], device=texts.device)
    return (place > 0) & (place < pooled_tokens(tower, texts)[:, None])


def resize_positions(
    position: Float[Tensor, "tokens channels"],
    grid: tuple[int, int],
    own: tuple[int, int] | None = None,
    antialias: bool = False,
) -> Tensor:
    """The positional embedding, its grid part resized to `grid`; tokens before the grid keep theirs.

    `own` is the grid that it was made for; where it is not given, a class token and then a square. Bicubic, or bilinear
    with `antialias`.
    """
    own = square(len(position) - 1) if own is None else own
    if grid == own:
        return position
    before = len(position) - own[0] * own[1]
    cells = position[before:].T.reshape(1, -1, *own)
    cells = cells.to(torch.promote_types(cells.dtype, torch.float32))
    mode = "bilinear" if antialias else "bicubic"
    resized = F.interpolate(cells, size=grid, mode=mode, align_corners=False, antialias=antialias)
    return torch.cat([position[:before], resized.flatten(2)[0].T.to(position)])


def _check_pixels(pixels: Tensor, patch: tuple[int, int]) -> None:
    fits = pixels.ndim == 4 and pixels.shape[1] == 3 and pixels.is_floating_point() and len(pixels) > 0
    sized = fits and all(side >= step and side % step == 0 for side, step in zip(pixels.shape[-2:], patch, strict=True))
    if not sized:
        raise TensorError(
            f"got images of shape {tuple(pixels.shape)} and {pixels.dtype}, expected floats (images, 3, height, width)"
            f" with height and width multiples of the patch, {patch[0]} x {patch[1]}"
        )
