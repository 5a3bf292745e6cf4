"""The stems of towers: from pixels or token numbers to the tokens that enter the first layer.

Any image size that the patch divides will do: the positional embedding is resized, for one call only.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clip_explain.errors import TensorError
from clip_explain.models.layers import layer_norm
from clip_explain.models.towers import Patches, Tokens, Tower, square


def embed_pixels(stem: Patches, pixels: Tensor) -> tuple[Float[Tensor, "images tokens channels"], tuple[int, int]]:
    """Tokens entering the first vision layer (class token first) and the patch grid (height, width)."""
    _check_pixels(pixels, stem.kernel.shape[-2:])
    patches = F.conv2d(pixels.to(stem.kernel), stem.kernel, stem.bias, stride=stem.kernel.shape[-2:])
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
