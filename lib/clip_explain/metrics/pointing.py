"""The pointing games, and grid pointing: whether a map points at the object that its text names.

Above masks.py, which has the rules for degenerate maps, empty masks and ignored pixels.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clip_explain.checks import checked
from clip_explain.errors import MethodError, TensorError
from clip_explain.maps import degenerate, normalize, resize
from clip_explain.metrics.masks import (
    Ignored,
    Maps,
    Masks,
    MasksOfOne,
    PerMap,
    all_masks,
    defined,
    finite,
    on_masks,
    share,
)

# -- each map against its own mask


@checked()
def pointing_game(maps: Maps, masks: Masks, tolerance: int | float = 0, ignore: Ignored = None) -> PerMap:
    """Pointing game (Zhang et al. 2018; Grad-ECLIP 4.2, "PG"): 1 if the map's maximum lies in its mask, else 0.

    The map is first resized bilinearly to the mask. If several pixels share the maximum, the first by rows counts. A
    maximum outside the mask is also a hit if its straight distance to the mask is at most `tolerance` pixels; Zhang et
    al. allow 15. Higher is better.
    """
    heat, inside, counted = on_masks(maps, masks, ignore)
    near = _squared_distance_from_peak(heat.masked_fill(~counted, -torch.inf)) <= tolerance**2
    hits = (inside & near).flatten(-2).any(dim=-1) & ~degenerate(maps)
    return defined(hits.to(heat), inside)


@checked()
def energy_pointing_game(maps: Maps, masks: Masks, energy: str = "positive", ignore: Ignored = None) -> PerMap:
    """Energy pointing game (Wang et al. 2020b; Grad-ECLIP 4.2, "PG-energy"): the mask's share of the energy, 0 to 1.

    With `energy="positive"` the energy is the sum of the raw values above 0; a map without any scores 0. With "minmax"
    it is the sum of the map scaled to [0, 1], whose least value has no energy. The two differ for signed maps and for
    maps far above 0. Higher is better. MethodError for another `energy`.
    """
    if energy not in ("positive", "minmax"):
        raise MethodError(f"got energy={energy!r}, expected 'positive' or 'minmax'")
    heat, inside, counted = on_masks(maps, masks, ignore)
    heat = (heat.relu() if energy == "positive" else normalize(heat)) * counted
    return defined(share((heat * inside).sum(dim=(-2, -1)), heat.sum(dim=(-2, -1))), inside)


# -- every map against every mask of its image


@checked()
def points_at(maps: Float[Tensor, "maps grid_h grid_w"], masks: MasksOfOne) -> Bool[Tensor, "maps masks"]:
    """Pointing game of all pairs: whether each map's maximum, resized bilinearly to the masks, lies in each mask."""
    inside = all_masks(masks, maps)
    peaks = resize(maps, inside.shape[-2:]).flatten(1).argmax(dim=1)
    return inside.flatten(1)[:, peaks].T & ~degenerate(maps)[:, None]


@checked()
def energy_in(maps: Float[Tensor, "maps grid_h grid_w"], masks: MasksOfOne) -> Float[Tensor, "maps masks"]:
    """Energy pointing game of all pairs: the share, 0 to 1, of each map's positive mass that lies in each mask.

    The maps are resized bilinearly to the masks.
    """
    inside = all_masks(masks, maps)
    heat = resize(maps, inside.shape[-2:]).relu().flatten(1) * ~degenerate(maps)[:, None]
    return share(heat @ inside.flatten(1).T.to(heat), heat.sum(dim=1, keepdim=True))


@checked()
def own_and_others(
    matrix: Float[Tensor, "maps masks"] | Bool[Tensor, "maps masks"],
) -> tuple[float, float]:
    """Means over the texts' own masks (the diagonal of one of the above) and over the others' masks (0 without any)."""
    own, count = matrix.diagonal().sum(), len(matrix)
    return float(own / count), float((matrix.sum() - own) / max(count * (count - 1), 1))


# -- grid pointing


@checked()
def image_grid(
    images: Float[Tensor, "cells channels height width"], columns: int = 2, size: tuple[int, int] | None = None
) -> Float[Tensor, "channels grid_height grid_width"]:
    """Several images side by side in one, row by row, resized bilinearly to the whole's `size` (height, width).

    TensorError unless the images fill the rows and the size has room for equal cells.
    """
    if columns < 1 or not len(images) or len(images) % columns:
        raise TensorError(f"got {len(images)} images for {columns} columns, expected whole rows")
    rows = len(images) // columns
    if size is not None:
        if size[0] % rows or size[1] % columns or min(size) < 1:
            raise TensorError(f"got size={tuple(size)} for {rows} x {columns} cells, expected multiples of these")
        cell = (size[0] // rows, size[1] // columns)
        images = F.interpolate(images, size=cell, mode="bilinear", align_corners=False, antialias=True)
    return torch.cat([torch.cat(list(row), dim=-1) for row in images.split(columns)], dim=-2)


@checked()
def energy_in_cells(maps: Maps, rows: int = 2, columns: int = 2) -> Float[Tensor, "*axes cells"]:
    """The share of each map's positive values in each of rows x columns equal cells, row by row, 0 to 1.

    A map's own cell that lies across a border is divided by area, so any map fits any grid. Zeros for a degenerate map
    and for one without positive values.
    """
    heat = torch.where(degenerate(finite(maps))[..., None, None], 0.0, maps.relu())
    down, across = _overlaps(rows, heat.shape[-2]).to(heat), _overlaps(columns, heat.shape[-1]).to(heat)
    energy = (down @ heat @ across.T).flatten(-2)
    return share(energy, energy.sum(dim=-1, keepdim=True))


@checked()
def grid_pointing(maps: Maps, cells: Int[Tensor, "*axes"], rows: int = 2, columns: int = 2) -> PerMap:
    """Grid pointing (Böhle et al. 2021): the share of a map's positive values in the cell of the image it is asked of.

    `maps` explain an `image_grid`; `cells` says for each in which cell, counted row by row, what its target names is.
    0 to 1; an even map scores 1 / (rows x columns).
    """
    shares = energy_in_cells(maps, rows, columns)
    if cells.shape != shares.shape[:-1]:
        raise TensorError(f"got cells of shape {tuple(cells.shape)} for maps {tuple(maps.shape)}, expected one a map")
    if ((cells < 0) | (cells >= rows * columns)).any():
        raise TensorError(f"got cells {cells.flatten().tolist()}, expected 0 to {rows * columns - 1}")
    return shares.gather(-1, cells[..., None].to(shares.device)).squeeze(-1)


# -- small steps


def _squared_distance_from_peak(heat: Tensor) -> Tensor:
    """The squared distance, in pixels, of each pixel from its map's maximum (the first one by rows)."""
    height, width = heat.shape[-2:]
    peaks = heat.flatten(-2).argmax(dim=-1)[..., None]
    down = torch.arange(height, device=heat.device) - peaks // width
    across = torch.arange(width, device=heat.device) - peaks % width
    return down[..., :, None] ** 2 + across[..., None, :] ** 2


def _overlaps(parts: int, cells: int) -> Float[Tensor, "parts cells"]:
    """The share of each of `cells` that lies in each of `parts` equal stretches of the same side."""
    if parts < 1:
        raise TensorError(f"got {parts} rows or columns, expected at least 1")
    edges, places = torch.arange(parts + 1) * cells / parts, torch.arange(cells)
    ends = torch.minimum(edges[1:, None], places + 1.0)
    return (ends - torch.maximum(edges[:-1, None], places)).clamp_min(0)
