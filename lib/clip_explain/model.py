"""Load a CLIP from any of its usual homes, and turn images and texts into what its two towers take.

The bottom of the library: a `Clip` is a plain, never patched network with its tokenizer, name and checksum.
"""

import importlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision.transforms.functional as TF
from jaxtyping import Float, Int
from PIL import Image, ImageOps
from torch import Tensor, nn

from clip_explain.errors import ImageError, MethodError, ModelError, TensorError, TextError, WeightsError, nearest
from clip_explain.head import Head
from clip_explain.weights import build, clip, pack, read_weights, unpack

__all__ = [
    "Clip",
    "available_models",
    "data_folder",
    "encode_image",
    "encode_text",
    "fit_image",
    "load",
    "pack",
    "preprocess",
    "read_image",
    "tokenize",
    "unpack",
    "visible_part",
]

MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's own, per colour channel, for pixels in [0, 1]
STD = (0.26862954, 0.26130258, 0.27577711)
FITS = ("crop", "full", "squash")
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
MAX_ASPECT = 20  # sides that differ more than this make a strip of thousands of patches

EMBEDDED = ("tiny-vit", "tiny-vit-32", "tiny-resnet")
OPENAI = tuple(clip.available_models())
# Before the colon of a name -> the module that loads it, imported only then: these stand above this one.
ELSEWHERE = {"open_clip": "open_clip_models", "torchvision": "other_models", "blip": "other_models", "iclip": "iclip"}

ImageSource = str | Path | Image.Image
Images = ImageSource | Sequence[ImageSource] | Tensor


@dataclass(frozen=True)
class Clip:
    """One loaded CLIP: the network in eval mode with frozen parameters, and where it came from.

    `sha256` is that of the weights file; `mean` and `std` normalise pixels in [0, 1]. What is no CLIP but explained as
    one (see other_models.py) has its parts under OpenAI's names in `network`, and no `tokenizer`; `head` if it is a
    classifier; `embed_texts` (texts, truncate) where its texts go another way than through CLIP's text tower.
    """

    network: nn.Module
    name: str
    sha256: str
    tokenizer: Any
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD
    head: Head | None = None
    embed_texts: Callable[[list[str], bool], Tensor] | None = None

    @property
    def score(self) -> str:
        """What is explained: the "cosine" of features and target, or their "dot" product, a classifier's logit."""
        return "cosine" if self.head is None or self.head.features == "unit" else "dot"

    @property
    def logit_scale(self) -> float | Tensor:
        """What the score is multiplied by to be the model's logit: CLIP's learnt scale, 1 for a classifier."""
        return 1.0 if self.head is not None else self.network.logit_scale.detach().float().exp()

    @property
    def device(self) -> torch.device:
        return self.network.visual.conv1.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.network.visual.conv1.weight.dtype

    @property
    def is_vit(self) -> bool:
        return hasattr(self.network.visual, "class_embedding")

    @property
    def image_size(self) -> int:
        """The side of the square input that the network was trained on, in pixels."""
        visual = self.network.visual
        size = visual.input_resolution if hasattr(visual, "input_resolution") else visual.image_size
        return int(size if isinstance(size, int) else size[0])

    @property
    def patch_size(self) -> int:
        """The side of one grid cell in pixels: a ViT's patch, a ResNet's total stride (32)."""
        return int(self.network.visual.conv1.weight.shape[-1]) if self.is_vit else 32

    @property
    def embedding_size(self) -> int:
        visual = self.network.visual
        return int((visual.proj if self.is_vit else visual.attnpool.c_proj.weight.T).shape[-1])

    @property
    def context_length(self) -> int:
        """The most tokens that a text may have, its start and end tokens included."""
        return int(self.network.context_length)


def data_folder() -> Path:
    """The compendium's data folder: CLIP_EXPLAIN_DATA, or data/ beside the source tree."""
    return Path(os.environ.get("CLIP_EXPLAIN_DATA") or Path(__file__).resolve().parents[2] / "data")


def available_models() -> list[str]:
    """The names that `load` knows: embedded models whose weights are here, then OpenAI's."""
    return [name for name in EMBEDDED if embedded_path(name).is_file()] + list(OPENAI)


def embedded_path(name: str) -> Path:
    return data_folder() / "models" / f"{name}.safetensors"


def load(name: str | Path, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None) -> Clip:
    """Load a CLIP: an embedded or OpenAI model by name, a weights file by path, or "open_clip:ARCH/TAG".

    Or another model to be explained as one: "torchvision:vit_b_16", "blip:HUB_NAME_OR_FOLDER" (see other_models.py),
    "iclip" (see iclip.py).

    A path may hold a state dict in OpenAI's layout (.safetensors, or .pt, read without unpickling anything but
    tensors) or an OpenAI TorchScript archive. TAG may be a local checkpoint's path. `device` defaults to CUDA where
    there is one; `dtype` ("fp32", "fp16", "bf16") to fp16 on CUDA and fp32 elsewhere. In fp16 and bf16 the LayerNorms
    stay in fp32, as in OpenAI's code. A state dict in fp32 keeps its precision (clip.load rounds it to fp16).

    Raises ModelError (unknown name, no network, no such device) or WeightsError (the file).
    """
    device = _device(device)
    dtype = _dtype(dtype, device)
    name, given = str(name), name
    prefix = name.partition(":")[0]
    if prefix in ELSEWHERE:
        module = importlib.import_module(f"clip_explain.{ELSEWHERE[prefix]}")
        return getattr(module, f"load_{prefix}")(name, device, dtype)
    if name in OPENAI:
        network, sha256 = _download_openai(name)
    elif name in EMBEDDED:
        network, sha256 = _read_embedded(name)
    elif Path(name).exists() or isinstance(given, Path) or Path(name).suffix in (".pt", ".pth", ".bin", ".safetensors"):
        state, sha256 = read_weights(name)
        network, name = build(state, source=name), Path(name).stem
    else:
        known = available_models()
        raise ModelError(
            f"unknown model {name!r}: {nearest(name, known)} Or a path, or 'open_clip:ARCH/TAG', "
            "'torchvision:vit_b_16', 'blip:Salesforce/blip-itm-base-coco'."
        )
    return Clip(place(network, device, dtype), name, sha256, clip.clip._tokenizer)


def _device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros(1, device=device).device
    except (RuntimeError, AssertionError, ValueError) as error:
        have = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise ModelError(f"device {str(device)!r} cannot be used: {reason}. Available: {', '.join(have)}.") from error


def _dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    if dtype is None:
        return torch.float16 if device.type == "cuda" else torch.float32
    found = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if found not in DTYPES.values():
        raise ModelError(f"unknown dtype {str(dtype)!r}: {nearest(str(dtype), DTYPES)}")
    return found


def place(network: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Move to the device and number format; the rule which parameters leave fp32 is OpenAI's `convert_weights`."""
    network = network.float()
    if dtype != torch.float32:
        clip.model.convert_weights(network)
        for parameter in network.parameters():
            if parameter.dtype == torch.float16:
                parameter.data = parameter.data.to(dtype)
    return network.to(device).eval().requires_grad_(False)


def _download_openai(name: str) -> tuple[nn.Module, str]:
    url = clip.clip._MODELS[name]
    cache = Path("~/.cache/clip").expanduser()
    try:
        path = clip.clip._download(url, str(cache))
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"the weights of {name!r} could not be downloaded ({error}). Download {url} on a machine with a network "
            f"and place the file, under its own name, in {cache}; or pass its path instead of the name."
        ) from error
    state, sha256 = read_weights(path)
    return build(state, source=path), sha256


def _read_embedded(name: str) -> tuple[nn.Module, str]:
    state, sha256 = read_embedded(name)
    return build(state, source=str(embedded_path(name))), sha256


def read_embedded(name: str) -> tuple[dict[str, Tensor], str]:
    """The weights of data/models/NAME.safetensors and their sha256, which must be that of its card, if there is one."""
    path = embedded_path(name)
    if not path.is_file():
        raise ModelError(
            f"the embedded model {name!r} is not at {path}. Embedded models live in the repository's data/models: "
            f"install from a clone (pip install -e .) or set CLIP_EXPLAIN_DATA. {nearest(name, available_models())}"
        )
    state, sha256 = read_weights(path)
    card = path.with_suffix(".json")
    expected = json.loads(card.read_text()).get("sha256", sha256) if card.is_file() else sha256
    if expected != sha256:
        raise WeightsError(f"{path} is damaged or not the file of its card: sha256 {sha256}, expected {expected}")
    return state, sha256


def tokenize(model: Clip, texts: str | Sequence[str], truncate: bool = False) -> Int[Tensor, "texts context"]:
    """Token numbers of texts: start, the text's, end, then zeros up to the model's context (77).

    With `truncate` a longer text loses its tail, the end token stays. Raises TextError for an empty text or list,
    for something that is no text, and for a text that is too long.
    """
    if model.tokenizer is None:
        raise MethodError(f"{model.name} has no text tower like CLIP's: its image can be explained, words cannot")
    texts = [texts] if isinstance(texts, str) else list(texts)
    if not texts:
        raise TextError("no texts: expected at least one")
    tokens = torch.zeros(len(texts), model.context_length, dtype=torch.int32)
    for row, text in zip(tokens, texts, strict=True):
        numbers = _encode(model, text, truncate)
        row[: len(numbers)] = torch.tensor(numbers)
    return tokens.to(model.device)


def _encode(model: Clip, text: str, truncate: bool) -> list[int]:
    if not isinstance(text, str):
        raise TextError(f"expected a text, got {type(text).__name__}")
    if not text.strip():
        raise TextError(f"the text {text!r} is empty")
    start, end = len(model.tokenizer.encoder) - 2, len(model.tokenizer.encoder) - 1  # the vocabulary's last two
    numbers = [start, *model.tokenizer.encode(text), end]
    limit = model.context_length
    if len(numbers) > limit and not truncate:
        raise TextError(
            f"the text has {len(numbers)} tokens with its start and end, the model takes {limit}: {text[:60]!r}... "
            "Shorten it, or allow truncation (truncate=True)."
        )
    return numbers if len(numbers) <= limit else numbers[: limit - 1] + [end]


def encode_text(model: Clip, texts: str | Sequence[str], truncate: bool = False) -> Float[Tensor, "texts embedding"]:
    """The model's own text features at unit length, in float32."""
    with torch.no_grad():
        if model.embed_texts is not None:
            return nn.functional.normalize(
                model.embed_texts([texts] if isinstance(texts, str) else list(texts), truncate)
            )
        return nn.functional.normalize(model.network.encode_text(tokenize(model, texts, truncate)).float(), dim=-1)


def encode_image(model: Clip, images: Images) -> Float[Tensor, "images embedding"]:
    """The model's own image features at unit length, in float32, of centre crops or of pixels at its native size."""
    with torch.no_grad():
        return nn.functional.normalize(model.network.encode_image(preprocess(model, images)).float(), dim=-1)


def preprocess(model: Clip, images: Images, fit: str = "crop") -> Float[Tensor, "images 3 height width"]:
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


def _check_pixels(model: Clip, pixels: Tensor) -> Tensor:
    got = f"got shape {tuple(pixels.shape)}, {str(pixels.dtype).removeprefix('torch.')}"
    if pixels.ndim != 4 or pixels.shape[1] != 3 or not pixels.is_floating_point() or not len(pixels):
        raise TensorError(f"expected preprocessed images as a float tensor (images, 3, height, width), {got}")
    patch = model.patch_size
    if any(side < patch or side % patch for side in pixels.shape[2:]):
        raise TensorError(f"expected height and width in multiples of {patch} px, {got}")
    if not torch.isfinite(pixels).all():
        raise TensorError(f"expected finite pixels, {got} with NaN or infinite values")
    return pixels


def fit_image(model: Clip, image: Image.Image, fit: str = "crop") -> Image.Image:
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
