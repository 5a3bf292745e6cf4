"""Numbers of a map in itself: how concentrated it is, where its mass lies, how it overlaps another."""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from clip_explain.checks import checked
from clip_explain.errors import MethodError, TensorError
from clip_explain.maps import degenerate, normalize, resize


@checked()
def mean_map(
    maps: Float[Tensor, "images *axes grid_h grid_w"], size: tuple[int, int] | None = None
) -> Float[Tensor, "*axes height width"]:
    """The mean over images of maps scaled to [0, 1] each: where saliency lies on average (EPFL IV-B, Fig. 6 and 12).

    `size` (height, width) resizes them bilinearly first. A degenerate map counts as zeros.
    """
    if not len(maps):
        raise TensorError("got no maps, expected at least one to average")
    return normalize(maps if size is None else resize(maps, size)).mean(dim=0)


@checked()
def variance(maps: Float[Tensor, "*axes grid_h grid_w"]) -> Float[Tensor, "*axes"]:
    """The variance of a map's cells, the map scaled to [0, 1]: from 0 for an even map to 0.25 (EPFL Tab. III and IV).

    The sum of squares is divided by the number of cells. The report gives no formula; it averages over images, and its
    values of 0.02 to 0.04 need maps scaled to [0, 1]. A degenerate map has variance 0.
    """
    return normalize(maps).flatten(-2).var(dim=-1, correction=0)


@checked()
def value_entropy(maps: Float[Tensor, "*axes grid_h grid_w"], bins: int | None = None) -> Float[Tensor, "*axes"]:
    """The entropy, in bits, of the distribution of a map's values: 0 if all are the same (EPFL Tab. III and IV).

    It is -sum p log2 p over the distinct values, where p is the share of the cells that have the value. With `bins`,
    the map is scaled to [0, 1] and its values are counted in that many equal bins. The most is log2 of the number of
    cells, or of bins. A degenerate map has entropy 0. MethodError for fewer than one bin.

    The report gives no formula. It reads a high entropy as large differences between regions; that fits this function,
    and does not fit `entropy`, where a high value means an even map. Its values reach 13.5 bits: more than the 8 bits
    of 256 bins, less than the 15.6 bits of 224 x 224 distinct values. So it must take maps resized to the image. The
    values of its ViT, all near 10.9, fit maps of 7 x 7 that are resized and stored in half precision, which has few
    distinct values. Those of its ResNet, 5.8 to 13.5, fit float32 maps with many zeros, from Grad-CAM's ReLU.
    Notebook 18 reads them so.
    """
    scaled = normalize(maps)
    if bins is not None and bins < 1:
        raise MethodError(f"got bins={bins}, expected at least 1, or None for distinct values")
    levels = scaled if bins is None else (scaled * bins).floor().clamp_max(bins - 1)
    rows = levels.reshape(-1, maps.shape[-2] * maps.shape[-1]).to(torch.promote_types(maps.dtype, torch.float32)).cpu()
    bits = [_bits(np.unique(row, return_counts=True)[1]) for row in rows.numpy()]  # ten times as fast as torch's
    return torch.tensor(bits, dtype=scaled.dtype, device=scaled.device).reshape(maps.shape[:-2])


@checked()
def of_pixels(
    maps: Float[Tensor, "images targets grid_h grid_w"], half: bool, size: tuple[int, int] = (224, 224)
) -> dict[str, Float[Tensor, "images targets"]]:
    """The "variance" and the "entropy" (`value_entropy`) of each map resized to pixels, as EPFL's Tables III and IV.

    The map is scaled to [0, 1] before and after it is resized. `half`: the entropy is that of half precision, as the
    values of the report's ViT are.
    """
    found: dict[str, list[Tensor]] = {"variance": [], "entropy": []}
    for part in maps.split(16):  # so many images at once, since the pixels of all of them take gigabytes
        pixels = normalize(resize(normalize(part), size))
        found["variance"].append(variance(pixels))
        found["entropy"].append(value_entropy(pixels.half() if half else pixels).float())
    return {name: torch.cat(parts) for name, parts in found.items()}


@checked()
def corner_bias(maps: Float[Tensor, "*axes grid_h grid_w"], part: float = 1 / 7) -> Float[Tensor, "*axes"]:
    """How many times as dense a map's positive mass is in its four corners as over the whole map (EPFL Fig. 6).

    1 means an even map, 0 no mass in the corners. A corner measures `part` of each side, rounded to whole cells, at
    least one cell: one cell of 7, two of 14. A map without positive mass counts as even. The report shows the bias but
    does not measure it. For the bias of an average map, apply this to `mean_map`, which gives each image the same
    weight. MethodError unless `part` is above 0 and at most a half.
    """
    if not 0 < part <= 0.5:
        raise MethodError(f"got part={part}, expected more than 0 and at most a half of each side")
    heat = maps.relu()
    inside = torch.zeros_like(heat, dtype=torch.bool)
    height, width = (max(1, min(round(side * part), side // 2)) for side in maps.shape[-2:])
    for rows in (slice(None, height), slice(-height, None)):
        for columns in (slice(None, width), slice(-width, None)):
            inside[..., rows, columns] = True
    mean, corners = heat.mean(dim=(-2, -1)), (heat * inside).sum(dim=(-2, -1)) / inside.sum(dim=(-2, -1))
    return torch.where(mean > 0, corners / torch.where(mean > 0, mean, 1.0), 1.0)


@checked()
def middle_and_rest(
    maps: Float[Tensor, "*axes grid_h grid_w"],
) -> tuple[Float[Tensor, "*axes"], Float[Tensor, "*axes"]]:
    """The mean of each map over its middle, the cells beyond a third of each side, and its mean over all others."""
    height, width = maps.shape[-2:]
    middle = torch.zeros(height, width, dtype=torch.bool, device=maps.device)
    middle[height // 3 : height - height // 3, width // 3 : width - width // 3] = True
    return maps[..., middle].mean(dim=-1), maps[..., ~middle].mean(dim=-1)


@checked()
def overlap(maps: Float[Tensor, "*axes grid_h grid_w"], others: Float[Tensor, "..."]) -> Float[Tensor, "*axes"]:
    """The positive mass that two maps share: 0 if they are disjoint, 1 if they are the same.

    Each map's positive values are scaled to a sum of 1, and the lesser of the two is summed over the cells. NaN if one
    of the two has no positive mass. Maps of different grids must be resized first: TensorError for different shapes.
    """
    if maps.shape != others.shape:
        raise TensorError(f"got maps of {tuple(maps.shape)} and {tuple(others.shape)}, expected the same shape")
    ours, theirs = (each.relu().flatten(-2) for each in (maps, others))
    shares = (each / each.sum(dim=-1, keepdim=True) for each in (ours, theirs))  # 0 / 0 is NaN, as wanted
    return torch.minimum(*shares).sum(dim=-1)


@checked()
def map_correlation(
    maps: Float[Tensor, "*axes grid_h grid_w"], others: Float[Tensor, "*axes grid_h grid_w"]
) -> Float[Tensor, "*axes"]:
    """Pearson's correlation of two maps over their cells, -1 to 1; 0 where one of the two is degenerate.

    Its square is the share of the variance of one map that the other explains.
    """
    ours, theirs = (each - each.mean(dim=(-2, -1), keepdim=True) for each in (maps, others))
    lengths = ours.norm(dim=(-2, -1)) * theirs.norm(dim=(-2, -1))
    varied = ~(degenerate(maps) | degenerate(others))
    return torch.where(varied, (ours * theirs).sum(dim=(-2, -1)) / torch.where(varied, lengths, 1.0), 0.0)


@checked()
def mass_curve(maps: Float[Tensor, "*axes grid_h grid_w"]) -> Float[Tensor, "*axes cells"]:
    """The share of a map's mass in its 1, 2, ... heaviest cells, rising to 1, for maps >= 0. A map of zeros is even."""
    cells = maps.flatten(-2)
    empty = cells.sum(dim=-1, keepdim=True) <= 0
    cells = torch.where(empty, 1.0, cells).sort(dim=-1, descending=True).values.cumsum(dim=-1)
    return cells / cells[..., -1:]


@checked()
def cells_for(maps: Float[Tensor, "*axes grid_h grid_w"], mass: float = 0.9) -> Float[Tensor, "*axes"]:
    """The smallest share of a map's cells, 0 to 1, that carries `mass` of its sum; maps as in `mass_curve`."""
    curve = mass_curve(maps)
    return ((curve < mass - 1e-6).sum(dim=-1) + 1) / curve.shape[-1]


@checked()
def entropy(maps: Float[Tensor, "*axes grid_h grid_w"], unit: str = "share") -> Float[Tensor, "*axes"]:
    """The entropy of a map's mass over its cells: 0 if one cell has all of it, largest for an even map.

    `unit` is "share" (of the largest possible entropy, 0 to 1), "bits" or "nats". Maps are >= 0; a map of zeros counts
    as even, and in "share" so does a map of one cell. `value_entropy` measures the values instead of their places.
    MethodError for another unit.
    """
    if unit not in ("share", "bits", "nats"):
        raise MethodError(f"got unit={unit!r}, expected 'share', 'bits' or 'nats'")
    cells = maps.flatten(-2)
    empty = cells.sum(dim=-1, keepdim=True) <= 0
    cells = torch.where(empty, 1.0, cells)
    shares = cells / cells.sum(dim=-1, keepdim=True)
    nats = -torch.special.xlogy(shares, shares).sum(dim=-1)
    if unit == "share" and shares.shape[-1] == 1:
        return torch.ones_like(nats)
    return nats / {"share": math.log(shares.shape[-1]), "bits": math.log(2), "nats": 1.0}[unit]


def _bits(counts: np.ndarray) -> float:
    shares = counts / counts.sum()
    return float(abs((shares * np.log2(shares)).sum()))
