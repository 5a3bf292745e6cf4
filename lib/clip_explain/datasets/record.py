"""The types `Record` and `Dataset` of every dataset, and the helpers that readers share.

The bottom of datasets/, above images.py, which opens images.
"""

import csv
import json
import os
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from PIL import Image

from clip_explain.checks import checked, count, fits, told
from clip_explain.errors import ClipExplainError, DatasetError, ImageError, TextError, nearest
from clip_explain.images import MOST_PIXELS, read_image
from clip_explain.models.tokenizer import Texts

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")


@dataclass(frozen=True, eq=False)
class Record:
    """An image, its texts, and for each text the mask of the objects that it names, if known.

    `source` is the image or its path; `image` opens it, once. `labels` are indices into the dataset's `classes`.
    `ignore` are pixels that the annotators left undecided. `parts` are regions that no text names alone, such as a
    face's mouth. `facts` are further data about the image, which each reader's docstring lists.
    """

    id: str
    source: Image.Image | Path
    texts: tuple[str, ...]
    masks: Bool[np.ndarray, "texts height width"] | None = None
    labels: tuple[int, ...] = ()
    ignore: Bool[np.ndarray, "height width"] | None = None
    parts: dict[str, Bool[np.ndarray, "height width"]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def image(self) -> Image.Image:
        """The image as 8-bit RGB, without EXIF rotation, since annotations refer to the stored pixels.

        Raises ImageError with the record's id and the path, or DatasetError if its masks are of another size.
        """
        image = self.source if isinstance(self.source, Image.Image) else open_stored(self.source, self.id)
        shape = None if self.masks is None else self.masks.shape[1:]
        if shape is not None and shape != (image.height, image.width):
            raise DatasetError(
                f"{self.id}: its masks are {shape[1]} x {shape[0]} pixels, its image {image.width} x {image.height}"
            )
        return image

    def about(self, texts: Container[str]) -> "Record":
        """The record with only those of its texts that are in `texts`, and their masks."""
        kept = [i for i, text in enumerate(self.texts) if text in texts]
        masks = None if self.masks is None else self.masks[kept]
        return replace(self, texts=tuple(self.texts[i] for i in kept), masks=masks)

    @property
    def label(self) -> int:
        """The record's only label; DatasetError for none or several."""
        if len(self.labels) != 1:
            raise DatasetError(f"{self.id} has {len(self.labels)} labels, expected one")
        return self.labels[0]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Records by number: `len`, `[i]` and iteration. Each record is read when it is asked for, and is not kept.

    `order` holds the published numbers of the available records, and `one` makes the record of such a number. A record
    whose annotation or mask cannot be read raises an error when it is asked for; one whose image cannot be read, when
    its image is opened. The other records stay available.
    """

    name: str
    classes: tuple[str, ...]
    order: Sequence[int] | np.ndarray
    one: Callable[[int], Record]

    def __len__(self) -> int:
        return len(self.order)

    @checked(DatasetError)
    def __getitem__(self, index: int) -> Record:
        return self.one(int(self.order[index]))

    def __iter__(self) -> Iterator[Record]:
        return (self[i] for i in range(len(self)))


def cut_close(record: Record) -> tuple[Image.Image, Bool[np.ndarray, "height width"]]:
    """A record's image cut to the box of its largest object, and what of it any object covers: a large foreground.

    DatasetError for a record without masks, or whose masks are all empty.
    """
    if record.masks is None or not record.masks.any():
        raise DatasetError(f"{record.id} has no object to cut its image to")
    down, across = record.masks[record.masks.sum((1, 2)).argmax()].nonzero()
    top, bottom, left, right = down.min(), down.max() + 1, across.min(), across.max() + 1
    box = tuple(map(int, (left, top, right, bottom)))
    return record.image.crop(box), record.masks.any(0)[top:bottom, left:right]


def open_stored(path: Path, name: str) -> Image.Image:
    """The image in a file as 8-bit RGB, not turned by its EXIF. ImageError with the record's name and the path."""
    try:
        return read_image(path, upright=False)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error


def open_codes(path: Path, name: str, modes: Sequence[str]) -> np.ndarray:
    """The numbers stored in a PNG of one of `modes`, unconverted. ImageError with the record's name and the path."""
    try:
        with Image.open(path) as image:
            image.load()  # else numpy takes a truncated file for an object
            mode, codes = image.mode, np.asarray(image)
    except FileNotFoundError as error:
        raise ImageError(f"{name}: no mask at {path}") from error
    except Exception as error:  # Pillow's decoders raise all kinds
        raise ImageError(f"{name}: the mask {path} cannot be read: {error}") from error
    if mode not in modes:
        raise DatasetError(f"{name}: the mask {path} is stored as {mode}, expected {' or '.join(modes)}")
    return codes


def box_mask(
    boxes: Sequence[tuple[float, float, float, float]], height: int, width: int
) -> Bool[np.ndarray, "height width"]:
    """The pixels whose middle lies in one of the boxes (left, top, right, bottom)."""
    y, x = np.arange(height)[:, None] + 0.5, np.arange(width)[None] + 0.5
    mask = np.zeros((height, width), bool)
    for left, top, right, bottom in boxes:
        mask |= (left <= x) & (x < right) & (top <= y) & (y < bottom)
    return mask


def stack_masks(masks: Sequence[np.ndarray], height: int, width: int) -> Bool[np.ndarray, "texts height width"]:
    """The masks as one array, also when there is none."""
    return np.stack(masks).astype(bool) if masks else np.zeros((0, height, width), bool)


def pick(value: Any, options: Sequence[str], what: str) -> str:
    """`value`, if it is one of `options`; otherwise DatasetError with the nearest ones."""
    if not isinstance(value, str) or value not in options:
        raise DatasetError(f"unknown {what} {value!r}: {nearest(str(value), options)}")
    return value


def picked(values: Any, options: Sequence[str], what: str) -> tuple[str, ...]:
    """The chosen values, if they are some of `options` and at least one; otherwise DatasetError."""
    if not fits(values, Sequence[str]) or not len(values):
        raise DatasetError(f"got {told(values)}, expected a list of some of {', '.join(options)}")
    return tuple(pick(value, options, what) for value in values)


@contextmanager
def malformed(where: str, what: str) -> Iterator[None]:
    """Turn any error in a malformed row into a DatasetError with the row's place and the expected form."""
    try:
        yield
    except ClipExplainError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise DatasetError(f"{where}: not {what}: {type(error).__name__}: {error}") from error


def image_size(height: Any, width: Any, where: str) -> tuple[int, int]:
    """An annotation's height and width of an image; DatasetError for sizes that are not possible."""
    for name, side in (("height", height), ("width", width)):
        count(f"{where}, {name}", side, 1, MOST_PIXELS, DatasetError)
    if height * width > MOST_PIXELS:
        raise DatasetError(f"{where}: got {width} x {height} pixels, expected at most {MOST_PIXELS:,}")
    return int(height), int(width)


def read_json(path: Path) -> Any:
    """The content of a json file; DatasetError, naming it, where it is broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not readable as json: {error}") from error


def read_rows(
    path: Path, columns: Sequence[str], delimiter: str = ",", header: bool | None = True, quoted: bool = True
) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a table with their line numbers, each with at least `columns`.

    `header` says whether the first line names the columns; None: it does if it holds the first of `columns`.
    DatasetError, with the line, for a missing column, a row that is too short or too long, or bytes that are not text.
    """
    quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines, names = csv.reader(file, delimiter=delimiter, quoting=quoting), list(columns)
            for row in lines:
                if lines.line_num == 1 and (header or (header is None and columns[0] in row)):
                    names = _header(row, columns, path)
                elif len(row) == len(names):
                    yield lines.line_num, dict(zip(names, row, strict=True))
                elif row:
                    at = f"{path}, line {lines.line_num}"
                    raise DatasetError(f"{at}: {len(row)} fields, expected {len(names)} ({', '.join(names)})")
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}, after line {lines.line_num}: {error}") from error


def _header(row: list[str], columns: Sequence[str], path: Path) -> list[str]:
    if lacking := [column for column in columns if column not in row]:
        raise DatasetError(f"{path}, line 1: no column {lacking[0]!r} among {', '.join(row)}")
    return row


def number(row: dict[str, str], column: str, path: Path, line: int) -> float:
    """A field as a finite number, or DatasetError with its place."""
    try:
        value = float(row[column])
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise DatasetError(f"{path}, line {line}: {column} is {row[column]!r}, expected a number")
    return value


# -- a user's own images


@checked(DatasetError)
def photos(images: str | Path | Sequence[str | Path], texts: Texts) -> list[Record]:
    """One record for each image (a path, a folder, or a list of paths), all with the same texts and without masks.

    Raises DatasetError (no such folder, no image in it), TextError (no texts) or ImageError.
    """
    texts = (texts,) if isinstance(texts, str) else tuple(texts)
    if not texts:
        raise TextError("no texts: images of your own need at least one text to be explained for")
    paths = [Path(images)] if isinstance(images, str | Path) else [Path(path) for path in images]
    if len(paths) == 1 and os.path.isdir(paths[0]):
        paths = _photos_in(paths[0])
    if not paths:
        raise DatasetError(f"no images in {images!r}: expected a path, a list of paths, or a folder with images")
    return [Record(path.name, read_image(path), texts) for path in paths]


def _photos_in(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise DatasetError(f"the folder {folder} cannot be read: {error.strerror}") from error
