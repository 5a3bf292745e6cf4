"""Images: read from files, arrays and URLs, fitted to a model's input, and normalised.

Above models, whose image and patch sizes it uses. Only fit="squash" changes an image's aspect ratio.
"""

import io
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

import numpy as np
import torch
import torchvision.transforms.functional as TF
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from clip_explain.checks import checked, count, finite
from clip_explain.errors import ImageError, MethodError, TensorError, nearest
from clip_explain.maps import FITS
from clip_explain.models.layers import evaluated
from clip_explain.models.model import Model

MAX_ASPECT = 20  # the largest ratio of the sides; a longer strip would have thousands of patches
MOST_PIXELS = 89_478_485  # in a file; the number from which Pillow warns: a quarter of a GiB
# The formats that Pillow itself decodes. For others, such as EPS, it would start external programs.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TGA", "TIFF", "WEBP")
URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
ORIENTATION = 0x0112  # the number of this tag in EXIF
Turn = Image.Transpose
UPRIGHT = {  # EXIF's orientation -> the operation that undoes it
    2: Turn.FLIP_LEFT_RIGHT,
    3: Turn.ROTATE_180,
    4: Turn.FLIP_TOP_BOTTOM,
    5: Turn.TRANSPOSE,
    6: Turn.ROTATE_270,
    7: Turn.TRANSVERSE,
    8: Turn.ROTATE_90,
}
GREY_LEVELS = (255, 4095, 65535)  # the largest of 8, 12 and 16 bits
KINDS = "a path, a URL, a PIL image, an array, an open file, or a list of them"


@runtime_checkable
class Readable(Protocol):
    """A file opened for reading bytes, or what reads like one."""

    def read(self, size: int = -1, /) -> bytes: ...


class Pixels(Tensor):
    """Preprocessed images (images, 3, height, width), as `pixels` makes them, with a record of their origin.

    `fit` says how they were fitted (None: unknown); `sizes` are the original images' (height, width). A slice, a part
    of `split`, and a copy on another device or in another number format are `Pixels`, too; any other result computed
    from them is a plain tensor.
    """

    fit: str | None
    sizes: tuple[tuple[int, int], ...]
    __torch_function__ = torch._C._disabled_torch_function_impl

    def __getitem__(self, index):
        part = super().__getitem__(index)
        return mark(part, self.fit, self.sizes[index]) if isinstance(index, slice) else part

    def split(self, split_size: int, dim: int = 0) -> tuple[Tensor, ...]:
        if dim:
            return super().split(split_size, dim)
        return tuple(self[first : first + split_size] for first in range(0, len(self), split_size))

    def to(self, *args, **kwargs) -> "Pixels":
        return mark(super().to(*args, **kwargs), self.fit, self.sizes)

    def __deepcopy__(self, memo) -> "Pixels":
        return mark(self.detach().clone(), self.fit, self.sizes)


def mark(values: Tensor, fit: str | None, sizes: Sequence[tuple[int, int]]) -> Pixels:
    """A tensor as `Pixels`, which share its memory."""
    found = values.as_subclass(Pixels)
    found.fit, found.sizes = fit, tuple(sizes)
    return found


ImageSource = str | os.PathLike | Image.Image | np.ndarray | Readable
Images = Annotated[ImageSource | Iterable[ImageSource] | Tensor, ImageError, KINDS]  # a tensor: `Pixels`


@checked()
def encode_image(model: Model, images: Images) -> Float[Tensor, "images embedding"]:
    """The model's own image features at unit length, in float32, of centre crops or of pixels at its native size."""
    height, width = model.image_shape
    values = preprocessed(model, images, "crop" if height == width else "squash")
    with torch.no_grad(), evaluated(model.network):
        embedding = model.encode_image(values)
        finite(f"an embedding in {embedding.dtype}", embedding)
        return nn.functional.normalize(embedding.float(), dim=-1)


def default_fit(model: Model) -> str:
    """The default fit: "full", the whole image, or "crop" for a ResNet, whose pooling needs a square."""
    return "full" if model.is_vit else "crop"


@checked()
def pixels(model: Model, images: Images, fit: str | None = None) -> Pixels:
    """Normalised pixels on the model's device and in its dtype, ready for the image tower: (images, 3, height, width).

    `fit` is "crop" (CLIP's own: short side to the model's size, centre square), "full" (the whole image at its own
    aspect, short side to the model's size, both sides rounded to whole patches) or "squash" (the whole image,
    stretched to the model's own shape, mostly a square); by default `default_fit(model)`. All resize bicubically.
    Images are read by `read_image`. A float tensor counts as pixels that are already preprocessed: it is checked and
    marked but not changed. Other functions accept a tensor only if it is marked in this way.

    Raises ImageError (also for a list of different sizes under "full"), TensorError, MethodError (unknown `fit`).
    """
    fit = default_fit(model) if fit is None else fit
    if fit not in FITS:
        raise MethodError(f"unknown fit {fit!r}: {nearest(fit, FITS)}")
    if isinstance(images, Tensor):
        return _own_pixels(model, images).to(model.device, model.dtype)
    read = read_images(images)
    fitted = [TF.to_tensor(fit_image(model, image, fit)) for image in read]
    shapes = sorted({tuple(image.shape[1:]) for image in fitted})
    if len(shapes) > 1:
        found = ", ".join(f"{height} x {width}" for height, width in shapes[:4])
        raise ImageError(
            f"images of one call need one size, fit='full' gives {found}: call once per size, or use 'crop' or 'squash'"
        )
    normal = TF.normalize(torch.stack(fitted), model.mean, model.std).to(model.device, model.dtype)
    return mark(normal, fit, [(image.height, image.width) for image in read])


preprocess = pixels  # its name in the first edition


def preprocessed(model: Model, images: Images, fit: str | None = None) -> Pixels:
    """As `pixels`, but TensorError for a tensor that is not marked, since it may not be preprocessed."""
    if isinstance(images, Tensor) and not isinstance(images, Pixels):
        raise TensorError(
            f"got a tensor of shape {tuple(images.shape)} for images, expected {KINDS}; "
            "preprocessed pixels are marked by cx.pixels(model, tensor)"
        )
    return pixels(model, images, fit)


def listed(images: Images) -> list[ImageSource]:
    """The images, one or several, as a list. ImageError for none."""
    one = isinstance(images, str | os.PathLike | Image.Image | np.ndarray | Readable)
    sources: list[Any] = [images] if one else list(images)
    if not sources:
        raise ImageError("no images: expected at least one")
    return sources


def read_images(images: Images) -> list[Image.Image]:
    """One image or several, each as `read_image` reads it. ImageError for none."""
    return [read_image(source) for source in listed(images)]


def _own_pixels(model: Model, values: Tensor) -> Pixels:
    got = f"got shape {tuple(values.shape)}, {str(values.dtype).removeprefix('torch.')}"
    if values.ndim != 4 or values.shape[1] != 3 or not values.is_floating_point() or not len(values):
        raise TensorError(f"expected preprocessed images as a float tensor (images, 3, height, width), {got}")
    patch = model.patch_size
    if any(side < patch or side % patch for side in values.shape[2:]):
        raise TensorError(f"expected height and width in multiples of {patch} px, {got}")
    if not torch.isfinite(values).all():
        raise TensorError(f"expected finite pixels, {got} with NaN or infinite values")
    if isinstance(values, Pixels):
        return values
    return mark(values, None, [tuple(values.shape[2:])] * len(values))


@checked()
def fit_image(model: Model, image: Image.Image, fit: str = "crop") -> Image.Image:
    """The part of an RGB image that the model sees, cropped, resized or squashed (see `pixels`), not yet normalised."""
    size, patch = model.image_size, model.patch_size
    if fit == "squash":
        return image.resize(model.image_shape[::-1], Image.Resampling.BICUBIC)
    if max(image.size) > MAX_ASPECT * min(image.size):
        raise ImageError(f"{image.width} x {image.height} px is more than {MAX_ASPECT} times as long as wide: cut it")
    if fit == "crop":
        cropped: Any = TF.center_crop(TF.resize(image, size, TF.InterpolationMode.BICUBIC), [size, size])
        return cropped
    scale = size / min(image.size)
    width, height = (max(1, round(side * scale / patch)) * patch for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


@checked()
def shrunk(image: Image.Image, longest: int = 1024) -> Image.Image:
    """An image for drawing: at most `longest` px long, undistorted, all of it."""
    scale = longest / max(image.size)
    return image if scale >= 1 else image.resize([max(1, round(side * scale)) for side in image.size])


def colours(model: Model, pixels: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images height width 3"]:
    """Preprocessed pixels turned back into colours, 0 to 1, to be drawn."""
    mean, std = (pixels.new_tensor(each)[:, None, None] for each in (model.mean, model.std))
    return (pixels * std + mean).clamp(0, 1).permute(0, 2, 3, 1)


def pixel_batches(model: Model, images: Images, batch_size: int) -> Iterator[Pixels]:
    """The pixels of the images in batches, cropped to squares, since the images of a batch need one size."""
    count("batch_size", batch_size)
    sources = images if isinstance(images, Tensor) else listed(images)
    for first in range(0, len(sources), batch_size):
        yield preprocessed(model, sources[first : first + batch_size], "crop")


# -- reading


@checked()
def read_image(source: Annotated[ImageSource, ImageError, KINDS], upright: bool = True) -> Image.Image:
    """An image as 8-bit RGB, from a path (~ is the home folder), a URL (by fsspec), an open file, an array or PIL.

    An array is uint8, or float in [0, 1], of (height, width) or (height, width, 1, 3 or 4 channels). If `upright`, a
    rotation in EXIF is undone; other EXIF data are ignored. Transparent pixels become white. Grey of more than 8 bits
    is scaled from 12 or 16 bits, whichever is the least that holds its largest value. Pillow converts all other modes.
    CLIP's own code ignores EXIF and drops transparency; on plain RGB and grey images the two agree.

    Raises ImageError, with the path, for a file that is missing, empty, truncated, not an image, not a regular file, in
    a format other than FORMATS, or of more than MOST_PIXELS (an image that you open by PIL is not limited here).
    """
    label = _label(source)
    try:
        if isinstance(source, np.ndarray):
            return _to_rgb(_from_array(source))
        if isinstance(source, Image.Image):
            source.load()
            return _to_rgb(source, _turn(source) if upright else None)
        with Image.open(_opened(source), formats=_readable_formats()) as image:
            _check_size(image)
            turn = _turn(image)
            with suppress(Exception):
                image.getexif()[ORIENTATION] = 1  # otherwise Pillow rotates a TIFF while it loads it
            return _to_rgb(image, turn if upright else None)
    except FileNotFoundError as error:
        raise ImageError(f"no image at {label}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{label} is too large: {error}. {_way_out()}") from error
    except Exception as error:  # Pillow's decoders raise all kinds
        raise ImageError(f"{label} cannot be read as an image: {error or type(error).__name__}") from error


def _label(source: ImageSource) -> str:
    if isinstance(source, str | os.PathLike):
        return os.fsdecode(source)
    if isinstance(source, np.ndarray):
        return "the array"
    return str(getattr(source, "filename", "") or getattr(source, "name", "") or "image")


def _opened(source: str | os.PathLike | Readable) -> Path | io.BytesIO | Readable:
    """The argument for Pillow: a regular file's path, the content of a URL, or the given open file."""
    if isinstance(source, Readable):
        return source
    name = os.fsdecode(source)
    if URL.match(name):
        return io.BytesIO(_downloaded(name))
    path = Path(name) if os.path.exists(name) else Path(name).expanduser()
    found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        raise ImageError("it is a folder")
    if not stat.S_ISREG(found.st_mode):
        raise ImageError("it is a pipe or a device, no regular file")
    if not found.st_size:
        raise ImageError("the file is empty")
    return path


def _downloaded(url: str) -> bytes:
    try:
        import fsspec

        with fsspec.open(url, "rb") as file:
            return file.read()
    except ImportError as error:
        raise ImageError(f"a URL needs the package fsspec and what it needs for this one: {error}") from error


def _readable_formats() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MOST_PIXELS:
        raise ImageError(f"it has {image.width} x {image.height} pixels, more than {MOST_PIXELS:,}. {_way_out()}")


def _way_out() -> str:
    return "Make it smaller, or open it with PIL.Image.open (Image.MAX_IMAGE_PIXELS = None lifts its limit) and pass it"


def _from_array(array: np.ndarray) -> Image.Image:
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4) or not array.size:
        raise ImageError(f"got shape {array.shape}, expected (height, width) or (height, width, 3); list several")
    if np.issubdtype(array.dtype, np.floating):
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise ImageError("got floats outside [0, 1] or not finite; preprocessed pixels are a tensor for cx.pixels")
        array = np.rint(array * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise ImageError(f"got {array.dtype}, expected uint8, or floats in [0, 1]")
    return Image.fromarray(np.ascontiguousarray(array[..., 0] if array.shape[2:] == (1,) else array))


def _to_rgb(image: Image.Image, turn: Turn | None = None) -> Image.Image:
    if not min(image.size):
        raise ImageError(f"it has {image.width} x {image.height} pixels")
    if turn is not None:
        image = image.transpose(turn)
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    if image.mode == "F":
        raise ImageError("its pixels are floating-point numbers of unknown range; save it with 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _turn(image: Image.Image) -> Turn | None:
    """The operation that undoes the rotation in EXIF; None if there is none or the EXIF data are broken."""
    try:
        return UPRIGHT.get(int(image.getexif().get(ORIENTATION, 1)))
    except Exception:  # whatever stands there, the image can be seen
        return None


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of up to 16 bits as 8 bits, scaled by the least of GREY_LEVELS that holds its largest value."""
    grey = np.asarray(image).astype(np.int64)
    if grey.min() < 0 or grey.max() > GREY_LEVELS[-1]:
        raise ImageError(f"its grey runs from {grey.min()} to {grey.max()}, expected 0 to {GREY_LEVELS[-1]} at most")
    most = next(most for most in GREY_LEVELS if grey.max() <= most)
    return Image.fromarray(np.rint(grey * (255 / most)).astype(np.uint8))
