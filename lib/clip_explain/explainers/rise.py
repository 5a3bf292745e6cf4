"""RISE (Petsiuk et al. 2018): the score under random masks."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from clip_explain.checks import check_counts, checked, number, seeded
from clip_explain.errors import TensorError
from clip_explain.request import Request, masked_scores


@checked()
def rise(
    request: Request,
    *,
    masks: int | Float[Tensor, "masks height width"] = 2000,
    cells: int = 8,
    keep: float = 0.5,
    center: bool = False,
    batch_size: int = 64,
    generator: torch.Generator | int = 0,
) -> Float[Tensor, "images targets height width"]:
    """RISE (Petsiuk et al. 2018, eq. 6): sum over masks M of cos(image * M, target) M / (number * keep), in pixels.

    `masks`: how many to draw, or the masks themselves, 0 to 1 on the pixels. One is drawn by keeping each of
    `cells` x `cells` grid cells with probability `keep`, resizing the grid bilinearly to (cells + 1) cells of the
    image and cutting the image's size out at a random shift of less than a cell. The same masks serve all images and
    targets. What is hidden fades to 0 in preprocessed pixels, CLIP's mean colour. `generator`: or a seed. At most
    `batch_size` masked images are embedded at once. MethodError for an option out of range, or out of memory.
    `center=True` first subtracts the mean score from every score. Without it the sum also contains the mean score times
    the number of masks that happen to show each pixel. With few masks, or cosines that vary little, this noise
    dominates.

    Differs from the authors' code, which explains a class's probability, in the score. As there, cells are
    ceil(side / cells) pixels, since the paper's floor would not cover every image; grids are mirrored at the border.
    """
    check_counts(cells=cells, batch_size=batch_size)
    number("keep", keep, 0, 1, above=True)
    size = (request.pixels.shape[-2], request.pixels.shape[-1])
    if isinstance(masks, Tensor):
        if tuple(masks.shape[1:]) != size:
            raise TensorError(f"got masks of {tuple(masks.shape)}, expected (masks, {size[0]}, {size[1]})")
        if not ((masks >= 0) & (masks <= 1)).all():
            raise TensorError("got masks with values below 0, above 1 or NaN, expected 0 (hidden) to 1 (shown)")
        batches, count = masks.split(batch_size), len(masks)
    else:
        drawn = draw_masks(masks, size, cells, keep, batch_size, seeded(generator), request.pixels.device)
        batches, count = drawn, masks
    check_counts(masks=count)
    maps = request.targets.new_zeros(len(request.pixels), len(request.targets), size[0] * size[1])
    total, shown = maps.new_zeros(maps.shape[:2]), maps.new_zeros(maps.shape[-1])
    for index, some, scores in masked_scores(request, batches, batch_size):
        maps[index].addmm_(scores.T.to(maps), some.flatten(1).to(maps))
        total[index] += scores.sum(0).to(maps)
        shown += some.flatten(1).sum(0).to(maps) / len(request.pixels)
    if center:
        maps -= (total / count)[..., None] * shown
    return (maps / (count * keep)).unflatten(-1, size).float()


def draw_masks(
    count: int,
    size: tuple[int, int],
    cells: int,
    keep: float,
    batch_size: int,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
) -> Iterator[Tensor]:
    """RISE's random masks, in batches (masks, height, width) on `device`; see `rise`.

    A resized and shifted grid is a product of three small matrices. What is drawn does not depend on `batch_size`.
    """
    sides = [-(-side // cells) for side in size]  # of a cell, rounded up
    drawn = torch.rand(count, cells, cells, generator=generator, device=generator.device, dtype=torch.float32)
    shifts = [torch.randint(side, (count,), generator=generator, device=generator.device).to(device) for side in sides]
    resizes = [resize_matrix(cells, (cells + 1) * side).to(device) for side in sides]
    for part, *shift in zip(
        (drawn < keep).to(device).split(batch_size), *(each.split(batch_size) for each in shifts), strict=True
    ):
        rows, columns = (
            resize[start[:, None] + torch.arange(length, device=device)]
            for resize, start, length in zip(resizes, shift, size, strict=True)
        )
        yield rows @ part.float() @ columns.transpose(1, 2)


def resize_matrix(cells: int, size: int) -> Float[Tensor, "size cells"]:
    """The weights of bilinear resizing along one axis, mirrored about the centres of the first and the last cell.

    The authors' code does the same, `skimage.transform.resize(..., order=1, mode="reflect", anti_aliasing=False)`;
    torch's resizing would repeat the cells at the border. Float32, computed in float64.
    """
    place = (
        torch.arange(size, dtype=torch.float64) + 0.5
    ) * cells / size - 0.5  # in cells, from the first one's centre
    last = cells - 1
    place = last - (last - place.abs()).abs()  # before the first centre, and beyond the last, back again
    distance = (place.clamp_min(0)[:, None] - torch.arange(cells, dtype=torch.float64)).abs()
    return (1 - distance).clamp_min(0).float()
