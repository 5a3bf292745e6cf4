"""Does a map lie on the thing that its text names? Point game and energy point game, against exact masks.

Every map is held against every mask of its image: the diagonal is a text's own thing, the rest are the others'.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clip_explain.errors import TensorError
from clip_explain.maps import degenerate, resize

Masks = Bool[np.ndarray, "masks height width"]


def points_at(maps: Float[Tensor, "maps grid_h grid_w"], masks: Masks) -> Bool[Tensor, "maps masks"]:
    """Point game: does the maximum of each map, resized bilinearly to the masks, lie in each mask?

    A degenerate map points nowhere.
    """
    inside = _masks(masks, maps)
    peaks = resize(maps, inside.shape[-2:]).flatten(1).argmax(dim=1)
    return inside.flatten(1)[:, peaks].T & ~degenerate(maps)[:, None]


def energy_in(maps: Float[Tensor, "maps grid_h grid_w"], masks: Masks) -> Float[Tensor, "maps masks"]:
    """Energy point game: the share, 0 to 1, of each map's positive mass that lies in each mask, after such a resize.

    A map without positive mass has a share of 0 everywhere.
    """
    inside = _masks(masks, maps)
    heat = resize(maps, inside.shape[-2:]).relu().flatten(1)
    mass = heat.sum(dim=1, keepdim=True)
    return heat @ inside.flatten(1).T.to(heat) / torch.where(mass > 0, mass, 1.0)


def own_and_others(
    matrix: Float[Tensor, "maps masks"] | Bool[Tensor, "maps masks"],
) -> tuple[float, float]:
    """Means over the texts' own masks (the diagonal of one of the above) and over the others' masks (0 without any)."""
    own, count = matrix.diagonal().sum(), len(matrix)
    return float(own / count), float((matrix.sum() - own) / max(count * (count - 1), 1))


def _masks(masks: np.ndarray, maps: Tensor) -> Tensor:
    if not len(maps) or not len(masks):
        raise TensorError(f"got {len(maps)} maps and {len(masks)} masks, expected at least one of each")
    return torch.as_tensor(masks, device=maps.device)
