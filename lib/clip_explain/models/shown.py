"""Embeddings of one image of which only some patches are seen: the tokens of the others are left out.

Beside vit.py, whose forward it runs on fewer tokens. So a set of patches costs what its patches cost, and nothing
stands in the place of those that are hidden.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from clip_explain.errors import ModelError
from clip_explain.models.adapted import reading_of
from clip_explain.models.towers import Tower
from clip_explain.models.vit import embed_pixels, embed_tokens

SETS_AT_ONCE = 16  # on a CPU: what more sets move through memory no cache holds


def check_drops(network: nn.Module, name: str) -> None:
    """ModelError for a network that cannot see an image in part: one without a class token, or of rotary positions."""
    reading = reading_of(network)
    if reading.encoder != "class" or reading.image_tower().rotary is not None:
        raise ModelError(
            f"{name} cannot leave patches out: expected a vision transformer with a class token, and with positions "
            "that are added to the patches; hidden='mean' takes every model"
        )


@torch.no_grad()
def embed_shown(
    network: nn.Module, pixels: Float[Tensor, "1 3 height width"], sets: Bool[Tensor, "sets patches"], at_once: int
) -> Float[Tensor, "sets embedding"]:
    """The embedding, not normalised, of an image for each set of patches: the class token and the set's alone go in.

    Sets of one size run together, at most `at_once` (on a CPU, SETS_AT_ONCE). What a shown patch's own embedding sees
    beyond it, as the convolutions of MobileCLIP do, is 0, CLIP's mean colour. With all patches it is the image's
    embedding.
    """
    tower, sizes = reading_of(network).image_tower(), sets.sum(dim=1)
    at_once = min(at_once, SETS_AT_ONCE) if pixels.device.type == "cpu" else at_once
    order = sizes.argsort(stable=True)
    found = []
    for same in order.split(sizes.unique(return_counts=True)[1].tolist()):
        found += [_embed(tower, pixels, sets[rows]) for rows in same.split(at_once)]
    return torch.cat(found)[order.argsort()]


def _embed(tower: Tower, pixels: Tensor, sets: Bool[Tensor, "sets patches"]) -> Float[Tensor, "sets embedding"]:
    """The same for a few sets of one size."""
    stem: Any = tower.stem  # `Patches`
    height, width = (side // step for side, step in zip(pixels.shape[-2:], stem.patch, strict=True))
    masks = sets.unflatten(1, (height, width))
    masks = masks.repeat_interleave(stem.patch[0], dim=1).repeat_interleave(stem.patch[1], dim=2)
    tokens, _ = embed_pixels(stem, pixels * masks[:, None].to(pixels))
    places = _places(sets) + tower.prefix
    seen = torch.cat([torch.zeros_like(sets[:, :1], dtype=torch.long), places], dim=1)
    return embed_tokens(tower, tokens.gather(1, seen[..., None].expand(-1, -1, tokens.shape[-1])))


def _places(sets: Bool[Tensor, "sets patches"]) -> Int[Tensor, "sets shown"]:
    """The numbers of the patches of each set, in order; all sets have as many."""
    return sets.nonzero()[:, 1].unflatten(0, (len(sets), -1)) if sets.any() else sets.new_zeros(len(sets), 0).long()
