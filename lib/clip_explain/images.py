"""Images: read from files, fitted to what a model takes, and normalised.

Above models, whose size and patch it asks; nothing is ever stretched but by fit="squash".
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torchvision.transforms.functional as TF
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor, nn

from clip_explain.errors import ImageError, MethodError, TensorError, nearest
from clip_explain.models.model import Model

FITS = ("crop", "full", "squash")
MAX_ASPECT = 20  # sides that differ more than this make a strip of thousands of patches

ImageSource = str | Path | Image.Image
Images = ImageSource | Sequence[ImageSource] | Tensor


def encode_image(model: Model, images: Images) -> Float[Tensor, "images embedding"]:
    """The model's own image features at unit length, in float32, of centre crops or of pixels at its native size."""
    with torch.no_grad():
        return nn.functional.normalize(model.network.encode_image(preprocess(model, images)).float(), dim=-1)


def preprocess(model: Model, images: Images, fit: str = "crop") -> Float[Tensor, "images 3 height width"]:
    """Normalised pixels on the model's device and in its dtype, ready for the image tower.

    `fit` is "crop" (CLIP's own: short side to the model's size, centre square), "full" (the whole image at its own
    aspect, short side to the model's size, both sides rounded to whole patches) or "squash" (the whole image,
    stretched to the square). All resize bicubically. Images are read as `read_image` does. A float tensor is taken as
    already preprocessed: it is checked, not changed.

    Raises ImageError (also for a list of different sizes under "full"), TensorError, MethodError (unknown `fit`).
    """
    if fit not in FITS:
        raise MethodError(f"unknown fit {fit!r}: {nearest(fit, FITS)}")
    if isinstance(images, Tensor):
        return _check_pixels(model, images).to(model.device, model.dtype)
    sources = [images] if isinstance(images, str | Path | Image.Image) else list(images)
    if not sources:
        raise ImageError("no images: expected at least one")
    pixels = [TF.to_tensor(fit_image(model, read_image(source), fit)) for source in sources]
    sizes = sorted({tuple(image.shape[1:]) for image in pixels})
    if len(sizes) > 1:
        found = ", ".join(f"{height} x {width}" for height, width in sizes[:4])
        raise ImageError(f"images of one call need one size, fit='full' gives {found}: call once per size, or squash")
    return TF.normalize(torch.stack(pixels), model.mean, model.std).to(model.device, model.dtype)


def _check_pixels(model: Model, pixels: Tensor) -> Tensor:
    got = f"got shape {tuple(pixels.shape)}, {str(pixels.dtype).removeprefix('torch.')}"
    if pixels.ndim != 4 or pixels.shape[1] != 3 or not pixels.is_floating_point() or not len(pixels):
        raise TensorError(f"expected preprocessed images as a float tensor (images, 3, height, width), {got}")
    patch = model.patch_size
    if any(side < patch or side % patch for side in pixels.shape[2:]):
        raise TensorError(f"expected height and width in multiples of {patch} px, {got}")
    if not torch.isfinite(pixels).all():
        raise TensorError(f"expected finite pixels, {got} with NaN or infinite values")
    return pixels


def fit_image(model: Model, image: Image.Image, fit: str = "crop") -> Image.Image:
    """What the model sees of an RGB image: cropped, resized or squashed (see `preprocess`), before normalising."""
    size, patch = model.image_size, model.patch_size
    if fit == "squash":
        return image.resize((size, size), Image.Resampling.BICUBIC)
    if max(image.size) > MAX_ASPECT * min(image.size):
        raise ImageError(f"{image.width} x {image.height} px is more than {MAX_ASPECT} times as long as wide: cut it")
    if fit == "crop":
        return TF.center_crop(TF.resize(image, size, TF.InterpolationMode.BICUBIC), [size, size])
    scale = size / min(image.size)
    width, height = (max(1, round(side * scale / patch)) * patch for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def visible_part(image: Image.Image, fit: str = "crop", longest: int = 1024) -> Image.Image:
    """The part of an image that a map under `fit` covers, undistorted, for drawing: at most `longest` px long."""
    if fit == "crop":
        image = TF.center_crop(image, [min(image.size)] * 2)
    scale = longest / max(image.size)
    return image if scale >= 1 else image.resize([max(1, round(side * scale)) for side in image.size])


def read_image(source: ImageSource) -> Image.Image:
    """An image as 8-bit RGB, upright.

    EXIF rotation is applied, transparency laid on white, 16-bit grey divided by 257, all else converted by Pillow.
    CLIP's own code ignores EXIF and drops transparency; on plain RGB and grey images the two are the same.
    Raises ImageError, with the path, for what is missing, empty, truncated or no image.
    """
    if not isinstance(source, str | Path | Image.Image):
        raise ImageError(f"expected a path, a PIL image or a list of them, got {type(source).__name__}")
    label = (getattr(source, "filename", "") or "image") if isinstance(source, Image.Image) else str(source)
    try:
        if isinstance(source, Image.Image):
            return _to_rgb(source)
        with Image.open(source) as image:
            return _to_rgb(image)
    except FileNotFoundError as error:
        raise ImageError(f"no image at {label}") from error
    except Exception as error:  # Pillow's decoders raise all kinds
        size = Path(label).stat().st_size if Path(label).is_file() else None
        reason = "the file is empty" if size == 0 else str(error)
        raise ImageError(f"{label} cannot be read as an image: {reason}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # I;16 and its kin; Pillow's I, too, is a file of more than 8 bits
        grey = np.rint(np.asarray(image, dtype=np.float32) / 257).clip(0, 255)
        image = Image.fromarray(grey.astype(np.uint8))
    if image.mode == "F":
        raise ImageError("its pixels are floating-point numbers of unknown range; save it with 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def pixel_batches(model: Model, images: Images, batch_size: int):
    if not isinstance(images, Tensor | Sequence) or isinstance(images, str):
        images = [images]
    for first in range(0, len(images), batch_size):
        yield preprocess(model, images[first : first + batch_size])
