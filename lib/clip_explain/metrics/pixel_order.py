"""The order in which a map has an image's pixels changed, and the treatment of pixels of equal value.

Below faithfulness.py, which changes the pixels. A map with a ReLU is 0 over more than half of the image; these pixels
are tied, and the map does not order them.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clip_explain.checks import checked, finite, one_of
from clip_explain.errors import TensorError
from clip_explain.maps import degenerate, resize

TIES = ("random", "raster", "signed")


@checked()
def ranks(
    maps: Float[Tensor, "*axes grid_h grid_w"],
    size: tuple[int, int],
    lowest_first: bool = False,
    breaker: Float[Tensor, "*#axes pixels"] | None = None,
) -> Int[Tensor, "*axes pixels"]:
    """Each pixel's place in the order in which it is changed, 0 first, after a bilinear resize to (height, width).

    Pixels of equal value go by the `breaker`, the highest first as with the map (or the lowest); without one, and where
    it is equal too, in raster order, top left first. TensorError for NaN or infinite values.
    """
    values = on_pixels(maps, size)
    if breaker is None:
        order = _sorted(values, lowest_first)
    else:
        first = _sorted(breaker.expand(values.shape), lowest_first)
        order = first.gather(-1, _sorted(values.gather(-1, first), lowest_first))
    places = torch.arange(order.shape[-1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, places).int()


def _sorted(values: Tensor, lowest_first: bool) -> Tensor:
    return (values if lowest_first else -values).argsort(dim=-1, stable=True)


@checked()
def on_pixels(maps: Float[Tensor, "*axes grid_h grid_w"], size: tuple[int, int]) -> Float[Tensor, "*axes pixels"]:
    """The maps' values at an image's pixels, bilinear; a constant map stays constant, which a resize would not keep."""
    finite("maps", maps)
    maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
    even = torch.where(degenerate(maps)[..., None, None], 0.0, maps)
    return resize(even, size).flatten(-2)


@checked()
def tie_breaker(
    ties: str,
    images: int,
    size: tuple[int, int],
    cell: int = 1,
    seed: int = 0,
    signed: Float[Tensor, "images maps grid_h grid_w"] | None = None,
) -> Float[Tensor, "images #maps pixels"] | None:
    """The values by which `ranks` breaks ties.

    "random": uniform noise on cells of `cell` x `cell` pixels, resized like a map, so that tied pixels go in blobs as
    large as those of a map: single pixels would destroy more of an image than any map does. Image i's noise is drawn by
    `seed` + i on the CPU and is the same for all its maps. "raster": nothing. "signed": the maps as they were before
    the ReLU that tied the pixels, `signed`. MethodError for another word, TensorError for "signed" without these maps.
    """
    one_of("ties", ties, TIES)
    if ties == "raster":
        return None
    if ties == "signed":
        if signed is None:
            raise TensorError("ties='signed' needs the maps before the ReLU: pass them as signed=")
        return on_pixels(signed, size)
    grid, drawn = (-(-size[0] // cell), -(-size[1] // cell)), []
    for image in range(images):
        generator = torch.Generator().manual_seed(seed + image)
        drawn.append(torch.rand(grid, generator=generator, dtype=torch.float32))
    return on_pixels(torch.stack(drawn)[:, None], size)


@checked()
def untied_share(maps: Float[Tensor, "*axes grid_h grid_w"], size: tuple[int, int]) -> Float[Tensor, "*axes"]:
    """The share of an image's pixels that lie above the map's lowest value, 0 to 1: those that a ReLU leaves in order.

    0 for a constant map; of a mask the share that it covers.
    """
    values = on_pixels(maps, size)
    return (values > values.amin(dim=-1, keepdim=True)).float().mean(dim=-1)
