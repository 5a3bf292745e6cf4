"""Masks of COCO's annotations, checked before pycocotools reads them, since its C code does not check them.

Beside record.py, below segmented.py. In that code a polygon or a run that leaves the image crashes the process.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from clip_explain.checks import fits, import_extra
from clip_explain.errors import DatasetError

FEWEST_NUMBERS = 6  # of a polygon: three corners
FIRST_LETTER, BITS, MORE, SIGN = 48, 5, 0x20, 0x10  # of COCO's compressed runs
MOST_BITS = 60  # of one run


def decode_segmentation(segmentation: Any, height: int, width: int) -> Bool[np.ndarray, "height width"]:
    """The mask of polygons, of runs, or of compressed runs. ValueError for a shape that leaves the image."""
    if isinstance(segmentation, list):
        for polygon in segmentation:
            check_polygon(polygon, height, width)
        if not segmentation:
            raise ValueError("it has no polygon")
        tools = coco_tools("mask")
        return tools.decode(tools.merge(tools.frPyObjects(segmentation, height, width))).astype(bool)
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        raise ValueError("expected polygons, or runs with size and counts")
    if list(segmentation["size"]) != [height, width]:
        raise ValueError(f"its runs are of {segmentation['size']}, the image is of {[height, width]}")
    counts = segmentation["counts"]
    runs = decompress(counts) if isinstance(counts, str | bytes) else counts
    if not fits(runs, list[int]) or min(runs, default=0) < 0 or sum(runs) != height * width:
        raise ValueError(f"its runs do not add up to the {height} x {width} pixels of the image")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def coco_tools(part: str) -> Any:
    """The module `coco` or `mask` of pycocotools. DatasetError with the command that installs it."""
    return import_extra(f"pycocotools.{part}", "datasets", "COCO", DatasetError)


def check_polygon(polygon: Any, height: int, width: int) -> None:
    """ValueError unless it is x, y, x, y ... of three corners or more, none farther outside than the image's length."""
    if not fits(polygon, Sequence[float]) or len(polygon) < FEWEST_NUMBERS or len(polygon) % 2:
        raise ValueError("expected a polygon as x, y, x, y ... of at least three corners")
    for numbers, side in ((polygon[0::2], width), (polygon[1::2], height)):
        if min(numbers) < -side or max(numbers) > 2 * side:
            raise ValueError(f"a polygon goes from {min(numbers)} to {max(numbers)}, the image from 0 to {side}")


def decompress(text: str | bytes) -> list[int]:
    """Decode COCO's runs: letters of five bits, the lowest first; from the fourth run on, differences to two before."""
    letters = text.encode("latin-1") if isinstance(text, str) else text
    runs, value, shift = [], 0, 0
    for letter in letters:
        part = letter - FIRST_LETTER
        value |= (part & 0x1F) << shift
        shift += BITS
        if shift > MOST_BITS:
            raise ValueError("its compressed runs hold a number beyond all images")
        if not part & MORE:
            value -= (1 << shift) if part & SIGN else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value, shift = 0, 0
    return runs
