"""Loads a model by name, from a file, a folder or a hub, or from memory: `load`, and its table of loaders.

A loader's module is imported only when a name needs it, since its packages may be an optional extra.
"""

import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import nn

from clip_explain.checks import checked
from clip_explain.errors import ModelError, nearest
from clip_explain.models.by_path import load_path
from clip_explain.models.embedded import EMBEDDED, embedded_path, load_embedded
from clip_explain.models.model import DTYPES, Model, place
from clip_explain.models.openai import OPENAI, load_openai
from clip_explain.models.weights import INDEX, clip, expanded, plain_modes

__all__ = ["Model", "absent", "available_models", "load"]

NAMES = "a model's name, the path of its weights, or a network in memory, with its preprocess and tokenizer"

# A forked process lacks its parent's OpenMP threads, and torch would wait for them for ever. So it uses one thread, as
# in torch's own DataLoader, unless it asks for more.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))

SUFFIXES = (".pt", ".pth", ".bin", ".safetensors", ".ckpt", INDEX)  # of weights files; a name that ends so is a path


def load_open_clip(name: str, device: torch.device, dtype: torch.dtype) -> Model:
    from clip_explain.models import open_clip

    return open_clip.load_open_clip(name, device, dtype)


def load_hugging_face(name: str, device: torch.device, dtype: torch.dtype) -> Model:
    from clip_explain.models import hugging_face

    return hugging_face.load_hugging_face(name, device, dtype)


def load_network(network: nn.Module, preprocess: Any, tokenizer: Any) -> Model:
    from clip_explain.models import instances

    return instances.from_network(network, preprocess, tokenizer)


def load_torchvision(name: str, device: torch.device, dtype: torch.dtype) -> Model:
    from clip_explain.models import torchvision

    return torchvision.load_torchvision(name, device, dtype)


def load_blip(name: str, device: torch.device, dtype: torch.dtype) -> Model:
    from clip_explain.models import blip

    return blip.load_blip(name, device, dtype)


def load_iclip(name: str, device: torch.device, dtype: torch.dtype) -> Model:
    from clip_explain.models import iclip

    return iclip.load_iclip(name, device, dtype)


# The prefix of a name, before its colon -> the loader.
LOADERS: dict[str, Callable[[str, torch.device, torch.dtype], Model]] = {
    "hf": load_hugging_face,
    "open_clip": load_open_clip,
    "torchvision": load_torchvision,
    "blip": load_blip,
    "iclip": load_iclip,
}


def available_models() -> list[str]:
    """The names that `load` knows: embedded models whose weights are here, then OpenAI's."""
    return [name for name in EMBEDDED if embedded_path(name).is_file()] + list(OPENAI)


def absent(names: Iterable[str]) -> list[str]:
    """Those of the names that are embedded models whose weights are not here: a notebook leaves them out."""
    return [name for name in names if name in EMBEDDED and not embedded_path(name).is_file()]


@checked(ModelError)
def load(
    name: Annotated[str | os.PathLike | nn.Module, ModelError, NAMES],
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    *,
    heads: int | tuple[int, int] | None = None,
    activation: str | None = None,
    grid: tuple[int, int] | None = None,
    preprocess: Any = None,
    tokenizer: Any = None,
) -> Model:
    """Load a CLIP: an embedded or OpenAI model by name, a weights file by path, or "open_clip:ARCH/TAG".

    Or another model: "hf:HUB_NAME_OR_FOLDER", "torchvision:vit_b_16", "blip:HUB_NAME_OR_FOLDER", "iclip" (see the
    modules of these names). If a name of a model is also the name of a file, the model is loaded; a `Path` is always a
    path.

    A path may hold a CLIP's state dict under OpenAI's, open_clip's or transformers' names (.safetensors, the index of
    several, or .pt, from which only tensors and plain values are unpickled), also as training loops wrap it, or an
    OpenAI TorchScript archive, whose code is never run. Options give what the tensors do not contain: `heads`, a number
    or those of the image and of the text tower; `activation`, "quick_gelu" (OpenAI's) or "gelu"; and `grid`, height
    and width in patches, if it is not a square. The metadata of a .safetensors file, or transformers' config.json
    beside it, may give them instead.

    TAG may be a local checkpoint's path. `device` defaults to CUDA where there is one; `dtype` ("fp32", "fp16", "bf16")
    to fp16 on CUDA and fp32 elsewhere. In fp16 and bf16 the LayerNorms stay in fp32, as in OpenAI's code. A state dict
    in fp32 keeps its precision (clip.load rounds it to fp16).

    Or a network in memory, with its `preprocess` and `tokenizer` (see instances.py). It is not changed, and keeps its
    device and number format.

    Raises ModelError (unknown name, no network, no such device, options that are needed) or WeightsError (the file).
    """
    if isinstance(name, nn.Module):
        return load_network(name, preprocess, tokenizer)
    options = {"heads": heads, "activation": activation, "grid": grid}
    device = device_of(device)
    dtype = _dtype(dtype, device)
    with plain_modes():
        if _is_path(name):
            network, sha256 = load_path(name, **options)
            return Model(place(network, device, dtype), Path(name).stem, sha256, clip.clip._tokenizer)
        given = [option for option, value in options.items() if value is not None]
        if given:
            raise ModelError(f"{name!r} is not the path of a weights file, so {given[0]}= cannot be chosen")
        return _load_named(str(name), device, dtype)


def _load_named(name: str, device: torch.device, dtype: torch.dtype) -> Model:
    prefix = name.partition(":")[0]
    if prefix in LOADERS:
        return LOADERS[prefix](name, device, dtype)
    if name in OPENAI:
        network, sha256 = load_openai(name)
    elif name in EMBEDDED:
        network, sha256 = load_embedded(name)
    else:
        raise ModelError(
            f"unknown model {name!r}: {nearest(name, available_models())} Or a path, or "
            "'hf:openai/clip-vit-base-patch16', 'open_clip:ARCH/TAG', 'torchvision:vit_b_16', "
            "'blip:Salesforce/blip-itm-base-coco'."
        )
    return Model(place(network, device, dtype), name, sha256, clip.clip._tokenizer)


def _is_path(name: str | os.PathLike) -> bool:
    """Whether `load` takes this as a path. A known name is not one, even if a file has the same name."""
    if not isinstance(name, str):
        return True
    if name in OPENAI or name in EMBEDDED or name.partition(":")[0] in LOADERS:
        return False
    return Path(name).suffix in SUFFIXES or os.path.exists(expanded(name))


def device_of(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.zeros(1, device=device).device
        if found.type == "meta":
            raise ValueError("it holds no numbers")
        return found
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        have = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise ModelError(f"device {str(device)!r} cannot be used: {reason}. Available: {', '.join(have)}.") from error


def _dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    if dtype is None:
        return torch.float16 if device.type == "cuda" else torch.float32
    found = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if found is None or found not in DTYPES.values():
        raise ModelError(f"unknown dtype {str(dtype)!r}: {nearest(str(dtype), DTYPES)}")
    return found
