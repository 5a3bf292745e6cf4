"""The images that the explorer offers: rendered examples, a user's own files, uploads.

Above explorer_view.py, whose `Source` they are.
"""

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from clip_explain import datasets
from clip_explain.errors import ImageError
from clip_explain.explorer.code import python
from clip_explain.explorer.view import Source
from clip_explain.images import read_image

# The rendered images that are offered at the start: dataset, its options, index.
EXAMPLES = (
    ("scenes", {}, 1),
    ("scenes", {}, 0),
    ("scene_captions", {}, 0),
    ("objects", {"domain": "sketch"}, 2),
    ("paintings", {}, 0),
    ("faces", {}, 1),
)


def examples() -> list[Source]:
    """Rendered images of several kinds, each with texts that fit it."""
    found = []
    for number, (name, options, index) in enumerate(EXAMPLES, 1):
        record = datasets.load(name, size=480, **options)[index]
        given = "".join(f", {key}={python(value)}" for key, value in options.items())
        line = f"cx.datasets.load({python(name)}, size=480{given})[{index}].image"
        texts = record.texts[: 2 if record.masks is not None or name == "faces" else 1]
        found.append(Source(f"example {number}", record.image, line, texts))
    return found


def own_images(images: str | Path | Sequence[str | Path], texts: Sequence[str]) -> list[Source]:
    """Images of the user's own: a path, a folder, or a list of paths."""
    records = datasets.photos(images, tuple(texts) or ("a photo",))
    paths = [images] if isinstance(images, str | Path) else list(images)
    if len(records) != len(paths):
        paths = [Path(paths[0], record.id) for record in records]
    return [
        Source(record.id, record.image, f"cx.read_image({python(str(path))})", record.texts)
        for record, path in zip(records, paths, strict=True)
    ]


def uploaded(name: str, content: bytes) -> Source:
    """An uploaded file as an image. ImageError, with its name, for a file that is not an image."""
    try:
        with Image.open(io.BytesIO(content)) as opened:
            return Source(name, read_image(opened), f"cx.read_image({python(name)})")
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise all kinds
        raise ImageError(f"{name} cannot be read as an image") from error
